"""L-BFGS for a batch of images that know nothing of each other, one evaluation a step."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optogram.core.activations import PerImage
from optogram.core.objective import image_sum

HISTORY = 10
LEAST_CURVATURE = 1e-10


class LBFGS(torch.optim.Optimizer):
    """Limited-memory BFGS (Nocedal, 1980), as torch's without a line search, each image by itself.

    A step is `lr` times the quasi-Newton direction of the last `HISTORY` steps; the first is the
    gradient, no longer than 1 in the sum of all numbers. What a constraint did to the images after
    a step counts as part of that step. Only ascends.
    """

    def __init__(self, params: Sequence[Tensor], lr: float, maximize: bool = True) -> None:
        super().__init__(params, {"lr": lr, "maximize": maximize})
        self._pairs: deque[tuple[list[Tensor], list[Tensor], PerImage]] = deque(maxlen=HISTORY)
        self._before: tuple[list[Tensor], list[Tensor]] | None = None
        self._scale: PerImage | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every image along its own direction."""
        group = self.param_groups[0]
        images = [p for p in group["params"] if p.grad is not None]
        slopes = [-p.grad for p in images]  # of what falls
        length: Tensor | float = 1.0
        if self._before is None or self._scale is None:
            total = _added([image_sum(s.abs()) for s in slopes])
            self._scale = torch.ones_like(total)
            length = (1 / total.clamp(min=1e-30)).clamp(max=1)
        else:
            self._learn(images, slopes)
        way = self._direction(slopes)
        self._before = [p.detach().clone() for p in images], slopes
        for image, direction in zip(images, way, strict=True):
            image.add_(_spread(group["lr"] * length, direction) * direction)

    def _learn(self, images: list[Any], slopes: list[Tensor]) -> None:
        assert self._before is not None
        assert self._scale is not None
        moved = [image - old for image, old in zip(images, self._before[0], strict=True)]
        bent = [slope - old for slope, old in zip(slopes, self._before[1], strict=True)]
        curvature = _dot(moved, bent)
        good = curvature > LEAST_CURVATURE
        # An image whose curvature was not positive has learnt nothing; others of its batch may.
        share = torch.where(good, 1 / torch.where(good, curvature, 1), 0)
        self._pairs.append((moved, bent, share))
        size = curvature / _dot(bent, bent).clamp(min=1e-30)
        self._scale = torch.where(good, size, self._scale)

    def _direction(self, slopes: list[Tensor]) -> list[Tensor]:
        assert self._scale is not None
        way = [-slope for slope in slopes]
        weights = []
        for moved, bent, share in reversed(self._pairs):
            weights.append(share * _dot(moved, way))
            way = _plus(way, -weights[-1], bent)
        way = [_spread(self._scale, one) * one for one in way]
        for (moved, bent, share), weight in zip(self._pairs, reversed(weights), strict=True):
            way = _plus(way, weight - share * _dot(bent, way), moved)
        return way


def _dot(one: list[Tensor], other: list[Tensor]) -> PerImage:
    return _added([image_sum(a * b) for a, b in zip(one, other, strict=True)])


def _added(parts: list[PerImage]) -> PerImage:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _plus(one: list[Tensor], share: PerImage, other: list[Tensor]) -> list[Tensor]:
    return [a + _spread(share, b) * b for a, b in zip(one, other, strict=True)]


def _spread(values: PerImage | float, like: Tensor) -> Tensor:
    """A number for each image, in a shape that multiplies images."""
    return torch.as_tensor(values).to(like).reshape(-1, *[1] * (like.dim() - 1))
