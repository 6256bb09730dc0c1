"""Parts 2, 4 and 5: pictures of the outputs, from noise to digits (figures 1, 3 and 4)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from optogram.core import objective as ask
from optogram.core.unit import Unit
from optogram.studies.drawing import BLACK, GREEN, GREY, RED, Line, Tile, brightened, grid, stacked
from optogram.studies.found import Claim, Figure, Found, Verdict
from optogram.survey.datasets import Images

from .bench import Bench
from .recipes import (
    Recipe,
    chances,
    climb,
    fool,
    likeness,
    own_and_next,
    paper,
    probabilities,
    variation,
    working,
)

RATES = (0.1, 1.0, 10.0, 100.0)
WEIGHTS = (0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
RATE = 0.3  # of the document's recipe with a regulariser: it lists none


def noise(bench: Bench) -> Found:
    """Figure 1: no regularisation, with clip and without; outputs 50 steps, hidden units 25."""
    network, outputs = bench.network, bench.outputs()
    runs = [_at_rate(bench, rate) for rate in RATES]
    clipped = climb(network, outputs, paper(1.0, 50), question=ask.probability)
    free = climb(network, outputs, paper(1.0, 50, clip=False), question=ask.probability)
    hidden, tiles = _hidden_noise(bench)
    alike = likeness(clipped, bench.class_means)
    numbers = {
        "by_rate": runs,
        "likeness_to_class_mean": alike.tolist(),
        "variation_clipped": float(variation(clipped).mean()),
        "variation_unclipped": float(variation(free).mean()),
        "variation_of_digits": float(variation(bench.digits(200)[0]).mean()),
        "range_unclipped": [float(free.min()), float(free.max())],
        "hidden": hidden,
    }
    shown = [0, 3, 5, 8]
    rows = [
        [_scored(bench, outputs[i], images[i]) for i in shown] + more
        for images, more in zip((free, clipped), tiles, strict=True)
    ]
    heads = [f"output {i}" for i in shown] + [str(u) for u in _sample(bench)]
    drawing = grid(rows, heads=heads, sides=("no clip", "clip"))
    caption = (
        "Pictures made without any regulariser; above, pixels may leave [0, 1]. Each is shown from "
        "its darkest to its brightest pixel, which stand below. Green: the target's value (of "
        "outputs "
        "the probability); grey: the next strongest unit's."
    )
    return Found(numbers, _noise_claims(numbers), (Figure("figure-1", caption, drawing),))


def _at_rate(bench: Bench, rate: float) -> dict[str, Any]:
    outputs = bench.outputs()
    start = torch.full((10, *bench.network.shape), 0.01)
    _, steps = fool(bench.network, start, outputs, paper(rate, 50), ask.probability)
    whole = climb(bench.network, outputs, paper(rate, 50), question=ask.probability)
    return {
        "rate": rate,
        "sure": int((chances(bench.network, outputs, whole) > 0.99).sum()),
        "steps_to_99": [int(step) for step in steps],
        "contrast": float(whole.flatten(1).std(dim=1).mean()),
        "black_or_white": float(((whole <= 0) | (whole >= 1)).float().mean()),
        "variation": float(variation(whole).mean()),
        "likeness": float(likeness(whole, bench.class_means).mean()),
    }


def _sample(bench: Bench) -> list[Unit]:
    return [bench.live(layer, 3)[1] for layer in ("fc7", "fc5", "fc3", "fc1")]


def _hidden_noise(bench: Bench) -> tuple[dict[str, Any], list[list[Tile]]]:
    """Ratios of target to next unit for units of four layers, and a tile of one of each."""
    numbers: dict[str, Any] = {}
    tiles: list[list[Tile]] = [[], []]
    for shown in _sample(bench):
        units = [shown, *bench.live(shown.layer, 8 if bench.quick else 32)]
        for row, clip in enumerate((False, True)):
            images = climb(bench.network, units, paper(0.3, 25, clip=clip))
            own, rival, _ = own_and_next(bench.network, units, images)
            tiles[row].append(_scored(bench, shown, images[0]))
            numbers[f"{shown.layer}{'' if clip else ' unclipped'}"] = {
                "units": len(units) - 1,
                "strongest_of_layer": float((own > rival)[1:].float().mean()),
                "ratio": float((own / rival.clamp(min=1e-6))[1:].median()),
                "variation": float(variation(images)[1:].mean()),
            }
    return numbers, tiles


def _scored(bench: Bench, unit: Unit, image: torch.Tensor) -> Tile:
    """A tile with the value of the target in green and of the next unit in grey."""
    if unit.layer == "output":
        ordered = probabilities(bench.network, image[None])[0]
        own = ordered[int(str(unit.index))].clone()
        ordered[int(str(unit.index))] = -1
        texts = f"{own:.2%}", f"{ordered.max():.2%}"
    else:
        value, rival, _ = own_and_next(bench.network, [unit], image[None])
        texts = f"{float(value):.2f}", f"{float(rival):.2f}"
    most = f"{float(image.min()):.2f} to {float(image.max()):.2f}"
    lines = (Line(texts[0], GREEN), Line(texts[1], GREY), Line(most, GREY))
    return Tile((image - image.min()) / (image.max() - image.min()), lines)


def _noise_claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    runs, alike = n["by_rate"], n["likeness_to_class_mean"]
    quickest = [max(run["steps_to_99"]) for run in runs if min(run["steps_to_99"]) >= 0]
    contrast = [run["contrast"] for run in runs]
    edges = runs[-1]["black_or_white"]
    alone = min(v["strongest_of_layer"] for v in n["hidden"].values())
    times = n["variation_clipped"] / n["variation_unclipped"]
    return (
        Claim(
            "Without regularisation the optimiser reaches more than 99 % for any output, at high "
            "rates within a few updates.",
            ", ".join(f"rate {run['rate']:g}: {run['sure']}/10" for run in runs)
            + f" above 99 % after 50 steps; the quickest rate needs at most {min(quickest)} steps"
            if quickest
            else "no rate brought all ten there",
            "confirmed" if runs[-1]["sure"] == 10 else "not confirmed",
            "figure 1",
        ),
        Claim(
            "Contrast grows with the learning rate; at very high rates most pixels are black or "
            "white.",
            "standard deviation of the pixels "
            + ", ".join(f"{c:.3f}" for c in contrast)
            + f" at rates 0.1 to 100; {edges:.0%} of the pixels are black or white at 100",
            "confirmed" if contrast == sorted(contrast) and edges > 0.5 else "not confirmed",
            "figure 1",
        ),
        Claim(
            "These images are noise and not interpretable.",
            f"correlation with the mean of the class {min(alike):.2f} to {max(alike):.2f}, on "
            "average "
            f"{sum(alike) / len(alike):.2f}",
            "confirmed" if sum(alike) / len(alike) <= 0.25 else "not confirmed",
            "figure 1",
        ),
        Claim(
            "Clipping makes them less noisy, though still far too noisy.",
            f"total variation {n['variation_clipped']:.0f} with the clip, "
            f"{n['variation_unclipped']:.0f} without it (of what the network sees; pixels then "
            "reach "
            f"from {n['range_unclipped'][0]:.2f} to {n['range_unclipped'][1]:.2f})",
            "confirmed" if times < 0.95 else "opposite" if times > 1.05 else "not confirmed",
            "figure 1",
        ),
        Claim(
            "Hidden nodes too are uniquely activated by noise.",
            "the target is its layer's strongest unit for "
            + ", ".join(
                f"{v['strongest_of_layer']:.0%} in {k}"
                for k, v in n["hidden"].items()
                if " " not in k
            ),
            "confirmed" if alone > 0.9 else "not confirmed",
            "figure 1",
        ),
    )


def smoothing(bench: Bench) -> Found:
    """Figure 3: total variation 0.004 to 0.256, by the document's rule and one that converges."""
    seed = _sweep(bench, paper(RATE, 100), ask.probability)
    ours = _sweep(bench, working(), ask.activation)
    bare = climb(bench.network, bench.outputs(), paper(RATE, 100), question=ask.probability)
    # The document's "serendipitous oversight": regularisers past the clip, or through it.
    masked = climb(
        bench.network,
        bench.outputs(),
        paper(1.0, 100),
        question=ask.probability,
        tv=0.016,
        masked=True,
    )
    unmasked = climb(
        bench.network, bench.outputs(), paper(1.0, 100), question=ask.probability, tv=0.016
    )
    numbers: dict[str, Any] = {
        "weights": list(WEIGHTS),
        "document": _sweep_numbers(bench, seed),
        "working": _sweep_numbers(bench, ours),
        "unregularised": _looks(bench, bare),
        "through_the_clip": _looks(bench, masked),
        "past_the_clip": _looks(bench, unmasked),
        "likeness_of_neighbouring_weights": [
            float(likeness(a, b).mean()) for a, b in pairwise(seed)
        ],
    }
    drawing = stacked(
        [_sweep_figure(bench, images) for images in (seed, ours)],
        (
            f"The document's rule: probability, |differences|, rate {RATE}, 100 steps",
            "A rule that converges: logit, Huber's differences, rate 0.05 falling to 0, 200 steps",
        ),
    )
    caption = (
        "Two baselines, then pictures of outputs 0, 3 and 5 as the weight of total variation "
        "doubles. "
        "Red: the output's probability; grey: the brightest pixel, which is shown white."
    )
    return Found(
        numbers,
        _smoothing_claims(numbers),
        (Figure("figure-3", caption, drawing),),
        {"document": seed},
    )


def _sweep(bench: Bench, recipe: Recipe, question: Any) -> torch.Tensor:
    """(weight, output, channel, height, width); all of it climbs in one batch."""
    units = bench.outputs() * len(WEIGHTS)
    tv = [weight for weight in WEIGHTS for _ in range(10)]
    images = climb(bench.network, units, recipe, question=question, tv=tv)
    return images.view(len(WEIGHTS), 10, *bench.network.shape)


def _sweep_numbers(bench: Bench, sweep: torch.Tensor) -> list[dict[str, Any]]:
    return [{"weight": w} | _looks(bench, images) for w, images in zip(WEIGHTS, sweep, strict=True)]


def _looks(bench: Bench, images: Images) -> dict[str, float]:
    """How sure the network is of ten pictures of its outputs, and how they look."""
    sure = chances(bench.network, bench.outputs(), images)
    return {
        "above_99": int((sure > 0.99).sum()),
        "median_probability": float(sure.median()),
        "variation": float(variation(images).mean()),
        "l1": float(images.abs().flatten(1).sum(1).mean()),
        "black": float((images <= 0).float().mean()),
        "white": float((images >= 1).float().mean()),
        "likeness": float(likeness(images, bench.class_means).mean()),
    }


def _sweep_figure(bench: Bench, sweep: torch.Tensor) -> Any:
    rows = []
    strongest = bench.shelf.arrays("survey")["output.strongest"]
    for digit in (0, 3, 5):
        best, _ = bench.training.take(strongest[:, digit].long())
        shown = [bench.class_means[digit], best.mean(0), *sweep[:, digit]]
        sure = chances(bench.network, [Unit("output", digit)] * len(shown), torch.stack(shown))
        rows.append(
            [
                brightened(i, Line(f"{p:.2%}", RED))
                for i, p in zip(shown, sure.tolist(), strict=True)
            ]
        )
    heads = ["mean of class", "most activating", *(f"TV {weight:g}" for weight in WEIGHTS)]
    return grid(rows, heads=heads, sides=("0", "3", "5"))


def _smoothing_claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    seed, ours, bare = n["document"], n["working"], n["unregularised"]
    falls = [row["variation"] for row in seed]
    fall = [row["variation"] for row in ours]
    monotone = all(a > b for a, b in pairwise(fall))
    best = max(seed, key=lambda row: row["likeness"])
    alike = n["likeness_of_neighbouring_weights"]
    through, past = n["through_the_clip"], n["past_the_clip"]
    return (
        Claim(
            "TV alone makes the images smooth and strongly reminiscent of the digits.",
            f"correlation with the mean of the class {bare['likeness']:.2f} without it, "
            f"{best['likeness']:.2f} at weight {best['weight']:g}; variation "
            f"{bare['variation']:.0f} "
            f"and {best['variation']:.0f}",
            "confirmed" if best["likeness"] >= 0.6 else "not confirmed",
            "figure 3",
        ),
        Claim(
            "100 steps ensure high activation of the target at every weight from 0.004 to 0.256.",
            "above 99 %: "
            + ", ".join(f"{row['above_99']}/10 at {row['weight']:g}" for row in seed)
            + "; medians "
            + ", ".join(f"{row['median_probability']:.3f}" for row in seed),
            "confirmed" if min(r["median_probability"] for r in seed) > 0.9 else "not confirmed",
            "figure 3",
        ),
        Claim(
            "A larger weight gives a smoother image (implied by the figure's order).",
            "variation "
            + ", ".join(f"{value:.0f}" for value in falls)
            + " by the document's rule, whose steps of fixed size overshoot; "
            + ", ".join(f"{value:.0f}" for value in fall)
            + " by the rule that converges, with "
            + f"{min(row['above_99'] for row in ours)}/10 or more above 99 % at every weight",
            "opposite" if falls[-1] > falls[0] else "confirmed" if monotone else "not confirmed",
            "figure 3",
        ),
        Claim(
            "The same underlying patterns are evident at all weights.",
            "correlation between the pictures of neighbouring weights "
            + ", ".join(f"{value:.2f}" for value in alike),
            "confirmed" if min(alike) > 0.5 else "not confirmed",
            "figure 3",
        ),
        Claim(
            "Regularisers that pass through the clip's derivative trap pixels at the bounds; past "
            "it, "
            "pixels stay in motion.",
            f"TV 0.016, rate 1: {through['black'] + through['white']:.0%} of the pixels black or "
            "white "
            f"through the clip, {past['black'] + past['white']:.0%} past it",
            "confirmed"
            if through["black"] + through["white"] > 1.5 * (past["black"] + past["white"])
            else "not confirmed",
        ),
        Claim(
            "Past the clip, images are far more interpretable.",
            f"correlation with the mean of the class {past['likeness']:.2f} past the clip, "
            f"{through['likeness']:.2f} through it",
            "confirmed" if past["likeness"] > through["likeness"] + 0.1 else "not confirmed",
        ),
        Claim(
            "Past the clip, images are smoother and less noisy.",
            f"variation {past['variation']:.0f} past the clip, {through['variation']:.0f} through "
            f"it, where most of the image never leaves black; for each unit of light (L1) "
            f"{past['variation'] / past['l1']:.2f} and {through['variation'] / through['l1']:.2f}",
            _smoother(past, through),
        ),
    )


def _smoother(past: dict[str, float], through: dict[str, float]) -> Verdict:
    """Whether the first of two runs varies less, both as it is and for its light."""
    times = past["variation"] / through["variation"]
    lit = times * through["l1"] / past["l1"]
    if max(times, lit) < 0.95:
        return "confirmed"
    return "opposite" if min(times, lit) > 1.05 else "not confirmed"


def sparsity(bench: Bench) -> Found:
    """Figure 4: output 3 under total variation (downwards) and L1 as a share of it (rightwards)."""
    weights = WEIGHTS[1:6]
    cells = [(tv, share * tv) for tv in weights for share in SHARES]
    unit = Unit("output", 3)
    images = climb(
        bench.network,
        [unit] * len(cells),
        paper(RATE, 100),
        question=ask.probability,
        tv=[tv for tv, _ in cells],
        l1=[l1 for _, l1 in cells],
    )
    sure = chances(bench.network, [unit] * len(cells), images)
    shape = (len(weights), len(SHARES))
    table = {
        "probability": sure,
        "l1": images.flatten(1).sum(1),
        "black": (images <= 0).flatten(1).float().mean(1),
        "variation": variation(images),
    }
    numbers = {
        "weights": list(weights),
        "shares": list(SHARES),
        "cells": {name: value.view(shape).tolist() for name, value in table.items()},
        "all_outputs": [_with_l1(bench, share) for share in SHARES],
        "too_strong": _looks(
            bench,
            climb(
                bench.network,
                bench.outputs(),
                paper(RATE, 100),
                question=ask.probability,
                tv=0.064,
                l1=0.064,
            ),
        ),
    }
    tiles = [
        brightened(image, Line(f"{p:.2%}", BLACK, 1 - p))
        for image, p in zip(images, sure.tolist(), strict=True)
    ]
    rows = [tiles[i : i + shape[1]] for i in range(0, len(tiles), shape[1])]
    drawing = grid(
        rows,
        heads=[f"L1 {share:.0%} of TV" for share in SHARES],
        sides=[f"TV {tv:g}" for tv in weights],
    )
    caption = (
        "Output 3 by the document's rule, 100 steps. Under each picture its probability, in a red "
        "box "
        "as opaque as the error, 1 - probability; and the brightest pixel, which is shown white."
    )
    return Found(numbers, _sparsity_claims(numbers), (Figure("figure-4", caption, drawing),))


def _with_l1(bench: Bench, share: float) -> dict[str, float]:
    """All ten outputs at a weight of TV that works, with some L1."""
    images = climb(
        bench.network,
        bench.outputs(),
        paper(RATE, 100),
        question=ask.probability,
        tv=0.016,
        l1=share * 0.016,
    )
    return {"share": share} | _looks(bench, images)


def _sparsity_claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    rows: Sequence[dict[str, float]] = n["all_outputs"]
    sizes, blacks = [row["l1"] for row in rows], [row["black"] for row in rows]
    falls = sizes == sorted(sizes, reverse=True) and blacks == sorted(blacks)
    none, tenth, strong = rows[0], rows[1], n["too_strong"]
    return (
        Claim(
            "L1 removes pixels that are not needed: more black pixels, smaller white regions.",
            "L1 norm "
            + ", ".join(f"{value:.1f}" for value in sizes)
            + " and black pixels "
            + ", ".join(f"{value:.0%}" for value in blacks)
            + " at 0 to 40 % of TV 0.016",
            "confirmed" if falls else "not confirmed",
            "figure 4",
        ),
        Claim(
            "A little L1 (10 % of TV) gives cleaner images that still activate highly.",
            f"median probability {none['median_probability']:.3f} without, "
            f"{tenth['median_probability']:.3f} with it; black pixels {none['black']:.0%} and "
            f"{tenth['black']:.0%}; correlation with the class {none['likeness']:.2f} and "
            f"{tenth['likeness']:.2f}",
            "confirmed"
            if tenth["black"] > none["black"] and tenth["median_probability"] > 0.9
            else "not confirmed",
            "figure 4",
        ),
        Claim(
            "If both are too strong the optimiser fails to reach high activation.",
            f"TV 0.064 and L1 0.064: {strong['above_99']}/10 above 99 %, median "
            f"{strong['median_probability']:.3f}; L1 norm {strong['l1']:.1f}",
            "confirmed" if strong["above_99"] < 5 else "not confirmed",
        ),
    )
