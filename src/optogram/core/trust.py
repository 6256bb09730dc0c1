"""Whether to believe a map: does it change when the network forgets, or when the class does?

Adebayo et al. (2018): a map that stays as it was when the top layer is random cannot be about what
the top layer knows. Ranks are compared with their sign, on the map's support, ties averaged: zeros
that every network leaves on a black background, or sizes without signs, make maps look alike.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optogram.core import progress
from optogram.core.chance import Streams
from optogram.core.maps import Channels
from optogram.core.network import Network
from optogram.core.randomize import forgetful, learned, stages
from optogram.core.unit import Direction, Target, Unit
from optogram.pictures import Attribution
from optogram.pictures.errors import RequestError

Explainer = Callable[[Network, Channels, Target], Attribution]
PASS, FAIL = 0.25, 0.5
QUANTILE = 0.95


@dataclass(frozen=True)
class Trust:
    """What randomisation says about a map; correlations are of ranks, with the map itself.

    `top` are those after the top layer was made random, one a draw; `cascade` (share of layers,
    correlation, |correlation|) from the top down; `other_units` those of maps for other units of
    the layer; NaN where a map vanished. `floor` is the 95 % quantile of |values| of the map of the
    wholly random network.
    """

    top: tuple[float, ...]
    cascade: tuple[tuple[float, float, float], ...]
    other_units: tuple[float, ...]
    floor: float

    @property
    def badge(self) -> str:
        """ "pass", "weak" or "fail": how much of the map outlives its top layer, on average."""
        return verdict(self.top)

    def facts(self) -> dict[str, Any]:
        """For `Attribution.checks`: two lines in words, the floor, and the numbers behind them."""
        words: dict[str, Any] = {"randomised": _in_words(self.top)}
        if self.other_units:
            words["other class"] = _in_words(self.other_units)
        numbers = {
            "badge": self.badge,
            "top": list(self.top),
            "cascade": [list(stage) for stage in self.cascade],
            "other_units": list(self.other_units),
        }
        return {**words, "floor": self.floor, "randomisation": numbers}


def trust(
    explain: Explainer,
    network: Network,
    found: Attribution,
    target: Target,
    *,
    draws: int = 6,
    steps: int = 4,
    seed: int = 0,
) -> Trust:
    """Ask again with parts of the network random, and about other units, and compare the maps.

    Args:
        explain: how the map was made: (network, image, target) -> Attribution.
        network: who was asked.
        found: the map.
        target: what it is about.
        draws: how often the top layer is made random (best an even number: draws come in pairs of
            opposite signs), and how many other units are asked about.
        steps: stages of the cascade from the top layer to all layers.
        seed: decides what is random.
    """
    groups = learned(network, target.layer)
    if not groups:
        return Trust((), (), (), 0.0)
    image = found.image.to(network.device, network.dtype)
    counts, others = stages(groups, steps)[1:], _others(network, target, draws, seed)
    total, done = draws + 2 * len(counts) + len(others), 0

    def again(asked: Network, unit: Target) -> Attribution | None:
        nonlocal done
        done += 1
        progress.tell("checks", done, total)
        try:
            return explain(asked, image, unit)
        except RequestError:  # there is nothing to show of a network that knows nothing
            return None

    last = [again(forgetful(network, groups[0], seed, d), target) for d in range(draws)]
    top = tuple(alike(found, other) for other in last)
    cascade = [(1 / len(groups), _mean(top), _size(top))]
    for count in counts:
        names = tuple(name for group in groups[:count] for name in group)
        last = [again(forgetful(network, names, seed, d), target) for d in range(2)]
        pair = [alike(found, other) for other in last]
        cascade.append((count / len(groups), _mean(pair), _size(pair)))
    unlike = tuple(alike(found, again(network, other)) for other in others)
    floor = max((floor_of(nothing) for nothing in last if nothing is not None), default=0.0)
    return Trust(top, tuple(cascade), unlike, floor)


def verdict(correlations: Sequence[float]) -> str:
    """Pass for a mean below 0.25, fail above 0.5, else weak (METHODS D12); "unknown" without any.

    A map that keeps its pattern and turns its sign is no pass either: where the mean size is over
    0.5 it is weak. That matters where the map is linear in the top layer, as for gradients and
    class activation maps: over pairs of draws of opposite signs their mean is 0 by construction.
    """
    if not _known(correlations):
        return "unknown"
    mean = _mean(correlations)
    if mean > FAIL:
        return "fail"
    return "weak" if mean >= PASS or _size(correlations) > FAIL else "pass"


def alike(found: Attribution, other: Attribution | None) -> float:
    """Signed rank correlation of two maps where the first is not 0, channels not yet reduced."""
    if other is None:
        return math.nan
    first, second = (m.values if m.raw is None else m.raw for m in (found, other))
    support = first != 0
    return spearman(first[support], second[support])


def spearman(first: Tensor, second: Tensor) -> float:
    """The correlation of ranks, ties averaged; NaN where either is constant or under 3 values."""
    if first.numel() < 3:
        return math.nan
    ranks = torch.stack([_ranks(first.flatten()), _ranks(second.flatten())])
    ranks = ranks - ranks.mean(1, keepdim=True)
    lengths = ranks.norm(dim=1)
    if not bool((lengths > 0).all()):
        return math.nan
    return float(ranks[0] @ ranks[1] / lengths.prod())


def floor_of(nothing: Attribution) -> float:
    """What a network that knows nothing draws: the 95 % quantile of its map's |values|."""
    sizes = nothing.values.abs().flatten()
    sizes = sizes[torch.isfinite(sizes)].sort().values
    return float(sizes[int(QUANTILE * (len(sizes) - 1))]) if len(sizes) else 0.0


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[place]


def _others(network: Network, target: Target, count: int, seed: int) -> list[Target]:
    layer = network.layer(target.layer)
    if isinstance(target, Direction) or target.index is None or layer.units < 2:
        return []
    count = min(count, layer.units - 1)
    order = Streams(seed, (str(target),)).uniform("other units", layer.units)[0].argsort().tolist()
    units: list[Target] = [Unit(target.layer, i, target.place) for i in order if i != target.index]
    return units[:count]


def _in_words(correlations: Sequence[float]) -> str:
    if not _known(correlations):
        return "unknown, the map vanishes"
    signed, size = _mean(correlations), _size(correlations)
    return f"{verdict(correlations)}, r {signed:.2f}, |r| {size:.2f}"


def _size(numbers: Sequence[float]) -> float:
    return _mean([abs(number) for number in numbers])


def _mean(numbers: Sequence[float]) -> float:
    known = _known(numbers)
    return sum(known) / len(known) if known else math.nan


def _known(numbers: Sequence[float]) -> list[float]:
    return [number for number in numbers if math.isfinite(number)]
