"""What images of a data set look like before any network sees them: priors measured, not tabulated.

Tools for making pictures carry constants of ImageNet: a colour matrix, a spectrum, a norm. Here
they are measured on the user's own images in one pass, for any number of channels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from optogram.core import progress
from optogram.pictures.errors import RequestError
from optogram.survey.run import as_images

FLOOR = 1e-8
"""The least variance of a colour axis, so that equal channels still have a whitening matrix."""


@dataclass(frozen=True, eq=False)
class Priors:
    """What was measured on `images` images.

    Attributes:
        images: how many.
        mean_norm: the mean L2 norm of an image, the radius of Erhan et al. (2009).
        mean_image: (channel, height, width).
        covariance: of the channels over all pixels, (channel, channel), about `mean_colour`.
        spectrum: the mean magnitude of each spatial frequency, (channel, height, width // 2 + 1),
            as `torch.fft.rfft2(image, norm="ortho")` orders them.
    """

    images: int
    mean_norm: float
    mean_image: Float[Tensor, "channel height width"]
    covariance: Float[Tensor, "channel channel"]
    spectrum: Float[Tensor, "channel height half_width"]

    @property
    def mean_colour(self) -> Float[Tensor, " channel"]:
        """The mean of each channel."""
        return self.mean_image.mean((1, 2))

    @property
    def colour_matrix(self) -> Float[Tensor, "channel channel"]:
        """Turns independent colours of variance 1 into colours as in the data: M M^T = covariance.

        It is U sqrt(S) of the covariance's eigenvectors, as lucid's, the largest first, each with
        the sign that makes its largest number positive.
        """
        values, vectors = torch.linalg.eigh(self.covariance.double())
        matrix = (vectors * values.clamp(min=FLOOR).sqrt()).flip(1)
        top = matrix.gather(0, matrix.abs().argmax(0, keepdim=True))
        return (matrix * top.sign()).float()


def priors(dataset: Any, *, shape: tuple[int, int, int] | None = None, batch: int = 64) -> Priors:
    """Measure the priors of a data set in one pass.

    Args:
        dataset: what `optogram.survey` takes.
        shape: (channel, height, width) to fit the images to; needed where they differ in size.
        batch: how many images are looked at together.

    Raises RequestError where there is no image, or they differ in size and no shape was given.
    """
    images = as_images(dataset)
    images = images if shape is None else images.fitted(shape)
    seen, norm = 0, 0.0
    total = spectrum = products = torch.zeros((), dtype=torch.float64)
    for _, shown, _ in images.batches(batch):
        wide = shown.double()
        norm += float(wide.flatten(1).norm(dim=1).sum())
        total = total + wide.sum(0)
        products = products + _products(wide)
        spectrum = spectrum + torch.fft.rfft2(wide, norm="ortho").abs().sum(0)
        seen += len(shown)
        progress.tell("priors", seen, len(images))
    if not seen:
        raise RequestError(
            f"{images.name} has no image that can be read; give a data set with some"
        )
    colour = total.mean((1, 2)) / seen
    covariance = products / (seen * total[0].numel()) - torch.outer(colour, colour)
    mean = total / seen
    return Priors(seen, norm / seen, mean.float(), covariance.float(), (spectrum / seen).float())


def _products(
    images: Float64[Tensor, "batch channel height width"],
) -> Float64[Tensor, "channel channel"]:
    pixels = images.transpose(0, 1).flatten(1)
    return pixels @ pixels.T
