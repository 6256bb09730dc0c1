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
    are counted row by row; tokens and small maps are one row. `moments` are over all images and
    places, None if not asked for.
    """

    maps: Float[Tensor, "batch row column unit"]
    peaks: Float[Tensor, "batch row unit"]
    moments: Moments | None

    @cached_property
    def strongest(self) -> Float[Tensor, "batch unit"]:
        """Each unit's largest value on each image."""
        return self.peaks.amax(1).float().cpu()

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


def heard(answer: Tensor, axis: int, *, with_moments: bool = True) -> Heard:
    """Take in a layer's answer, whose units are on `axis` (the batch is axis 0)."""
    given = answer[..., None] if axis == 0 else answer.movedim(axis, -1)
    if given.dim() == 2:
        maps = given[:, None, None]
    elif given.dim() == 4 and given.shape[1] * given.shape[2] > SMALL:
        maps = given
    else:
        maps = given.flatten(1, -2)[:, None]
    peaks = maps.amax(2) if maps.shape[2] > 1 else maps[:, :, 0]
    if not with_moments:
        return Heard(maps, peaks, None)
    about = maps[0, 0, 0].float()
    found = torch.stack([_of_chunk(chunk, about) for chunk in _chunks(maps)])
    return Heard(maps, peaks, _moments(maps.numel() // maps.shape[-1], peaks, about, found))


def _chunks(maps: Float[Tensor, "batch row column unit"]) -> Iterator[Tensor]:
    """Several images at a time, or some rows of one; on a GPU all at once."""
    if maps.device.type != "cpu":
        yield maps
        return
    _, rows, columns, units = maps.shape
    if rows * columns * units <= CHUNK:
        yield from maps.split(CHUNK // (rows * columns * units))
        return
    for image in maps.split(1):
        yield from image.split(max(1, CHUNK // (columns * units)), 1)


def _of_chunk(
    chunk: Float[Tensor, "part row column unit"], about: Float[Tensor, " unit"]
) -> Float[Tensor, "4 unit"]:
    """Of each unit: sum and squares of distances from `about`, smallest, how many above 0.

    Each is one pass over what lies in the cache, units last: that is what torch does fastest.
    """
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


def _moments(
    count: int,
    peaks: Float[Tensor, "batch row unit"],
    about: Float[Tensor, " unit"],
    found: Float[Tensor, "chunk 4 unit"],
) -> Moments:
    total, square, _, active = found.double().sum(0).cpu()
    away = total / count
    return Moments(
        count,
        about.cpu().double() + away,
        (square - away.square() * count).clamp(min=0),
        found[:, 2].amin(0).float().cpu(),
        peaks.amax((0, 1)).float().cpu(),
        active.round().long(),
    )
