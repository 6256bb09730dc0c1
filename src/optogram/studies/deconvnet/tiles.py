"""What the study's pictures share: pale surroundings, and contrast that a projection can bear."""

import torch
from jaxtyping import Float
from torch import Tensor

PALE = 0.92


def squared(
    image: Float[Tensor, "channel height width"], size: int | None = None
) -> Float[Tensor, "3 size size"]:
    """An image in the middle of a pale square, by default as large as its longer side."""
    height, width = image.shape[-2:]
    size = size or max(height, width)
    square = torch.full((3, size, size), PALE)
    top, left = (size - height) // 2, (size - width) // 2
    square[:, top : top + height, left : left + width] = image
    return square


def enhanced(raw: Tensor) -> Tensor:
    """A projection around grey, its largest hundredth at full contrast."""
    parts = raw[raw != 0].abs()
    size = float(parts.quantile(0.99)) if len(parts) else 1.0
    return (0.5 + 0.5 * raw / size).clamp(0, 1)
