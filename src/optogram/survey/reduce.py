"""What a batch says about each unit of a layer, read once while the answer is in the cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from optogram.survey.statistics import Moments

CHUNK = 1 << 17
"""How many numbers a CPU looks at together: they fit a cache, and are worth a call."""

SMALL = 256
"""Maps of more places are kept with the largest value of each row, to find a place by."""


@dataclass(frozen=True, eq=False)
class Heard:
    """What a layer answered to a batch.

    `maps` are its numbers, (batch, row, column, unit), and `peaks` the largest of each row. Places
    are counted row by row; tokens and small maps are one row. `tallies` are of chunks of all images
    and places, see `_of_chunk`; None if not asked for.
    """

    maps: Float[Tensor, "batch row column unit"]
    peaks: Float[Tensor, "batch row unit"]
    about: Float[Tensor, " unit"] | None = None
    tallies: Float[Tensor, "chunk 4 unit"] | None = None

    @cached_property
    def strongest(self) -> Float[Tensor, "batch unit"]:
        """Each unit's largest value on each image."""
        return self.peaks.amax(1).float().cpu()

    @cached_property
    def moments(self) -> Moments | None:
        """Of all images and places; None if not asked for."""
        if self.tallies is None or self.about is None:
            return None
        return moments_of(self.values, self.strongest, self.about, self.tallies)

    @property
    def values(self) -> int:
        """How many values of each unit: images times places."""
        return self.maps.shape[0] * self.maps.shape[1] * self.maps.shape[2]

    @property
    def lines(self) -> Float[Tensor, "batch unit place"]:
        """All numbers, for each image and unit place by place."""
        return self.maps.flatten(1, 2).mT

    def find(self, rows: Int64[Tensor, " pair"], units: Int64[Tensor, " pair"]) -> Tensor:
        """The place of the largest value of units on images, the first of equals, (pair,)."""
        images, units = rows.to(self.maps.device), units.to(self.maps.device)
        row = self.peaks[images, :, units].argmax(1)
        column = self.maps[images, row, :, units].argmax(1)
        return (row * self.maps.shape[2] + column).cpu()

    def look(self, rows: Int64[Tensor, " pair"], units: Int64[Tensor, " pair"]) -> Tensor:
        """The maps of some units on some images, (pair, place)."""
        images, units = rows.to(self.maps.device), units.to(self.maps.device)
        return self.maps[images, :, :, units].float().flatten(1).cpu()


def heard(
    answer: Tensor, axis: int, *, with_moments: bool = True, about: Tensor | None = None
) -> Heard:
    """Take in a layer's answer, whose units are on `axis` (the batch is axis 0).

    Moments are summed as distances from `about` (unit,), by default the first place's answers.
    """
    given = answer[..., None] if axis == 0 else answer.movedim(axis, -1)
    if given.dim() == 2:
        maps = given[:, None, None]
    elif given.dim() == 4 and given.shape[1] * given.shape[2] > SMALL:
        maps = given
    else:
        maps = given.flatten(1, -2)[:, None]
    if not with_moments:
        return Heard(maps, maps.amax(2) if maps.shape[2] > 1 else maps[:, :, 0])
    about = maps[0, 0, 0].float().clone() if about is None else about
    peaks = maps.new_empty(len(maps), maps.shape[1], maps.shape[3])
    found = [_of_chunk(maps[part], about, peaks[part]) for part in _chunks(maps)]
    return Heard(maps, peaks, about, torch.stack(found))


Part = tuple[slice, slice]


def _chunks(maps: Float[Tensor, "batch row column unit"]) -> Iterator[Part]:
    """Several images at a time, or some rows of one; on a GPU all at once."""
    count, rows, columns, units = maps.shape
    everything = slice(None)
    if maps.device.type != "cpu":
        yield everything, everything
    elif rows * columns * units <= CHUNK:
        step = CHUNK // (rows * columns * units)
        for first in range(0, count, step):
            yield slice(first, first + step), everything
    else:
        step = max(1, CHUNK // (columns * units))
        for image in range(count):
            for first in range(0, rows, step):
                yield slice(image, image + 1), slice(first, first + step)


def _of_chunk(
    chunk: Float[Tensor, "part row column unit"],
    about: Float[Tensor, " unit"],
    peaks: Float[Tensor, "part row unit"],
) -> Float[Tensor, "4 unit"]:
    """Of each unit: sum and squares of distances from `about`, smallest, how many above 0.

    Each is one pass over what lies in the cache, units last: that is what torch does fastest. The
    first brings it there, and leaves the largest of each row in `peaks`.
    """
    peaks.copy_(chunk.amax(2))
    if chunk.dtype not in (torch.float32, torch.float64):
        chunk = chunk.float()
    every = (0, 1, 2)
    # Distances from a value near the mean lose nothing where the mean is large.
    room = torch.sub(chunk, about)
    total = room.sum(every)
    square = room.mul_(room).sum(every)
    # A sum of zeros and ones is exact in float32 up to 16 million places, and much faster.
    active = torch.gt(chunk, 0, out=room).sum(every)
    return torch.stack([total, square, chunk.amin(every), active])


def moments_of(
    count: int,
    strongest: Float[Tensor, "batch unit"],
    about: Float[Tensor, " unit"],
    tallies: Float[Tensor, "chunk 4 unit"],
) -> Moments:
    """The moments of `count` values a unit, from the tallies of chunks of them."""
    total, square, _, active = tallies.double().sum(0).cpu()
    away = total / count
    return Moments(
        count,
        about.cpu().double() + away,
        (square - away.square() * count).clamp(min=0),
        tallies[:, 2].amin(0).float().cpu(),
        strongest.amax(0),
        active.round().long(),
    )
