"""What may be painted: an image that an ascent can change, and the constraint that it obeys.

A parameterization owns the start and the constraint. `canvas` is the image that regularisers see;
calling it gives the image that the network is shown, which is the same but for the paper's clip.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optogram.ascent.cppn import cppn as cppn
from optogram.ascent.damped import damped as damped
from optogram.ascent.painted import Parameterization as Parameterization
from optogram.ascent.pyramid import pyramid as pyramid
from optogram.ascent.spectral import fourier as fourier
from optogram.ascent.spectral import phases as phases
from optogram.ascent.statistics import Statistics as Statistics
from optogram.ascent.statistics import measured as measured
from optogram.ascent.statistics import statistics as statistics
from optogram.core.chance import Streams
from optogram.core.expression import say, spoken
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]
Start = float | Literal["uniform", "normal"] | Float[Tensor, "*several channel height width"]
Box = Literal["project", "sigmoid", "clip"] | None


# The mean norm over the root of how many numbers an image has: 9.20 for MNIST's 784, measured on
# its first 5,000 digits, and for 500 photographs of ImageNet.
NORMS = (9.20 / 28, 0.517)


class Pixels(Parameterization):
    """Each pixel by itself."""

    def __init__(self, shape: Sequence[int] | None, start: Start, box: Box, scale: float) -> None:
        super().__init__()
        if box not in ("project", "sigmoid", "clip", None):
            raise RequestError(f"box={box!r} should be 'project', 'sigmoid', 'clip' or None")
        self.shape, self.start, self.box, self.scale = shape, start, box, scale
        self.in_range = box is not None

    def begin(self, shape: tuple[int, ...], streams: Streams, like: Tensor) -> None:
        """Set every pixel to the start."""
        image = _start(self.start, tuple(self.shape or shape), streams, self.scale).to(like)
        if self.box == "sigmoid":
            image = image.clamp(1e-3, 1 - 1e-3).logit()
        self.pixels = nn.Parameter(image)

    def canvas(self) -> Images:
        """The pixels; squashed where the box is a sigmoid."""
        return self.pixels.sigmoid() if self.box == "sigmoid" else self.pixels

    def shown(self, canvas: Images) -> Images:
        """The canvas, clipped to [0, 1] where the box is the paper's clip."""
        clipped: Images = _Clip.apply(canvas) if self.box == "clip" else canvas
        return clipped

    def guard(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Without what would push a pixel at an edge of the box outwards."""
        if self.box != "project":
            return gradients
        (gradient,), pixels = gradients, self.pixels
        outwards = ((pixels <= 0) & (gradient < 0)) | ((pixels >= 1) & (gradient > 0))
        return (gradient.masked_fill(outwards, 0.0),)

    def settle(self) -> None:
        """Project onto [0, 1], where that is the box."""
        if self.box == "project":
            self.pixels.data.clamp_(0, 1)


class Sphere(Parameterization):
    """Each image on a sphere of fixed L2 norm: after every step x becomes rho * x / |x|."""

    in_range = False

    def __init__(self, rho: float | None, start: Start, scale: float, about: float | None) -> None:
        super().__init__()
        if rho is not None and not rho > 0:
            raise RequestError(f"sphere(rho={rho}): the norm is positive")
        self.rho, self.start, self.scale, self.about = rho, start, scale, about

    def fitted(self, records: Mapping[str, Tensor]) -> "Sphere":
        """With what was left open as a network's data have it, by its records, where it has any."""
        norm, centre = records.get("data.mean_norm"), records.get("data.centre")
        rho = float(norm) if self.rho is None and norm is not None else self.rho
        about = float(centre) if self.about is None and centre is not None else self.about
        return Sphere(rho, self.start, self.scale, about)

    def begin(self, shape: tuple[int, ...], streams: Streams, like: Tensor) -> None:
        """Set the start and put it on the sphere."""
        self.radius = self.rho or NORMS[shape[0] > 1] * (shape[0] * shape[1] * shape[2]) ** 0.5
        self.pixels = nn.Parameter(_start(self.start, shape, streams, self.scale).to(like))
        self.settle()

    def canvas(self) -> Images:
        """The points on the sphere."""
        return self.pixels

    def display(self, images: Images) -> Images:
        """Grey at the centre, white and black where the image is farthest from it."""
        away = images - (self.about or 0.0)
        return (
            0.5 + 0.5 * away / away.abs().flatten(1).amax(1).clamp(min=1e-30)[:, None, None, None]
        )

    def settle(self) -> None:
        """Put every image back on the sphere."""
        centre = self.about or 0.0
        away = self.pixels.data.sub_(centre) if centre else self.pixels.data
        lengths = away.square().sum(-1).sum(-1).sum(-1).sqrt()
        away.mul_((self.radius / lengths.clamp(min=1e-30))[:, None, None, None])
        self.pixels.data.add_(centre)


@spoken
def pixels(
    shape: Sequence[int] | None = None,
    start: Start = 0.01,
    box: Box = "project",
    scale: float = 0.1,
) -> Parameterization:
    """Each pixel by itself, in [0, 1].

    Args:
        shape: (channel, height, width); by default the network's.
        start: one value for all pixels (0.01 as in the MNIST study: at exactly 0 the gradients of
            L1 and TV vanish), "uniform" noise in [0, 1), "normal" noise around 0.5 with deviation
            `scale`, an image (channel, height, width), or one for each image that climbs.
        box: "project" moves pixels back after each step and follows gradients that point inwards;
            "sigmoid" squashes; "clip" is the MNIST study's numpy.clip: the network sees the clipped
            image, pixels outside have no gradient from it, while regularisers act on the raw image;
            None has no box.
        scale: deviation of "normal" noise.
    """
    return Pixels(shape, start, box, scale)


@spoken
def sphere(
    rho: float | None = None,
    start: Start = "uniform",
    scale: float = 0.1,
    about: float | None = None,
) -> Parameterization:
    """Images of a fixed L2 norm `rho` (Erhan et al., 2009): no box, renormalised after every step.

    `rho` is usually the mean norm of the data; without it `maximize` takes the one in the network's
    records, and where there is none, that of MNIST's digits for one channel and of ImageNet's
    photographs for more, at the image's size. The centre is a grey, `about`, which is 0 unless the
    records know another. The start is U[0, 1) a pixel, as in the report.
    """
    return Sphere(rho, start, scale, about)


class _Clip(torch.autograd.Function):
    """numpy.clip with the derivative of the MNIST study: 1 inside, 0 at the bounds and beyond."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        ctx.save_for_backward(image)
        return image.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (image,) = ctx.saved_tensors
        return gradients[0] * ((image > 0) & (image < 1))


def _start(start: Start, shape: tuple[int, ...], streams: Streams, scale: float) -> Images:
    count = len(streams.owners)
    if isinstance(start, Tensor):
        if tuple(start.shape) not in (shape, (count, *shape)):
            raise RequestError(
                f"the start is {tuple(start.shape)}; it is an image {shape}, or {count} of them"
            )
        return start.expand(count, *shape).clone()
    size = shape[0] * shape[1] * shape[2]
    if start == "uniform":
        return streams.uniform("start", size).view(count, *shape)
    if start == "normal":
        return 0.5 + scale * streams.normal("start", size).view(count, *shape)
    if isinstance(start, int | float):
        return torch.full((count, *shape), float(start), dtype=torch.float64)
    raise RequestError(f"start={say(start)} should be a number, 'uniform', 'normal' or an image")
