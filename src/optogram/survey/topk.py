"""The k strongest answers of each unit, in an order that no batch or shard can change.

The order is: larger value first, then smaller image number, then smaller place. Merging two lists
keeps the best k of both and drops what stands in both, so it is associative, commutative and
idempotent: the k strongest of a set are the same however the set was cut up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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
    both = _sorted(joined([one, other], 1))
    twice = _same_as_left(both)
    if bool(twice.any()):
        both = _without(both, twice)
    return TopK(both.values[:, :k], both.images[:, :k], both.places[:, :k])


def within(lists: TopK, start: int, stop: int) -> TopK:
    """Only what comes from the images from `start` until before `stop`."""
    out = (lists.images < start) | (lists.images >= stop)
    return _without(lists, out) if bool((out & (lists.images != NOBODY)).any()) else lists


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
            asked only for answers that the lists so far do not beat.
    """
    return entered(lists, entries(lists, strongest, images, find))


@dataclass(frozen=True, eq=False)
class Entries:
    """Answers that may enter lists, unit by unit and in rising order of images within a unit."""

    units: Int64[Tensor, " entry"]
    values: Float[Tensor, " entry"]
    images: Int64[Tensor, " entry"]
    places: Int64[Tensor, " entry"]


def entries(
    lists: TopK,
    strongest: Float[Tensor, "batch unit"],
    images: Int64[Tensor, " batch"],
    find: Find,
    *,
    later: bool = False,
) -> Entries:
    """The answers of `challenge` that would stand in a list, were they the only ones of the batch.

    `later` says that the images are known to come after all that the lists hold.
    """
    # Of many answers few enter: NumPy compares, and finds them, several times faster than torch.
    if later:
        entering = strongest.numpy() > lists.values[:, -1].numpy()
    else:
        entering = _entering(lists, strongest, images).numpy()
    if np.count_nonzero(entering) > 2 * lists.values.numel():  # no more than k of a batch can stay
        least = strongest.topk(min(lists.k, len(strongest)), 0).values[-1]
        entering &= (strongest >= least).numpy()
    unit, row = entering.T.nonzero()
    values = torch.from_numpy(strongest.numpy()[row, unit] + np.float32(0.0))
    units, rows = torch.from_numpy(unit), torch.from_numpy(row)
    return Entries(units, values, images[rows], find(rows, units) if len(rows) else rows)


def entered(lists: TopK, new: Entries) -> TopK:
    """The lists with the entries where they belong."""
    if not len(new.units):
        return lists
    touched, owner = new.units.unique_consecutive(return_inverse=True)
    fresh = _listed(len(touched), owner, new.values, new.images, new.places)
    old = lists[touched]
    if not _come_after(new.images, old):
        return lists.replaced(touched, merged(old, fresh))
    # Equal values stand in the right order already: a stable sort leaves them so.
    both = joined([old, fresh], 1)
    order = both.values.sort(dim=1, descending=True, stable=True).indices[:, : lists.k]
    return lists.replaced(touched, _taken(both, order))


def joined(lists: Sequence[TopK], dim: int = 0) -> TopK:
    """The lists of several sets of units one after the other (or, along 1, longer lists)."""
    parts = [(part.values, part.images, part.places) for part in lists]
    return TopK(*(torch.cat(some, dim) for some in zip(*parts, strict=True)))


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
    return lists.replaced(touched, merged(lists[touched], fresh))


def ordered_keys(values: Float[Tensor, "pair place"]) -> Int64[Tensor, "pair place"]:
    """Whole numbers that are larger for larger values and, among equals, for earlier places."""
    bits = values.float().contiguous().view(torch.int32).long()
    rising = torch.where(bits >= 0, bits, -(2**31) - 1 - bits)
    return rising * 2**32 + (2**32 - 1 - torch.arange(values.shape[1], device=values.device))


def _entering(lists: TopK, strongest: Tensor, images: Tensor) -> Tensor:
    """Which answers would stand in a list, (batch, unit)."""
    last, holder = lists.values[:, -1], lists.images[:, -1]
    larger = strongest > last
    if _come_after(images, lists):
        return larger
    equal = (strongest == last) & ((images[:, None] <= holder) | (holder == NOBODY))
    return larger | equal


def _come_after(images: Tensor, lists: TopK) -> bool:
    return int(images.min()) > int(lists.images.max())


def _listed(units: int, owner: Tensor, values: Tensor, images: Tensor, places: Tensor) -> TopK:
    """Lists as long as the longest, of answers that come owner by owner."""
    counts = torch.bincount(owner, minlength=units)
    slot = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    lists = TopK.empty(units, int(counts.max()))
    for held, given in zip(
        (lists.values, lists.images, lists.places), (values, images, places), strict=True
    ):
        held[owner, slot] = given
    return lists


def _sorted(lists: TopK) -> TopK:
    """Larger value first, then smaller image, then smaller place; empty entries last."""
    lists = _taken(lists, lists.places.argsort(dim=1, stable=True))
    number = lists.images.masked_fill(lists.images == NOBODY, torch.iinfo(torch.int64).max)
    lists = _taken(lists, number.argsort(dim=1, stable=True))
    return _taken(lists, lists.values.argsort(dim=1, descending=True, stable=True))


def _taken(lists: TopK, order: Tensor) -> TopK:
    parts = (lists.values, lists.images, lists.places)
    return TopK(*(part.gather(1, order) for part in parts))


def _without(lists: TopK, out: Tensor) -> TopK:
    return _sorted(
        TopK(
            lists.values.masked_fill(out, -torch.inf),
            lists.images.masked_fill(out, NOBODY),
            lists.places.masked_fill(out, NOBODY),
        )
    )


def _same_as_left(lists: TopK) -> Tensor:
    """Which entries repeat the one before them."""
    parts = (lists.values, lists.images, lists.places)
    same = [part[:, 1:] == part[:, :-1] for part in parts]
    twice = same[0] & same[1] & same[2] & (lists.images[:, 1:] != NOBODY)
    return torch.cat([torch.zeros_like(twice[:, :1]), twice], 1)
