"""What results do to the tensors they are given: detached, on the CPU, float32, their own."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import RequestError

SLACK = 1e-4


def own(values: Any, dtype: torch.dtype | None = torch.float32) -> Tensor:
    """A copy on the CPU without gradient, which nobody else can write into."""
    return torch.as_tensor(values).detach().to("cpu", dtype, copy=True).contiguous()


def own_image(image: Any) -> Tensor:
    """An image of our own, (channel, height, width) in [0, 1]; what lies a hair outside is clipped.

    Raises:
        RequestError: it has other axes, or values that lie outside [0, 1] or are no numbers.
    """
    image = own(image)
    if image.ndim != 3 or image.numel() == 0:
        raise RequestError(
            f"an image has the shape (channel, height, width); this one has {tuple(image.shape)}"
        )
    low, high = float(image.amin()), float(image.amax())
    if not (low >= -SLACK and high <= 1 + SLACK):  # so written, NaN is refused too
        raise RequestError(
            f"an image has values in [0, 1]; this one goes from {low:.4g} to {high:.4g}: "
            "give what the network was really shown as `raw`"
        )
    return image.clamp_(0, 1)


def settle(result: Any, **fields: Any) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)


def number(value: Any) -> float | None:
    """A float from whatever holds one number, or None."""
    return None if value is None else float(value)


def shape_text(image: Tensor) -> str:
    """`28x28 grey` or `224x224 colour`: height x width, as people say it."""
    kind = {1: "grey", 3: "colour"}.get(image.shape[0], f"of {image.shape[0]} channels")
    return f"{image.shape[1]}x{image.shape[2]} {kind}"


def plain(value: Any) -> Any:
    """The same as JSON values: a float that is no finite number becomes null, a tensor a list."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
