"""The smallest change of an image that takes an objective over a goal.

It asks for nothing but the objective's gradient, so that units and directions are reached like
classes (libraries of attacks know classes alone).
"""

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
    network: Network, images: Images, objective: Objective, goal: float, *, steps: int = 100
) -> Changed:
    """Each image moved by as little (L2) as takes its objective above `goal`, within [0, 1].

    The iteration of the fast adaptive boundary attack (Croce & Hein, 2020, algorithm 1): the
    objective is made linear at the present image, and present and original image are projected onto
    where it then equals the goal, inside the box; the next image lies between the two, a little
    beyond. One that has reached the goal is pulled back towards the original. In the end the line
    from the original to the nearest image found is searched by halving.

    Images do not influence each other. Nothing is random.

    Args:
        network: who is asked.
        images: (batch, channel, height, width) in [0, 1], where each begins.
        objective: what is to be raised, one number an image.
        goal: the value to exceed.
        steps: how many gradients are taken.

    Raises RequestError for images outside [0, 1], and as `backpropagate` does.
    """
    if steps < 1:
        raise RequestError(f"steps={steps}: at least 1")
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise RequestError("the image to begin with has values outside [0, 1], or NaN")
    start = images.detach().to(network.device, network.dtype)
    here, nearest = start.clone(), start.clone()
    least = torch.full_like(start[:, 0, 0, 0], torch.inf)
    history = []
    for _ in range(steps):
        values, gradients = value_and_gradient(network, here, objective)
        history.append(values)
        here, least = _kept(start, here, nearest, least, values > goal)
        lack = goal - values
        there = _onto_plane(here, gradients, lack)
        # The plane as the original image sees it.
        seen = image_sum(gradients * (here - start))
        home = _onto_plane(start, gradients, lack + seen)
        far, near = _length(there - here), _length(home - start)
        share = (far / (far + near).clamp(min=1e-30)).clamp(max=STEEPEST)
        share = torch.where(torch.isfinite(least), share, 0.0)[:, None, None, None]
        ahead = here + BEYOND * (there - here)
        towards = start + BEYOND * (home - start)
        again = ((1 - share) * ahead + share * towards).clamp(0, 1)
        reached = (values > goal)[:, None, None, None]
        here = torch.where(reached, start + BACK * (here - start), again)
    _, least = _kept(start, here, nearest, least, _asked(network, here, objective) > goal)
    reached = torch.isfinite(least)
    found = torch.where(reached[:, None, None, None], nearest, here)
    return Changed(_searched(network, start, found, objective, goal), reached, torch.stack(history))


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


def _kept(
    start: Images, here: Images, nearest: Images, least: PerImage, reached: Tensor
) -> tuple[Images, PerImage]:
    """Write into `nearest` what reaches the goal by a smaller change than before."""
    change = _length(here - start)
    better = reached & (change < least)
    nearest.copy_(torch.where(better[:, None, None, None], here, nearest))
    return here, torch.where(better, change, least)


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


def _searched(
    network: Network, start: Images, found: Images, objective: Objective, goal: float
) -> Images:
    """The first point on the way from `start` to `found` that reaches the goal, by halving."""
    low, high = torch.zeros_like(found[:, 0, 0, 0]), torch.ones_like(found[:, 0, 0, 0])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = start + middle[:, None, None, None] * (found - start)
        reached = _asked(network, tried, objective) > goal
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    whole = (high == 1)[:, None, None, None]
    return torch.where(whole, found, start + high[:, None, None, None] * (found - start))


def _asked(network: Network, images: Images, objective: Objective) -> PerImage:
    with torch.no_grad():
        return objective(network.read(images, *objective.layers, watch=True))


def _length(images: Images) -> PerImage:
    return image_sum(images.square()).sqrt()
