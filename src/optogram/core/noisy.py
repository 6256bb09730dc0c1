"""Gradients at noisy copies of an image: their mean and their variance, sample by sample."""

from collections.abc import Iterator

import torch
from torch import Tensor

from optogram.core import progress
from optogram.core.activations import PerImage
from optogram.core.chance import Streams
from optogram.core.maps import Asked, Images, gradients
from optogram.pictures.errors import RequestError


def noisy_gradients(
    request: Asked, noise: float, samples: int, seed: int, batch: int
) -> tuple[PerImage, Images, Images]:
    """The target's values, and mean and variance (population) of its gradient under noise.

    Noise is Gaussian, its standard deviation `noise` times the image's range (max - min); sample i
    of a target's noise depends on seed, target and i alone.

    Raises RequestError for fewer than 1 sample or negative noise.
    """
    if samples < 1 or noise < 0:
        raise RequestError(
            f"samples={samples}, noise={noise}: at least 1 sample and no negative noise"
        )
    parts = [_moments(part, noise, samples, seed) for part in request.parts(batch)]
    means, variances = (torch.cat(some) for some in zip(*parts, strict=True))
    return request.values(), means, variances


def _moments(request: Asked, noise: float, samples: int, seed: int) -> tuple[Images, Images]:
    total = torch.zeros_like(request.images, dtype=torch.float64)
    squares = torch.zeros_like(total)
    for i, noisy in enumerate(_noisy(request, noise, samples, seed)):
        _, slopes = gradients(Asked(request.network, noisy, request.targets, request.score, True))
        total += slopes
        squares += slopes.double().square()
        progress.tell("noisy gradients", i + 1, samples)
    mean = total / samples
    variance = (squares / samples - mean.square()).clamp(min=0)
    return mean.to(request.images), variance.to(request.images)


def _noisy(request: Asked, noise: float, samples: int, seed: int) -> Iterator[Tensor]:
    images = request.images
    flat = images.flatten(1)
    scale = noise * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
    streams = Streams(seed, tuple(str(target) for target in request.targets))
    for i in range(samples):
        drawn = streams.normal("noise", flat.shape[1], i).to(images)
        yield images + scale * drawn.view_as(images)
