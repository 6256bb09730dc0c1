"""Part 8, continued: dead units, units that rise together, and where features are."""

from typing import Any

import torch
from torch import Tensor

from optogram.ascent.transform import shifted
from optogram.studies.drawing import GREY, RED, Line, Tile, grid
from optogram.studies.found import Claim, Figure, Found
from optogram.survey.clusters import Clusters
from optogram.survey.dead import STATES, highest, triage
from optogram.techniques import maximize

from .bench import HIDDEN, Bench
from .everyone import JOINED, sheet_of
from .recipes import answers, probabilities

SHIFTS = (1, 2, 4)


def dead(bench: Bench) -> Found:
    """Units that no training image opens: can anything open them?"""
    states = triage(bench.network, {layer: bench.maxima(layer) for layer in HIDDEN})
    counts: dict[str, dict[str, int]] = {
        layer: {name: int((state == i).sum()) for i, name in enumerate(STATES)}
        for layer, state in states.items()
    }
    reached: dict[str, dict[str, Any]] = {}
    for layer, state in states.items():
        units = torch.gt(state, 0).nonzero()[:, 0]
        best = highest(bench.network, layer, units)
        for unit, value in zip(units.tolist(), best.tolist(), strict=True):
            reached[f"{layer}:{unit}"] = {
                "largest_in_data": float(bench.maxima(layer)[unit]),
                "found": value,
                "state": STATES[int(state[unit])],
            }
    wrong = [n for n, each in reached.items() if each["state"] == STATES[3] and each["found"] > 0]
    numbers = {"layers": counts, "units": reached, "certificates_contradicted": wrong}
    figures = []
    if reached:
        sheet = sheet_of(maximize(bench.network, list(reached)[:10]))
        tiles = [
            Tile(
                p.image,
                (
                    Line(p.unit),
                    Line(f"{p.score:.2f}", RED),
                    Line(f"data {p.best_in_data or 0:.2f}", GREY),
                ),
            )
            for p in sheet
        ]
        caption = (
            "Pictures of units that no training image opens. Red: the pre-activation that the "
            "picture "
            "reaches, open above 0; grey: the largest in the data."
        )
        figures.append(
            Figure("dead", caption, grid([tiles[i : i + 5] for i in range(0, len(tiles), 5)]))
        )
    return Found(numbers, _dead_claims(counts), tuple(figures))


def _dead_claims(counts: dict[str, dict[str, int]]) -> tuple[Claim, ...]:
    units = sum(sum(each.values()) for each in counts.values())
    shut = sum(units_of(each) for each in counts.values())
    open_ = sum(each["reachable"] for each in counts.values())
    proved = sum(each["certified-dead"] for each in counts.values())
    return (
        Claim(
            "A minority of neurons is dead: no MNIST image activates them.",
            f"{shut} of {units} hidden units on all training images; hidden 1 to 7: "
            + ", ".join(str(units_of(each)) for each in counts.values()),
            "confirmed" if 0 < shut < units / 2 else "not confirmed",
            "dead",
        ),
        Claim(
            "The activation of dead neurons cannot be increased beyond 0.",
            f"{open_} of the {shut} can be opened by an image in [0, 1] that ascent on the "
            "pre-activation "
            f"finds; interval bounds certify {proved} as dead; {shut - open_ - proved} stay "
            "undecided",
            "opposite"
            if shut and open_ > shut / 2
            else "confirmed"
            if shut == proved
            else "not confirmed",
            "dead",
        ),
    )


def units_of(states: dict[str, int]) -> int:
    """How many units of a layer are dead in the data, whatever else is known of them."""
    return sum(count for name, count in states.items() if name != "alive")


def groups(bench: Bench) -> Found:
    """Clusters by co-activation, how far they hold, and what each has in common."""
    account = bench.shelf.account("survey")
    assert account is not None
    layers = account["numbers"]["layers"]
    kept = bench.shelf.arrays("survey")
    numbers: dict[str, Any] = {"threshold": JOINED, "layers": {}}
    rows, sides = [], []
    for layer in HIDDEN:
        found = _clusters(kept, layer, layers[layer])
        numbers["layers"][layer] = layers[layer] | {"company": _company(bench, layer, found)}
        if found.members and layer in ("fc5", "fc6", "fc7"):
            row, facts = _directions(bench, found, kept[f"{layer}.p95"])
            numbers["layers"][layer]["directions"] = facts
            rows.append(row)
            sides.append(f"hidden {layer[2:]}")
    figures = []
    if rows:
        caption = (
            "The largest clusters of three layers, each as one direction. Under each picture: the "
            "number "
            "of units, and how many of them its picture lifts over their 95th percentile in the "
            "data."
        )
        figures = [Figure("clusters", caption, grid(rows, sides=sides))]
    return Found(numbers, _group_claims(numbers["layers"]), tuple(figures))


def _clusters(kept: dict[str, Tensor], layer: str, facts: dict[str, Any]) -> Clusters:
    labels = kept[f"{layer}.cluster"]
    members = tuple(
        tuple((labels == group).nonzero()[:, 0].tolist()) for group in range(facts["clusters"])
    )
    spread = kept[f"{layer}.spread"]
    cohesion = tuple(facts["cohesion"])
    return Clusters(layer, labels, members, cohesion, facts["agreement"], JOINED, spread)


def _company(bench: Bench, layer: str, found: Clusters) -> dict[str, float] | None:
    """The share of a unit's cluster that is on when its picture is shown, and of other units."""
    if not found.members:
        return None
    made = bench.shelf.arrays(f"units-{layer}")
    values = answers(bench.network, layer, made["images"]) > 0
    together: list[float] = []
    apart: list[float] = []
    for row, unit in zip(values, made["unit"].tolist(), strict=True):
        same = found.labels == found.labels[unit]
        same[unit] = False
        if not bool(same.any()):
            continue
        other = found.labels != found.labels[unit]
        together.append(float(row[same].float().mean()))
        apart.append(float(row[other].float().mean()))
    if not together:
        return None
    return {
        "fellows_on": sum(together) / len(together),
        "others_on": sum(apart) / len(apart),
    }


def _directions(
    bench: Bench, found: Clusters, usual: Tensor
) -> tuple[list[Tile], list[dict[str, Any]]]:
    chosen = range(min(6, len(found.members)))
    sheet = sheet_of(
        maximize(bench.network, [found.direction(group) for group in chosen], seed=bench.seed)
    )
    tiles, facts = [], []
    for group, picture in zip(chosen, sheet, strict=True):
        units = list(found.members[group])
        values = answers(bench.network, found.layer, picture.image[None])[0, units]
        lifted = int((values > usual[units]).sum())
        facts.append({"units": units, "cohesion": found.cohesion[group], "above_p95": lifted})
        lines = (Line(f"{len(units)} units"), Line(f"{lifted} above p95", RED))
        tiles.append(Tile(picture.image, lines))
    return tiles, facts


def _group_claims(layers: dict[str, dict[str, Any]]) -> tuple[Claim, ...]:
    agreed = {name: each["agreement"] for name, each in layers.items()}
    known = [value for value in agreed.values() if value is not None]
    company = {name: each["company"] for name, each in layers.items() if each["company"]}
    lifted = [
        (fact["above_p95"], len(fact["units"]))
        for each in layers.values()
        for fact in each.get("directions", ())
    ]
    more = [each["fellows_on"] - each["others_on"] for each in company.values()]
    return (
        Claim(
            "Some nodes of the hidden layers correlate in clusters.",
            "units in clusters of mean correlation 0.5 and more (pre-activations), hidden 1 to 7: "
            + ", ".join(str(each["in_clusters"]) for each in layers.values())
            + "; agreement of the clusters of two halves of the data (adjusted Rand index): "
            + ", ".join("-" if value is None else f"{value:.2f}" for value in agreed.values()),
            "confirmed" if known and sorted(known)[len(known) // 2] > 0.5 else "not confirmed",
            "clusters",
        ),
        Claim(
            "Optimising one node of a cluster activates all of it somewhat.",
            "share of the cluster, and of the other units, that is on: "
            + "; ".join(
                f"hidden {name[2:]} {each['fellows_on']:.0%}, {each['others_on']:.0%}"
                for name, each in company.items()
            ),
            "confirmed" if more and min(more) > 0.2 else "not confirmed",
        ),
        Claim(
            "Clusters work together: one picture for a cluster's direction excites all its units.",
            f"{sum(a for a, _ in lifted)} of {sum(b for _, b in lifted)} units of {len(lifted)} "
            "clusters "
            "are lifted over their 95th percentile in the data by their cluster's picture",
            "confirmed"
            if lifted and sum(a for a, _ in lifted) > 0.9 * sum(b for _, b in lifted)
            else "not confirmed",
            "clusters",
        ),
    )


def places(bench: Bench) -> Found:
    """Is a feature a shape wherever it stands, or pixels where they are?"""
    numbers: dict[str, Any] = {"shifts": list(SHIFTS), "layers": {}}
    generator = torch.Generator().manual_seed(bench.seed)
    for layer in HIDDEN:
        made = bench.shelf.arrays(f"units-{layer}")
        live = (made["best"] > 0).nonzero()[:60, 0]
        images, units = made["images"][live], made["unit"][live]
        numbers["layers"][layer] = {
            "kept": [_kept(bench, layer, images, units, by) for by in SHIFTS],
            **_noisy(bench, layer, images, units, made["best"][live], generator),
        }
    noise = torch.rand(1000, *bench.network.shape, generator=generator)
    sparse = (torch.rand(noise.shape, generator=generator) < 0.13).float()
    for name, images in (("uniform", noise), ("sparse", sparse)):
        sure = probabilities(bench.network, images).amax(1)
        numbers[f"{name} noise"] = {
            "median_probability": float(sure.median()),
            "above_90": float((sure > 0.9).float().mean()),
        }
    return Found(numbers, _place_claims(numbers))


def _own(bench: Bench, layer: str, images: Tensor, units: Tensor) -> Tensor:
    return answers(bench.network, layer, images)[torch.arange(len(units)), units]


def _kept(bench: Bench, layer: str, images: Tensor, units: Tensor, by: int) -> float:
    """The median share of a unit's value that is left when its picture moves by some pixels."""
    whole, left = _own(bench, layer, images, units), torch.zeros(len(units))
    for move in ((by, 0), (-by, 0), (0, by), (0, -by)):
        there = torch.tensor([move]).expand(len(units), 2)
        left += _own(bench, layer, shifted(images, there), units).clamp(min=0) / 4
    return float((left / whole.clamp(min=1e-6)).median())


def _noisy(
    bench: Bench,
    layer: str,
    images: Tensor,
    units: Tensor,
    best: Tensor,
    generator: torch.Generator,
) -> dict[str, float]:
    """White noise inside the bright region of a unit's picture, and the same moved away."""
    inside = images > 0.5
    here = (inside & (torch.rand(images.shape, generator=generator) < 0.7)).float()
    there = here.roll((8, 8), (-2, -1))
    values = {
        name: _own(bench, layer, x, units) / best for name, x in (("here", here), ("there", there))
    }
    return {
        "noise_in_place": float(values["here"].median()),
        "noise_elsewhere": float(values["there"].median()),
        "noise_opens": float((values["here"] > 0).float().mean()),
    }


def _place_claims(n: dict[str, Any]) -> tuple[Claim, ...]:
    layers = n["layers"]
    kept = {layer: each["kept"] for layer, each in layers.items()}
    here = [each["noise_in_place"] for each in layers.values()]
    there = [each["noise_elsewhere"] for each in layers.values()]
    opens = [each["noise_opens"] for each in layers.values()]
    uniform, sparse = n["uniform noise"], n["sparse noise"]
    return (
        Claim(
            "Hidden neurons are specialised to places, not to shapes wherever they stand (the "
            "document "
            "rejects its hypothesis).",
            "share of a unit's value that is left when its picture moves by 1, 2, 4 pixels: "
            + "; ".join(
                f"hidden {layer[2:]} " + ", ".join(f"{value:.0%}" for value in values)
                for layer, values in kept.items()
                if layer in ("fc1", "fc3", "fc5", "fc7")
            ),
            "confirmed" if max(values[-1] for values in kept.values()) < 0.5 else "not confirmed",
        ),
        Claim(
            "Extreme pixels at the right place activate a neuron even if they are noise.",
            "noise in the bright region of its picture opens "
            + ", ".join(f"{value:.0%}" for value in opens)
            + " of the units of hidden 1 to 7, and reaches "
            + ", ".join(f"{value:.2f}" for value in here)
            + " of the data's strongest; the same noise 8 pixels away "
            + ", ".join(f"{value:.2f}" for value in there),
            "confirmed"
            if min(opens) > 0.75 and all(a > b for a, b in zip(here, there, strict=True))
            else "not confirmed",
        ),
        Claim(
            "Images that depict nothing are processed as digits all the same.",
            f"1,000 images of uniform noise: strongest output {uniform['median_probability']:.0%} "
            "in the "
            f"median, above 90 % for {uniform['above_90']:.0%}; of sparse noise "
            f"{sparse['median_probability']:.0%} and {sparse['above_90']:.0%}",
            "confirmed"
            if min(uniform["median_probability"], sparse["median_probability"]) > 0.5
            else "not confirmed",
        ),
    )
