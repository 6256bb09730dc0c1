"""Painting under the hand-made priors of Yosinski et al. (2015): decay, blur and clipping by pixel.

After every step the image is damped, sometimes blurred, and its weakest pixels are put back to the
mean. The order is that of the authors' code, the Deep Visualization Toolbox.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optogram.ascent.painted import Images, Parameterization
from optogram.ascent.transform import blurred
from optogram.core.chance import Streams
from optogram.core.expression import spoken
from optogram.core.objective import image_sum
from optogram.pictures.errors import RequestError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
STRONGEST_STEP = 255.0**2  # the toolbox counts pixels to 255, and so do its learning rates


class Damped(Parameterization):
    """Pixels about a mean colour, pulled back towards it after every step."""

    def __init__(
        self,
        decay: float,
        blur: float,
        every: int,
        norm: float,
        contribution: float,
        gain: float | None,
        most: float,
        mean: Sequence[float] | None,
    ) -> None:
        super().__init__()
        if not (0 <= decay < 1 and blur >= 0 and every >= 0):
            raise RequestError(
                f"damped(decay={decay}, blur={blur}, every={every}): decay in [0, 1)"
            )
        if not (0 <= norm <= 100 and 0 <= contribution <= 100):
            raise RequestError(f"damped(norm={norm}, contribution={contribution}): in percent")
        self.decay, self.sigma, self.every = decay, blur, every
        self.norm, self.contribution = norm, contribution
        self.gain, self.most, self.mean = gain, most, mean

    def begin(self, shape: tuple[int, ...], streams: Streams, like: Tensor) -> None:
        """The mean colour and normal noise of deviation 10/255."""
        mean = self.mean or (IMAGENET_MEAN if shape[0] == 3 else [0.5] * shape[0])
        if len(mean) != shape[0]:
            raise RequestError(f"mean={mean} should be {shape[0]} number(s), one a channel")
        self.about = torch.tensor(list(mean)).to(like).view(1, -1, 1, 1)
        size = shape[0] * shape[1] * shape[2]
        noise = streams.normal("start", size).view(-1, *shape).to(like) * 10 / 255
        self.pixels = nn.Parameter((self.about + noise).clamp(0, 1))
        self.taken = 0

    def canvas(self) -> Images:
        """The pixels."""
        return self.pixels

    def guard(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradient, times the step that is meant to raise the unit by `gain`."""
        self.gradient = gradients[0]
        if self.gain is None:
            return [self.gradient * (self.most / STRONGEST_STEP)]
        squares = image_sum(self.gradient.square())
        rates = (self.gain / squares.clamp(min=1e-30)).clamp(max=self.most / STRONGEST_STEP)
        return [self.gradient * rates[:, None, None, None]]

    def settle(self) -> None:
        """Decay, blur, clip what has a small norm, what contributes little, and the range."""
        self.taken += 1
        for operation in (
            self.decayed,
            self.smoothed,
            self.without_small,
            self.without_idle,
            self.clipped,
        ):
            self.pixels.data.copy_(self.about + operation(self.pixels.data - self.about))

    def decayed(self, x: Images) -> Images:
        """Towards the mean by a share."""
        return x * (1 - self.decay)

    def smoothed(self, x: Images) -> Images:
        """Blurred, every few steps."""
        due = self.every and self.sigma and self.taken % self.every == 0
        return blurred(x, self.sigma) if due else x

    def without_small(self, x: Images) -> Images:
        """The pixels of the smallest norm over the channels put back to the mean."""
        return _without_least(x, x.square().sum(1).sqrt(), self.norm)

    def without_idle(self, x: Images) -> Images:
        """The pixels that contribute least, |sum over channels of x * gradient|, put back."""
        return _without_least(x, (x * self.gradient).sum(1).abs(), self.contribution)

    def clipped(self, x: Images) -> Images:
        """Within the range of images."""
        return (x + self.about).clamp(0, 1) - self.about


def _without_least(x: Images, sizes: Float[Tensor, "batch height width"], percent: float) -> Images:
    count = int(sizes[0].numel() * percent / 100)
    if not count:
        return x
    least = sizes.flatten(1).argsort(dim=1, stable=True)[:, :count]
    kept = torch.ones_like(sizes).flatten(1).scatter_(1, least, 0.0).view_as(sizes)
    return x * kept[:, None]


@spoken
def damped(
    decay: float = 0.0,
    blur: float = 0.0,
    every: int = 4,
    norm: float = 0.0,
    contribution: float = 0.0,
    gain: float | None = None,
    most: float = 100.0,
    mean: Sequence[float] | None = None,
) -> Parameterization:
    """Pixels under decay, blur and clipping (Yosinski et al., 2015). Use SGD with lr=1.

    Args:
        decay: the share of its distance from the mean that a pixel loses a step.
        blur: standard deviation of the blur in pixels; below 0.3 works very poorly (the authors).
        every: how many steps from one blur to the next.
        norm: percent of the pixels, those of the smallest norm, put back to the mean each step.
        contribution: the same for those that contribute least to the unit.
        gain: how much a step is meant to raise the unit, to first order; None for a fixed rate.
        most: the largest rate, and the fixed one, in the authors' units, pixels from 0 to 255.
        mean: a colour, one number a channel; ImageNet's for three, else 0.5.
    """
    return Damped(decay, blur, every, norm, contribution, gain, most, mean)
