"""Painting at several sizes at once: a Laplacian pyramid, coarse layers over fine ones."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from optogram.ascent.painted import Images, Parameterization
from optogram.ascent.squashed import Squashed
from optogram.ascent.statistics import Statistics
from optogram.core.chance import Streams
from optogram.core.expression import spoken
from optogram.pictures.errors import RequestError


class Pyramid(Squashed):
    """The sum of images of 1, 1/2, 1/4 ... of the size, each enlarged bilinearly."""

    def __init__(
        self,
        shape: Sequence[int] | None,
        statistics: Statistics | str,
        levels: int,
        deviation: float,
        start: Float[Tensor, "channel height width"] | None,
    ) -> None:
        super().__init__(shape, statistics, start)
        if levels < 1:
            raise RequestError(f"pyramid(levels={levels}): at least one")
        self.levels, self.deviation = levels, deviation

    def lay_out(self, like: Tensor) -> None:
        """The size of each level, at least a pixel."""
        channels, height, width = self.size
        self.sizes = [
            (channels, max(1, height >> n), max(1, width >> n)) for n in range(self.levels)
        ]

    def draw(self, streams: Streams, like: Tensor) -> None:
        """Normal numbers at every level."""
        self.layers = nn.ParameterList(
            self.deviation * streams.normal(f"start {n}", c * h * w).view(-1, c, h, w).to(like)
            for n, (c, h, w) in enumerate(self.sizes)
        )

    def cover(self, paint: Images, like: Tensor) -> None:
        """The paint at full size, the coarser levels empty."""
        empty = [torch.zeros(len(paint), *size).to(like) for size in self.sizes[1:]]
        self.layers = nn.ParameterList([paint.to(like).contiguous(), *empty])

    def paint(self) -> Images:
        """All levels at full size, added up."""
        total = self.layers[0]
        for layer in list(self.layers)[1:]:
            total = total + F.interpolate(layer, self.size[1:], mode="bilinear")
        return total


@spoken
def pyramid(
    shape: Sequence[int] | None = None,
    statistics: Statistics | str = "auto",
    levels: int = 4,
    deviation: float = 0.01,
    start: Float[Tensor, "channel height width"] | None = None,
) -> Parameterization:
    """A Laplacian pyramid of `levels` sizes, each half the one before (lucid).

    The other arguments as for `fourier`; `start` is painted at the finest level.
    """
    return Pyramid(shape, statistics, levels, deviation, start)
