"""What a batch says about each unit of a layer, read once while the answer is in the cache."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from optogram.survey.statistics import Moments

CHUNK = 1 << 17
"""How many numbers are looked at together: half a megabyte, which stays in a core's own cache."""

SMALL = 1024
"""Maps of up to so many places are looked up together."""


@dataclass(frozen=True, eq=False)
class Heard:
    """What a layer answered to a batch.

    `lines` are its numbers, (batch, unit, place); places are counted row by row. `strongest` is
    each unit's largest value on each image. `moments` are over all images and places, None if not
    asked for.
    """

    lines: Float[Tensor, "batch unit place"]
    strongest: Float[Tensor, "batch unit"]
    moments: Moments | None

    def find(self, rows: Int64[Tensor, " pair"], units: Int64[Tensor, " pair"]) -> Tensor:
        """The place of the largest value of units on images, the first of equals, (pair,)."""
        if self.lines.shape[2] == 1:
            return torch.zeros_like(units)
        return self._by_row(rows, units, lambda maps: maps.argmax(1))

    def look(self, rows: Int64[Tensor, " pair"], units: Int64[Tensor, " pair"]) -> Tensor:
        """The maps of some units on some images, (pair, place)."""
        return self._by_row(rows, units, lambda maps: maps.float())

    def _by_row(self, rows: Tensor, units: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """Image by image where maps are large: the units of one lie close together."""
        if self.lines.shape[2] <= SMALL:
            device = self.lines.device
            return ask(self.lines[rows.to(device), units.to(device)]).cpu()
        order = rows.argsort(stable=True)
        answers = []
        for row in rows.unique().tolist():
            some = units[order][rows[order] == row].to(self.lines.device)
            answers.append(ask(self.lines[row].index_select(0, some)).cpu())
        together = torch.cat(answers)
        return torch.empty_like(together).index_copy_(0, order, together)


def heard(answer: Tensor, axis: int, *, with_moments: bool = True) -> Heard:
    """Take in a layer's answer, whose units are on `axis` (the batch is axis 0)."""
    maps = answer[:, None] if axis == 0 else answer.movedim(axis, 1)
    if maps.dim() == 2:
        numbers = maps.cpu()
        return Heard(
            maps[..., None], numbers.float(), _of_numbers(numbers) if with_moments else None
        )
    lines = _lines(maps)
    parts = [_of_chunk(chunk, with_moments) for chunk in _chunks(lines)]
    per_image = len(parts) // len(lines) if len(parts) > len(lines) else 1
    strongest = torch.cat([part[0] for part in parts])
    strongest = strongest.unflatten(0, (-1, per_image)).amax(1).float().cpu()
    if not with_moments:
        return Heard(lines, strongest, None)
    found = [torch.cat(column).cpu() for column in zip(*(part[1:] for part in parts), strict=True)]
    return Heard(lines, strongest, _joined(strongest, *found))


def _of_numbers(numbers: Float[Tensor, "batch unit"]) -> Moments:
    wide = numbers.double()
    mean = wide.mean(0)
    spread = (wide - mean).square().sum(0)
    low, high = wide.amin(0).float(), wide.amax(0).float()
    return Moments(len(wide), mean, spread, low, high, (wide > 0).sum(0))


def _lines(maps: Float[Tensor, "batch unit *places"]) -> Float[Tensor, "batch unit place"]:
    """(batch, unit, place) without a copy, whether units or places lie closest in memory."""
    last = maps.movedim(1, -1)
    return last.flatten(1, -2).mT if last.is_contiguous() else maps.flatten(2)


def _chunks(lines: Float[Tensor, "batch unit place"]) -> list[Tensor]:
    """Several images at a time, or equally many parts of each image."""
    _, units, places = lines.shape
    if units * places <= CHUNK:
        return list(lines.split(max(1, CHUNK // (units * places))))
    step = -(-places // -(-units * places // CHUNK))
    return [part for row in lines.split(1) for part in row.split(step, 2)]


def _of_chunk(chunk: Float[Tensor, "part unit place"], with_moments: bool) -> tuple[Tensor, ...]:
    """By image and unit: largest, mean, spread about it, smallest, how many above 0, of all."""
    largest = chunk.amax(2)
    if not with_moments:
        return (largest,)
    mean = chunk.mean(2)
    room = torch.sub(chunk, mean[..., None])
    spread = room.mul_(room).sum(2)
    # A sum of zeros and ones is exact in float32 up to 16 million places, and much faster.
    active = torch.gt(chunk, 0, out=room).sum(2)
    return (
        largest,
        mean,
        spread,
        chunk.amin(2),
        active,
        torch.full_like(mean[:, :1], chunk.shape[2]),
    )


def _joined(
    strongest: Tensor, mean: Tensor, spread: Tensor, low: Tensor, active: Tensor, count: Tensor
) -> Moments:
    mean, count = mean.double(), count.double()
    total = count.sum()
    middle = (mean * count).sum(0) / total
    return Moments(
        int(total),
        middle,
        spread.double().sum(0) + ((mean - middle).square() * count).sum(0),
        low.amin(0).float(),
        strongest.amax(0),
        active.double().sum(0).round().long(),
    )
