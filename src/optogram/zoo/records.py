"""How strongly a data set has ever excited each unit: what a made picture is measured against."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from optogram.pictures.errors import RequestError
from optogram.survey.datasets import Images, ImageSet


def records(
    module: nn.Module,
    layers: Sequence[str],
    data: ImageSet,
    *,
    stop: int | None = None,
    batch: int = 500,
    look: Callable[[Images], Tensor] = lambda images: images,
    centre: float = 0.0,
) -> dict[str, Tensor]:
    """What each unit of some layers did on a data set, in one pass that keeps only running values.

    A unit is a channel; where a layer's output is a map, all positions count as values of the
    unit. The values are what the layer's module returns, before anything in place overwrites it.
    The module is called as it is: put it in eval mode first.

    Args:
        module: the network; it is given `look(images)` on the device of its first parameter.
        layers: names of its modules; of one that is called several times, the first call counts.
        data: the images; those that cannot be read are left out.
        stop: use only the images before this number.
        batch: how many images are shown at once; it bounds the memory.
        look: what is done to images in [0, 1] before the module sees them, such as normalising.
        centre: the value of a pixel that norms are taken from.

    Returns:
        For every layer `L.maximum`, `L.minimum`, `L.mean`, `L.std` (population), each (units,)
        float32, and `L.image` (units,) int32, the number of the image with the maximum, the first
        if several have it. For the data `data.mean_norm` (), the mean L2 norm of an image minus
        `centre`, `data.mean_image` (channel, height, width) and, where it is not 0, `data.centre`.

    Raises:
        RequestError: a layer does not exist or was not called, or there is no image.
    """
    seen: dict[str, _Seen] = {}
    heard: dict[str, _Seen] = {}
    norm, total, count = 0.0, torch.zeros(()), 0
    device = next(module.parameters()).device
    with torch.no_grad(), _listening(module, layers, heard):
        for indices, images, _ in data.batches(batch, stop=stop):
            heard.clear()
            module(look(images.to(device)))
            for layer, new in heard.items():
                new = replace(new, image=indices[new.image])
                seen[layer] = _merged(seen[layer], new) if layer in seen else new
            norm += float((images.flatten(1).double() - centre).norm(dim=1).sum())
            total = total + images.double().sum(0)
            count += len(images)
    if not count:
        raise RequestError(f"{data.name} has no image to show; give a data set that has some")
    found = {f"{name}.{key}": value for name in layers for key, value in _results(seen, name)}
    found["data.mean_norm"] = torch.tensor(norm / count, dtype=torch.float32)
    found["data.mean_image"] = (total / count).float()
    if centre:
        found["data.centre"] = torch.tensor(centre, dtype=torch.float32)
    return found


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a layer's units said so far; `spread` sums the squared distances from the mean."""

    count: int
    maximum: Float[Tensor, " unit"]
    minimum: Float[Tensor, " unit"]
    image: Int64[Tensor, " unit"]
    mean: Float64[Tensor, " unit"]
    spread: Float64[Tensor, " unit"]


def _said(output: Float[Tensor, "batch unit *place"]) -> _Seen:
    """One batch; `image` counts within it."""
    values = output.detach().cpu().reshape(*output.shape[:2], -1)
    maximum, image = values.amax(2).max(0)
    wide = values.double()
    mean = wide.mean((0, 2))
    spread = (wide - mean[:, None]).square().sum((0, 2))
    return _Seen(values[:, 0].numel(), maximum, values.amin((0, 2)), image, mean, spread)


def _merged(old: _Seen, new: _Seen) -> _Seen:
    """Both together, means and spreads by Chan, Golub & LeVeque (1979); of equal maxima the old."""
    count, away = old.count + new.count, new.mean - old.mean
    return _Seen(
        count,
        torch.maximum(old.maximum, new.maximum),
        torch.minimum(old.minimum, new.minimum),
        torch.where(new.maximum > old.maximum, new.image, old.image),
        old.mean + away * (new.count / count),
        old.spread + new.spread + away.square() * (old.count * new.count / count),
    )


def _results(seen: dict[str, _Seen], layer: str) -> Iterator[tuple[str, Tensor]]:
    if layer not in seen:
        raise RequestError(f"the network never called its layer {layer!r}; name one that it uses")
    found = seen[layer]
    yield "maximum", found.maximum.float()
    yield "minimum", found.minimum.float()
    yield "mean", found.mean.float()
    yield "std", (found.spread / found.count).sqrt().float()
    yield "image", found.image.to(torch.int32)


@contextmanager
def _listening(module: nn.Module, layers: Sequence[str], heard: dict[str, _Seen]) -> Iterator[None]:
    named = dict(module.named_modules())
    handles = []
    try:
        for layer in layers:
            if layer not in named:
                there = ", ".join(name for name in named if name)
                raise RequestError(f"no layer called {layer!r}; this network has {there}")
            hear = partial(_hear, heard, layer)
            handles.append(named[layer].register_forward_hook(hear))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hear(heard: dict[str, _Seen], layer: str, module: nn.Module, _: Any, output: Tensor) -> None:
    if layer not in heard:  # a module that is called again is another layer, `relu#2`
        heard[layer] = _said(output)
