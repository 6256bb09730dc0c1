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
from optogram.core.maps import Channels, Images
from optogram.core.network import Network
from optogram.core.randomize import forgetful, learned, stages
from optogram.core.unit import Direction, Target, Unit
from optogram.pictures import Attribution
from optogram.pictures.errors import RequestError

Explainer = Callable[[Network, Channels, Target], Attribution]
Way = Callable[[Network, Images, Sequence[Target]], Sequence[Attribution | None]]
PASS, FAIL = 0.25, 0.5
DRAWS, STAGES = 4, 3
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
    draws: int = DRAWS,
    steps: int = STAGES,
    seed: int = 0,
) -> Trust:
    """What `trusts` says about one map, made by a technique that takes one image at a time."""
    return trusts(
        [one_by_one(explain)], network, [[found]], [target], draws=draws, steps=steps, seed=seed
    )[0][0]


def trusts(
    ways: Sequence[Way],
    network: Network,
    found: Sequence[Sequence[Attribution]],
    targets: Sequence[Target],
    *,
    draws: int = DRAWS,
    steps: int = STAGES,
    seed: int = 0,
) -> list[list[Trust]]:
    """Ask again with parts of the network random, and about other units, and compare the maps.

    A random network is made once, and every way is asked for the maps of all images by it: for
    each image draws + 2 (steps - 1) maps of random networks and `draws` of other units.

    Args:
        ways: how maps are made: (network, images, targets) -> a map for each image, or None.
        network: who was asked.
        found: the maps, for each way one an image.
        targets: what they are about, one an image.
        draws: how often the top layer is made random (best an even number: draws come in pairs of
            opposite signs), and how many other units are asked about.
        steps: stages of the cascade from the top layer to all layers; each after the first is drawn
            twice.
        seed: decides what is random.

    Returns:
        What is known of each map, in the order of `found`.
    """
    made = [[Trust((), (), (), 0.0)] * len(targets) for _ in ways]
    for layer in dict.fromkeys(target.layer for target in targets):
        if groups := learned(network, layer):
            rows = [i for i, target in enumerate(targets) if target.layer == layer]
            some = [[maps[i] for i in rows] for maps in found]
            check = _Check(ways, network, some, [targets[i] for i in rows], seed)
            for w, answers in enumerate(check.trusts(groups, draws, steps)):
                for i, trusted in zip(rows, answers, strict=True):
                    made[w][i] = trusted
    return made


def one_by_one(explain: Explainer) -> Way:
    """A technique that takes one image, as a way that takes several."""

    def way(asked: Network, images: Images, targets: Sequence[Target]) -> list[Attribution | None]:
        maps: list[Attribution | None] = []
        for image, target in zip(images, targets, strict=True):
            try:
                maps.append(explain(asked, image, target))
            except RequestError:  # there is nothing to show of a network that knows nothing
                maps.append(None)
        return maps

    return way


@dataclass(eq=False)
class _Check:
    """Maps of one layer's units, for each way one an image, and who makes others like them."""

    ways: Sequence[Way]
    network: Network
    found: list[list[Attribution]]
    targets: list[Target]
    seed: int
    done: int = 0
    total: int = 0

    def trusts(
        self, groups: tuple[tuple[str, ...], ...], draws: int, steps: int
    ) -> list[list[Trust]]:
        counts = (1, *stages(groups, steps)[1:])
        times = [draws] + [2] * (len(counts) - 1)
        others = [_others(self.network, target, draws, self.seed) for target in self.targets]
        pairs = [(row, unit) for row, units in enumerate(others) for unit in units]
        self.total = len(self.ways) * (sum(times) + bool(pairs))
        cascade = []
        every = list(enumerate(self.targets))
        for count, many in zip(counts, times, strict=True):
            names = tuple(name for group in groups[:count] for name in group)
            blank = (forgetful(self.network, names, self.seed, draw) for draw in range(many))
            cascade.append([self.compared(asked, every) for asked in blank])
        beside = self.compared(self.network, pairs) if pairs else [[] for _ in self.ways]

        def trust_of(way: int, row: int) -> Trust:
            likes = [[draw[way][row][0] for draw in stage] for stage in cascade]
            shares = [count / len(groups) for count in counts]
            return Trust(
                tuple(likes[0]),
                tuple((s, _mean(r), _size(r)) for s, r in zip(shares, likes, strict=True)),
                tuple(r for (i, _), (r, _) in zip(pairs, beside[way], strict=True) if i == row),
                max((draw[way][row][1] for draw in cascade[-1]), default=0.0),
            )

        return [[trust_of(w, i) for i in range(len(self.targets))] for w in range(len(self.ways))]

    def compared(
        self, asked: Network, pairs: list[tuple[int, Target]]
    ) -> list[list[tuple[float, float]]]:
        """For each way and pair of (image number, unit): the correlation and the map's floor."""
        answers = []
        images = [self.found[0][row].image for row, _ in pairs]
        shown = torch.stack(images).to(asked.device, asked.dtype)
        for way, maps in zip(self.ways, self.found, strict=True):
            made = _made(way, asked, shown, [unit for _, unit in pairs])
            answers.append(
                [
                    (alike(maps[row], other), 0.0 if other is None else floor_of(other))
                    for (row, _), other in zip(pairs, made, strict=True)
                ]
            )
            self.done += 1
            progress.tell("checks", self.done, self.total)
        return answers


def _made(
    way: Way, asked: Network, images: Images, targets: Sequence[Target]
) -> Sequence[Attribution | None]:
    """The maps of all images; None for those of which a random network shows nothing."""
    try:
        return way(asked, images, targets)
    except RequestError:
        if len(targets) == 1:
            return [None]
        one = [_made(way, asked, images[i : i + 1], [t]) for i, t in enumerate(targets)]
        return [maps[0] for maps in one]


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
