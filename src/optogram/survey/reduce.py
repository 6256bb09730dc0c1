"""What a batch says about each unit of a layer, read once while the answer is in the cache."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from optogram.survey.statistics import Moments, mean_and_variance, pooled

CHUNK = 1 << 17
"""How many numbers a CPU looks at together: they fit a cache, and are worth a call."""

SMALL = 256
"""Maps of more places are kept with the largest value of each row, to find a place by."""

LANES = 32
"""Over rows of a multiple of so many numbers torch takes a minimum up to 30 times faster."""


Reach = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Tallies:
    """Of chunks of a layer's values: how many a unit, their mean, variance, minimum, number > 0."""

    counts: Float64[Tensor, " chunk"]
    values: Float[Tensor, "chunk 4 unit"]


@dataclass(frozen=True, eq=False)
class Heard:
    """What a layer answered to a batch.

    `maps` are its numbers, (batch, row, column, unit), and `peaks` the largest of each row. Places
    are counted row by row; tokens and small maps are one row. `tallies` are of all images and
    places; None if not asked for.
    """

    maps: Float[Tensor, "batch row column unit"]
    peaks: Float[Tensor, "batch row unit"]
    tallies: Tallies | None = None

    @cached_property
    def strongest(self) -> Float[Tensor, "batch unit"]:
        """Each unit's largest value on each image."""
        whole = self.peaks[:, 0] if self.peaks.shape[1] == 1 else self.peaks.amax(1)
        return whole.float().cpu()

    @cached_property
    def moments(self) -> Moments | None:
        """Of all images and places; None if not asked for."""
        return None if self.tallies is None else moments_of(self.strongest, [self.tallies])

    @property
    def lines(self) -> Float[Tensor, "batch unit place"]:
        """All numbers, for each image and unit place by place."""
        return self.maps.flatten(1, 2).mT

    def find(self, rows: Int64[Tensor, " pair"], units: Int64[Tensor, " pair"]) -> Tensor:
        """The place of the largest value of units on images, the first of equals, (pair,)."""
        if self.maps.shape[1] * self.maps.shape[2] == 1:
            return torch.zeros_like(rows)
        images, units = rows.to(self.maps.device), units.to(self.maps.device)
        if self.maps.shape[1] == 1:
            return self.maps[images, 0, :, units].argmax(1).cpu()
        row = self.peaks[images, :, units].argmax(1)
        column = self.maps[images, row, :, units].argmax(1)
        return (row * self.maps.shape[2] + column).cpu()

    def look(self, rows: Int64[Tensor, " pair"], units: Int64[Tensor, " pair"]) -> Tensor:
        """The maps of some units on some images, (pair, place)."""
        images, units = rows.to(self.maps.device), units.to(self.maps.device)
        return self.maps[images, :, :, units].float().flatten(1).cpu()


def heard(
    answer: Tensor, axis: int, *, with_moments: bool = True, reach: Reach | None = None
) -> Heard:
    """Take in a layer's answer, whose units are on `axis` (the batch is axis 0).

    `reach` is told up to which place, counted over all images, is read next.
    """
    given = answer[..., None] if axis == 0 else answer.movedim(axis, -1)
    if given.dim() == 2:
        maps = given[:, None, None]
    elif given.dim() == 4 and given.shape[1] * given.shape[2] > SMALL:
        maps = given
    else:
        maps = given.flatten(1, -2)[:, None]
    if not with_moments:
        return Heard(maps, _largest(maps, reach))
    if maps.device.type != "cpu":
        return Heard(maps, *_all_at_once(maps))
    return Heard(maps, *_chunk_by_chunk(maps, reach))


def moments_of(strongest: Float[Tensor, "image unit"], tallies: Sequence[Tallies]) -> Moments:
    """The moments of the values that tallies are of, whose largest are `strongest`."""
    counts = torch.cat([some.counts for some in tallies])
    values = torch.cat([some.values for some in tallies])
    middle, variance, least, active = values.unbind(1)
    mean, spread = pooled(counts, middle.double(), variance.double())
    return Moments(
        int(counts.sum()),
        mean,
        spread,
        least.amin(0).float(),
        strongest.amax(0),
        active.double().sum(0).round().long(),
    )


def _chunk_by_chunk(
    maps: Float[Tensor, "batch row column unit"], reach: Reach | None
) -> tuple[Float[Tensor, "batch row unit"], Tallies]:
    """The largest of each row, and tallies. Each is one pass over what lies in the cache.

    The first brings it there. Units come last: that is what torch does fastest.
    """
    batch, rows, columns, units = maps.shape
    dtype = maps.dtype if maps.dtype == torch.float64 else torch.float32
    peaks = maps.new_empty((batch * rows, units), dtype=dtype)
    fold = _fold(maps)
    counts, found = [], []
    room = peaks.new_empty(0)
    first = 0
    for chunk in _chunks(maps, dtype):
        last = first + len(chunk)
        if reach is not None:
            reach(last * columns)
        wide = chunk.view(len(chunk), columns // fold, fold * units)
        _row_peaks(wide, units, peaks[first:last])
        flat = wide.flatten(0, 1)
        # A sum of zeros and ones is exact in float32 up to 16 million places, and much faster.
        room = room if len(room) >= len(flat) else torch.empty_like(flat)
        active = torch.gt(flat, 0, out=room[: len(flat)]).sum(0)
        found += [*mean_and_variance(flat), flat.amin(0), active]
        counts += [float(len(flat))] * fold
        first = last
    # The folds of a chunk are chunks of their own.
    values = torch.stack(found).view(-1, 4, fold, units).transpose(1, 2).reshape(-1, 4, units)
    tallies = Tallies(torch.tensor(counts, dtype=torch.float64), values)
    return peaks.view(batch, rows, units), tallies


def _all_at_once(
    maps: Float[Tensor, "batch row column unit"],
) -> tuple[Float[Tensor, "batch row unit"], Tallies]:
    """The same where numbers lie in a graphics card's memory."""
    every = (0, 1, 2)
    wide = maps if maps.dtype in (torch.float32, torch.float64) else maps.float()
    variance, mean = torch.var_mean(wide, every, correction=0)
    values = torch.stack([mean, variance, wide.amin(every), (wide > 0).sum(every).to(wide.dtype)])
    count = float(maps[..., 0].numel())
    return maps.amax(2), Tallies(torch.tensor([count], dtype=torch.float64), values[None].cpu())


def _chunks(
    maps: Float[Tensor, "batch row column unit"], dtype: torch.dtype
) -> Iterator[Float[Tensor, "line column unit"]]:
    """Several rows at a time, of one image or of many, with units last in memory."""
    _, rows, columns, units = maps.shape
    some = max(1, CHUNK // (columns * units))
    if maps.is_contiguous() and maps.dtype == dtype:
        yield from maps.flatten(0, 1).split(some)
    else:
        for images in maps.split(max(1, some // rows)):
            laid = images.to(dtype, memory_format=torch.contiguous_format).contiguous()
            yield from laid.flatten(0, 1).split(some)


def _largest(
    maps: Float[Tensor, "batch row column unit"], reach: Reach | None
) -> Float[Tensor, "batch row unit"]:
    """The largest of each row, in memory of its own."""
    batch, rows, columns, units = maps.shape
    if columns == 1:
        return maps[:, :, 0].clone()
    if maps.device.type != "cpu" or not maps.is_contiguous():
        return maps.amax(2)
    peaks = maps.new_empty(batch * rows, units)
    fold = _fold(maps)
    whole = maps.view(batch * rows, columns // fold, fold * units)
    first = 0
    for chunk in whole.split(
        len(whole) if reach is None else max(1, 2 * CHUNK // (columns * units))
    ):
        last = first + len(chunk)
        if reach is not None:
            reach(last * columns)
        _row_peaks(chunk, units, peaks[first:last])
        first = last
    return peaks.view(batch, rows, units)


def _row_peaks(
    lines: Float[Tensor, "line column_group folded_unit"],
    units: int,
    into: Float[Tensor, "line unit"],
) -> None:
    """The largest of each row, whose neighbours lie side by side, see `_fold`."""
    if lines.shape[2] == units:
        torch.amax(lines, 1, out=into)
    else:
        torch.amax(lines.amax(1).view(len(lines), -1, units), 1, out=into)


def _fold(maps: Float[Tensor, "batch row column unit"]) -> int:
    """How many neighbours to lay side by side so that their numbers fill the LANES."""
    fold = LANES // gcd(maps.shape[3], LANES)
    return gcd(fold, maps.shape[2])
