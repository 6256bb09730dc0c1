"""How the study climbs: the document's recipe and the one that works, and the yardsticks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent import ascend
from optogram.ascent.param import pixels
from optogram.core import objective as ask
from optogram.core.network import Network
from optogram.core.objective import Objective
from optogram.core.unit import Unit
from optogram.survey.datasets import Images

Weights = float | Sequence[float]
Question = Callable[[Sequence[Unit]], Objective]

# The document's differences reach into the frame of zeros that its code puts around the image.
SEED_TV = ask.total_variation(delta=0, boundary="zero")
SMOOTH_TV = ask.total_variation()
L1 = ask.norm(1)


@dataclass(frozen=True)
class Recipe:
    """How to climb: the box, the size of steps and how it shrinks, which total variation."""

    box: Any
    lr: float
    steps: int
    schedule: str = "constant"
    variation: Objective = SEED_TV


def paper(lr: float, steps: int, *, clip: bool = True) -> Recipe:
    """The document's: u += lr (1[0 < u < 1] dA/dx - tv dTV(u) - l1 sgn(u)), seen as clip(u)."""
    return Recipe("clip" if clip else None, lr, steps)


def working(lr: float = 0.05, steps: int = 200) -> Recipe:
    """Ours: a projected box, steps that shrink to 0, Huber's total variation: it converges."""
    return Recipe("project", lr, steps, "linear", SMOOTH_TV)


def climb(
    network: Network,
    units: Sequence[Unit],
    recipe: Recipe,
    *,
    question: Question = ask.activation,
    tv: Weights = 0.0,
    l1: Weights = 0.0,
    others: float = 0.0,
    start: Any = 0.01,
    transforms: Sequence[Any] = (),
    masked: bool = False,
    seed: int = 0,
) -> Images:
    """A picture for each unit, as the network sees it, within [0, 1] where there is a box.

    `tv` and `l1` are one weight for all or one for each picture, so that a whole grid climbs in one
    batch. `masked` sends also the regularisers through the clip, which the document found to be
    worse. `start` as for `og.param.pixels`, or an image for each unit (unit, channel, height,
    width).
    """
    asked = question(units)
    if others:
        asked = asked - others * ask.others([opened(unit) for unit in units], pre=False)
    for penalty, weights in ((recipe.variation, tv), (L1, l1)):
        if torch.as_tensor(weights).any():
            asked = asked - weighted(penalty, weights, masked)
    owners = [f"{unit}/{place}" for place, unit in enumerate(units)]
    for step in ascend(
        network,
        asked,
        pixels(start=start, box=recipe.box),
        steps=recipe.steps,
        optimizer="SGD",
        lr=recipe.lr,
        schedule=recipe.schedule,
        transforms=transforms,
        owners=owners,
        seed=seed,
    ):
        images = step.images
    return images.float().cpu()


def opened(unit: Unit) -> Unit:
    """The same neuron after its ReLU, a layer of its own in this network."""
    return Unit(unit.layer.replace("fc", "relu"), unit.index)


def weighted(penalty: Objective, weights: Weights, masked: bool = False) -> Objective:
    """A penalty with a weight for each image of the batch."""
    (term,) = penalty.terms

    def value(acts: Any) -> Tensor:
        if masked:
            acts = type(acts)(acts.network, acts.image.clamp(0, 1), acts.layers)
        return torch.as_tensor(weights, dtype=acts.image.dtype) * term.value(acts)

    return ask.objective(value, text=f"{weights} * {penalty.text}")


def fool(
    network: Network, starts: Images, units: Sequence[Unit], recipe: Recipe, question: Question
) -> tuple[Images, Tensor]:
    """Images moved from where they are until an output is 99 % sure, and the step at which it was.

    `question` is `ask.probability` or its logarithm. The step is -1 where the output never became
    so sure; the image is the last one then.
    """
    done = torch.full((len(starts),), -1)
    made = starts.clone()
    for step in ascend(
        network,
        question(units),
        pixels(start=starts, box=recipe.box),
        steps=recipe.steps,
        optimizer="SGD",
        lr=recipe.lr,
        schedule=recipe.schedule,
        owners=[str(place) for place in range(len(starts))],
    ):
        images = step.images.cpu()
        sure = (step.scores if question is ask.probability else step.scores.exp()).cpu() > 0.99
        climbing = done < 0
        made[climbing] = images[climbing]
        done[climbing & sure] = step.index
        if bool((done >= 0).all()):
            break
    return made, done


def own_and_next(
    network: Network, units: Sequence[Unit], images: Images
) -> tuple[Float[Tensor, " unit"], Float[Tensor, " unit"], Tensor]:
    """Each unit's pre-activation on its picture, the layer's next strongest, and whose it is."""
    values = answers(network, units[0].layer, images)
    rows, columns = torch.arange(len(units)), torch.tensor([int(str(u.index)) for u in units])
    own = values[rows, columns].clone()
    values[rows, columns] = -torch.inf
    strongest, which = values.max(1)
    return own, strongest, which


def answers(network: Network, layer: str, images: Images) -> Float[Tensor, "image unit"]:
    """The pre-activations of a layer, and of the output the logits."""
    parts = [
        network.read(part, layer, watch=True).before.layers[layer].float().cpu()
        for part in images.split(1000)
    ]
    return torch.cat(parts)


def probabilities(network: Network, images: Images) -> Float[Tensor, "image 10"]:
    """What the network makes of images."""
    return answers(network, "output", images).softmax(1)


def chances(network: Network, units: Sequence[Unit], images: Images) -> Float[Tensor, " unit"]:
    """How probable each output is on its picture."""
    columns = torch.tensor([int(str(u.index)) for u in units])
    return probabilities(network, images)[torch.arange(len(units)), columns]


def variation(images: Images) -> Float[Tensor, " image"]:
    """Total variation within the image, sum of |differences| of neighbours."""
    across, down = (images.diff(dim=axis).abs().flatten(1).sum(1) for axis in (-1, -2))
    return across + down


def likeness(one: Images, other: Images) -> Float[Tensor, " image"]:
    """The correlation between two images' pixels, 1 for alike but for brightness, contrast."""
    first, second = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (one, other))
    return torch.cosine_similarity(first, second)


def pairwise(images: Images) -> float:
    """The mean correlation between each two different images."""
    centred = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    centred = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    count = len(images)
    together = centred @ centred.T
    return float((together.sum() - together.diagonal().sum()) / (count * (count - 1)))


def entropy(shares: Float[Tensor, "image output"]) -> Float[Tensor, " image"]:
    """In nats: 0 for one output alone, log 10 = 2.30 for all alike."""
    return -(shares * shares.clamp(min=1e-30).log()).sum(1)
