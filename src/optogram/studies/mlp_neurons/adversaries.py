"""Part 3: from a digit to another class, by the document's recipe and others (figure 2)."""

from typing import Any

import torch
from torch import Tensor

from optogram.core import objective as ask
from optogram.core.unit import Unit
from optogram.studies.drawing import GREEN, RED, Bar, Tile, grid
from optogram.studies.found import Claim, Figure, Found

from .bench import Bench
from .recipes import Recipe, fool, paper, probabilities

PALE = {GREEN: (150, 200, 170), RED: (222, 150, 145)}
RECIPES: dict[str, tuple[Recipe, Any]] = {
    "document": (paper(1.0, 100), ask.probability),
    "document, 10 x rate": (paper(10.0, 100), ask.probability),
    "log-probability, clip": (paper(0.05, 300), ask.log_probability),
    "working": (Recipe("project", 0.02, 300), ask.log_probability),
}


def adversaries(bench: Bench) -> Found:
    """Test digits moved to every other class, at least 200 pairs, by four recipes."""
    images, labels = bench.digits(4 if bench.quick else 24)
    starts = images.repeat_interleave(9, 0)
    targets = torch.tensor([d for label in labels.tolist() for d in range(10) if d != label])
    units = [Unit("output", digit) for digit in targets.tolist()]
    numbers: dict[str, Any] = {"pairs": len(units), "images": len(images)}
    made = starts
    for name, (recipe, question) in RECIPES.items():
        made, steps = fool(bench.network, starts, units, recipe, question)
        numbers[name] = _account(starts, made, steps)
    others = labels.repeat_interleave(9)
    caption = (
        "Test digits and the images that the working recipe made of them. The wide bar is the "
        "probability of the strongest output, with its number; the thin bar is the part of what is "
        "left "
        "that goes to the other image's class. Green: right; red: wrong."
    )
    drawing = _figure(bench, starts, made, others, targets)
    return Found(numbers, _claims(numbers), (Figure("figure-2", caption, drawing),))


def _account(starts: Tensor, made: Tensor, steps: Tensor) -> dict[str, Any]:
    won = steps >= 0
    away, size = (made - starts).flatten(1)[won], starts.flatten(1).norm(dim=1)[won]
    median = {
        "l2": away.norm(dim=1),
        "l2_of_image": away.norm(dim=1) / size,
        "linf": away.abs().amax(1) if len(away) else size,
        "steps": steps[won].float(),
    }
    inside = float(made.min()) >= 0 and float(made.max()) <= 1
    known = {name: float(value.median()) if len(value) else None for name, value in median.items()}
    return {"success": float(won.float().mean()), "inside": inside} | known


def _claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    seed, ours, clip = n["document"], n["working"], n["log-probability, clip"]
    hot = n["document, 10 x rate"]
    return (
        Claim(
            "From a digit, the optimiser makes images that look the same and are taken for another "
            "digit with more than 99 %: the phenomenon.",
            f"{ours['success']:.1%} of {n['pairs']} pairs (log-probability, projected box, stop at "
            "99 %): "
            f"median L2 {ours['l2']:.2f}, {ours['l2_of_image']:.0%} of the image's length, Linf "
            f"{ours['linf']:.2f}, {ours['steps']:.0f} steps",
            "confirmed" if ours["success"] >= 0.99 else "not confirmed",
            "figure 2",
        ),
        Claim(
            "The same by the document's recipe: probability, numpy.clip with its derivative.",
            f"{seed['success']:.1%} of the pairs at rate 1, {hot['success']:.1%} at rate 10: the "
            "black "
            "background lies at exactly 0, where that derivative is 0, and the probability "
            "saturates; "
            f"with log-probability in its place {clip['success']:.1%}",
            "confirmed" if max(seed["success"], hot["success"]) >= 0.9 else "not confirmed",
        ),
        Claim(
            "All pixels of these images lie between 0 and 1, as those of digits do.",
            "all pixels are in [0, 1]" if ours["inside"] else "some pixels leave [0, 1]",
            "confirmed" if ours["inside"] else "not confirmed",
        ),
    )


def _figure(bench: Bench, starts: Tensor, made: Tensor, labels: Tensor, targets: Tensor) -> Any:
    """Up to eight pairs, two in a row."""
    chosen = list(range(0, len(starts), 10))[:8]
    tiles = []
    for row in chosen:
        pair = torch.stack([starts[row], made[row]])
        shares = probabilities(bench.network, pair)
        for image, share, other in zip(pair, shares, (targets[row], labels[row]), strict=True):
            top = int(share.argmax())
            ink = GREEN if top == int(labels[row]) else RED
            rest = float(1 - share[top])
            part = float(share[other]) / rest if rest > 0 else 0.0
            other_ink = PALE[GREEN] if int(other) == int(labels[row]) else PALE[RED]
            bars = (Bar(float(share[top]), ink, f"{top}: {share[top]:.2%}"), Bar(part, other_ink))
            tiles.append(Tile(image, bars))
    rows = [tiles[i : i + 4] for i in range(0, len(tiles), 4)]
    return grid(rows, heads=["digit", "moved", "digit", "moved"])
