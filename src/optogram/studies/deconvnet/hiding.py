"""Sections 6 and 7: what is lost where the image is hidden, and whether parts correspond."""

from typing import Any

import torch
import torch.nn.functional as F
from PIL import ImageDraw
from torch import Tensor

from optogram.core.unit import Unit
from optogram.pictures import Attribution
from optogram.pictures.colour import magnitude
from optogram.studies.drawing import Line, Tile, grid
from optogram.studies.found import Claim, Figure, Found
from optogram.techniques import (
    correspondence,
    correspondence_by_chance,
    deconvnet,
    occlusion,
    strongest_map,
    top_patches,
)

from .bench import Bench
from .tiles import enhanced, squared

SIDE = 160
UNSURE = 0.7
COLOURS = (
    (68, 119, 170), (238, 102, 119), (34, 136, 51), (204, 187, 68), (102, 204, 238),
    (170, 51, 119), (187, 187, 187),
)  # fmt: skip


def hiding(bench: Bench) -> Found:
    """Figure 7: five panels for three images, a grey square slid over each."""
    numbers = bench.sure(3, at=UNSURE)
    images = bench.images.take(torch.tensor(numbers))[0]
    rows, others, facts = [], [], []
    for image in images:
        panels, patches, fact = _panels(bench, image)
        rows.append(panels)
        others.append(patches)
        facts.append(fact)
    likeness = [fact["projection_and_drop"] for fact in facts]
    falls = [fact["probability"] - fact["lowest"] for fact in facts]
    changed = [fact["classes"] for fact in facts]
    claims = (
        Claim(
            "Hiding the structure in the projection makes the strongest map's activity drop.",
            "rank correlation, over places, of the drop with the projection's energy under the "
            "square: " + ", ".join(f"{value:.2f}" for value in likeness),
            "confirmed"
            if min(likeness) > 0.2
            else "not confirmed"
            if max(likeness) > 0.2
            else "opposite",
            "occlusion",
        ),
        Claim(
            "The probability of the class drops when the object is hidden: the network sees it.",
            "from "
            + ", ".join(
                f"{f['probability']:.0%} to {f['lowest']:.0%} ({f['class']})" for f in facts
            )
            + "; likeliest classes on the way: "
            + ", ".join(map(str, changed)),
            "confirmed" if min(falls) > 0.2 else "not confirmed",
            "occlusion",
        ),
    )
    heads = [
        "(a) image",
        "(b) strongest map",
        "(c) its projection",
        "(d) probability",
        "(e) likeliest",
    ]
    figures = (
        Figure("occlusion", _caption(bench), grid(rows, heads=heads, side=SIDE)),
        Figure(
            "occlusion-maps",
            "(c) continued: the same map's strongest patches in other images, above their "
            "projections.",
            grid([tile for pair in others for tile in pair], side=84),
        ),
    )
    return Found({"images": facts}, claims, figures)


def _panels(bench: Bench, image: Tensor) -> tuple[list[Tile], list[list[Tile]], dict[str, Any]]:
    network, last = bench.network, bench.convolutions[-1]
    side = image.shape[-1]
    patch, stride = side // 4, max(1, side // (16 if bench.quick else 32))
    said = network(image[None]).softmax(1)[0].cpu()
    winner = int(said.argmax())
    strongest = strongest_map(network, image, last)
    asked = {"patch": patch, "stride": stride, "value": 0.5, "show": "value"}
    activity = occlusion(network, image, strongest, score="activity", **asked)  # type: ignore[arg-type]
    chance = occlusion(network, image, f"output:{winner}", score="probability", **asked)  # type: ignore[arg-type]
    likeliest = occlusion(network, image, f"output:{winner}", score="class", **asked)  # type: ignore[arg-type]
    below = deconvnet(network, image, Unit(last, strongest.index, "strongest"), signed=True)
    assert isinstance(activity, Attribution)
    assert isinstance(chance, Attribution)
    assert isinstance(likeliest, Attribution)
    assert isinstance(below, Attribution)
    assert below.raw is not None
    hidden = image.clone()
    top, left, bottom, right = _worst(chance)
    hidden[:, top:bottom, left:right] = 0.5
    classes = likeliest.values.round().long()
    names = [network.label(int(c)) for c in _common(classes)]
    tiles = [
        Tile(
            hidden,
            (
                Line(f"{network.label(winner)} {float(said[winner]):.0%}"),
                Line("grey: where that falls most"),
            ),
        ),
        Tile(
            _heat(activity.values - activity.values.min()),
            (
                Line(str(strongest)),
                Line(f"{float(activity.values.min()):.3g} to {float(activity.values.max()):.3g}"),
            ),
        ),
        Tile(enhanced(below.raw), (Line(f"strongest {below.score:.2f}"),)),
        Tile(
            _heat(chance.values, 1.0),
            (Line(f"{float(chance.values.min()):.0%} to {float(chance.values.max()):.0%}"),),
        ),
        Tile(_coloured(classes), tuple(Line(name, COLOURS[i]) for i, name in enumerate(names[:3]))),
    ]
    found = list(
        top_patches(network, bench.images, Unit(last, strongest.index), k=8, project="deconvnet")
    )
    half = len(found) // 2
    patches = [
        [Tile(squared(p.image)) for p in found[:half]],
        [Tile(squared(p.image)) for p in found[half:]],
    ]
    energy = _under(below.raw.square().sum(0), activity.boxes)
    drop = activity.values.max() - activity.values
    fact = {
        "class": network.label(winner),
        "probability": float(said[winner]),
        "lowest": float(chance.values.min()),
        "map": str(strongest),
        "projection_and_drop": _rank_correlation(energy.flatten(), drop.flatten()),
        "classes": len(classes.unique()),
        "patch": patch,
        "stride": stride,
    }
    return tiles, patches, fact


def _caption(bench: Bench) -> str:
    side = bench.network.shape[-1]
    return (
        f"A grey square of {side // 4} pixels slid over three images of {side} that the network is "
        f"about {UNSURE:.0%} sure of: where it is certain, no such square matters. (b) total "
        "activity of the "
        "map of the last convolution that is strongest on the image, for each place of the square, "
        "bright where it stays; (c) the map's strongest place projected down; (d) probability of "
        "the "
        "class, dark where the square takes it away; (e) likeliest class, a colour each."
    )


def _worst(chance: Attribution) -> list[int]:
    assert chance.boxes is not None
    boxes: list[int] = chance.boxes.flatten(0, 1)[int(chance.values.argmin())].tolist()
    return boxes


def _common(classes: Tensor) -> list[int]:
    values, counts = classes.unique(return_counts=True)
    found: list[int] = values[counts.argsort(descending=True, stable=True)].tolist()
    return found


def _coloured(classes: Tensor) -> Tensor:
    order = _common(classes)
    picture = torch.zeros(3, *classes.shape)
    for place, one in enumerate(order):
        colour = torch.tensor(COLOURS[min(place, len(COLOURS) - 1)]) / 255
        picture[:, classes == one] = colour[:, None]
    return picture


def _heat(values: Tensor, limit: float | None = None) -> Tensor:
    values = values.clamp(min=0)
    return torch.from_numpy(magnitude(values, limit)).permute(2, 0, 1).float() / 255


def _under(energy: Tensor, boxes: Tensor | None) -> Tensor:
    """The energy in each box, by sums over rectangles."""
    assert boxes is not None
    sums = F.pad(energy.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    top, left, bottom, right = boxes.long().unbind(-1)
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def corresponding(bench: Bench) -> Found:
    """Table 1: does hiding the same part of several faces change a layer alike?"""
    faces, layers = bench.faces, (bench.convolutions[-1], bench.high)
    first = next(iter(faces.parts.values()))[0].tolist()
    size = (first[2] - first[0], first[3] - first[1])
    found: dict[str, dict[str, float]] = {}
    for layer in layers:
        means = {
            part: correspondence(bench.network, faces.images, boxes, layer).mean
            for part, boxes in faces.parts.items()
        }
        draws = correspondence_by_chance(
            bench.network, faces.images, size, layer, draws=20, seed=bench.seed
        )
        chance = torch.tensor([one.mean for one in draws], dtype=torch.float64)
        means |= {"random": float(chance.mean()), "random_spread": float(chance.std())}
        found[layer] = means
    low, high = (found[layer] for layer in layers)
    parts = list(faces.parts)
    below = [low[part] < low["random"] for part in parts]
    text = "; ".join(
        f"{layer}: "
        + ", ".join(f"{p} {v[p]:.3f}" for p in parts)
        + f", random {v['random']:.3f} ± {v['random_spread']:.3f}"
        for layer, v in found.items()
    )
    claims = (
        Claim(
            "At layer 5 the same part hidden in several faces changes the layer more alike than "
            "random parts.",
            f"share of signs that differ, lower is more alike. {text}",
            "confirmed" if all(below) else "not confirmed" if any(below) else "opposite",
            "faces",
        ),
        Claim(
            "At layer 7 parts and random places are about the same.",
            f"random minus mean of the parts: {_gain(low, parts):.3f} at {layers[0]}, "
            f"{_gain(high, parts):.3f} at {layers[1]}",
            "confirmed" if _gain(high, parts) < _gain(low, parts) else "not confirmed",
            "faces",
        ),
    )
    caption = (
        f"{faces.name.capitalize()}, and the parts that are hidden in grey: {', '.join(parts)}."
    )
    picture = grid(
        [
            [
                Tile(_marked(faces.images[i], {p: b[i] for p, b in faces.parts.items()}))
                for i in range(len(faces.images))
            ]
        ],
        side=112,
    )
    return Found(
        {"faces": faces.name, "layers": found}, claims, (Figure("faces", caption, picture),)
    )


def _gain(means: dict[str, float], parts: list[str]) -> float:
    return means["random"] - sum(means[part] for part in parts) / len(parts)


def _marked(image: Tensor, boxes: dict[str, Tensor]) -> Tensor:
    from optogram.pictures.drawing import as_pil

    scale = max(1, 224 // image.shape[-1])
    picture = as_pil(image).resize((image.shape[-1] * scale,) * 2, 0)
    pen = ImageDraw.Draw(picture)
    for place, box in enumerate(boxes.values()):
        top, left, bottom, right = (int(edge) * scale for edge in box.tolist())
        pen.rectangle((left, top, right - 1, bottom - 1), outline=COLOURS[place], width=4)
    import numpy as np

    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
