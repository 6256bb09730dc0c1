"""Convolutions of 3x3 pixels with fewer multiplications (Lavin & Gray, 2016, minimal filtering).

A tile of n answers along an axis is read from n + 2 pixels; seen as polynomials at n + 2 points,
the window is one product a point instead of 3n. In both axes a tile of 4x4 takes 36 products for
144. From 7 answers on, the imaginary points i and -i join, both together for three products
(Winograd, 1980): one more than two real points would take, and forty times less rounding. The
answers are those of the plain sum but for rounding (of single precision; tests bound it).
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Places = np.ndarray
Pair = tuple[int, int]
Rows = Float[Tensor, "row channel"]
Weight = Float[Tensor, "out in 3 3"]

# What a product of matrices, a number moved and a convolution cost, in seconds, on the machine
# where the tiles were tuned; only their proportions decide.
PRODUCT, MOVE, LOAD, PREPARE, CALL = 1.06e-11, 1.1e-9, 1.0e-10, 2e-9, 100e-6
TILES = np.array([(rows, columns) for rows in range(2, 9) for columns in range(2, 9)])
SCRATCH = 10e6  # bytes of transformed pixels at a time: what the caches hold
RESTING = 512e6
"""So many bytes of work memory at most stay with a network between two calls."""


class Scratch:
    """Memory that is used again and again: fresh pages cost more than what is written to them.

    At most `limit` bytes are asked of what is used over and over within a call, where that is
    enough for one occluder; what is lent for a whole call takes at most `most`, where that is
    enough for it.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.limit, self.most = limit, math.inf
        self._kept: dict[int, Tensor] = {}
        self._lent: list[Tensor] = []
        self._spare: list[Tensor] = []

    def __call__(self, which: int, like: Tensor, *shape: int) -> Tensor:
        """An uninitialised tensor of a shape, in the same memory at every call of that number."""
        count = math.prod(shape)
        kept = self._kept.get(which)
        if kept is None or len(kept) < count or not _alike(kept, like):
            kept = self._kept[which] = spacious(like, count)
        return kept[:count].view(shape)

    def lend(self, like: Tensor, *shape: int) -> Tensor:
        """An uninitialised tensor of a shape that is nobody else's until `rest`."""
        count = math.prod(shape)
        fitting = [one for one in self._spare if len(one) >= count and _alike(one, like)]
        found = min(fitting, key=len, default=None)
        if found is None or len(found) > count * 5 // 4:
            room = self.most - _bytes(self._lent) - count * like.element_size()
            self._spare = _within(self._spare, room)
            found = spacious(like, count)
        else:
            self._spare = [one for one in self._spare if one is not found]
        self._lent.append(found)
        return found[:count].view(shape)

    def bound(self, limit: float, most: float) -> None:
        """Set both bounds, and let go of what is beyond them."""
        self.limit, self.most = limit, most
        if _bytes(self._kept.values()) > limit:
            self._kept = {}
        self._spare = _within(self._spare, most)

    def rest(self) -> None:
        """Take back what was lent, and keep at most `RESTING` bytes of all for the next call."""
        self._spare, self._lent = [*self._spare, *self._lent], []
        if _bytes(self._kept.values()) > RESTING:
            self._kept = {}
        self._spare = _within(self._spare, RESTING - _bytes(self._kept.values()))


@contextmanager
def workspace(owner: Any) -> Iterator[Scratch]:
    """The memory that an earlier call for this owner left; two at a time have one each."""
    scratch = _resting.pop(owner, None) or Scratch()
    try:
        yield scratch
    finally:
        scratch.rest()
        _resting[owner] = scratch


@dataclass(eq=False)
class Tiles:
    """A 3x3 convolution of stride 1, computed in tiles; its weights are transformed when needed."""

    weight: Weight
    bias: Float[Tensor, " out"] | None
    kept: dict[Pair, Tensor] = field(default_factory=dict)

    def prices(self) -> tuple[Places, Places, Places, Places, Places]:
        """Of each of the `TILES`: seconds a tile and a round, tiles of a round, once, bytes."""
        out, channels = self.weight.shape[:2]
        points = _POINTS_OF[TILES].prod(1)
        each = points * (PRODUCT * 2 * out * channels + MOVE * (out + channels))
        kept = np.array([tuple(tile) in self.kept for tile in TILES.tolist()])
        once = np.where(kept, 0.0, PREPARE * out * channels * points)
        around = LOAD * 4 * points * out * channels + CALL
        held = points * out * channels * self.weight.element_size()
        return each, around, _most(points, max(out, channels)), once, held

    def bytes(self, tile: Pair) -> int:
        """What the transformed weights of a tile take."""
        return int(_POINTS_OF[list(tile)].prod()) * self.weight[..., 0, 0].nbytes

    def __call__(
        self, rows: Rows, index: Places, size: Pair, tile: Pair, scratch: Scratch
    ) -> Tensor:
        """Boxes of answers of a size, (place, row, column, channel).

        `index` (place, row, column) tells which of the `rows` are the pixels that whole tiles read:
        more than the answers need where the size is no multiple of the tile.
        """
        out, channels = self.weight.shape[:2]
        points = int(_POINTS_OF[list(tile)].prod())
        across = ((index.shape[1] - 2) // tile[0], (index.shape[2] - 2) // tile[1])
        answer = rows.new_empty(len(index), *size, out)
        most = _most(points, max(out, channels))
        each = 4 * (channels + out) * (points + sum(_POINTS_OF[list(tile)]) + tile[0] * tile[1])
        most = int(min(most, scratch.limit / each)) // (across[0] * across[1])
        for part in np.array_split(np.arange(len(index)), -(-len(index) // max(1, most))):
            some = slice(int(part[0]), int(part[-1]) + 1)
            self._some(rows, _cut(index[some], tile, across), tile, answer[some], scratch)
        return answer if self.bias is None else answer.add_(self.bias)

    def _some(
        self, rows: Rows, index: Places, tile: Pair, answer: Tensor, scratch: Scratch
    ) -> None:
        tiles, size = (len(index), *index.shape[1:3]), (answer.shape[1], answer.shape[2])
        numbers = torch.from_numpy(index.transpose(3, 4, 0, 1, 2).reshape(tile[0] + 2, -1))
        made = self._products(rows, numbers, tile, scratch)
        order = _order(tiles, tile, size).to(rows.device)
        torch.index_select(made, 0, order, out=answer.view(-1, answer.shape[-1]))

    def _products(
        self, rows: Rows, numbers: Tensor, tile: Pair, scratch: Scratch
    ) -> Float[Tensor, "answer out"]:
        """From the numbers of (row in tile, column in tile, tile) to the answers, in that order.

        Columns first and last, rows between: what is worked on at a time then fits the caches.
        """
        (after, _, before), (behind, _, beside) = (_matrices(side, rows) for side in tile)
        out, channels = self.weight.shape[:2]
        (tall, high), (wide, left) = before.shape, beside.shape
        tiles = numbers.shape[1] // left
        many, some = tiles * channels, tiles * out
        pixels = scratch(0, rows, left * tiles, channels)
        by_column = scratch(1, rows, high, wide, many)
        for row in range(high):
            torch.index_select(rows, 0, numbers[row], out=pixels)
            torch.mm(beside, pixels.view(left, many), out=by_column[row])
        weights = self._weights(tile, scratch).view(tall, wide, out, channels)
        seen, products = scratch(2, rows, tall, many), scratch(3, rows, tall, some)
        flat = scratch(4, rows, wide, tile[0], some)
        for column in range(wide):
            torch.mm(before, by_column[:, column], out=seen)
            given, taken = seen.view(tall, tiles, channels), products.view(tall, tiles, out)
            if LINEAR is not None and tiles >= _MANY and channels >= _WIDE:
                for row in range(tall):
                    taken[row] = LINEAR(given[row], weights[row, column], None, "none", [], "")
            else:
                torch.bmm(given, weights[:, column].transpose(1, 2), out=taken)
            torch.mm(after, products, out=flat[column])
        made = scratch(1, rows, tile[0], tile[1], some)
        for row in range(tile[0]):
            torch.mm(behind, flat[:, row], out=made[row])
        return made.view(-1, out)

    def _weights(self, tile: Pair, scratch: Scratch) -> Float[Tensor, "point out in"]:
        if tile not in self.kept:
            out, channels = self.weight.shape[:2]
            down, across = (_matrices(side, self.weight)[1] for side in tile)
            whole = self.weight.reshape(-1, 9).t().contiguous().view(3, -1)
            rows = torch.mm(down, whole).view(len(down), 3, -1)
            made = scratch.lend(self.weight, len(down), len(across), out * channels)
            torch.bmm(across.expand(len(down), -1, -1), rows, out=made)
            self.kept[tile] = made.view(-1, out, channels)
        return self.kept[tile]


def spacious(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor. On a CPU in large pages (NumPy asks for them), aligned to 64 bytes.

    Of ordinary pages each costs a fault when it is written first, and that more than the writing.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    size = math.prod(shape) * like.element_size()
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return torch.from_numpy(raw[start : start + size]).view(like.dtype).view(shape)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(one.nbytes for one in tensors)


def _within(tensors: list[Tensor], most: float) -> list[Tensor]:
    """The largest of them that take at most so many bytes together."""
    found: list[Tensor] = []
    for one in sorted(tensors, key=len, reverse=True):
        if _bytes(found) + one.nbytes <= most:
            found.append(one)
    return found


_resting: WeakKeyDictionary[Any, Scratch] = WeakKeyDictionary()


@cache
def transforms(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is done to products, weights and pixels for a tile of `side` answers along an axis.

    Matrices (side, points), (points, 3) and (points, side + 2), by Toom and Cook: values at the
    points, and at infinity; the way back from them transposed.
    """
    real, imaginary = _points(side)
    answers, weights = (_values(real, imaginary, n) for n in (side, 3))
    # The way back: from the remainders of a polynomial by x - point (and x^2 + 1) to itself.
    remainders = _powers(real, side + 2) + (_turns(side + 2) if imaginary else [])
    back = np.array(_inverse(remainders), dtype=float)
    if imaginary:
        # (a + bx)(c + dx) = ac - bd + ((a + b)(c + d) - ac - bd) x modulo x^2 + 1.
        turned = back[:, -2:] @ np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, 1.0]])
        back = np.concatenate([back[:, :-2], turned], 1)
    pixels = back.T
    scale = np.abs(pixels).max(1, keepdims=True)
    after, kernel = (np.array(m, dtype=float) for m in (answers, weights))
    return np.ascontiguousarray(after.T), kernel * scale, pixels / scale


def _points(side: int) -> tuple[list[Fraction], bool]:
    """The real points for a tile, and whether the imaginary ones join."""
    imaginary = side > _REAL
    return [Fraction(p) for p in _POINTS[: side - 1 if imaginary else side + 1]], imaginary


def _values(real: list[Fraction], imaginary: bool, count: int) -> list[list[Fraction]]:
    """At each point, by the coefficients of a polynomial; at i its two parts and their sum."""
    rows = _powers(real, count)
    if imaginary:
        parts = _turns(count)
        rows += [*parts, [a + b for a, b in zip(*parts, strict=True)]]
    return rows


def _turns(count: int) -> list[list[Fraction]]:
    """The powers of i, real and imaginary parts."""
    turn = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    return [[Fraction(turn[power % 4][part]) for power in range(count)] for part in (0, 1)]


def _powers(points: list[Fraction], count: int) -> list[list[Fraction]]:
    infinity = [Fraction(0)] * (count - 1) + [Fraction(1)]
    return [[point**power for power in range(count)] for point in points] + [infinity]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """By elimination, in fractions: rounding here would be seen in every answer."""
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [number / rows[i][i] for number in rows[i]]
        for k in range(size):
            if k != i:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]


def _matrices(side: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    after, kernel, before = (torch.from_numpy(m).to(like) for m in transforms(side))
    return after, kernel, before


def _cut(index: Places, tile: Pair, across: Pair) -> Places:
    """Which rows each tile reads: (place, tile, tile, row in tile, column in tile)."""
    place, row, column = index.strides
    return np.lib.stride_tricks.as_strided(
        index,
        (len(index), *across, tile[0] + 2, tile[1] + 2),
        (place, row * tile[0], column * tile[1], row, column),
    )


@lru_cache(maxsize=256)
def _order(tiles: tuple[int, int, int], tile: Pair, size: Pair) -> Tensor:
    """Where the answers of boxes lie among (row in tile, column in tile, place, tile, tile)."""
    count, height, width = tiles
    laid = torch.arange(tile[0] * tile[1] * count * height * width).view(*tile, *tiles)
    boxes = laid.permute(2, 3, 0, 4, 1).reshape(count, height * tile[0], width * tile[1])
    return boxes[:, : size[0], : size[1]].reshape(-1)


def _most(points: Any, channels: int) -> Any:
    """How many tiles are worked on at a time: more where many weights are brought in for it."""
    return np.maximum(_LEAST, SCRATCH // (4 * points * channels))


# In an order that keeps rounding small; with an eighth real point it would be ten times larger.
_POINTS = (0, -1, 1, Fraction(1, 2), -2, Fraction(-1, 2), 2)
_REAL = 6
_POINTS_OF = np.array([side + (2 if side <= _REAL else 3) for side in range(9)])
_LEAST = 256
_MANY, _WIDE = 100, 400
# oneDNN's product of matrices, a tenth faster than torch's own from so many rows and columns on AMD
# EPYC, and slower below; private, so perhaps not there.
LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
