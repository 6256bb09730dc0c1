"""Whether a made picture tells which images excite its unit: a test of pictures without people.

People are shown a picture made for a unit and asked which of two photographs excites it more
(Borowski et al., 2021; Zimmermann et al., 2021). Here the network's own earlier layer looks at the
likeness instead: a picture agrees with the data where the images most like it excite the unit most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.network import Network
from optogram.core.unit import Targetlike, Unit
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well pictures go with the data, a number for each unit.

    `auc` (units,): the chance that one of the unit's strongest images is more like its picture than
    another image; 0.5 is no relation. `reached` (units,): the unit's strongest place on its picture
    over its strongest place in any of the images; nan where that is not above 0.
    """

    auc: Float[Tensor, " unit"]
    reached: Float[Tensor, " unit"]


def agreement(
    network: Network,
    units: Sequence[Targetlike],
    pictures: Float[Tensor, "unit channel picture_height picture_width"],
    images: Images,
    *,
    at: str,
    share: float = 0.02,
    batch: int = 32,
) -> Agreement:
    """Compare the picture of each unit with what excites it in a set of images.

    Likeness is the cosine of mean activations at an earlier layer, less their mean over the images.
    Positives are the `share` of the images (at least 5) with the strongest place; AUC counts ties
    half.

    Args:
        network: who is asked.
        units: one unit a picture.
        pictures: (unit, channel, height, width) in [0, 1].
        images: held-out images in [0, 1].
        at: the earlier layer.
        share: how many images count as exciting.
        batch: how many images are looked at together.

    Raises RequestError where the numbers of units and pictures differ, or images are too few.
    """
    wanted = [_anywhere(network, unit) for unit in units]
    if len(wanted) != len(pictures):
        raise RequestError(f"{len(wanted)} units for {len(pictures)} pictures: give one each")
    count = max(5, round(share * len(images)))
    if len(images) < 2 * count:
        raise RequestError(f"{len(images)} images are too few: at least {2 * count}")
    values, looks = _heard(network, wanted, images, at, batch)
    own, made = _heard(network, wanted, pictures, at, batch)
    middle = looks.mean(0)
    likeness = _unit_length(made - middle) @ _unit_length(looks - middle).T
    curves, reached = [], []
    for number in range(len(wanted)):
        best = values[:, number].argsort(descending=True, stable=True)
        curves.append(auc(likeness[number, best[:count]], likeness[number, best[count:]]))
        strongest = values[best[0], number]
        ratio = own[number, number] / strongest if strongest > 0 else torch.tensor(torch.nan)
        reached.append(float(ratio))
    return Agreement(torch.tensor(curves), torch.tensor(reached))


def auc(positive: Float[Tensor, " one"], negative: Float[Tensor, " other"]) -> float:
    """The chance that a positive number is the larger of the two, ties counted half."""
    difference = positive[:, None] - negative[None]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())


def _anywhere(network: Network, unit: Targetlike) -> Unit:
    target = network.resolve(unit)
    if not isinstance(target, Unit) or target.index is None:
        raise RequestError(f"{target} is no single unit: pictures are compared unit by unit")
    places = network.layer(target.layer).places
    return Unit(target.layer, target.index, "strongest" if places else None)


def _unit_length(rows: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


def _heard(
    network: Network, units: Sequence[Unit], images: Images, at: str, batch: int
) -> tuple[Float[Tensor, "image unit"], Float[Tensor, "image channel"]]:
    """Each unit's value on each image before its ReLU, and the mean of each channel at a layer."""
    layers = [*dict.fromkeys(unit.layer for unit in units), at]
    axis = network.layer(at).axis
    values, looks = [], []
    with torch.no_grad():
        for part in images.split(batch):
            heard = network.read(part, *layers, watch=True)
            values.append(torch.stack([heard.before[unit] for unit in units], 1).cpu())
            answer = heard.layers[at].movedim(axis, 1)
            looks.append(answer.flatten(2).mean(2).cpu() if answer.dim() > 2 else answer.cpu())
    return torch.cat(values).double(), torch.cat(looks).double()
