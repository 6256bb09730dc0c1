"""Parts 5 and 6: pictures of hidden units by the document's recipe (figures 5, 6 and 7)."""

from collections.abc import Sequence
from typing import Any

import torch

from optogram.core import objective as ask
from optogram.core.objective import Objective
from optogram.core.unit import Unit
from optogram.studies.drawing import BLACK, GREY, RED, Line, Tile, grid, stacked
from optogram.studies.found import Claim, Figure, Found
from optogram.survey.datasets import Images
from optogram.techniques import maximize

from .bench import HIDDEN, Bench
from .everyone import sheet_of
from .outputs import SHARES
from .recipes import (
    Recipe,
    climb,
    entropy,
    opened,
    own_and_next,
    paper,
    probabilities,
    variation,
    working,
)

WEIGHTS = (0.016, 0.032, 0.064, 0.128, 0.256)
# By looking: the most of each that leaves most units near what the data reach in 30 steps.
SETTINGS = {
    "fc7": (paper(0.1, 30), 0.064, 0.0064),
    "fc5": (paper(0.3, 30), 0.016, 0.0016),
    "fc3": (paper(0.3, 30), 0.016, 0.0016),
    "fc1": (paper(0.3, 30), 0.008, 0.0),
}


def one_unit(bench: Bench) -> Found:
    """Figure 5: neuron 1 of hidden layer 7 under total variation and L1, after 30 steps."""
    unit = Unit("fc7", 1) if bench.maxima("fc7")[1] > 0 else bench.live("fc7", 1)[0]
    cells = [(tv, share * tv) for tv in WEIGHTS for share in SHARES]
    units = [unit] * len(cells)
    images = climb(
        bench.network,
        units,
        paper(0.1, 30),
        tv=[tv for tv, _ in cells],
        l1=[l1 for _, l1 in cells],
    )
    own, rival, _ = own_and_next(bench.network, units, images)
    ratio = own / rival.clamp(min=1e-6)
    best = float(ratio.max())
    tiles = [
        Tile(image, (Line(f"{r:.2f} ({v:.2f})", BLACK, 1 - r / best),))
        for image, r, v in zip(images, ratio.tolist(), own.tolist(), strict=True)
    ]
    shape = (len(WEIGHTS), len(SHARES))
    numbers = {
        "unit": str(unit),
        "best_in_data": float(bench.maxima("fc7")[int(str(unit.index))]),
        "weights": list(WEIGHTS),
        "shares": list(SHARES),
        "ratio": ratio.view(shape).tolist(),
        "activation": own.view(shape).tolist(),
        "highest_ratio": best,
    }
    rows = [tiles[i : i + shape[1]] for i in range(0, len(tiles), shape[1])]
    drawing = grid(
        rows,
        heads=[f"L1 {share:.0%} of TV" for share in SHARES],
        sides=[f"TV {tv:g}" for tv in WEIGHTS],
    )
    caption = (
        f"{unit} by the document's rule on the pre-activation, 30 steps. Under each picture the "
        "ratio of "
        "its activation to the next strongest of the layer, and in brackets the activation. The "
        "red box "
        "is as opaque as 1 - ratio / highest ratio."
    )
    weak, strong = float(own.view(shape)[0, 0]), float(own.view(shape)[-1, -1])
    claim = Claim(
        "For a hidden unit, as for output 3, stronger regularisation raises the error (the ratio "
        "to the "
        "next unit falls; at best it is 2.14).",
        f"highest ratio {best:.2f}; ratio {float(ratio[0]):.2f} and activation {weak:.2f} at the "
        "weakest, "
        f"{float(ratio[-1]):.2f} and {strong:.2f} at the strongest regularisation",
        "confirmed" if ratio[-1] < 0.9 * ratio[0] else "not confirmed",
        "figure 5",
    )
    return Found(numbers, (claim,), (Figure("figure-5", caption, drawing),))


def chosen(bench: Bench) -> Found:
    """Figures 6 and 7: units of hidden layers 7, 5, 3 and 1, and the outputs they cause."""
    numbers: dict[str, Any] = {}
    drawings: dict[str, Any] = {}
    for layer, (recipe, tv, l1) in SETTINGS.items():
        units = bench.strong(layer, 6)
        images = climb(bench.network, units, recipe, tv=tv, l1=l1)
        facts = facts_of(bench, units, images)
        preset = sheet_of(maximize(bench.network, units, seed=bench.seed)).images
        more = facts_of(bench, units, preset)
        numbers[layer] = {
            "lr": recipe.lr,
            "steps": recipe.steps,
            "tv": tv,
            "l1": l1,
            "units": facts,
            "preset": more,
        }
        rows = [
            [_tile(image, fact) for image, fact in zip(made, about, strict=True)]
            for made, about in ((images, facts), (preset, more))
        ]
        sides = ("document's rule", "default preset")
        drawings[layer] = grid(rows, heads=[str(u) for u in units], sides=sides)
    figures = []
    for name, layers in (("figure-6", ("fc7", "fc5")), ("figure-7", ("fc3", "fc1"))):
        titles = [
            f"hidden layer {layer[2:]}: rate {r.lr:g}, {r.steps} steps, TV {tv:g}, L1 {l1:g}"
            for layer, (r, tv, l1) in SETTINGS.items()
            if layer in layers
        ]
        drawing = stacked([drawings[layer] for layer in layers], titles)
        caption = (
            "Six units of each layer, by the document's rule with the settings above, and by the "
            "default preset. Red: ratio of the activation to the next strongest of the layer, in "
            "brackets the "
            "activation. Grey: the three strongest outputs when the network is asked about the "
            "picture."
        )
        figures.append(Figure(name, caption, drawing))
    numbers["answers"] = {layer: _answers(bench, layer) for layer in SETTINGS}
    numbers["stuck"] = _stuck(bench)
    numbers["unregularised"] = {layer: _pressed(bench, layer) for layer in SETTINGS}
    return Found(numbers, _claims(numbers), tuple(figures))


def facts_of(bench: Bench, units: list[Unit], images: Images) -> list[dict[str, Any]]:
    """Of each unit and its picture: activation, next unit, ratio, the three strongest outputs."""
    own, rival, which = own_and_next(bench.network, units, images)
    tops = probabilities(bench.network, images).topk(3, 1)
    return [
        {
            "unit": str(unit),
            "activation": float(own[i]),
            "ratio": float(own[i] / rival[i].clamp(min=1e-6)),
            "next": str(Unit(unit.layer, int(which[i]))),
            "times_data": float(own[i] / bench.maxima(unit.layer)[int(str(unit.index))]),
            "answers": [
                [int(d), float(p)] for d, p in zip(tops.indices[i], tops.values[i], strict=True)
            ],
        }
        for i, unit in enumerate(units)
    ]


def _tile(image: torch.Tensor, fact: dict[str, Any]) -> Tile:
    lines = [Line(f"{fact['ratio']:.2f} ({fact['activation']:.2f})", RED)]
    lines += [Line(f"{digit}: {share:.1%}", GREY) for digit, share in fact["answers"]]
    return Tile(image, lines)


def _stuck(bench: Bench) -> dict[str, dict[str, float]]:
    """The share of live units that an ascent leaves at 0, on what leaves or enters the ReLU."""
    found = {}
    for layer in HIDDEN:
        units = bench.live(layer, 16 if bench.quick else 64)
        shut = {
            name: own_and_next(bench.network, units, images)[0] <= 0
            for name, images in (
                ("pre", climb(bench.network, units, paper(0.1, 30))),
                ("post", climb(bench.network, units, paper(0.1, 30), question=_after)),
            )
        }
        found[layer] = {name: float(value.float().mean()) for name, value in shut.items()}
    return found


def _after(units: Sequence[Unit]) -> Objective:
    return ask.activation([opened(unit) for unit in units], pre=False)


def _answers(bench: Bench, layer: str) -> dict[str, float]:
    """What the network makes of pictures of up to 64 units of a layer, by the document's rule."""
    units = bench.live(layer, 16 if bench.quick else 64)
    recipe, tv, l1 = SETTINGS[layer]
    shares = probabilities(bench.network, climb(bench.network, units, recipe, tv=tv, l1=l1))
    return {"strongest": float(shares.amax(1).mean()), "entropy": float(entropy(shares).mean())}


def _pressed(bench: Bench, layer: str) -> dict[str, float]:
    """What one and the same strong regulariser leaves of the activation, relative to the data."""
    units = bench.live(layer, 16)
    best = bench.maxima(layer)[[int(str(unit.index)) for unit in units]]
    recipe = Recipe("project", 0.1, 60, "linear", working().variation)
    found = {}
    for weight in (0.0, 0.064):
        images = climb(bench.network, units, recipe, tv=weight)
        own, _, _ = own_and_next(bench.network, units, images)
        found[f"times_data at TV {weight:g}"] = float((own / best).median())
        found[f"variation at TV {weight:g}"] = float(variation(images).mean())
    return found


def _claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    stuck = {layer: each["post"] for layer, each in n["stuck"].items()}
    rest = max(each["pre"] for each in n["stuck"].values())
    pressed = {layer: each["times_data at TV 0.064"] for layer, each in n["unregularised"].items()}
    top = {layer: each["strongest"] for layer, each in n["answers"].items()}
    spread = [f"{each['entropy']:.2f}" for each in n["answers"].values()]
    early = (stuck["fc1"] + stuck["fc2"] + stuck["fc3"]) / 3
    late = (stuck["fc5"] + stuck["fc6"] + stuck["fc7"]) / 3
    return (
        Claim(
            "Optimisation is more liable to fail in earlier layers.",
            "live units that stay at 0 when what comes out of the ReLU is climbed, hidden 1 to 7: "
            + ", ".join(f"{value:.0%}" for value in stuck.values())
            + f"; when what goes in is climbed, {rest:.0%} at most in any layer",
            "confirmed"
            if early > late + 0.05
            else "opposite"
            if late > early + 0.05
            else "not confirmed",
        ),
        Claim(
            "Later layers bear stronger regularisation.",
            "activation over the data's strongest under TV 0.064, hidden 7, 5, 3, 1: "
            + ", ".join(f"{value:.2f}" for value in pressed.values()),
            "confirmed" if pressed["fc7"] > 1.5 * pressed["fc1"] else "not confirmed",
        ),
        Claim(
            "Pictures of the last hidden layers activate one output very strongly, those of the "
            "first "
            "ones several.",
            "mean probability of the strongest output for the pictures of hidden 7, 5, 3, 1: "
            + ", ".join(f"{value:.0%}" for value in top.values())
            + f"; entropy of the outputs {', '.join(spread)} nats (the regularisers' weights "
            "differ)",
            "confirmed" if top["fc7"] > top["fc1"] + 0.1 else "not confirmed",
            "figures 6 and 7",
        ),
    )
