"""Convolutions of 3x3 pixels with fewer multiplications (Lavin & Gray, 2016, minimal filtering).

A tile of n answers along an axis is read from n + 2 pixels; seen as polynomials at n + 2 points,
the window is one product a point instead of 3n. In both axes a tile of 4x4 takes 36 products for
144. The answers are those of the plain sum but for rounding (of single precision; tests bound it).
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

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
PRODUCT, MOVE, LOAD, PREPARE, CALL = 1.06e-11, 1.1e-9, 1.0e-10, 5e-9, 100e-6
TILES = np.array([(rows, columns) for rows in range(2, 7) for columns in range(2, 7)])
SCRATCH = 5e6  # bytes of transformed pixels at a time: what the caches hold


@dataclass(eq=False)
class Tiles:
    """A 3x3 convolution of stride 1, computed in tiles; its weights are transformed when needed."""

    weight: Weight
    bias: Float[Tensor, " out"] | None
    kept: dict[Pair, Tensor] = field(default_factory=dict)

    def seconds(self, counts: Places, rows: Places, columns: Places) -> Places:
        """What boxes of answers cost with each of the `TILES`: (tile, *counts.shape).

        So many boxes of so many rows and columns each, in arrays that broadcast.
        """
        out, channels = self.weight.shape[:2]
        tall, wide = (side.reshape(-1, *[1] * np.ndim(counts)) for side in TILES.T)
        points = (tall + 2) * (wide + 2)
        tiles = counts * -(-rows // tall) * -(-columns // wide)
        rounds = np.ceil(tiles / _most(points, max(out, channels)))
        seconds: Places = (
            PRODUCT * 2 * points * tiles * out * channels
            + MOVE * points * tiles * (out + channels)
            + rounds * (LOAD * 4 * points * out * channels + CALL)
        )
        return seconds

    def preparing(self) -> Places:
        """What transforming the weights for each of the `TILES` costs."""
        out, channels = self.weight.shape[:2]
        kept = np.array([tuple(tile) in self.kept for tile in TILES.tolist()])
        return np.where(kept, 0.0, PREPARE * out * channels * (TILES + 2).prod(1))

    def __call__(self, rows: Rows, index: Places, size: Pair, tile: Pair) -> Tensor:
        """Boxes of answers of a size, (place, row, column, channel).

        `index` (place, row, column) tells which of the `rows` are the pixels that whole tiles read:
        more than the answers need where the size is no multiple of the tile.
        """
        out, channels = self.weight.shape[:2]
        points = (tile[0] + 2) * (tile[1] + 2)
        across = ((index.shape[1] - 2) // tile[0], (index.shape[2] - 2) // tile[1])
        answer = rows.new_empty(len(index), *size, out)
        most = int(_most(points, max(out, channels))) // (across[0] * across[1])
        for part in np.array_split(np.arange(len(index)), -(-len(index) // max(1, most))):
            some = slice(int(part[0]), int(part[-1]) + 1)
            self._some(rows, _cut(index[some], tile, across), tile, answer[some])
        return answer if self.bias is None else answer.add_(self.bias)

    def _some(self, rows: Rows, index: Places, tile: Pair, answer: Tensor) -> None:
        tiles, size = (len(index), *index.shape[1:3]), (answer.shape[1], answer.shape[2])
        numbers = torch.from_numpy(index.transpose(3, 4, 0, 1, 2).reshape(-1)).to(rows.device)
        made = self._products(rows.index_select(0, numbers), int(np.prod(tiles)), tile)
        order = _order(tiles, tile, size).to(rows.device)
        torch.index_select(made, 0, order, out=answer.view(-1, answer.shape[-1]))

    def _products(self, pixels: Rows, tiles: int, tile: Pair) -> Float[Tensor, "answer out"]:
        """From (row in tile, column in tile, tile) to the same, overwriting the pixels."""
        (after, _, before), (behind, _, beside) = (_matrices(side, pixels) for side in tile)
        (out, channels), (top, left) = self.weight.shape[:2], (len(before), len(beside))
        tall = (before @ pixels.view(top, -1)).view(top, left, -1)
        seen = torch.bmm(beside.expand(top, -1, -1), tall, out=pixels.view(tall.shape))
        products = seen.view(-1, tiles, channels) @ self._weights(tile).transpose(1, 2)
        flat = (after @ products.view(top, -1)).view(tile[0], left, -1)
        return (behind.expand(tile[0], -1, -1) @ flat).view(-1, out)

    def _weights(self, tile: Pair) -> Float[Tensor, "point out in"]:
        if tile not in self.kept:
            out, channels = self.weight.shape[:2]
            both = np.kron(*(transforms(side)[1] for side in tile))
            made = torch.from_numpy(both).to(self.weight) @ self.weight.reshape(-1, 9).t()
            self.kept[tile] = made.view(-1, out, channels)
        return self.kept[tile]


@cache
def transforms(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is done to products, weights and pixels for a tile of `side` answers along an axis.

    Matrices (side, side + 2), (side + 2, 3) and (side + 2, side + 2), by Toom and Cook: values at
    the points, and at infinity; the way back from them transposed.
    """
    points = [Fraction(p) for p in _POINTS[: side + 1]]
    answers, weights, back = (_powers(points, n) for n in (side, 3, side + 2))
    pixels = np.array(_inverse(back), dtype=float).T
    scale = np.abs(pixels).max(1, keepdims=True)
    after, kernel = (np.array(m, dtype=float) for m in (answers, weights))
    return np.ascontiguousarray(after.T), kernel * scale, pixels / scale


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


# In an order that keeps rounding small; with a seventh side it would be ten times larger.
_POINTS = (0, -1, 1, Fraction(1, 2), -2, Fraction(-1, 2), 2)
_LEAST = 128
