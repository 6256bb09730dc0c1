"""Part 8: every unit of every layer: what its picture causes, how it is spread, how alone it is."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from optogram.core.unit import Unit
from optogram.pictures import Picture, Sheet
from optogram.studies.drawing import chart
from optogram.studies.found import Claim, Figure, Found
from optogram.survey.clusters import clusters
from optogram.survey.datasets import Images
from optogram.survey.scan import Plan, scan
from optogram.techniques import maximize

from .bench import HIDDEN, LAYERS, Bench
from .recipes import (
    climb,
    entropy,
    own_and_next,
    paper,
    probabilities,
)

SAMPLE = 40
JOINED = 0.5
STRONGEST = 100


def survey(bench: Bench) -> Found:
    """One pass over the training images: maxima, strongest images, co-activation."""
    stop = min(len(bench.training), 6000 if bench.quick else len(bench.training))
    share = min(1.0, 16384 / stop)
    plan = Plan(LAYERS, k=min(STRONGEST, stop), batch=250, share=share)
    part = scan(bench.network, bench.training, plan, 0, stop)
    numbers: dict[str, Any] = {"data": bench.training.name, "images": stop, "layers": {}}
    arrays: dict[str, Tensor] = {}
    for layer in LAYERS:
        known = part.layers[layer]
        assert known.answers is not None
        assert known.moments is not None
        seen = known.moments.maximum.float()
        # Records of all 60,000 training images came with the weights; a quick pass sees fewer.
        arrays[f"{layer}.maximum"] = bench.network.records.get(f"{layer}.maximum", seen).clone()
        arrays[f"{layer}.p95"] = known.answers.quantile(0.95).float().flatten()
        found = clusters(layer, known.answers, JOINED)
        arrays[f"{layer}.cluster"], arrays[f"{layer}.spread"] = found.labels, found.spread
        numbers["layers"][layer] = {
            "clusters": len(found.members),
            "sizes": [len(units) for units in found.members],
            "cohesion": list(found.cohesion),
            "agreement": found.agreement,
            "in_clusters": sum(len(units) for units in found.members),
            "mean_of_maxima": float(arrays[f"{layer}.maximum"].mean()),
        }
    arrays["output.strongest"] = part.layers["output"].top.images.T.contiguous()
    return Found(numbers, arrays=arrays)


def pictures_of(layer: str) -> Callable[[Bench], Found]:
    """The part that makes a picture of every unit of a layer, under the default preset."""

    def part(bench: Bench) -> Found:
        units = _asked(bench, layer)
        sheet = sheet_of(maximize(bench.network, units, seed=bench.seed))
        bare = climb(bench.network, units, paper(0.1, 30))
        images = sheet.images
        rivals = [Unit(layer, int(str(p.rival).rpartition(":")[2])).index for p in sheet]
        arrays = {
            "images": images,
            "unit": torch.tensor([int(str(u.index)) for u in units]),
            "score": sheet.scores,
            "best": bench.maxima(layer)[[int(str(u.index)) for u in units]],
            "rival": torch.tensor([int(str(r)) for r in rivals]),
            "rival_score": torch.tensor([float(p.rival_score) for p in sheet]),
            "survival": torch.tensor([p.jitter_survival or 0.0 for p in sheet]),
            "answers": probabilities(bench.network, images),
            "bare_answers": probabilities(bench.network, bare),
            "bare_images": (bare * 255).round().to(torch.uint8),
            "verdict": torch.tensor([_VERDICTS.index(p.verdict) for p in sheet]),
        }
        return Found(_layer_numbers(bench, arrays, units, bare), arrays=arrays)

    return part


def sheet_of(made: Picture | Sheet) -> Sheet:
    """What several units were asked for came back as."""
    assert isinstance(made, Sheet)
    return made


def pictures(bench: Bench, layer: str) -> list[Picture]:
    """The pictures of a layer as they lie on the shelf."""
    kept = bench.shelf.arrays(f"units-{layer}")
    made = []
    for i, unit in enumerate(kept["unit"].tolist()):
        top = kept["answers"][i].topk(3)
        made.append(
            Picture(
                image=kept["images"][i],
                unit=str(Unit(layer, unit)),
                score=float(kept["score"][i]),
                history=torch.zeros(0),
                verdict=_VERDICTS[int(kept["verdict"][i])],
                best_in_data=float(kept["best"][i]),
                rival=str(Unit(layer, int(kept["rival"][i]))),
                rival_score=float(kept["rival_score"][i]),
                answers=tuple(
                    (bench.network.label(int(d)), float(p))
                    for d, p in zip(top.indices, top.values, strict=True)
                ),
            )
        )
    return made


_VERDICTS = (None, "excited", "below data", "failed", "dead")


def _asked(bench: Bench, layer: str) -> list[Unit]:
    """Every unit; in a quick study an even sample of a wide layer."""
    units = list(bench.network.units(layer))
    if not bench.quick or len(units) <= SAMPLE:
        return units
    return [units[i * len(units) // SAMPLE] for i in range(SAMPLE)]


def _layer_numbers(
    bench: Bench, kept: dict[str, Tensor], units: list[Unit], bare: Images
) -> dict[str, Any]:
    own, rival, _ = own_and_next(bench.network, units, bare)
    live = kept["best"] > 0
    ratio = kept["score"] / kept["rival_score"].clamp(min=1e-6)
    verdicts = [_VERDICTS[int(v)] for v in kept["verdict"]]
    across, extent = participation(kept["images"]), spatial_variance(kept["images"])
    return {
        "units": len(units),
        "of": bench.network.layer(units[0].layer).units,
        "verdicts": {str(v): verdicts.count(v) for v in sorted(set(verdicts), key=str)},
        "output_entropy": float(entropy(kept["answers"])[live].mean()),
        "output_entropy_unregularised": float(entropy(kept["bare_answers"])[live].mean()),
        "one_output_above_90": float((kept["answers"].amax(1) > 0.9)[live].float().mean()),
        "ratio": float(ratio[live].median()),
        "ratio_unregularised": float((own / rival.clamp(min=1e-6))[live].median()),
        "times_data": float((kept["score"] / kept["best"])[live].median()),
        "own_output_above_99": own_share(kept, units),
        "data_maximum": float(kept["best"].mean()),
        "participation": float(across[live].mean()),
        "participation_unregularised": float(participation(bare)[live].mean()),
        "spatial_variance": float(extent[live].mean()),
        "spatial_variance_unregularised": float(spatial_variance(bare)[live].mean()),
        "survival": float(kept["survival"][live].mean()),
    }


def own_share(kept: dict[str, Tensor], units: list[Unit]) -> int:
    """Of the outputs' pictures: how many make their output more than 99 % sure; else 0."""
    if units[0].layer != "output":
        return 0
    columns = torch.tensor([int(str(unit.index)) for unit in units])
    return int((kept["answers"][torch.arange(len(units)), columns] > 0.99).sum())


def participation(images: Images) -> Tensor:
    """How many pixels share the light: (sum x)^2 / sum x^2, 1 for one pixel, 784 for all alike."""
    flat = images.flatten(1)
    return flat.sum(1).square() / flat.square().sum(1).clamp(min=1e-12)


def spatial_variance(images: Images) -> Tensor:
    """The mean squared distance of the light from its centre, in square pixels."""
    light = images.mean(1)
    light = light / light.sum((1, 2), keepdim=True).clamp(min=1e-12)
    total = torch.zeros(len(light))
    for axis in (1, 2):
        profile, places = light.sum(axis), torch.arange(light.shape[3 - axis]).float()
        centre = profile @ places
        total += (profile * (places[None] - centre[:, None]).square()).sum(1)
    return total


def roles(bench: Bench) -> Found:
    """What the pictures of all layers have to say about depth."""
    layers = {layer: _numbers(bench, layer) for layer in LAYERS}
    hidden = [layers[layer] for layer in HIDDEN]
    names = [f"hidden {layer[2:]}" for layer in HIDDEN]
    x = [float(i) for i in range(len(names))]
    drawn = {
        "entropy": (
            "The mean entropy of the ten outputs that the pictures of a layer cause: 0 is one "
            "output "
            "alone, 2.3 is all alike.",
            {
                "default preset": (x, [n["output_entropy"] for n in hidden]),
                "no regulariser, 30 steps": (
                    x,
                    [n["output_entropy_unregularised"] for n in hidden],
                ),
            },
            "nats",
        ),
        "spread": (
            "How many pixels share the light of a picture, (sum x)^2 / sum x^2.",
            {
                "default preset": (x, [n["participation"] for n in hidden]),
                "no regulariser, 30 steps": (
                    x,
                    [n["participation_unregularised"] for n in hidden],
                ),
            },
            "pixels",
        ),
    }
    figures = []
    for name, (caption, lines, up) in drawn.items():
        drawing = chart(lines, across="", up=up, names=names)
        figures += [Figure(name, caption, drawing)] if drawing else []
    return Found({"layers": layers}, _role_claims(layers), tuple(figures))


def _numbers(bench: Bench, layer: str) -> dict[str, Any]:
    account = bench.shelf.account(f"units-{layer}")
    assert account is not None
    numbers: dict[str, Any] = account["numbers"]
    return numbers


def _role_claims(layers: dict[str, dict[str, Any]]) -> tuple[Claim, ...]:
    def row(name: str, digits: int = 2) -> str:
        return ", ".join(f"{layers[layer][name]:.{digits}f}" for layer in HIDDEN)

    bare = [layers[layer]["output_entropy_unregularised"] for layer in HIDDEN]
    sure = [layers[layer]["output_entropy"] for layer in HIDDEN]
    odd = [0, 2, 4, 6]
    falls = all(bare[a] > bare[b] for a, b in pairwise(odd))
    falls &= sure[6] < sure[0]
    ratio = [layers[layer]["ratio"] for layer in HIDDEN]
    across = [layers[layer]["participation"] for layer in HIDDEN]
    extent = [layers[layer]["spatial_variance"] for layer in HIDDEN]
    alone = [layers[layer]["one_output_above_90"] for layer in HIDDEN]
    best = [layers[layer]["data_maximum"] for layer in HIDDEN]
    outputs = layers["output"]
    return (
        Claim(
            "Pictures of output nodes under regularisation activate their node to more than 99 %.",
            f"{outputs['own_output_above_99']}/{outputs['units']} outputs above 99 % under the "
            "default preset, whose weights are relative to each unit's gradient",
            "confirmed" if outputs["own_output_above_99"] == outputs["units"] else "not confirmed",
        ),
        Claim(
            "Pictures of early layers cause many outputs, those of later layers few: neurons "
            "become more "
            "specialised with depth.",
            f"mean output entropy, hidden 1 to 7: {row('output_entropy')} nats (no regulariser: "
            f"{row('output_entropy_unregularised')})",
            "confirmed" if falls else "not confirmed",
            "entropy",
        ),
        Claim(
            "Pictures of the last hidden layer tend to activate one output very strongly.",
            "one output above 90 % for "
            + ", ".join(f"{value:.0%}" for value in alone)
            + " of the pictures of hidden 1 to 7",
            "confirmed" if alone[6] > 0.5 and alone[6] > alone[0] else "not confirmed",
        ),
        Claim(
            "Neurons of early layers are harder to target alone.",
            f"target over next strongest unit, hidden 1 to 7: {row('ratio')} (no regulariser: "
            f"{row('ratio_unregularised')})",
            "opposite"
            if ratio[0] > 1.2 * ratio[6]
            else "confirmed"
            if ratio[6] > 1.2 * ratio[0]
            else "not confirmed",
        ),
        Claim(
            "Images still activate the target significantly more than any other node.",
            f"median ratio to the next unit, hidden 1 to 7: {row('ratio')}; below 1 the next unit "
            "is the stronger one in most pictures",
            "confirmed" if min(ratio) > 1.1 else "not confirmed",
        ),
        Claim(
            "Later neurons answer to smaller, more concentrated regions; early ones to pixels all "
            "over.",
            f"pixels that share the light, hidden 1 to 7: {row('participation', 0)} (no "
            "regulariser: "
            f"{row('participation_unregularised', 0)}); spatial variance "
            f"{row('spatial_variance', 0)} "
            f"square pixels (no regulariser: {row('spatial_variance_unregularised', 0)})",
            _trend(across, extent),
            "spread",
        ),
        Claim(
            "Activations are smaller in earlier layers.",
            "mean of the units' strongest value in the data, hidden 1 to 7: "
            + ", ".join(f"{value:.2f}" for value in best),
            "confirmed" if best[6] > 1.5 * best[0] else "not confirmed",
        ),
    )


def _trend(across: list[float], extent: list[float]) -> Any:
    """Whether both measures fall with depth, by a tenth and more; rise; or neither."""
    ratios = [values[6] / values[0] for values in (across, extent)]
    if max(ratios) < 0.9:
        return "confirmed"
    return "opposite" if min(ratios) > 1.1 else "not confirmed"
