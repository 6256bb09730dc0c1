"""A convolution written out as a matrix: y = C x, and down again x' = C^T y.

That the transposed convolution is C^T is all that its name says (Dumoulin & Visin, 2016, section
4). It is the adjoint, <C x, y> = <x, C^T y>, and no inverse: C^T C is not the identity, and where C
has fewer rows than columns no matrix could bring back what it dropped.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.pictures.errors import RequestError

Pair = int | tuple[int, int]


def convolution_matrix(
    weight: Float[Tensor, "outputs inputs rows columns"],
    size: tuple[int, int],
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Float[Tensor, "answers numbers"]:
    """The matrix of a convolution of maps of one size, in the order of channel, row, column.

    `C @ x.flatten()` is `conv2d(x, weight).flatten()`, `C.T @ y.flatten()` is
    `conv_transpose2d(y, weight).flatten()` (where the stride leaves pixels over at the lower and
    right edge that no answer sees, `conv_transpose2d` needs `output_padding` to give them, as
    zeros). A 3x3 filter over 4x4 pixels makes a 4x16 matrix.

    Args:
        weight: (output channels, input channels / groups, rows, columns), as torch's.
        size: height and width of the maps that come in.
        stride, padding, dilation: a number, or one for rows and one for columns.
        groups: as torch's.

    Returns:
        (output channels * their places, input channels * height * width), of the weight's dtype.

    Raises RequestError for sizes that leave no answer.
    """
    outputs, share, rows, columns = weight.shape
    height, width = size
    (up, left), (down, right), (far, wide) = (_pair(x) for x in (padding, stride, dilation))
    tall = (height + 2 * up - far * (rows - 1) - 1) // down + 1
    broad = (width + 2 * left - wide * (columns - 1) - 1) // right + 1
    if tall < 1 or broad < 1 or min(down, right, far, wide, groups) < 1 or outputs % groups:
        raise RequestError(
            f"a {rows}x{columns} filter over {height}x{width} with stride {stride}, padding "
            f"{padding}, dilation {dilation} and {groups} group(s) has no answer"
        )
    out, into, i, j, y, x = torch.meshgrid(
        *(torch.arange(n) for n in (outputs, share, rows, columns, tall, broad)), indexing="ij"
    )
    row, column = y * down - up + i * far, x * right - left + j * wide
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    channel = into + (out // (outputs // groups)) * share
    answer = (out * tall + y) * broad + x
    number = (channel * height + row) * width + column
    matrix = weight.new_zeros(outputs * tall * broad, share * groups * height * width)
    matrix[answer[inside], number[inside]] = weight.detach()[..., None, None].expand(out.shape)[
        inside
    ]
    return matrix


def _pair(number: Pair) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else number
