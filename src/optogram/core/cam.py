"""A layer's maps over an image, and what arrives at them from the units that are asked about."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.activations import PerImage
from optogram.core.gradient import slope
from optogram.core.maps import BATCH, Asked, Images, finite, grid, resized
from optogram.core.network import Layer
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError

Coarse = Float[Tensor, "batch rows columns"]
AT_ONCE = 24


@dataclass(frozen=True, eq=False)
class Heard:
    """What a layer answered, as maps over the image, and the targets' gradient at it."""

    layer: str
    values: PerImage
    maps: Images
    gradients: Images


def heard(request: Asked, layer: str) -> Heard:
    """The maps of `layer` on each image, and the gradient of its target there; no graph is kept.

    Raises RequestError for a layer without places, and for one that the targets do not depend on.
    """
    network, name = request.network, request.network.layer(layer).name
    _check_order(request, name)
    question, size = request.question, _size(request)
    with torch.enable_grad():
        acts = network.read(
            request.images.detach().requires_grad_(),
            *dict.fromkeys([*question.layers, name]),
            watch=True,
        )
        grid(
            network, name, acts.layers[name], size
        )  # refuses a layer without places, in a sentence
        values = question(acts)
        try:
            (gradient,) = slope(values, acts.layers[name], what=str(question))
        except RequestError as problem:
            raise RequestError(
                f"{question} does not depend on {name!r} of {network.name}: take an earlier layer"
            ) from problem
    maps, gradients = (grid(network, name, t.detach(), size) for t in (acts.layers[name], gradient))
    return Heard(name, values.detach(), maps, gradients)


def deepest_maps(request: Asked) -> str:
    """The last layer with places that the targets look at in more than one of them.

    For most convolutional networks that is the last block before global pooling; for a vision
    transformer the last layer whose patch tokens still reach the class token.

    Raises RequestError for a network in which there is none.
    """
    network, one = request.network, next(request.parts(1))
    last = min(_position(request, layer) for layer in request.layers)
    own = {network.layer(layer).same_as for layer in request.layers}
    candidates = [x.name for x in network.layers[:last] if _has_places(x) and x.name not in own]
    while candidates:
        arriving = _arriving(one, tuple(candidates[-AT_ONCE:]))
        found = [name for name in arriving if _reaches(one, name, arriving[name])]
        if found:
            return found[-1]
        candidates = candidates[:-AT_ONCE]
    raise RequestError(
        f"{network.name} has no layer with places before {', '.join(request.layers)}: a class "
        f"activation map is over a layer's places, so take saliency or integrated_gradients"
    )


def cam(
    request: Asked,
    layer: str | None,
    weigh: Callable[[Heard], Coarse],
    title: str,
    *,
    signed: bool = False,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Class activation maps: a layer's maps weighed into one, and stretched over the image.

    `weigh` gives the coarse map (batch, rows, columns) with its sign; unless `signed`, all below
    0 is cut off before it is stretched. `raw` is the coarse map, (1, rows, columns).
    """
    name = layer if layer is not None else deepest_maps(request)
    maps: list[Attribution] = []
    for part in request.parts(batch):
        answer = heard(part, name)
        coarse = weigh(answer)
        maps += coarse_maps(part, answer.values, coarse, answer.layer, title, signed=signed)
    return request.result(maps, title)


def coarse_maps(
    request: Asked,
    values: PerImage,
    coarse: Coarse,
    layer: str,
    title: str,
    *,
    signed: bool,
) -> list[Attribution]:
    """An Attribution for each coarse map, stretched over its image. RequestError for NaN."""
    finite(coarse, title)
    shown = coarse if signed else coarse.clamp(min=0)
    stretched = resized(shown[:, None], _size(request))[:, 0].float().cpu()
    return [
        Attribution(
            values=stretched[i],
            raw=coarse[i : i + 1].float().cpu(),
            image=request.images[i].float().cpu(),
            target=str(target),
            score=float(values[i]),
            signed=signed,
            unit_of_values=request.unit_of(target, f" at {layer}"),
        )
        for i, target in enumerate(request.targets)
    ]


def _size(request: Asked) -> tuple[int, int]:
    return request.images.shape[2], request.images.shape[3]


def _position(request: Asked, layer: str) -> int:
    return [known.name for known in request.network.layers].index(layer)


def _check_order(request: Asked, layer: str) -> None:
    for target in request.layers:
        if _position(request, layer) >= _position(request, target):
            raise RequestError(
                f"{layer!r} does not come before {target!r} in {request.network.name}: a class "
                f"activation map is of a layer below the unit"
            )


def _has_places(layer: Layer) -> bool:
    return len(layer.places) > 0 and max(layer.places) > 1


def _reaches(request: Asked, name: str, gradient: Tensor) -> bool:
    """Whether a gradient arrives in more than one place of its layer."""
    try:
        places = grid(request.network, name, gradient, _size(request))
    except RequestError:
        return False
    return int((places != 0).any(1).sum()) > 1


def _arriving(request: Asked, names: tuple[str, ...]) -> dict[str, Tensor]:
    with torch.enable_grad():
        acts = request.network.read(
            request.images.detach().requires_grad_(),
            *dict.fromkeys([*request.question.layers, *names]),
            watch=True,
        )
        value = request.question(acts).sum()
        reached = [name for name in names if acts.layers[name].requires_grad]
        slopes = torch.autograd.grad(value, [acts.layers[n] for n in reached], allow_unused=True)
    return {n: s for n, s in zip(reached, slopes, strict=True) if s is not None}
