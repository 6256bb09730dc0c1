"""Part 7: jitter, the start, and a penalty on the other units."""

from typing import Any

import torch
from torch import Tensor

from optogram.ascent.transform import jitter, shifted
from optogram.core import objective as ask
from optogram.core.chance import generator
from optogram.studies.drawing import Tile, grid
from optogram.studies.found import Claim, Figure, Found

from .bench import Bench
from .recipes import (
    answers,
    chances,
    climb,
    likeness,
    own_and_next,
    pairwise,
    paper,
    variation,
    working,
)

BLIND = "document's TV, probability"
PENALTIES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)


def jittering(bench: Bench) -> Found:
    """The image moved by up to a pixel before each look, alone and with total variation."""
    units, means = bench.outputs(), bench.class_means
    runs: dict[str, Any] = {}
    for name, rate, tv, moved in (
        ("neither", 1.0, 0.0, ()),
        ("jitter", 1.0, 0.0, (jitter(1),)),
        ("TV 0.016", 0.3, 0.016, ()),
        ("jitter and TV 0.016", 0.3, 0.016, (jitter(1),)),
        ("jitter and TV 0.064", 0.3, 0.064, (jitter(1),)),
    ):
        images = climb(
            bench.network,
            units,
            paper(rate, 100),
            question=ask.probability,
            tv=tv,
            transforms=moved,
            seed=bench.seed,
        )
        still, moving = chances(bench.network, units, images), _moved(bench, images)
        runs[name] = {
            "above_99": int((still > 0.99).sum()),
            "median": float(still.median()),
            "median_when_moved": float(moving.median()),
            "likeness": float(likeness(images, means).mean()),
            "variation": float(variation(images).mean()),
        }
    hidden = bench.live("fc7", 16)
    images = climb(bench.network, hidden, paper(0.1, 30), tv=0.064, transforms=(jitter(1),))
    own = own_and_next(bench.network, hidden, images)[0]
    best = bench.maxima("fc7")[[int(str(unit.index)) for unit in hidden]]
    runs["fc7, jitter and TV 0.064"] = {"times_data": float((own / best).median())}
    return Found(runs, _jitter_claims(runs))


def _moved(bench: Bench, images: Tensor) -> Tensor:
    """The mean probability over the four moves by a pixel."""
    total = torch.zeros(len(images))
    for move in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        there = torch.tensor([move]).expand(len(images), 2)
        total += chances(bench.network, bench.outputs(), shifted(images, there)) / 4
    return total


def _jitter_claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    alone, both, strong = n["jitter"], n["jitter and TV 0.016"], n["jitter and TV 0.064"]
    neither, smooth = n["neither"], n["TV 0.016"]
    failed = both["median"] < 0.5 and strong["median"] < 0.5
    return (
        Claim(
            "Jitter by itself does not give interpretable images.",
            f"{alone['above_99']}/10 above 99 %; correlation with the mean of the class "
            f"{alone['likeness']:.2f} with jitter, {neither['likeness']:.2f} without",
            "confirmed" if alone["likeness"] < 0.4 else "not confirmed",
        ),
        Claim(
            "Jitter together with TV invariably fails.",
            f"TV 0.016: {both['above_99']}/10 above 99 %, median {both['median']:.3f} (without "
            "jitter "
            f"{smooth['median']:.3f}), and {both['median_when_moved']:.3f} when moved by a pixel "
            "(without "
            f"{smooth['median_when_moved']:.3f}); TV 0.064: median {strong['median']:.3f}",
            "confirmed" if failed else "opposite" if both["median"] > 0.9 else "not confirmed",
        ),
    )


def starts(bench: Bench) -> Found:
    """From near zero, from noise twice, and from a digit of another class."""
    units = bench.outputs()
    begun = _begun(bench)
    together = torch.cat(list(begun.values()))
    recipes: dict[str, dict[str, Any]] = {
        "no regulariser": {"recipe": paper(0.05, 100), "question": ask.activation},
        "document's TV": {"recipe": paper(0.05, 300), "question": ask.activation, "tv": 0.256},
        "working": {"recipe": working(), "question": ask.activation, "tv": 0.256},
        BLIND: {"recipe": paper(0.3, 300), "question": ask.probability, "tv": 0.016},
    }
    numbers: dict[str, Any] = {}
    rows, sides = [], []
    for name, how in recipes.items():
        images = climb(bench.network, units * len(begun), start=together, **how)
        made = dict(zip(begun, images.split(len(units)), strict=True))
        numbers[name] = _alike(bench, made)
        if name == BLIND:
            continue
        for start, pictures in made.items():
            rows.append([Tile(image) for image in pictures])
            sides.append(f"{name}, from {start}")
    drawing = grid(rows, heads=[str(digit) for digit in range(10)], sides=sides, side=84)
    caption = "Each output's logit climbed from four starts, under three recipes."
    return Found(numbers, _start_claims(numbers), (Figure("starts", caption, drawing),))


def _begun(bench: Bench) -> dict[str, Tensor]:
    """The four starts, an image for each output; the digit is of another class than the output."""
    images, labels = bench.digits(60)
    others = torch.stack([images[labels != digit][digit] for digit in range(10)])
    chance = generator(bench.seed, "mlp-neurons", "starts")
    noise = torch.rand(2, 10, *bench.network.shape, generator=chance)
    zero = torch.full_like(others, 0.01)
    return {"0.01": zero, "noise": noise[0], "other noise": noise[1], "a digit": others}


def _alike(bench: Bench, made: dict[str, Tensor]) -> dict[str, Any]:
    zero, one, two, digit = made.values()
    sure = {n: chances(bench.network, bench.outputs(), images) for n, images in made.items()}
    return {
        "noise_and_noise": float(likeness(one, two).mean()),
        "noise_and_zero": float(likeness(one, zero).mean()),
        "digit_and_zero": float(likeness(digit, zero).mean()),
        "different_outputs_from_zero": pairwise(zero),
        "variation": {n: float(variation(images).mean()) for n, images in made.items()},
        "above_99": {n: int((each > 0.99).sum()) for n, each in sure.items()},
        "median_probability": {n: float(each.median()) for n, each in sure.items()},
    }


def _start_claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    bare, seed, blind = n["no regulariser"], n["document's TV"], n[BLIND]
    least = min(seed["noise_and_noise"], seed["noise_and_zero"], seed["digit_and_zero"])
    won, middle = blind["above_99"], blind["median_probability"]
    return (
        Claim(
            "With TV the images converge on the same patterns whatever the start.",
            "correlation of an output's pictures from two noises, from noise and near zero, from a "
            "digit and near zero: "
            + "; ".join(
                f"{name} {v['noise_and_noise']:.2f}, {v['noise_and_zero']:.2f}, "
                f"{v['digit_and_zero']:.2f}"
                for name, v in n.items()
                if name != BLIND
            )
            + " (different outputs from near zero, with the document's TV: "
            f"{seed['different_outputs_from_zero']:.2f})",
            "confirmed" if least > 0.8 else "not confirmed",
            "starts",
        ),
        Claim(
            "Random starts work as well as a start near zero.",
            f"by the document's rule on the probability, above 99 %: {won['0.01']}/10 from near "
            "zero, "
            f"{won['noise']}/10 and {won['other noise']}/10 from noise; medians "
            f"{middle['0.01']:.3f}, "
            f"{middle['noise']:.3f} and {middle['other noise']:.3f}. Noise can be another digit so "
            "surely that the probability has no slope; on the logit "
            f"{min(seed['above_99'].values())}/10 or more from every start",
            "not confirmed" if middle["noise"] < 0.9 else "confirmed",
        ),
        Claim(
            "A start near zero leaves less background noise than a random one.",
            f"variation without a regulariser {bare['variation']['0.01']:.0f} from 0.01, "
            f"{bare['variation']['noise']:.0f} from noise; with TV "
            f"{seed['variation']['0.01']:.0f} and {seed['variation']['noise']:.0f}",
            "confirmed"
            if bare["variation"]["0.01"] < 0.9 * bare["variation"]["noise"]
            else "not confirmed",
            "starts",
        ),
    )


def penalties(bench: Bench) -> Found:
    """The mean activation of the layer's other units is subtracted, with a growing weight."""
    numbers: dict[str, Any] = {}
    settings = {"fc7": (0.1, 0.064), "fc5": (0.3, 0.016), "fc3": (0.3, 0.016), "fc1": (0.3, 0.008)}
    for layer, (rate, tv) in settings.items():
        units = bench.live(layer, 12 if bench.quick else 30)
        best = bench.maxima(layer)[[int(str(unit.index)) for unit in units]]
        plain: Tensor | None = None
        numbers[layer] = []
        for weight in PENALTIES:
            images = climb(bench.network, units, paper(rate, 30), tv=tv, l1=0.1 * tv, others=weight)
            plain = images if plain is None else plain
            own, rival, _ = own_and_next(bench.network, units, images)
            values = answers(bench.network, layer, images)
            numbers[layer].append(
                {
                    "weight": weight,
                    "ratio": float((own / rival.clamp(min=1e-6)).median()),
                    "times_data": float((own / best).median()),
                    "share_of_layer_on": float((values > 0).float().mean()),
                    "likeness_to_no_penalty": float(likeness(images, plain).mean()),
                }
            )
    return Found(numbers, _penalty_claims(numbers))


def _penalty_claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    mild = {layer: rows[2] for layer, rows in n.items()}
    none = {layer: rows[0] for layer, rows in n.items()}
    harsh = {layer: rows[-1] for layer, rows in n.items()}
    alike = [row["likeness_to_no_penalty"] for row in mild.values()]
    change = [mild[layer]["ratio"] / none[layer]["ratio"] for layer in n]
    fall = [harsh[layer]["times_data"] / none[layer]["times_data"] for layer in n]
    slow = [mild[layer]["times_data"] / none[layer]["times_data"] for layer in n]
    alone = min(row["share_of_layer_on"] for rows in n.values() for row in rows)
    names = ", ".join(layer[2:] for layer in n)
    return (
        Claim(
            "Penalising the other units has an insignificant effect on the images.",
            f"weight 1, hidden {names}: correlation with the picture without it "
            + ", ".join(f"{value:.2f}" for value in alike),
            "confirmed" if min(alike) > 0.9 else "not confirmed",
        ),
        Claim(
            "A mild penalty limits the growth of all activations without altering the ratios.",
            f"weight 1, hidden {names}: activation times "
            + ", ".join(f"{value:.2f}" for value in slow)
            + ", ratio times "
            + ", ".join(f"{value:.2f}" for value in change),
            "confirmed"
            if max(slow) < 1 and max(abs(value - 1) for value in change) < 0.1
            else "not confirmed",
        ),
        Claim(
            "A harsh penalty pushes the target down as well.",
            f"weight {PENALTIES[-1]:g}, hidden {names}: activation times "
            + ", ".join(f"{value:.2f}" for value in fall),
            "confirmed" if max(fall) < 0.9 else "not confirmed",
        ),
        Claim(
            "No picture activates only one node of a hidden layer.",
            f"with no penalty and with any, at least {alone:.0%} of a layer is on for its pictures",
            "confirmed" if alone > 0.02 else "not confirmed",
        ),
    )
