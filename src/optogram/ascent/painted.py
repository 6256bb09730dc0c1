"""What is painted during an ascent: an image that can change, and the constraint that it obeys."""

import abc
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.chance import Streams

Images = Float[Tensor, "batch channel height width"]


class Parameterization(nn.Module, abc.ABC):
    """An image under construction, one for each owner of a random stream.

    An ascent calls `begin`, then by turns itself (the image to show), `guard` (what of a gradient
    to follow) and `settle` (bring the parameters back to where they may be). No image depends on
    another.
    """

    text: str = "parameterization()"
    # Whether the images are in [0, 1]; on a norm sphere, and without a box, they need not be.
    in_range: bool = True

    @abc.abstractmethod
    def begin(self, shape: tuple[int, ...], streams: Streams, like: Tensor) -> None:
        """Set the start: `shape` is (channel, height, width), `like` has device and dtype."""

    @abc.abstractmethod
    def canvas(self) -> Images:
        """The image as it is painted, which regularisers are asked about."""

    def shown(self, canvas: Images) -> Images:
        """The image that the network is shown where this is the canvas."""
        return canvas

    def forward(self) -> Images:
        """The image as the network is shown it."""
        return self.shown(self.canvas())

    def display(self, images: Images) -> Images:
        """What was shown as something to look at, in [0, 1]."""
        return images if self.in_range else images.clamp(0, 1)

    def guard(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The part of the parameters' gradients that does not lead out of the constraint."""
        return gradients

    def settle(self) -> None:
        """Bring the parameters back into the constraint after a step."""
