"""Large images in pieces: the exact gradient of any objective, in the memory of one piece.

The layers that an objective hears are small; the maps below them are not. So each piece of the
image is shown with as much around it as its cells can see, its cells are put together into the
whole layers, the objective and its gradient are worked out there, and the gradient goes back
through the pieces once more. Nothing is approximated and there is nothing to blend: a cell is
computed from all that it sees, and its gradient reaches all of that.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.activations import Activations
from optogram.core.field import Axis
from optogram.core.network import Network
from optogram.core.prepared import Prepared
from optogram.core.rules import Before, Rule, before, plain, remember
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]
UNTILED = 1_200_000  # pixels of an image up to which it is shown whole
USUAL = 768  # pixels a side of a piece, without what is around it


@dataclass(frozen=True)
class Span:
    """Along one axis: the pixels shown, and of each layer the cells that are this piece's own."""

    begin: int
    end: int
    cells: dict[str, tuple[int, int | None]]
    own: dict[str, int]


@dataclass(eq=False)
class Tiling:
    """A view of an image in pieces, for the layers of one objective.

    `activations` are those of the whole view; their layers are leaves, whose gradients `back` takes
    to the view.
    """

    network: Network
    ready: Prepared
    layers: tuple[str, ...]
    view: Images
    tile: int
    rule: Rule
    leaves: list[Tensor] = field(default_factory=list)

    def activations(self, canvas: Images) -> Activations:
        """What the whole view makes the layers answer, piece by piece."""
        rows: dict[str, list[list[Tensor]]] = {name: [] for name in self.layers}
        with torch.no_grad():
            for row in self._spans(0):
                line: dict[str, list[list[Tensor]]] = {name: [] for name in self.layers}
                for column in self._spans(1):
                    for name, parts in self._own(row, column, self._piece(row, column)).items():
                        line[name].append([part.clone() for part in parts])
                for name in self.layers:
                    rows[name].append([torch.cat(p, 3) for p in zip(*line[name], strict=True)])
            whole = {n: [torch.cat(p, 2) for p in zip(*r, strict=True)] for n, r in rows.items()}
        self.leaves = [part for parts in whole.values() for part in parts]
        for part in self.leaves:
            part.requires_grad_()
        for answer, *given in whole.values():
            if given:
                remember(answer, Before((given[0],)))
        return Activations(self.network, canvas, {name: parts[0] for name, parts in whole.items()})

    def back(self, gradients: Sequence[Tensor | None]) -> Images:
        """The gradient with respect to the view, from those of the leaves."""
        total = torch.zeros_like(self.view)
        numbers = iter(range(len(self.leaves)))
        counts = {name: 2 if self._rectified(name) else 1 for name in self.layers}
        wanted = {name: [gradients[next(numbers)] for _ in range(n)] for name, n in counts.items()}
        for row in self._spans(0):
            for column in self._spans(1):
                piece = self._piece(row, column).requires_grad_()
                own = self._own(row, column, piece)
                pairs = [
                    (part, self._cut(row, column, name, gradient))
                    for name, parts in own.items()
                    for part, gradient in zip(parts, wanted[name], strict=True)
                    if gradient is not None
                ]
                answers, slopes = zip(*pairs, strict=True)
                (found,) = torch.autograd.grad(answers, piece, slopes)
                total[..., row.begin : row.end, column.begin : column.end] += found
        return total

    def _piece(self, row: Span, column: Span) -> Tensor:
        return self.view[..., row.begin : row.end, column.begin : column.end].detach().clone()

    def _own(self, row: Span, column: Span, piece: Tensor) -> dict[str, list[Tensor]]:
        """Of each layer the piece's own cells, and what was given to the ReLU that made them."""
        heard = self.ready.read(piece, self.layers, rule=self.rule, watch=True)
        found = {}
        for name in self.layers:
            answers = [heard[name]]
            if self._rectified(name):
                answers.append(before(answers[0]))
            (top, bottom), (left, right) = row.cells[name], column.cells[name]
            found[name] = [answer[..., top:bottom, left:right] for answer in answers]
        return found

    def _cut(self, row: Span, column: Span, name: str, gradient: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            (span.own[name], None if stop is None else span.own[name] + stop - start)
            for span in (row, column)
            for start, stop in (span.cells[name],)
        )
        return gradient[..., top:bottom, left:right]

    def _rectified(self, name: str) -> bool:
        return self.network.layer(name).rectified

    def _spans(self, axis: int) -> Iterator[Span]:
        """The pieces along rows (0) or columns (1), which together own every cell once."""
        limit = int(self.view.shape[axis - 2])
        fields = {name: _axes(self.network, name)[axis] for name in self.layers}
        step = math.lcm(*(one.step for one in fields.values()))
        count = max(1, round(limit / self.tile))
        length = max(step, math.ceil(limit / count / step) * step)
        for start in range(0, limit, length):
            stop = start + length
            if limit - stop < length // 2:  # no slivers at the end
                stop = limit
            low = min(one.first + start for one in fields.values())
            high = max(one.first + stop - one.step + one.size for one in fields.values())
            begin = max(0, low // step * step)
            last = stop >= limit
            end = limit if last else min(limit, high)
            cells = {
                name: (
                    (start - begin) // one.step,
                    None if last else (stop - begin) // one.step,
                )
                for name, one in fields.items()
            }
            own = {name: start // one.step for name, one in fields.items()}
            yield Span(begin, end, cells, own)
            if last:
                return


def tile_for(
    network: Network, layers: Sequence[str], shape: Sequence[int], wanted: int | str | None
) -> int | None:
    """The size of pieces for an image of that shape; None where it is shown whole.

    "auto" means whole up to 1.2 million pixels, and where a layer sees the whole image at once.
    Raises RequestError where a size was given and cannot be had.
    """
    if wanted is None or not layers:
        return None
    if wanted == "auto":
        large = shape[-1] * shape[-2] > UNTILED
        return USUAL if large and all(_can(network, name) for name in layers) else None
    if isinstance(wanted, str) or wanted < 1:
        raise RequestError(f"tile={wanted!r} should be 'auto', None or pixels a side, at least 1")
    for name in layers:
        if not _can(network, name):
            raise RequestError(
                f"{name!r} of {network.name} sees the whole image at once, so that cannot be shown "
                "in tiles: choose a layer of maps, or tile=None"
            )
    return wanted if max(shape[-2:]) > wanted else None


def read_in_tiles(
    network: Network, images: Images, layers: Sequence[str], wanted: int | str | None
) -> dict[str, Tensor]:
    """What layers answer to images, piece by piece where `tile_for` says so; no gradients."""
    tile = tile_for(network, layers, images.shape[1:], wanted)
    with torch.no_grad():
        if tile is None:
            return network.read(images, *layers).layers
        plainly = Prepared(network, channels_last=False)
        tiling = Tiling(network, plainly, tuple(dict.fromkeys(layers)), images, tile, plain)
        heard = tiling.activations(images).layers
    return {name: answer.detach() for name, answer in heard.items()}


def _can(network: Network, name: str) -> bool:
    layer = network.layer(name)
    return not layer.field.whole and len(layer.places) == 2 and layer.axis == 1


def _axes(network: Network, name: str) -> tuple[Axis, Axis]:
    field: Any = network.layer(name).field
    return field.rows, field.columns
