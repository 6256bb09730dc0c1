"""Sections 8 and 9: how much each layer tells apart, and what removing layers costs."""

import copy
from collections import OrderedDict
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from optogram.core import progress
from optogram.core.chance import generator
from optogram.core.network import Network
from optogram.studies.drawing import chart
from optogram.studies.found import Claim, Figure, Found
from optogram.survey.datasets import ImageSet

from .bench import Bench, heard

GRID = 3
EPOCHS, QUICK_EPOCHS, BATCH = 8, 2, 64
DRAWS = 3
SPARED = 0.8


def probes(bench: Bench) -> Found:
    """Table 7: a linear classifier on the answers of each layer."""
    some = _some(bench.training, 400 if bench.quick else 2000, bench.seed)
    held = _some(bench.test, 200 if bench.quick else 1000, bench.seed)
    names = bench.hidden
    learned, y = _answers(bench.network, some, names)
    asked, z = _answers(bench.network, held, names)
    found = {name: _probe(learned[name], y, asked[name], z) for name in names}
    chance = float(torch.bincount(z).max() / len(z))
    values = list(found.values())
    best = max(found, key=lambda name: found[name])
    said = ", ".join(f"{name} {value:.0%}" for name, value in found.items())
    numbers = {
        "training": {"name": bench.training.name, "images": len(y)},
        "test": {"name": bench.test.name, "images": len(z)},
        "accuracy": found,
        "largest_class": chance,
        "pooled_to": GRID,
    }
    rises = sum(b > a for a, b in pairwise(values))
    claim = Claim(
        "As the layers ascend they are steadily more discriminative.",
        f"linear probes on {len(y)} images of {bench.training.name}, right of {len(z)}: {said}; "
        f"commonest class {chance:.0%}",
        "confirmed"
        if rises == len(values) - 1
        else "not confirmed"
        if values[-1] > values[0]
        else "opposite",
        "probes",
    )
    numbers["best"] = best
    curve = chart(
        {"probe": (list(range(len(values))), values)}, across="layer", up="share right", names=names
    )
    caption = (
        "Linear probes (logistic regression, L2) on each layer's answers, maps pooled to "
        f"{GRID}x{GRID}."
    )
    figures = () if curve is None else (Figure("probes", caption, curve),)
    return Found(numbers, (claim,), figures)


def _some(images: ImageSet, count: int, seed: int) -> Int64[Tensor, " image"] | Any:
    """The set and the numbers of some of its images, drawn without putting back."""
    order = torch.randperm(len(images), generator=generator(seed, "deconvnet", images.name))
    return images, order[:count].sort().values


def _answers(
    network: Network, some: Any, names: tuple[str, ...]
) -> tuple[dict[str, Tensor], Tensor]:
    images, numbers = some
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    labels = []
    for part in numbers.split(50):
        shown, known = images.take(part)
        for name, values in heard(network, shown, *names).items():
            if values.dim() == 4:
                values = F.adaptive_avg_pool2d(values, GRID)
            found[name].append(values.flatten(1))
        labels.append(known)
        progress.tell("probes", int(part[-1]), len(images))
    return {name: torch.cat(parts) for name, parts in found.items()}, torch.cat(labels)


def _probe(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, tol=1e-3))
    probe.fit(x.double().numpy(), y.numpy())
    return float(probe.score(x_test.double().numpy(), y_test.numpy()))


VARIANTS: dict[str, tuple[str, ...]] = {
    "all layers": (),
    "without 3": ("conv3",),
    "without 3, 4": ("conv3", "conv4"),
    "without 6, 7": ("fc6", "fc7"),
    "without 3, 4, 6, 7": ("conv3", "conv4", "fc6", "fc7"),
}


def ablation(bench: Bench) -> Found:
    """Table 3: layers removed and all that is above the second trained anew, for a few epochs."""
    module = bench.network.module
    names = [name for name, _ in module.named_children()]
    if not {"norm2", "conv3", "fc8"} <= set(names):
        return thinned(bench)
    train_set, train_order = _some(bench.training, 600 if bench.quick else 4000, bench.seed)
    test_set, test_order = _some(bench.test, 200 if bench.quick else 1000, bench.seed)
    x, y = _below(bench.network, train_set, train_order)
    x_test, y_test = _below(bench.network, test_set, test_order)
    epochs = QUICK_EPOCHS if bench.quick else EPOCHS
    classes = len(bench.training.classes)
    rows: dict[str, dict[str, Any]] = {}
    for done, (name, without) in enumerate(VARIANTS.items()):
        progress.tell(f"ablation: {name}", done, len(VARIANTS))
        upper = _upper(bench.network, without, classes, bench.seed, tuple(x.shape[1:]))
        weights = sum(p.numel() for p in upper.parameters())
        _teach(upper, x, y, epochs, bench.seed)
        with torch.no_grad():
            right = (upper.eval()(x_test).argmax(1) == y_test).float().mean()
            learned = (upper(x).argmax(1) == y).float().mean()
        rows[name] = {"weights": weights, "training": float(learned), "test": float(right)}
    whole = rows["all layers"]["test"]
    lost = {name: whole - row["test"] for name, row in rows.items() if name != "all layers"}
    said = ", ".join(f"{name} {row['test']:.1%}" for name, row in rows.items())
    claims = (
        Claim(
            "Removing the hidden linear layers, or two convolutions, costs little; both cost much.",
            f"right of {len(y_test)} test images after {epochs} epochs on {len(y)}: {said}",
            "confirmed"
            if lost["without 3, 4, 6, 7"] > max(lost["without 3, 4"], lost["without 6, 7"]) + 0.02
            else "not confirmed",
            "",
        ),
    )
    return Found({"epochs": epochs, "images": len(y), "table": rows}, claims)


def thinned(bench: Bench) -> Found:
    """What it costs to take away half of the filters of a layer, for networks of any layout.

    A random half of a convolution's maps is 0 for all images; nothing is trained anew.
    """
    network = bench.network
    images = bench.images.take(torch.arange(min(len(bench.images), 20 if bench.quick else 60)))[0]
    classes = heard(network, images, "output")["output"].argmax(1)
    modules = dict(network.module.named_modules())
    rows: dict[str, dict[str, Any]] = {}
    for done, layer in enumerate(bench.convolutions):
        progress.tell(f"ablation: {layer}", done, len(bench.convolutions))
        kept, units = [], network.layer(layer).units
        for draw in range(1 if bench.quick else DRAWS):
            chance = generator(bench.seed, "deconvnet", "thinned", layer, draw)
            off = torch.randperm(units, generator=chance)[: units // 2]
            handle = modules[layer].register_forward_hook(partial(_without, off))
            try:
                now = heard(network, images, "output")["output"].argmax(1)
            finally:
                handle.remove()
            kept.append(float((now == classes).float().mean()))
        rows[layer] = {"filters": units, "removed": units // 2, "same_class": kept}
    means = {layer: sum(row["same_class"]) / len(row["same_class"]) for layer, row in rows.items()}
    claim = Claim(
        "A layer can be taken away at little cost (the paper: a whole one, and trained anew).",
        f"of {len(images)} images that keep their class without a random half of a layer's "
        "filters, nothing trained anew: "
        + ", ".join(f"{layer} {value:.0%}" for layer, value in means.items()),
        "confirmed"
        if min(means.values()) > SPARED
        else "not confirmed"
        if max(means.values()) > SPARED
        else "opposite",
        "",
    )
    return Found({"images": len(images), "thinned": rows}, (claim,))


def _without(off: Tensor, module: nn.Module, _: Any, output: Tensor) -> Tensor:
    return output.index_fill(1, off.to(output.device), 0)


def _below(network: Network, images: ImageSet, order: Tensor) -> tuple[Tensor, Tensor]:
    """What the first two stages make of images, which all variants begin with."""
    found, labels = [], []
    for part in order.split(100):
        shown, known = images.take(part)
        with torch.no_grad():
            found.append(network.read(shown, "norm2").layers["norm2"].cpu())
        labels.append(known)
    return torch.cat(found), torch.cat(labels)


def _upper(
    network: Network, without: tuple[str, ...], classes: int, seed: int, shape: tuple[int, ...]
) -> nn.Module:
    """The layers above the second stage but for some, with new weights, and the widths that follow.

    Each convolution has batch normalisation, as the recipe's; a layer's ReLU and dropout go with
    it.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    above = False
    seen = torch.zeros(1, *shape)
    for name, part in network.module.named_children():
        gone = any(
            name.endswith(w[-1]) and not name.startswith(("pool", "flatten")) for w in without
        )
        if above and not gone:
            layers[name] = _anew(name, part, seen, classes, seed)
            if isinstance(part, nn.Conv2d):
                layers[f"bn{name[4:]}"] = nn.BatchNorm2d(part.out_channels)
            with torch.no_grad():
                seen = layers[name].eval()(seen)
        above |= name == "norm2"
    return nn.Sequential(layers)


def _anew(name: str, part: nn.Module, seen: Tensor, classes: int, seed: int) -> nn.Module:
    if isinstance(part, nn.Conv2d):
        made: nn.Module = nn.utils.skip_init(
            nn.Conv2d, seen.shape[1], part.out_channels, part.kernel_size, part.stride,
            part.padding, groups=part.groups,
        )  # fmt: skip
    elif isinstance(part, nn.Linear):
        outputs = classes if name == "fc8" else part.out_features
        made = nn.utils.skip_init(nn.Linear, seen.shape[1], outputs)
    elif isinstance(part, nn.Dropout):
        return nn.Identity()
    else:
        return copy.deepcopy(part)
    chance = generator(seed, "deconvnet", "ablation", name)
    weight, bias = made.weight, made.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=chance)
    nn.init.zeros_(bias)
    return made


def _teach(
    module: nn.Module,
    x: Float[Tensor, "image channel row column"],
    y: Tensor,
    epochs: int,
    seed: int,
) -> None:
    """Adam with a rate that falls in a line to 0."""
    steps = epochs * -(-len(x) // BATCH)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    module.train()
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator(seed, "deconvnet", "order", epoch))
        for numbers in order.split(BATCH):
            if len(numbers) < 2:
                continue
            loss = F.cross_entropy(module(x[numbers]), y[numbers], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
