"""DeepDream and style against minimal loops of the same passes, and a large dream in tiles.

The network is the original GoogLeNet with random weights: what it costs does not depend on them.
The floor of a dream is the same gradient steps on the bare module, nothing else; that of a style is
a plain torch loop with the same losses and Adam. `OPTOGRAM_BENCH=all` also dreams 2048x1536 pixels
for one step in tiles and reports the most memory that this process ever held.
"""

import os
import resource
import time
from collections.abc import Callable

import torch

import optogram as og
from benchmarks.paired import paired
from optogram.techniques.dream import resized

SIDE, STEPS = 320, 4


def run() -> list[dict[str, object]]:
    """Rows: a dream and a style over their minimal loops, and by request a large dream."""
    network = og.load("googlenet-bvlc", weights="random")
    photo = resized(torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)), SIDE, SIDE)
    rows = [_dream(network, photo[0]), _style(network, photo[0])]
    return rows + ([_large(network)] if os.environ.get("OPTOGRAM_BENCH") == "all" else [])


def _dream(network: og.Network, photo: torch.Tensor) -> dict[str, object]:
    def ours() -> None:
        og.dream(network, photo, "inception4c", steps=STEPS, octaves=1, jitter=0)

    measured = paired(ours, _floor(network, photo), 3).row()
    passes = STEPS * SIDE * SIDE / 1e6
    return {
        "what": f"dream {SIDE}x{SIDE}, {STEPS} steps / minimal loop",
        **measured,
        "seconds a megapixel and step": measured["a seconds"] / passes,
    }


def _floor(network: og.Network, photo: torch.Tensor) -> Callable[[], None]:
    """Gradient steps on the bare module, and the two passes that score a dream."""
    cut = list(network.module.named_children())
    layers = [part for _, part in cut[: [name for name, _ in cut].index("inception4c") + 1]]
    body = torch.nn.Sequential(*layers).eval()
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)

    def climb() -> None:
        x = photo[None].clone()
        for _ in range(STEPS):
            x.requires_grad_()
            (slope,) = torch.autograd.grad(0.5 * body((x - mean) / std).square().sum(), x)
            x = (x.detach() + 1.5 / 255 * slope / slope.abs().mean()).clamp(0, 1)
        with torch.no_grad():
            for one in (x, x, photo[None]):
                body((one - mean) / std).square().sum()

    return climb


def _style(network: og.Network, photo: torch.Tensor) -> dict[str, object]:
    style = photo.flip(0)
    names, content = ["conv1", "conv2", "inception3a"], ["inception3b"]
    settings = {"layers": names, "content": content, "optimizer": "Adam", "scales": 1}
    made: list[float] = []

    def ours() -> None:
        made[:] = [-og.stylize(network, photo, style, steps=STEPS, **settings).score]

    def gram(answer: torch.Tensor) -> torch.Tensor:
        flat = answer.flatten(2)
        return flat @ flat.transpose(1, 2) / flat.shape[2]

    def loss(x: torch.Tensor, grams: list[torch.Tensor], kept: torch.Tensor) -> torch.Tensor:
        heard = network.read(x, *names, *content).layers
        total = 0.02 * (heard[content[0]] - kept).square().sum() / kept.square().sum()
        for name, aim in zip(names, grams, strict=True):
            total = total + (gram(heard[name]) - aim).square().sum() / aim.square().sum() / 3
        return total

    theirs: list[float] = []

    def plain() -> None:
        with torch.no_grad():
            heard = network.read(style[None], *names).layers
            grams = [gram(heard[name]) for name in names]
            kept = network.read(photo[None], *content).layers[content[0]]
        x = photo[None].clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=0.02)
        found = []
        for _ in range(STEPS):
            adam.zero_grad()
            value = loss(x, grams, kept)
            found.append(float(value.detach()))
            value.backward()
            adam.step()
            x.data.clamp_(0, 1)
        with torch.no_grad():
            found += [float(loss(one, grams, kept)) for one in (x, x, photo[None])]
        theirs[:] = [min(found)]

    row = paired(ours, plain, 3).row()
    what = f"style {SIDE}x{SIDE}, {STEPS} steps of Adam / plain torch"
    return {"what": what, **row, "loss / plain's": made[0] / theirs[0]}


def _large(network: og.Network) -> dict[str, object]:
    chance = torch.Generator().manual_seed(0)
    photo = resized(torch.rand(1, 3, 60, 80, generator=chance), 1536, 2048)[0]
    start = time.perf_counter()
    og.dream(network, photo, "inception4c", steps=1, octaves=1)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.perf_counter() - start
    return {"what": "dream 2048x1536, 1 step in tiles", "seconds": seconds, "GiB held": held}
