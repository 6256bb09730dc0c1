"""Top patches: the pieces of real images that excite a unit most (Zeiler & Fergus, 2014)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from optogram.core import objective as ask
from optogram.core import progress, rules
from optogram.core.gradient import value_and_gradient
from optogram.core.layout import laid_out
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Target, Targetlike, Unit, units
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError
from optogram.survey import ImageSet, as_images
from optogram.survey.patches import Found, strongest

Project = Literal["none", "deconvnet", "guided", "gradient"]


@technique
def top_patches(
    network: Network,
    dataset: ImageSet,
    unit: Targetlike | Sequence[Targetlike],
    *,
    k: int = 9,
    project: Project = "none",
    everywhere: bool = False,
    sample: int | None = 16,
    batch: int = 16,
) -> Sheet:
    """Show what excites a unit most in a data set: the k strongest patches (Zeiler & Fergus, 2014).

    Every image is shown once. For a channel its strongest place on each image counts, and the patch
    is what that place sees, its receptive field, cut at the image's edge; for a neuron it is the
    whole image. Values are pre-activations; equal ones stand in the order of images and places.

    With `project` each patch is followed, k items later, by what the unit took from it: its value
    at that place alone is sent back to the pixels, as in figure 2 of the paper. `raw` holds what
    arrived; `image` shows it around grey, contrast enhanced picture by picture as in the paper (the
    100th part of the pixels that is largest is cut off), so do not compare colours between
    pictures.

    Args:
        network: who is asked.
        dataset: the images, fitted to the network's shape.
        unit: an address or a direction, or several: their patches stand row by row. The name of a
            layer stands for some of its units, see `sample`.
        k: how many patches for each unit.
        project: "deconvnet" or "guided" for networks of ReLUs, "gradient" for any; "none" for
            patches alone.
        everywhere: whether several places of one image may stand in the list.
        sample: how many units stand for a layer, evenly spread over it; None for all of them.
        batch: how many images are shown at once.

    Returns:
        A Sheet of Pictures, `k` in a row. A unit that is asked of fewer than k images has fewer.

    Raises RequestError for unknown units, and images or projections that do not fit the network.
    """
    if project not in _RULES:
        raise RequestError(f"project={project!r}: there is {', '.join(_RULES)}")
    if sample is not None and sample < 1:
        raise RequestError(f"sample={sample}: at least one unit of a layer, or None for all")
    wanted = [one for target in units(unit) for one in _some(network, target, sample)]
    if not wanted:
        raise RequestError("no unit was asked for: give at least one address, as in 'conv2:1'")
    images = as_images(dataset).fitted(network.shape)
    found = strongest(network, images, wanted, k=k, everywhere=everywhere, batch=batch)
    pictures: list[Picture] = []
    for number, (target, answers) in enumerate(zip(wanted, found, strict=True)):
        shown = images.take(torch.tensor([a.image for a in answers], dtype=torch.int64))[0]
        pictures += [_picture(*pair, str(target)) for pair in zip(shown, answers, strict=True)]
        if project != "none":
            slopes = projected(network, shown, answers, project, batch)
            pairs = zip(slopes, answers, strict=True)
            pictures += [_projection(*pair, str(target)) for pair in pairs]
        progress.tell("patches", number + 1, len(wanted))
    title = f"{network.name}: strongest in {images.name}"
    return Sheet(tuple(pictures), title=title, columns=k)


def _some(network: Network, asked: Target, sample: int | None) -> list[Target]:
    """The units that a target stands for: of a layer some, evenly spread."""
    target = network.resolve(asked)
    if not isinstance(target, Unit) or target.index is not None:
        return [target]
    count = network.layer(target.layer).units
    some = count if sample is None else min(sample, count)
    return [replace(target, index=number * count // some) for number in range(some)]


def _picture(image: Tensor, answer: Found, unit: str) -> Picture:
    patch = crop(image, answer)
    return Picture(image=patch, unit=unit, score=answer.value, history=torch.zeros(0))


def _projection(slope: Tensor, answer: Found, unit: str) -> Picture:
    raw = crop(slope, answer).float().cpu()
    return Picture(
        image=contrasted(raw),
        unit=unit,
        score=answer.value,
        history=torch.zeros(0),
        raw=raw,
    )


def crop(image: Tensor, answer: Found) -> Tensor:
    """What an answer saw of its image, (channel, rows, columns)."""
    top, left, bottom, right = answer.box
    return image[:, top:bottom, left:right]


def contrasted(raw: Tensor) -> Tensor:
    """A projection around grey, its largest hundredth cut off, in [0, 1]."""
    parts = raw[raw != 0].abs()
    size = float(parts.quantile(0.99)) if len(parts) else 1.0
    return (0.5 + 0.5 * raw / size).clamp(0, 1)


def projected(
    network: Network, images: Tensor, answers: list[Found], project: Project, batch: int
) -> Tensor:
    """What each answer sends back to its image, (answer, channel, height, width)."""
    # Below a first layer there is no ReLU: all rules agree there, and would refuse to act.
    rule = rules.plain if _linear(network, images[:1], answers[0].target.layer) else _RULES[project]
    slopes = []
    for first in range(0, len(answers), batch):
        some = answers[first : first + batch]
        question = ask.activation([answer.target for answer in some])
        shown = laid_out(images[first : first + batch])
        slopes.append(value_and_gradient(network, shown, question, rule=rule)[1])
    return torch.cat(slopes)


def _linear(network: Network, image: Tensor, layer: str) -> bool:
    """Whether no activation function lies between the image and a layer."""
    with rules.ActivationMode() as mode:
        network.read(image, layer)
    return mode.relus == 0 and not mode.others


_RULES = {
    "none": rules.plain,
    "deconvnet": rules.deconvnet,
    "guided": rules.guided,
    "gradient": rules.plain,
}
