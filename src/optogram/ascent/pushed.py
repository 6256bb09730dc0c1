"""Painting in steps that are each meant to bring an answer a given way (Nguyen et al., 2015).

The caller says before each step by how much every image's score should grow; the rate follows from
the gradient, rate = wish / |gradient|^2. An image whose work is done rests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from optogram.ascent.damped import Damped
from optogram.ascent.loop import ascend
from optogram.ascent.painted import Images
from optogram.core.activations import PerImage
from optogram.core.chance import Streams
from optogram.core.maps import baseline_of
from optogram.core.network import Network
from optogram.core.objective import Objective, image_sum

Start = Literal["mean", "grey", "noise"] | Float[Tensor, "*several channel height width"]
INERTIA = 0.9  # less, and gradients of convolutional networks turn from side to side
NOISE = 1 / 255  # of deviation 1 where pixels go to 255, as in the authors' code


class Pushed(Damped):
    """Pixels about a mean colour under decay, blur and clipping, that go as far as is wished.

    `start` is "mean" or "grey" with faint normal noise, "noise" uniform in [0, 1), or images as
    they are. `wish` (batch,) is set by the caller before each step; 0 lets an image rest.
    """

    wish: PerImage

    def __init__(
        self, start: Start, about: Sequence[float], inertia: float, **settings: float
    ) -> None:
        every = int(settings.pop("every", 4))
        options = {"decay": 0.0, "blur": 0.0, "norm": 0.0, "contribution": 0.0, **settings}
        super().__init__(**options, every=every, gain=None, most=0.0, mean=about)
        self.start, self.inertia = start, inertia

    def begin(self, shape: tuple[int, ...], streams: Streams, like: Tensor) -> None:
        """Set every image to the start."""
        super().begin(shape, streams, like)
        count, size = len(streams.owners), shape[0] * shape[1] * shape[2]
        if isinstance(self.start, Tensor):
            image = self.start.to(like).expand(count, *shape).clone()
        elif self.start == "noise":
            image = streams.uniform("start", size).view(count, *shape).to(like)
        else:
            level = self.about if self.start == "mean" else torch.full_like(self.about, 0.5)
            faint = NOISE * streams.normal("start", size).view(count, *shape)
            image = (level + faint.to(like)).clamp(0, 1)
        self.pixels, self.course = nn.Parameter(image), torch.zeros_like(image)

    def guard(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The course times the rate that raises the score by the wish, to first order.

        The course is the gradient and a share of the last course: where a step goes further than
        the slope holds, gradients turn from side to side, and what they agree on is the way.
        """
        self.gradient = gradients[0]
        inside = self._inside(self.gradient)
        self.course = self._inside(inside + self.inertia * self.course)
        along = image_sum(inside * self.course)
        slow = image_sum(inside.square()).sqrt() * image_sum(self.course.square()).sqrt()
        rate = self.wish / torch.maximum(along, 0.2 * slow).clamp(min=1e-30)
        return [self.course * rate[:, None, None, None]]

    def settle(self) -> None:
        """Decay, blur and clip the images that are still at work."""
        before = self.pixels.data.clone()
        super().settle()
        rests = (self.wish == 0)[:, None, None, None]
        self.pixels.data.copy_(torch.where(rests, before, self.pixels.data))

    def _inside(self, gradient: Images) -> Images:
        """What does not push a pixel out of the box: else most of a step is lost at its edge."""
        outwards = (self.pixels <= 0) & (gradient < 0) | (self.pixels >= 1) & (gradient > 0)
        return gradient.masked_fill(outwards, 0.0)


@dataclass(frozen=True, eq=False)
class Climbed:
    """Where images went that were pushed towards a goal.

    `history` (steps + 1, batch) holds probabilities or activations, `reached` (batch,) says who is
    at the goal, `taken` after how many steps.
    """

    images: Images
    history: Float[Tensor, "steps batch"]
    reached: Bool[Tensor, " batch"]
    taken: list[int]


def climb(
    network: Network,
    question: Objective,
    goals: PerImage,
    *,
    start: Start,
    steps: int,
    owners: Sequence[str],
    probabilities: bool = True,
    stops: bool = True,
    seed: int = 0,
    settings: Mapping[str, float] | None = None,
) -> Climbed:
    """Push images until the question's value is at the goals, by the rule of Nguyen et al. (2015).

    Args:
        network: who is asked.
        question: log probabilities, or anything else where `probabilities` is False.
        goals: (batch,) probabilities, or values of the question.
        start: as for `Pushed`.
        steps: how many at most.
        owners: a name for each image, which selects its random numbers.
        probabilities: each step should raise p by min(0.03, 0.1 (1 - p)); else the value by 3 % of
            the way from the start to the goal.
        stops: whether reaching the goal is an image's end.
        seed: the other thing that selects the random numbers.
        settings: decay and blur, as for `damped`.
    """
    param = Pushed(start, _mean(network), INERTIA, **(settings or {}))
    taken, history = [steps] * len(owners), []
    for step in ascend(
        network, question, param, steps=steps, optimizer="SGD", lr=1.0, owners=owners, seed=seed
    ):
        values = step.scores.exp() if probabilities else step.scores
        history.append(values)
        reached = values >= goals.to(values)
        if stops:
            taken = [min(n, step.index) if r else n for n, r in zip(taken, reached, strict=True)]
        if probabilities:
            # To first order a step of log p by d / p raises p by d; by more than 1 the curve of p
            # itself is left behind, as where a class begins at a millionth.
            rise = torch.minimum(0.1 * (1 - values), torch.tensor(0.03).to(values))
            wish = (rise / values.clamp(min=1e-30)).clamp(max=1.0)
        else:
            wish = 0.03 * (goals.to(values) - history[0]).abs()
        param.wish = torch.where(reached & stops, 0.0, wish)
        if stops and bool(reached.all()):
            break
    return Climbed(step.images, torch.stack(history), reached, taken)


def _mean(network: Network) -> list[float]:
    """The colour that is 0 after normalising, one number a channel."""
    one = torch.zeros(1, network.shape[0], 1, 1, device=network.device, dtype=network.image_dtype)
    return [float(level) for level in baseline_of(network, one, "mean").flatten()]
