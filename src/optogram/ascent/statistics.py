"""What photographs are like before any network sees them: their colours and their spectrum.

A parameterization paints in numbers that are independent of each other; these statistics turn them
into colours and frequencies as the data have them. ImageNet's are built in, yours are measured.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.expression import spoken
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]
FLOOR = 1e-8  # the least variance of a colour axis, where channels are equal


@dataclass(frozen=True)
class Statistics:
    """How the channels of images go together, and how strong each spatial frequency is.

    Attributes:
        colours: a matrix M, (channel, channel) nested: M @ (independent numbers of variance 1) has
            the data's covariance, so M M^T is that covariance.
        profile: rows (frequency, one magnitude a channel), frequency in cycles a pixel, the mean
            magnitude of the orthonormal Fourier coefficients of M^-1 (image - mean colour).
    """

    colours: tuple[tuple[float, ...], ...]
    profile: tuple[tuple[float, ...], ...]
    text: str = ""

    @property
    def channels(self) -> int:
        """How many channels."""
        return len(self.colours)

    @cached_property
    def mixing(self) -> Float[Tensor, "channel channel"]:
        """`colours` over the length of its longest column, float64 (Olah et al., 2017)."""
        matrix = torch.tensor(self.colours, dtype=torch.float64)
        return matrix / matrix.norm(dim=0).max()

    def spectrum(self, height: int, width: int) -> Float[Tensor, "channel height half_width"]:
        """The magnitude of every frequency of an image of that size, as `rfft2` orders them.

        Straight lines between the profile's rows in logarithms of both; the constant part is 0.
        """
        rows = torch.tensor(self.profile, dtype=torch.float64).log()
        wanted = frequencies(height, width).clamp(min=1e-9).log()
        spots = torch.searchsorted(rows[:, 0].contiguous(), wanted.contiguous())
        right = spots.clamp(1, len(rows) - 1)
        left = right - 1
        share = (wanted - rows[left, 0]) / (rows[right, 0] - rows[left, 0])
        values = rows[left, 1:] + share[..., None] * (rows[right, 1:] - rows[left, 1:])
        magnitudes = values.exp().movedim(-1, 0)
        magnitudes[:, 0, 0] = 0
        return magnitudes


@spoken
def statistics(
    colours: Sequence[Sequence[float]],
    profile: Sequence[Sequence[float]] = ((0.01, 1), (0.5, 0.02)),
) -> Statistics:
    """Statistics written out, as `measured` prints them; the default profile is 1/f."""
    rows = [tuple(map(float, row)) for row in profile]
    made = tuple(tuple(map(float, row)) for row in colours)
    count = len(made)
    if not count or any(len(row) != count for row in made):
        raise RequestError(f"colours={colours} should be a square matrix, a row for each channel")
    if len(rows) > 1 and all(len(row) == 2 for row in rows) and count > 1:
        rows = [(row[0], *([row[1]] * count)) for row in rows]
    ordered = all(one[0] < other[0] for one, other in itertools.pairwise(rows))
    if len(rows) < 2 or not ordered or any(len(r) != count + 1 or min(r) <= 0 for r in rows):
        raise RequestError(
            f"the profile should have rows (frequency, {count} magnitudes), all above 0 and the "
            f"frequencies growing"
        )
    if torch.linalg.matrix_rank(torch.tensor(made, dtype=torch.float64)) < count:
        raise RequestError(f"colours={colours} mixes channels in a way that cannot be undone")
    return Statistics(made, tuple(rows))


def measured(images: Iterable[Any], bins: int = 16) -> Statistics:
    """The statistics of your own images, of any number of channels.

    `images` are tensors (channel, height, width) of one size in [0, 1], or pairs that start with
    one, or one batch; they are gone through twice. The result prints as `statistics(...)` with its
    numbers, so a recipe that holds it needs no data.

    Raises RequestError where there is nothing to measure.
    """
    count, total, products, pixels = 0, torch.zeros(()), torch.zeros(()), 1
    for image in _each(images):
        count += 1
        flat = image.flatten(1)
        pixels = flat.shape[1]
        total = total + flat.sum(1)
        products = products + flat @ flat.T
    if not count or pixels < 4:
        raise RequestError("there are no images to measure: give at least one of 2x2 pixels")
    mean = total / (count * pixels)
    matrix = root(products / (count * pixels) - torch.outer(mean, mean))
    undo, sums = torch.linalg.inv(matrix), torch.zeros(())
    for image in _each(images):
        plain = (undo @ (image.flatten(1) - mean[:, None])).view(image.shape)
        sums = sums + torch.fft.rfft2(plain, norm="ortho").abs()
    magnitudes, found = sums / count, []
    wanted = frequencies(*image.shape[-2:])
    edges = torch.logspace(
        math.log10(float(wanted[wanted > 0].min()) * 0.999), math.log10(0.7072), bins + 1
    )
    for low, high in itertools.pairwise(edges):
        inside = (wanted >= low) & (wanted < high)
        if bool(inside.any()):
            values = magnitudes[:, inside].mean(1).clamp(min=1e-6).tolist()
            found.append([float(wanted[inside].log().mean().exp()), *values])
    rounded = [[float(f"{number:.5g}") for number in row] for row in found]
    return statistics([[float(f"{n:.6g}") for n in row] for row in matrix.tolist()], rounded)


def root(covariance: Float[Tensor, "channel channel"]) -> Float[Tensor, "channel channel"]:
    """A matrix M with M M^T = covariance: its axes, the widest first, each times its deviation.

    Each axis has the sign that makes its largest number positive.
    """
    values, axes = torch.linalg.eigh(covariance)
    matrix = (axes * values.clamp(min=FLOOR).sqrt()).flip(1)
    top = matrix.gather(0, matrix.abs().argmax(0, keepdim=True))
    return matrix * torch.where(top < 0, -1.0, 1.0)


def frequencies(height: int, width: int) -> Float[Tensor, "height half_width"]:
    """How many cycles a pixel each coefficient of `rfft2` stands for, float64."""
    down = torch.fft.fftfreq(height, dtype=torch.float64)
    return (down[:, None].square() + torch.fft.rfftfreq(width, dtype=torch.float64).square()).sqrt()


def suited(given: Statistics | str, channels: int) -> Statistics:
    """The statistics to paint so many channels with; "auto" is ImageNet's for three.

    For other numbers of channels "auto" keeps them apart, with the brightness's spectrum.
    """
    if isinstance(given, Statistics):
        if given.channels != channels:
            raise RequestError(
                f"the statistics have {given.channels} channel(s), the images {channels}"
            )
        return given
    if given not in ("auto", "apart"):
        raise RequestError(f"statistics={given!r} should be 'auto', 'apart' or statistics(...)")
    if channels == 3 and given == "auto":
        return IMAGENET
    apart = tuple(tuple(float(i == j) for j in range(channels)) for i in range(channels))
    return Statistics(apart, tuple((row[0], *([row[1]] * channels)) for row in IMAGENET.profile))


def _each(images: Iterable[Any]) -> Iterable[Float[Tensor, "channel height width"]]:
    size: Any = None
    for item in images:
        image = (item[0] if isinstance(item, tuple | list) else item).double()
        if size is not None and image.shape != size:
            raise RequestError(
                f"the images differ in size, {tuple(size)} and {tuple(image.shape)}: fit them first"
            )
        size = image.shape
        yield image


# Colours: lucid's matrix (Olah et al., 2017), in its code `color_correlation_svd_sqrt`. Profile:
# measured on 500 photographs of ImageNet, middle squares at 128x128, colours taken apart first.
IMAGENET = statistics(
    [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]],
    [
        [0.00781, 26.61, 20.95, 17.15],
        [0.01105, 12.57, 10.41, 9.704],
        [0.01665, 10.86, 8.512, 7.501],
        [0.02289, 7.722, 6.278, 5.453],
        [0.02763, 5.498, 4.577, 4.022],
        [0.03728, 3.681, 2.982, 2.744],
        [0.04999, 2.68, 2.161, 1.999],
        [0.06584, 1.797, 1.429, 1.352],
        [0.08709, 1.264, 0.998, 0.953],
        [0.11474, 0.8638, 0.6568, 0.6484],
        [0.15252, 0.588, 0.4139, 0.4306],
        [0.20209, 0.3866, 0.2358, 0.2696],
        [0.26703, 0.248, 0.122, 0.1537],
        [0.35392, 0.1497, 0.06018, 0.07758],
        [0.46538, 0.08444, 0.03012, 0.03977],
        [0.58809, 0.03737, 0.01057, 0.01838],
    ],
)
