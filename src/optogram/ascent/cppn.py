"""Painting by formula: a small network that turns each pixel's place into its colour.

A compositional pattern-producing network has no pixels: it can be asked for at any size, and what
it paints is smooth and ornamental (Mordvintsev, Pezzotti, Schubert & Olah, 2018).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optogram.ascent.painted import Images, Parameterization
from optogram.ascent.squashed import Squashed
from optogram.ascent.statistics import Statistics
from optogram.core.chance import Streams
from optogram.core.expression import spoken
from optogram.pictures.errors import RequestError


class CPPN(Squashed):
    """A network of its own for each image, from (row, column) to paint."""

    def __init__(
        self,
        shape: Sequence[int] | None,
        statistics: Statistics | str,
        layers: int,
        width: int,
    ) -> None:
        super().__init__(shape, statistics)
        if layers < 1 or width < 1:
            raise RequestError(f"cppn(layers={layers}, width={width}): at least one of each")
        self.layers, self.width = layers, width

    def lay_out(self, like: Tensor) -> None:
        """Where each pixel is, between -sqrt(3) and sqrt(3): variance 1 along both axes."""
        _, height, width = self.size
        far = math.sqrt(3)
        down = torch.linspace(-far, far, height, dtype=torch.float64)
        right = torch.linspace(-far, far, width, dtype=torch.float64)
        places = torch.stack(torch.meshgrid(down, right, indexing="ij")).flatten(1)
        self.places = places.to(like)

    def draw(self, streams: Streams, like: Tensor) -> None:
        """Normal weights of variance 1/inputs; the last layer starts at 0, which is grey."""
        sizes = [2] + [2 * self.width] * self.layers
        self.weights = nn.ParameterList(
            (streams.normal(f"start {n}", self.width * inputs) / math.sqrt(inputs))
            .view(-1, self.width, inputs)
            .to(like)
            for n, inputs in enumerate(sizes[:-1])
        )
        owners = len(streams.owners)
        self.biases = nn.ParameterList(
            torch.zeros(owners, self.width, 1).to(like) for _ in sizes[:-1]
        )
        self.last = nn.Parameter(torch.zeros(owners, self.size[0], sizes[-1]).to(like))

    def paint(self) -> Images:
        """The answer of each image's network at every place."""
        return torch.stack([self._one(image) for image in range(len(self.last))])

    def _one(self, image: int) -> Tensor:
        """One image by itself: a batched product rounds by the size of the batch."""
        values = self.places
        for weight, bias in zip(self.weights, self.biases, strict=True):
            values = _composite(weight[image] @ values + bias[image])
        return (self.last[image] @ values).view(self.size)


def _composite(values: Tensor) -> Tensor:
    """Both an odd and an even function of each value, about of unit size (lucid's `cppn`)."""
    angle = values.atan()
    return torch.cat([angle / 0.67, angle.square() / 0.6])


@spoken
def cppn(
    shape: Sequence[int] | None = None,
    statistics: Statistics | str = "apart",
    layers: int = 8,
    width: int = 24,
) -> Parameterization:
    """A formula for each image: `layers` layers of `width` units, from place to colour.

    It wants small steps: Adam with lr 0.005 (Mordvintsev et al., 2018).
    """
    return CPPN(shape, statistics, layers, width)
