"""The smallest change of an image that takes an objective over a goal.

It asks for nothing but the objective's gradient, so that units and directions are reached like
classes (libraries of attacks know classes alone).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optogram.core import objective as ask
from optogram.core.activations import Activations, PerImage
from optogram.core.gradient import value_and_gradient
from optogram.core.network import Network
from optogram.core.objective import Objective, image_sum
from optogram.core.unit import OUTPUT, Target
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]
RADIUS, GAMMA = 1.0, 0.05  # of the first sphere, and by how much the next is another
STEEPEST = 0.1  # alpha_max, eta and beta of the paper's appendix
BEYOND = 1.05
BACK = 0.9
HALVINGS = 20


@dataclass(frozen=True, eq=False)
class Changed:
    """Images that were changed as little as was found to do.

    `images` are the nearest that reach the goal, or the last tried where none did; `reached`
    (batch,) says which; `history` (steps, batch) is the objective at each iterate.
    """

    images: Images
    reached: Bool[Tensor, " batch"]
    history: Float[Tensor, "steps batch"]


def smallest_change(
    network: Network,
    images: Images,
    objective: Objective,
    goal: float,
    *,
    along: Objective | None = None,
    steps: int = 100,
) -> Changed:
    """Each image moved by as little (L2) as takes its objective above `goal`, within [0, 1].

    Three quarters of the steps walk on spheres about the original image, along the gradient, each
    sphere smaller than the last where the goal is reached there, else larger (decoupled direction
    and norm; Rony et al., 2019, algorithm 1). The others make the objective linear at the present
    image and project onto where it then equals the goal, inside the box (fast adaptive boundary;
    Croce & Hein, 2020, algorithm 1). In the end the line from the original to the nearest image
    found is searched by halving.

    Images do not influence each other. Nothing is random.

    Args:
        network: who is asked.
        images: (batch, channel, height, width) in [0, 1], where each begins.
        objective: what is to be raised, one number an image.
        goal: the value to exceed.
        along: whose gradient to walk along on the spheres, where the objective has edges.
        steps: how many gradients are taken.

    Raises RequestError for images outside [0, 1], and as `backpropagate` does.
    """
    if steps < 1:
        raise RequestError(f"steps={steps}: at least 1")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise RequestError("the image to begin with has values outside [0, 1], or NaN")
    start = images.detach().to(network.device, network.image_dtype)
    way = _Way(network, start, objective, goal)
    around = 3 * steps // 4
    way.circle(along or objective, around)
    way.aim(steps - around)
    found = torch.where(way.reached[:, None, None, None], way.nearest, way.here)
    return Changed(way.searched(found), way.reached, torch.stack(way.history))


class _Way:
    """Where the images are, the nearest that reached the goal, and how far those are."""

    def __init__(self, network: Network, start: Images, objective: Objective, goal: float) -> None:
        self.network, self.start, self.objective, self.goal = network, start, objective, goal
        self.here, self.nearest = start.clone(), start.clone()
        self.least = torch.full_like(start[:, 0, 0, 0], torch.inf)
        self.history: list[PerImage] = []

    @property
    def reached(self) -> Bool[Tensor, " batch"]:
        """Which images were at the goal."""
        return torch.isfinite(self.least)

    def circle(self, along: Objective, steps: int) -> None:
        """Walk on spheres whose radius shrinks where the goal is reached and else grows."""
        radius = torch.full_like(self.least, RADIUS)
        for step in range(steps):
            values, gradients = value_and_gradient(self.network, self.here, along)
            if along is not self.objective:
                values = self._asked(self.here)
            self._keep(values)
            self.history.append(values)
            length = _length(gradients).clamp(min=1e-30)[:, None, None, None]
            pace = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
            change = self.here - self.start + pace * gradients / length
            radius = radius * torch.where(values > self.goal, 1 - GAMMA, 1 + GAMMA)
            share = (radius / _length(change).clamp(min=1e-30))[:, None, None, None]
            self.here = (self.start + share * change).clamp(0, 1)
        self._keep(self._asked(self.here))
        self.here = torch.where(self.reached[:, None, None, None], self.nearest, self.here)

    def aim(self, steps: int) -> None:
        """Go where the objective, made linear here, equals the goal; pull back what is beyond."""
        for _ in range(steps):
            values, gradients = value_and_gradient(self.network, self.here, self.objective)
            self.history.append(values)
            self._keep(values)
            lack = self.goal - values
            there = _onto_plane(self.here, gradients, lack)
            # The plane as the original image sees it.
            seen = image_sum(gradients * (self.here - self.start))
            home = _onto_plane(self.start, gradients, lack + seen)
            far, near = _length(there - self.here), _length(home - self.start)
            share = (far / (far + near).clamp(min=1e-30)).clamp(max=STEEPEST)
            share = torch.where(self.reached, share, 0.0)[:, None, None, None]
            ahead = self.here + BEYOND * (there - self.here)
            towards = self.start + BEYOND * (home - self.start)
            again = ((1 - share) * ahead + share * towards).clamp(0, 1)
            back = self.start + BACK * (self.here - self.start)
            beyond = (values > self.goal)[:, None, None, None]
            self.here = torch.where(beyond, back, again)
        self._keep(self._asked(self.here))

    def searched(self, found: Images) -> Images:
        """The first point on the way to `found` that reaches the goal, by halving."""
        low, high = torch.zeros_like(self.least), torch.ones_like(self.least)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            tried = self.start + middle[:, None, None, None] * (found - self.start)
            reached = self._asked(tried) > self.goal
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        part = self.start + high[:, None, None, None] * (found - self.start)
        return torch.where((high == 1)[:, None, None, None], found, part)

    def _keep(self, values: PerImage) -> None:
        """Remember what reaches the goal by a smaller change than before."""
        change = _length(self.here - self.start)
        better = (values > self.goal) & (change < self.least)
        self.nearest = torch.where(better[:, None, None, None], self.here, self.nearest)
        self.least = torch.where(better, change, self.least)

    def _asked(self, images: Images) -> PerImage:
        with torch.no_grad():
            return self.objective(self.network.read(images, *self.objective.layers, watch=True))


def lead(targets: list[Target]) -> Objective:
    """How far each image's class is ahead of the strongest other one, in logits."""
    return _against(targets, lambda others: others.amax(1), "lead")


def log_odds(targets: list[Target]) -> Objective:
    """log p / (1 - p) of each image's class, which unlike p does not saturate."""
    return _against(targets, lambda others: others.logsumexp(1), "log_odds")


def _against(targets: list[Target], joined: Callable[[Tensor], PerImage], name: str) -> Objective:
    index = torch.tensor([int(str(target.index)) for target in targets])[:, None]

    def value(acts: Activations) -> PerImage:
        logits = acts.layers[OUTPUT]
        own = index.to(logits.device)
        return logits.gather(1, own)[:, 0] - joined(logits.scatter(1, own, -torch.inf))

    return ask.objective(value, OUTPUT, text=f"{name}({', '.join(map(str, targets))})")


def _onto_plane(images: Images, gradients: Images, lack: PerImage) -> Images:
    """The nearest point of the box where gradient * (point - image) = lack; else the box's corner.

    That is clip(image + t * gradient) for the t that solves it. The left side is concave in t, so
    Newton's steps from 0 never go too far and end after finitely many.
    """
    towards = gradients * lack.sign()[:, None, None, None]
    wanted, length = lack.abs(), torch.zeros_like(lack)
    for _ in range(20):
        moved = (images + length[:, None, None, None] * towards).clamp(0, 1)
        missing = wanted - image_sum(towards * (moved - images))
        free = ((moved < 1) | (towards < 0)) & ((moved > 0) | (towards > 0))
        steep = image_sum(towards.square() * free)
        more = torch.where(steep > 0, missing / steep.clamp(min=1e-30), 0.0).clamp(min=0)
        if not bool((more > 1e-6 * length).any()):
            break
        length = length + more
    return (images + length[:, None, None, None] * towards).clamp(0, 1)


def _length(images: Images) -> PerImage:
    return image_sum(images.square()).sqrt()
