"""The k strongest answers of each unit, in an order that no batch or shard can change.

The order is: larger value first, then smaller image number, then smaller place. Merging two lists
keeps the best k of both and drops what stands in both, so it is associative, commutative and
idempotent: the k strongest of a set are the same however the set was cut up.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

NOBODY = -1
"""The image number of an empty place in a list."""


@dataclass(frozen=True, eq=False)
class TopK:
    """For each unit its strongest answers: `values`, the `images` they came from, the `places`.

    A place is a position in the unit's map, counted row by row. Lists that are not full yet end in
    values of -inf from image -1.
    """

    values: Float[Tensor, "unit k"]
    images: Int64[Tensor, "unit k"]
    places: Int64[Tensor, "unit k"]

    @classmethod
    def empty(cls, units: int, k: int) -> "TopK":
        """Lists without an entry."""
        nowhere = torch.full((units, k), NOBODY)
        return cls(torch.full((units, k), -torch.inf), nowhere, nowhere.clone())

    @property
    def k(self) -> int:
        """The length of a list."""
        return self.values.shape[1]

    def __getitem__(self, units: Tensor) -> "TopK":
        return TopK(self.values[units], self.images[units], self.places[units])

    def replaced(self, units: Tensor, lists: "TopK") -> "TopK":
        """The same with the lists of some units replaced."""
        pairs = (
            (self.values, lists.values),
            (self.images, lists.images),
            (self.places, lists.places),
        )
        return TopK(*(old.index_copy(0, units, new) for old, new in pairs))


def merged(one: TopK, other: TopK, k: int | None = None) -> TopK:
    """The best `k` of both lists for each unit (by default as many as `one` has)."""
    k = one.k if k is None else k
    both = _sorted(
        TopK(
            torch.cat([one.values, other.values], 1),
            torch.cat([one.images, other.images], 1),
            torch.cat([one.places, other.places], 1),
        )
    )
    twice = _same_as_left(both)
    if bool(twice.any()):
        both = _sorted(
            TopK(
                both.values.masked_fill(twice, -torch.inf),
                both.images.masked_fill(twice, NOBODY),
                both.places.masked_fill(twice, NOBODY),
            )
        )
    return TopK(both.values[:, :k], both.images[:, :k], both.places[:, :k])


Find = Callable[[Tensor, Tensor], Tensor]


def challenge(
    lists: TopK, strongest: Float[Tensor, "batch unit"], images: Int64[Tensor, " batch"], find: Find
) -> TopK:
    """The lists after a batch of images, of which each unit's strongest place counts.

    Args:
        lists: the lists so far.
        strongest: each unit's largest value on each image.
        images: the images' numbers, in rising order.
        find: (batch rows, units) -> the place of the largest value, the first of equals; it is
            asked only for answers that enter a list.
    """
    entering = _entering(lists, strongest, images)
    touched = entering.any(0).nonzero()[:, 0]
    if not len(touched):
        return lists
    values = strongest[:, touched].masked_fill(~entering[:, touched], -torch.inf).T
    rows = ordered_keys(values + 0.0).topk(min(lists.k, len(images)), 1).indices
    fresh = values.gather(1, rows)
    real = entering[:, touched].T.gather(1, rows)
    places = torch.full_like(rows, NOBODY)
    owners = touched[:, None].expand_as(rows)
    places[real] = find(rows[real], owners[real])
    numbers = images[rows].masked_fill(~real, NOBODY)
    return lists.replaced(touched, _joined(lists[touched], TopK(fresh + 0.0, numbers, places)))


def challenge_everywhere(
    lists: TopK,
    strongest: Float[Tensor, "batch unit"],
    images: Int64[Tensor, " batch"],
    look: Callable[[Tensor, Tensor], Float[Tensor, "pair place"]],
) -> TopK:
    """The same where every place counts, so that one image may hold several places of a list.

    `look` is (batch rows, units) -> their maps; it is asked only where the largest value enters.
    """
    entering = _entering(lists, strongest, images)
    rows, units = entering.nonzero(as_tuple=True)
    if not len(rows):
        return lists
    maps = look(rows, units) + 0.0
    count = min(lists.k, maps.shape[1])
    places = ordered_keys(maps).topk(count, 1).indices
    touched, owner = units.unique(return_inverse=True)
    shape = (len(touched), len(images), count)
    values = torch.full(shape, -torch.inf)
    numbers, where = torch.full(shape, NOBODY), torch.full(shape, NOBODY)
    values[owner, rows] = maps.gather(1, places)
    numbers[owner, rows] = images[rows, None].expand_as(places)
    where[owner, rows] = places
    fresh = TopK(values.flatten(1), numbers.flatten(1), where.flatten(1))
    return lists.replaced(touched, _joined(lists[touched], fresh))


def ordered_keys(values: Float[Tensor, "pair place"]) -> Int64[Tensor, "pair place"]:
    """Whole numbers that are larger for larger values and, among equals, for earlier places."""
    bits = values.float().contiguous().view(torch.int32).long()
    rising = torch.where(bits >= 0, bits, -(2**31) - 1 - bits)
    return rising * 2**32 + (2**32 - 1 - torch.arange(values.shape[1], device=values.device))


def _entering(lists: TopK, strongest: Tensor, images: Tensor) -> Tensor:
    """Which answers would stand in a list, (batch, unit)."""
    last, holder = lists.values[:, -1], lists.images[:, -1]
    larger = strongest > last
    equal = (strongest == last) & ((images[:, None] <= holder) | (holder == NOBODY))
    return larger | equal


def _joined(lists: TopK, fresh: TopK) -> TopK:
    """`merged`, and sooner done where all fresh images come after those in the lists.

    Then equal values already stand in the right order, and their position decides.
    """
    new = fresh.images[fresh.images != NOBODY]
    if len(new) and int(new.min()) <= int(lists.images.max()):
        return merged(lists, fresh)
    values = torch.cat([lists.values, fresh.values], 1)
    order = ordered_keys(values + 0.0).topk(lists.k, 1).indices
    images = torch.cat([lists.images, fresh.images], 1).gather(1, order)
    places = torch.cat([lists.places, fresh.places], 1).gather(1, order)
    return TopK(values.gather(1, order), images, places)


def _sorted(lists: TopK) -> TopK:
    """Larger value first, then smaller image, then smaller place; empty entries last."""
    lists = _taken(lists, lists.places.argsort(dim=1, stable=True))
    number = lists.images.masked_fill(lists.images == NOBODY, torch.iinfo(torch.int64).max)
    lists = _taken(lists, number.argsort(dim=1, stable=True))
    return _taken(lists, lists.values.argsort(dim=1, descending=True, stable=True))


def _taken(lists: TopK, order: Tensor) -> TopK:
    parts = (lists.values, lists.images, lists.places)
    return TopK(*(part.gather(1, order) for part in parts))


def _same_as_left(lists: TopK) -> Tensor:
    """Which entries repeat the one before them."""
    parts = (lists.values, lists.images, lists.places)
    same = [part[:, 1:] == part[:, :-1] for part in parts]
    twice = same[0] & same[1] & same[2] & (lists.images[:, 1:] != NOBODY)
    return torch.cat([torch.zeros_like(twice[:, :1]), twice], 1)
