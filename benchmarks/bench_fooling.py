"""What fooling reaches, as the pages of `fool` and `evolve` tell it: counts and sizes, no times.

With $OPTOGRAM_DATA on MNIST's test set and on SqueezeNet with its weights, else on the embedded
digits alone. `OPTOGRAM_BENCH=all` breeds as long as the pages do, which takes minutes.
"""

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

import optogram as og
from optogram.survey.sources import ImageSet

Row = dict[str, object]
LAYERS = ("fc1", "fc3", "fc5", "fc7", "output")
CLASSES = range(7, 1000, 50)  # twenty of ImageNet's


def run() -> list[Row]:
    """From noise, from images beside foolbox's DDN, by breeding; then how fragile pictures are."""
    network = og.load("mnist-mlp")
    digits = og.data("mnist" if root() else "digits", split="test", shape=network.shape)
    rows = [certain(network, list(network.units("output")), "noise", 0.9999)]
    rows.append(beside_ddn(network, *read_right(network, digits, 100), steps=100))
    rows += bred(network, 200 if everything() else 40)
    if root():
        squeezenet = og.load(
            "torchvision:squeezenet1_0", weights=root() / "weights" / "squeezenet1_0.safetensors"
        )
        asked = [f"output:{number}" for number in CLASSES]
        rows.append(certain(squeezenet, asked, "mean", 0.999))
        photos = og.data(root() / "imagenet_samples", shape=squeezenet.shape)
        rows.append(beside_ddn(squeezenet, *any_answer(squeezenet, photos, 24), steps=40))
        if everything():
            rows.append(breed(squeezenet, "cppn", 40, 60))
    return rows + [fragile(network, digits, layer) for layer in LAYERS]


def root() -> Path | None:
    return Path(os.environ["OPTOGRAM_DATA"]) if "OPTOGRAM_DATA" in os.environ else None


def everything() -> bool:
    return os.environ.get("OPTOGRAM_BENCH") == "all"


def certain(network: og.Network, asked: list[str], start: str, goal: float) -> Row:
    made = og.fool(network, asked, start=start, goal=goal)
    steps = [dict(picture.measures)["steps"] for picture in made]
    rough = sum(made.images.diff(dim=side).abs().sum((1, 2, 3)) for side in (-1, -2))
    # A score is a float32 of the softmax: a goal of 0.999 is met by 0.99899999.
    sure = int((made.scores >= goal - 1e-6).sum())
    return {
        "what": f"from {start}, classes at {goal:.2%}",
        "network": network.name,
        "reached": f"{sure} of {len(made)}",
        "steps": f"{min(steps):.0f} to {max(steps):.0f}",
        "total variation": f"{float(rough.min()):.0f} to {float(rough.max()):.0f}",
    }


def read_right(network: og.Network, images: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """The first images that the network reads right, and another class for each in turn."""
    shown, _ = images.take(torch.arange(2 * count))
    labels = images.labels[: 2 * count]
    right = (network(shown).argmax(1) == labels).nonzero().flatten()[:count]
    return shown[right], (labels[right] + 1 + torch.arange(count) % 9) % 10


def any_answer(network: og.Network, images: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """Evenly spread images, and for each a class that the network does not see in it."""
    places = torch.linspace(0, len(images) - 1, count).round().long()
    shown, _ = images.take(places)
    return shown, (network(shown).argmax(1) + 1 + 37 * torch.arange(count)) % 1000


def beside_ddn(network: og.Network, images: Tensor, targets: Tensor, steps: int) -> Row:
    """Median L2 of the smallest change, and that of foolbox's strongest comparable attack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox
    made = og.fool(network, [f"output:{int(t)}" for t in targets], start=images, steps=steps)
    ours = torch.stack([picture.change for picture in made]).flatten(1).norm(dim=1)
    won = float((network(made.images).argmax(1) == targets).float().mean())
    reached = sum(picture.verdict == "fooled" for picture in made) / len(made)
    model = foolbox.PyTorchModel(InPixels(network).eval(), bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(targets)
    attack = foolbox.attacks.DDNAttack(steps=steps)
    _, forged, theirs = attack(model, images, criterion, epsilons=None)
    network.module.zero_grad(set_to_none=True)
    other = (forged - images).flatten(1).norm(dim=1)
    return {
        "what": f"smallest change, {len(images)} images, {steps} steps",
        "network": network.name,
        "reached": f"{reached:.0%} (the class is first in {won:.0%})",
        "median L2": float(ours.median()),
        "DDN reached": f"{float(theirs.float().mean()):.0%}",
        "DDN median L2": float(other.median()),
        "L2 ratio": float(ours.median() / other.median()),
    }


class InPixels(torch.nn.Module):
    """A network as foolbox wants it: images in [0, 1] in, logits out."""

    def __init__(self, network: og.Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The network's own answer, its normalisation included."""
        return self.network(images)


def bred(network: og.Network, generations: int) -> list[Row]:
    return [breed(network, encoding, generations, 200) for encoding in ("direct", "cppn")]


def breed(network: og.Network, encoding: str, generations: int, population: int) -> Row:
    made = og.evolve(
        network, "output", encoding=encoding, generations=generations, population=population
    )
    scores = made.scores
    first = [int((p.history >= 0.99).nonzero()[0]) for p in made if bool(p.history[-1] >= 0.99)]
    counts = f"{int((scores > 0.5).sum())} above 50 %, {int((scores >= 0.99).sum())} above 99 %"
    return {
        "what": f"bred, {encoding}, {generations} generations of {population}",
        "network": network.name,
        "reached": f"{counts}, of {len(made)}",
        "generations to 99 %": f"{min(first)} to {max(first)}" if first else "none",
        "median confidence": float(scores.median()),
    }


def fragile(network: og.Network, images: ImageSet, layer: str) -> Row:
    """How much of its activation a unit keeps when its picture is shifted by one pixel."""
    count = network.layer(layer).units
    chosen = torch.linspace(0, count - 1, min(20, count)).round().long()
    shown, _ = images.take(torch.arange(min(5000, len(images))))
    with torch.no_grad():
        heard = network.read(shown, layer).before.layers[layer][:, chosen]
    units = [f"{layer}:{int(number)}" for number in chosen]
    row: Row = {"what": f"left after a shift by one pixel, {layer}", "network": network.name}
    kinds = {
        "made": og.maximize(network, units).images,
        "strongest in data": shown[heard.argmax(0)],
    }
    for kind, pictures in kinds.items():
        left = survival(network, layer, chosen, pictures)
        row[f"{kind}: keep half"] = f"{int((left >= 0.5).sum())} of {len(left)}"
        row[f"{kind}: median"] = float(left.median())
    return row


def survival(network: og.Network, layer: str, units: Tensor, pictures: Tensor) -> Tensor:
    """The mean activation of each unit by its picture shifted to each side, over that unshifted."""
    padded = torch.nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
    height, width = pictures.shape[-2:]
    corners = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    moved = [padded[..., y : y + height, x : x + width] for y, x in corners]
    with torch.no_grad():
        said = [
            network.read(some, layer).before.layers[layer][:, units].diagonal() for some in moved
        ]
    return torch.stack(said[1:]).mean(0) / said[0]
