"""Section 4: how far a layer's answer moves when the image is moved, enlarged or turned."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from optogram.core.network import Network
from optogram.studies.drawing import Line, Tile, chart, grid, stacked
from optogram.studies.found import Claim, Figure, Found
from optogram.survey.datasets import Images

from .bench import Bench, heard

# Shares of the image's side (the paper moves by up to 60 of 224 pixels), factors, and degrees.
SHIFTS = tuple(step / 64 for step in range(-16, 17, 2))
SCALES = tuple(1 + step / 10 for step in range(9))
ANGLES = tuple(float(angle) for angle in range(0, 360, 15))
NAMES = {"translation": SHIFTS, "scale": SCALES, "rotation": ANGLES}
ACROSS = {
    "translation": "downwards, share of the side",
    "scale": "enlarged",
    "rotation": "degrees",
}


def invariance(bench: Bench) -> Found:
    """Figure 5: how far the first and last hidden layer's answers move, and the class's chance."""
    images = bench.shown
    low, high = bench.convolutions[0], bench.high
    curves: dict[str, dict[str, Any]] = {}
    for name, amounts in NAMES.items():
        curves[name] = _curves(bench.network, images, name, amounts, (low, high))
    slight = {
        layer: {name: _slight(each, layer) for name, each in curves.items()}
        for layer in (low, high)
    }
    lower = [slight[high][name] < slight[low][name] for name in NAMES]
    straight = {name: _straightness(curves[name], high) for name in ("translation", "scale")}
    kept = {name: _kept(each) for name, each in curves.items()}
    said = "; ".join(
        f"{name} {slight[low][name]:.2f} and {slight[high][name]:.2f}" for name in NAMES
    )
    claims = (
        Claim(
            "Small transformations change the first layer dramatically and the top layer less.",
            f"relative distance at the smallest step, {low} and {high}: {said}",
            "confirmed" if all(lower) else "not confirmed" if any(lower) else "opposite",
            "invariance",
        ),
        Claim(
            "At the top the distance grows quasi-linearly with translation and scale.",
            "a straight line through 0 explains "
            + " and ".join(f"{value:.0%} ({name})" for name, value in straight.items())
            + f" of its variance in {high}",
            "confirmed" if min(straight.values()) > 0.8 else "not confirmed",
            "invariance",
        ),
        Claim(
            "The output is stable under translation and scale, not under rotation.",
            "the class stays the likeliest for "
            + ", ".join(f"{value:.0%} ({name})" for name, value in kept.items())
            + " of the changed images",
            "confirmed"
            if kept["rotation"] < min(kept["translation"], kept["scale"]) - 0.05
            else "not confirmed",
            "invariance",
        ),
    )
    numbers = {
        "layers": [low, high],
        "slight": slight,
        "straight": straight,
        "kept": kept,
        "curves": curves,
    }
    return Found(numbers, claims, tuple(_figures(bench, images, curves, low, high)))


def changed(images: Images, name: str, amount: float) -> Images:
    """Images moved down by a share of their side, enlarged, or turned; edges are mirrored."""
    cosine, sine = 1.0, 0.0
    if name == "rotation":
        cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
    factor = 1 / amount if name == "scale" else 1.0
    down = -2 * amount if name == "translation" else 0.0
    theta = torch.tensor([[factor * cosine, -sine, 0.0], [sine, factor * cosine, down]])
    grid_ = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid_, padding_mode="reflection", align_corners=False).clamp(0, 1)


def _curves(
    network: Network, images: Images, name: str, amounts: Sequence[float], layers: tuple[str, str]
) -> dict[str, Any]:
    clean = heard(network, images, *layers, "output")
    classes = clean["output"].argmax(1)
    found: dict[str, Any] = {"amounts": list(amounts), "chance": [], "same": []}
    found |= {layer: [] for layer in layers}
    for amount in amounts:
        now = heard(network, changed(images, name, amount), *layers, "output")
        for layer in layers:
            gap = (now[layer] - clean[layer]).flatten(1).norm(dim=1)
            found[layer].append(
                (gap / clean[layer].flatten(1).norm(dim=1).clamp(min=1e-12)).tolist()
            )
        chance = now["output"].softmax(1)
        found["chance"].append(chance.gather(1, classes[:, None])[:, 0].tolist())
        found["same"].append(float((now["output"].argmax(1) == classes).float().mean()))
    return found


def _zero(each: dict[str, Any]) -> float:
    return 1.0 if each["amounts"][0] == 1.0 else 0.0


def _slight(each: dict[str, Any], layer: str) -> float:
    """The mean distance at the smallest change that is one."""
    size = [abs(a - _zero(each)) for a in each["amounts"]]
    least = min(s for s in size if s > 1e-9)
    values = [
        v for s, row in zip(size, each[layer], strict=True) if abs(s - least) < 1e-9 for v in row
    ]
    return sum(values) / len(values)


def _straightness(each: dict[str, Any], layer: str) -> float:
    """The share of the variance of the mean distance that slope * change explains."""
    x = torch.tensor([abs(a - _zero(each)) for a in each["amounts"]], dtype=torch.float64)
    y = torch.tensor(each[layer], dtype=torch.float64).mean(1)
    slope = (x @ y) / (x @ x)
    return float(
        1 - (y - slope * x).square().sum() / (y - y.mean()).square().sum().clamp(min=1e-12)
    )


def _kept(each: dict[str, Any]) -> float:
    real = [
        s for a, s in zip(each["amounts"], each["same"], strict=True) if abs(a - _zero(each)) > 1e-9
    ]
    return sum(real) / len(real)


def _figures(
    bench: Bench, images: Images, curves: dict[str, dict[str, Any]], low: str, high: str
) -> list[Figure]:
    examples = {"translation": SHIFTS[::4], "scale": SCALES[::2], "rotation": ANGLES[::5]}
    rows = [
        [Tile(changed(images[:1], name, a)[0], (Line(f"{round(a, 2):g}"),)) for a in amounts]
        for name, amounts in examples.items()
    ]
    drawn = grid(rows, sides=list(examples), side=96)
    figures = [
        Figure(
            "changes",
            "What one of the five images looks like moved, enlarged and turned; edges are "
            "mirrored.",
            drawn,
        )
    ]
    charts, titles = [], []
    for name, each in curves.items():
        for what, up in ((low, "distance"), (high, "distance"), ("chance", "probability")):
            values = torch.tensor(each[what]).T.tolist()
            lines = {f"image {i + 1}": (each["amounts"], row) for i, row in enumerate(values)}
            drawing = chart(lines, across=ACROSS[name], up=up)
            if drawing is not None:
                charts.append(drawing)
                titles.append(f"{name}: {'class of the image' if what == 'chance' else what}")
    if charts:
        figures.append(Figure("invariance", _CAPTION, stacked(_rows(charts), _titles(titles))))
    return figures


_CAPTION = (
    "Rows: translation, scale, rotation; a line for each of five images. Left and middle: "
    "Euclidean "
    "distance between a layer's answer to the image and to the changed one, over the norm of the "
    "first. Right: probability of the class that the unchanged image has."
)


def _rows(charts: Sequence[Any]) -> list[Any]:
    from optogram.pictures.drawing import new_paper

    rows = []
    for first in range(0, len(charts), 3):
        some = [c.resize((c.width * 2 // 3, c.height * 2 // 3)) for c in charts[first : first + 3]]
        paper = new_paper(sum(c.width for c in some), max(c.height for c in some))
        x = 0
        for drawing in some:
            paper.paste(drawing, (x, 0))
            x += drawing.width
        rows.append(paper)
    return rows


def _titles(titles: Sequence[str]) -> list[str]:
    return ["   |   ".join(titles[i : i + 3]) for i in range(0, len(titles), 3)]
