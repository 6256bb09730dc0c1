"""Units that rise and fall together, and whether they still do on images that were not looked at.

Clusters are drawn from one half of the images by average linkage of 1 - correlation. The other half
is
clustered the same way: the adjusted Rand index of the two says how far the clusters can be trusted,
1 for the same clusters, 0 for what chance would give (Hubert & Arabie, 1985).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from optogram.core.unit import Direction
from optogram.survey.statistics import Answers


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of a layer's units whose answers go together.

    Attributes:
        layer: whose units.
        labels: the group of each unit, largest group first, (unit,).
        members: the units of each group of two or more.
        cohesion: the mean correlation between the units of each such group, on all images.
        agreement: adjusted Rand index between the groupings of two halves of the images; None where
            a half has too few images to say.
        threshold: the mean correlation down to which groups were joined.
        spread: the standard deviation of each unit's answers, (unit,).
    """

    layer: str
    labels: Int64[Tensor, " unit"]
    members: tuple[tuple[int, ...], ...]
    cohesion: tuple[float, ...]
    agreement: float | None
    threshold: float
    spread: Float[Tensor, " unit"]

    def direction(self, group: int) -> Direction:
        """All units of a group as one direction, each in its own standard deviations.

        Whatever takes a unit takes it: a picture made for it shows what the group has in common.
        """
        vector = torch.zeros(len(self.labels))
        for unit in self.members[group]:
            vector[unit] = 1 / self.spread[unit].clamp(min=1e-12)
        return Direction(self.layer, vector / len(self.members[group]), f"cluster {group}")


def clusters(layer: str, answers: Answers, threshold: float) -> Clusters:
    """The clusters of a layer's units, from the first half of the images, checked on the second."""
    whole = correlation(answers)
    halves = [correlation(answers, half) for half in (0, 1)]
    usable = min(answers.half_count) >= 3
    labels = grouped(halves[0] if usable else whole, threshold)
    other = grouped(halves[1], threshold) if usable else None
    sizes = np.bincount(labels)
    members = tuple(
        tuple(np.flatnonzero(labels == group).tolist()) for group in np.flatnonzero(sizes > 1)
    )
    return Clusters(
        layer,
        torch.from_numpy(labels),
        members,
        tuple(_cohesion(whole, units) for units in members),
        None if other is None else rand_index(labels, other),
        threshold,
        spread(answers),
    )


def spread(answers: Answers) -> Float[Tensor, " unit"]:
    """The standard deviation of each unit's answers."""
    count, products = answers.spread()
    return (products.diagonal() / max(count, 1)).sqrt().float()


def correlation(answers: Answers, half: int | None = None) -> Float64[Tensor, "unit unit"]:
    """The correlation between the answers of each two units; 0 where one never changes."""
    _, products = answers.spread(half)
    size = products.diagonal().sqrt()
    scale = torch.outer(size, size)
    together = torch.where(scale > 0, products / scale, torch.zeros_like(products)).clamp(-1, 1)
    together.fill_diagonal_(1.0)
    return (together + together.T) / 2


def grouped(together: Float64[Tensor, "unit unit"], threshold: float) -> np.ndarray:
    """A group number for each unit, the largest group first, by average linkage."""
    from scipy.cluster.hierarchy import fcluster, linkage

    count = len(together)
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    rows, columns = np.triu_indices(count, 1)
    apart = 1 - together.numpy()[rows, columns]
    raw = fcluster(linkage(apart, "average"), 1 - threshold, "distance")
    _, first, inverse, sizes = np.unique(
        raw, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse].astype(np.int64)


def rand_index(one: np.ndarray, other: np.ndarray) -> float:
    """The adjusted Rand index of two groupings of the same things."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = rows * columns / max(pairs(np.array([len(one)])), 1)
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def _cohesion(together: Tensor, units: tuple[int, ...]) -> float:
    among = together[list(units)][:, list(units)]
    count = len(units)
    return float((among.sum() - count) / (count * (count - 1)))
