"""Filters: the exact answer to what a unit wants, where its value is linear in the image."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core import objective as ask
from optogram.core.chance import generator
from optogram.core.field import Box
from optogram.core.gradient import value_and_gradient
from optogram.core.network import Layer, Network
from optogram.core.objective import image_sum
from optogram.core.technique import technique
from optogram.core.unit import Unit
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError


@technique
def filters(
    network: Network, layer: str, *, constraint: Literal["norm", "box"] = "norm", batch: int = 64
) -> Sheet:
    """Show the units of a first layer, or of any layer linear in the image, in closed form.

    A unit's value is then w.x + b. Under |x| = 1 the best image is w/|w|, with value |w| + b; under
    0 <= x <= 1 it is 1 where w > 0 and 0 elsewhere, with value sum(max(w, 0)) + b. w is the
    gradient at the middle of the layer's map, cut to the unit's receptive field, normalisation
    included; that it is the same at different images is what shows the layer to be linear.

    Args:
        network: who is asked.
        layer: a layer's name.
        constraint: "norm" (norm 1 over channels, rows and columns) or "box".
        batch: how many units are computed together.

    Returns:
        A Sheet with a Picture for each unit. For "norm", `raw` is w/|w| itself and `image` shows it
        around grey. `score` is the best value.

    Raises RequestError for a layer that is not linear in the image.
    """
    if constraint not in ("norm", "box"):
        raise RequestError(f"constraint={constraint!r} should be 'norm' or 'box'")
    asked = network.layer(layer)
    place = tuple(n // 2 for n in asked.places)
    box = _box(network, asked, place)
    pictures: list[Picture] = []
    for first in range(0, asked.units, batch):
        group = [
            Unit(layer, i, place or None) for i in range(first, min(first + batch, asked.units))
        ]
        weights, biases = _linear(network, group)
        top, left, bottom, right = box
        for target, weight, bias in zip(group, weights, biases.tolist(), strict=True):
            pictures.append(
                _best(weight[:, top:bottom, left:right].float().cpu(), bias, target, constraint)
            )
    return Sheet(tuple(pictures), title=f"{network.name}: filters of {layer}")


def _linear(network: Network, group: list[Unit]) -> tuple[Tensor, Tensor]:
    """w (unit, channel, height, width) and b (unit,) with value = w.x + b for every image x."""
    question = ask.activation(group)
    size = (len(group), *network.shape)
    noise = (
        torch.rand(size[1:], generator=generator("filters"))
        .to(network.device, network.image_dtype)
        .expand(size)
    )
    values, weights = value_and_gradient(network, torch.full_like(noise, 0.5), question)
    biases = values - 0.5 * image_sum(weights)
    sizes = weights.abs().flatten(1).amax(1).clamp(min=1e-30)
    coarse = torch.finfo(network.dtype).eps
    # Far outside the box, and on both sides of it, no ReLU is likely to stay as it was.
    for elsewhere in (noise, 20 * noise - 10, 10 - 20 * noise):
        others, slopes = value_and_gradient(network, elsewhere, question)
        predicted = image_sum(weights * elsewhere) + biases
        bent = (weights - slopes).abs().flatten(1).amax(1) > max(1e-4, 4 * coarse) * sizes
        rounded = 4 * coarse * image_sum((weights * elsewhere).abs())
        off = (predicted - others).abs() > 1e-3 * others.abs().clamp(min=1) + rounded
        if bool((bent | off).any()):
            raise RequestError(
                f"{group[0].layer!r} is not linear in the image, so its units have no filter "
                f"there: take the first layer, or `maximize`"
            )
    return weights, biases


def _best(
    weight: Float[Tensor, "channel height width"], bias: float, target: Unit, constraint: str
) -> Picture:
    length = float(weight.norm())
    raw = weight / length if length else weight
    if constraint == "norm":
        image, score = 0.5 + 0.5 * raw / raw.abs().max().clamp(min=1e-30), length + bias
    else:
        image, score = (weight > 0).float(), float(weight.clamp(min=0).sum()) + bias
    return Picture(
        image=image,
        unit=str(Unit(target.layer, target.index)),
        score=score,
        history=torch.zeros(0),
        raw=raw if constraint == "norm" else None,
    )


def _box(network: Network, layer: Layer, place: tuple[int, ...]) -> Box:
    _, height, width = network.shape
    if len(place) != 2:
        return 0, 0, height, width
    return layer.field.box(place[0], place[1], height, width)
