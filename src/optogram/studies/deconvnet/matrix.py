"""Section 1: the transposed convolution as a matrix, and why it is no inverse."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optogram.core.chance import generator
from optogram.core.matrix import convolution_matrix
from optogram.pictures.colour import signed
from optogram.studies.drawing import Tile, grid
from optogram.studies.found import Claim, Figure, Found

from .bench import Bench

CASES = [
    (kernel, stride, padding)
    for kernel in (1, 2, 3, 5)
    for stride in (1, 2, 3)
    for padding in (0, 1, 2)
    if padding <= kernel // 2
]


def matrix(bench: Bench) -> Found:
    """The seed's 4x16 matrix, its transpose, and the two against torch for many sizes."""
    chance = generator(bench.seed, "deconvnet", "matrix")
    weight = torch.randn(1, 1, 3, 3, generator=chance, dtype=torch.float64)
    c = convolution_matrix(weight, (4, 4))
    off = {"conv2d": 0.0, "conv_transpose2d": 0.0, "adjoint": 0.0}
    for case in CASES:
        off = {name: max(off[name], value) for name, value in _differences(case, chance).items()}
    x = torch.randn(16, generator=chance, dtype=torch.float64)
    back = c.T @ (c @ x)
    ranks = int(torch.linalg.matrix_rank(c)), int(torch.linalg.matrix_rank(c.T @ c))
    best = torch.linalg.pinv(c) @ (c @ x)
    lost = {"transpose": _lost(x, back), "best inverse": _lost(x, best)}
    numbers: dict[str, Any] = {
        "matrix": c.tolist(),
        "shape": list(c.shape),
        "cases": len(CASES),
        "largest_difference": off,
        "rank": ranks[0],
        "share_of_image_lost": lost,
    }
    claims = (
        Claim(
            "A convolution of 4x4 pixels with a 3x3 filter is a 4x16 matrix.",
            f"{c.shape[0]}x{c.shape[1]}, nine numbers other than 0 in each row; for {len(CASES)} "
            f"combinations of kernel, stride and padding it equals conv2d to {off['conv2d']:.0e}",
            "confirmed" if c.shape == (4, 16) and off["conv2d"] < 1e-9 else "opposite",
            "matrix",
        ),
        Claim(
            "The transposed convolution is the transpose of that matrix.",
            f"it equals conv_transpose2d to {off['conv_transpose2d']:.0e} in all {len(CASES)}; "
            f"<Cx, y> - <x, C'y> is at most {off['adjoint']:.0e}",
            "confirmed" if off["conv_transpose2d"] < 1e-9 else "opposite",
            "matrix",
        ),
        Claim(
            "It is kind of the inverse of a convolution.",
            f"C has rank {ranks[0]} of 16: of a random image {lost['best inverse']:.0%} of the "
            "norm "
            f"is beyond any inverse; the transpose is off by {lost['transpose']:.0%}. It is the "
            "adjoint",
            "opposite",
            "matrix",
        ),
    )
    picture = grid(
        [[Tile(_painted(c)), Tile(_painted(c.T)), Tile(_painted(c.T @ c))]],
        heads=["C, 4x16", "its transpose, 16x4", "C'C: not the identity"],
        side=224,
    )
    caption = (
        "A 3x3 filter over 4x4 pixels as a matrix: a row is an answer, a column a pixel, red above "
        "0 and blue below. The transpose sends an answer back to the pixels it saw. Down and up "
        "again (right) would be the diagonal if it were an inverse."
    )
    return Found(numbers, claims, (Figure("matrix", caption, picture),))


def _differences(case: tuple[int, int, int], chance: torch.Generator) -> dict[str, float]:
    kernel, stride, padding = case
    shape = {"generator": chance, "dtype": torch.float64}
    weight = torch.randn(3, 2, kernel, kernel, **shape)  # type: ignore[call-overload]
    x = torch.randn(1, 2, 9, 8, **shape)  # type: ignore[call-overload]
    forward = F.conv2d(x, weight, stride=stride, padding=padding)
    y = torch.randn(forward.shape, **shape)  # type: ignore[call-overload]
    rest = [(n + 2 * padding - kernel) % stride for n in (9, 8)]
    down = F.conv_transpose2d(y, weight, stride=stride, padding=padding, output_padding=rest)
    c = convolution_matrix(weight, (9, 8), stride=stride, padding=padding)
    return {
        "conv2d": float((c @ x.flatten() - forward.flatten()).abs().max()),
        "conv_transpose2d": float((c.T @ y.flatten() - down.flatten()).abs().max()),
        "adjoint": float(((c @ x.flatten()) @ y.flatten() - x.flatten() @ down.flatten()).abs()),
    }


def _lost(x: Tensor, back: Tensor) -> float:
    return float((x - back).norm() / x.norm())


def _painted(values: Tensor) -> Tensor:
    """A matrix in a square, its cells as large as fit."""
    cell = 224 // max(values.shape)
    large = values.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    square = torch.zeros(224, 224, dtype=values.dtype)
    top, left = ((224 - n) // 2 for n in large.shape)
    square[top : top + large.shape[0], left : left + large.shape[1]] = large
    return torch.from_numpy(signed(square)).permute(2, 0, 1).float() / 255
