"""Painting in independent numbers: what mixes them into colours and squashes them into [0, 1]."""

import abc
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent.painted import Images, Parameterization
from optogram.ascent.statistics import Statistics, suited
from optogram.core.chance import Streams
from optogram.pictures.errors import RequestError


class Squashed(Parameterization):
    """The canvas is sigmoid(mixing @ paint), the paint being whatever a subclass makes it."""

    def __init__(
        self, shape: Sequence[int] | None, statistics: Statistics | str, start: Tensor | None = None
    ) -> None:
        super().__init__()
        if shape is not None and (len(shape) != 3 or min(shape) < 2):
            raise RequestError(f"shape={tuple(shape)} should be (channel, height, width)")
        self.shape, self.given, self.start = shape, statistics, start

    def begin(self, shape: tuple[int, ...], streams: Streams, like: Tensor) -> None:
        """Set the start, drawn for each owner or made from an image."""
        channels, height, width = self.shape or shape
        self.size = channels, height, width
        self.statistics = suited(self.given, channels)
        self.mixing = self.statistics.mixing.to(like)
        self.lay_out(like)
        if self.start is None:
            self.draw(streams, like)
            return
        if tuple(self.start.shape) != self.size:
            raise RequestError(
                f"the start is an image {tuple(self.start.shape)}, what is painted {self.size}"
            )
        logits = self.start.double().clamp(1e-3, 1 - 1e-3).logit()[None]
        paint = mixed(logits, torch.linalg.inv(self.statistics.mixing))
        self.cover(paint.expand(len(streams.owners), *self.size), like)

    @abc.abstractmethod
    def lay_out(self, like: Tensor) -> None:
        """Prepare what depends on the size alone."""

    @abc.abstractmethod
    def draw(self, streams: Streams, like: Tensor) -> None:
        """Set the parameters to a random start."""

    def cover(self, paint: Images, like: Tensor) -> None:
        """Set the parameters so that they make this paint. Raises RequestError if they cannot."""
        raise RequestError(f"{self.text} cannot start from an image")

    @abc.abstractmethod
    def paint(self) -> Images:
        """Independent numbers of about unit size."""

    def canvas(self) -> Images:
        """The paint, its colours mixed, squashed into [0, 1]."""
        return mixed(self.paint(), self.mixing).sigmoid()


def mixed(paint: Images, mixing: Float[Tensor, "channel channel"]) -> Images:
    """Each pixel's channels times a matrix, in sums that are the same in any batch."""
    given = paint.unbind(1)
    rows = [sum(share * one for share, one in zip(row, given, strict=True)) for row in mixing]
    return torch.stack(rows, 1)
