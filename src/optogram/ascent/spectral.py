"""Painting with frequencies: Fourier coefficients, or their phases alone.

In these coordinates a step of equal size moves coarse shapes more than fine ones, as photographs
would have it; gradient ascent on pixels favours the high frequencies that networks cannot ignore.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from optogram.ascent.painted import Images, Parameterization
from optogram.ascent.squashed import Squashed
from optogram.ascent.statistics import Statistics, frequencies
from optogram.core.chance import Streams
from optogram.core.expression import spoken
from optogram.core.objective import image_sum

Image = Float[Tensor, "channel height width"]
Spectrum = Complex[Tensor, "batch channel height half_width"]


class Fourier(Squashed):
    """Coefficients of a real Fourier transform, each times 1/frequency^decay."""

    def __init__(
        self,
        shape: Sequence[int] | None,
        statistics: Statistics | str,
        decay: float,
        deviation: float,
        start: Image | None,
    ) -> None:
        super().__init__(shape, statistics, start)
        self.decay, self.deviation = decay, deviation

    def lay_out(self, like: Tensor) -> None:
        """The weight of each frequency, a quarter as in lucid."""
        _, height, width = self.size
        lowest = 1 / max(height, width)
        weights = frequencies(height, width).clamp(min=lowest) ** -self.decay / 4
        self.weights = weights.to(like)

    def draw(self, streams: Streams, like: Tensor) -> None:
        """Normal coefficients."""
        shape = (self.size[0], *self.weights.shape, 2)
        count = shape[0] * shape[1] * shape[2] * 2
        start = self.deviation * streams.normal("start", count).view(-1, *shape)
        self.coefficients = nn.Parameter(start.to(like))

    def cover(self, paint: Images, like: Tensor) -> None:
        """The coefficients of the paint."""
        found = torch.fft.rfft2(paint, norm="ortho") / self.weights.double()
        self.coefficients = nn.Parameter(torch.view_as_real(found).to(like).contiguous())

    def paint(self) -> Images:
        """The transform back, orthonormal."""
        spectrum = torch.view_as_complex(self.coefficients) * self.weights
        return torch.fft.irfft2(spectrum, s=self.size[1:], norm="ortho")


class Phases(Squashed):
    """Phases only: every frequency keeps the magnitude that it has in the data, always."""

    def lay_out(self, like: Tensor) -> None:
        """The magnitudes, scaled so that the paint has variance 1 over all channels."""
        _, height, width = self.size
        magnitudes = self.statistics.spectrum(height, width)
        # A real image's spectrum says everything but the first (and an even last) column twice.
        twice = torch.full_like(magnitudes, 2.0)
        twice[..., 0] = 1
        if width % 2 == 0:
            twice[..., -1] = 1
        energy = (twice * magnitudes.square()).sum() / (self.size[0] * height * width)
        self.magnitudes = (magnitudes / energy.sqrt()).to(like)

    def draw(self, streams: Streams, like: Tensor) -> None:
        """Normal phases (xplique, horama)."""
        start = streams.normal("start", self.magnitudes.numel())
        self.phases = nn.Parameter(start.view(-1, *self.magnitudes.shape).to(like))
        self.signs = torch.where(self.phases.detach().cos() < 0, -1.0, 1.0).to(like)

    def cover(self, paint: Images, like: Tensor) -> None:
        """The phases of the paint; its magnitudes are given up."""
        found = torch.fft.rfft2(paint).angle().to(like)
        self.phases = nn.Parameter(found.contiguous())
        self.signs = torch.where(found.cos() < 0, -1.0, 1.0).to(like)

    def paint(self) -> Images:
        """The transform back of the magnitudes, with the phases standardised for each image."""
        count = self.phases[0].numel()
        mean = image_sum(self.phases)[:, None, None, None] / count
        centred = self.phases - mean
        deviation = (image_sum(centred.square()) / count).sqrt()[:, None, None, None]
        angles = self.phases if self.start is not None else centred / (deviation + 1e-4)
        spectrum = real_image(
            torch.polar(self.magnitudes.expand_as(angles), angles),
            self.signs,
            self.magnitudes,
            even=self.size[2] % 2 == 0,
        )
        return torch.fft.irfft2(spectrum, s=self.size[1:], norm="ortho")


def real_image(
    spectrum: Spectrum,
    signs: Float[Tensor, "batch channel height half_width"],
    magnitudes: Float[Tensor, "channel height half_width"],
    *,
    even: bool,
) -> Spectrum:
    """The spectrum with what a real image forces on it, so that no magnitude changes on the way.

    In the first column (and the last, of an even width) the lower half is the upper half's
    conjugate, and a coefficient that is its own conjugate is real: its phase can only be a sign.
    """
    height = spectrum.shape[-2]
    columns = [0, spectrum.shape[-1] - 1] if even else [0]
    made = spectrum.clone()
    for column in columns:
        line = spectrum[..., column]
        own = [0, height // 2] if height % 2 == 0 else [0]
        upper = line[..., 1 : (height + 1) // 2]
        parts = [(signs * magnitudes)[..., :1, column].to(line), upper]
        if len(own) == 2:
            parts.append((signs * magnitudes)[..., height // 2 : height // 2 + 1, column].to(line))
        parts.append(upper.flip(-1).conj())
        made[..., column] = torch.cat(parts, -1)
    return made


@spoken
def fourier(
    shape: Sequence[int] | None = None,
    statistics: Statistics | str = "auto",
    decay: float = 1.0,
    deviation: float = 0.01,
    start: Image | None = None,
) -> Parameterization:
    """Fourier coefficients scaled by 1/frequency, mixed colours, a sigmoid (Olah et al., 2017).

    Args:
        shape: (channel, height, width); by default the network's.
        statistics: how colours go together: "auto" is ImageNet's for three channels and keeps
            others apart; "apart"; or `og.param.measured(images)`.
        decay: the power of 1/frequency; 0 treats all frequencies alike.
        deviation: standard deviation of the start's coefficients.
        start: an image (channel, height, width) to start from instead.
    """
    return Fourier(shape, statistics, decay, deviation, start)


@spoken
def phases(
    shape: Sequence[int] | None = None,
    statistics: Statistics | str = "auto",
    start: Image | None = None,
) -> Parameterization:
    """The phases of an image whose magnitudes are the data's (MACO, Fel et al., 2023).

    Before the squash the magnitude of every frequency stays what the data have on average, at every
    step. `statistics` as for `fourier`; `start` gives its phases.
    """
    return Phases(shape, statistics, start)
