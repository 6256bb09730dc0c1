"""A caricature: what a layer makes of an image, exaggerated."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from optogram.ascent import Parameterization, ascend, param
from optogram.core import objective as ask
from optogram.core import progress
from optogram.core.activations import Activations, PerImage
from optogram.core.chance import Streams
from optogram.core.expression import parse
from optogram.core.network import Network
from optogram.core.objective import Objective
from optogram.core.technique import Photograph, technique
from optogram.pictures import Picture
from optogram.pictures.errors import RequestError


@technique
def accentuate(
    network: Network,
    image: Photograph,
    layer: str,
    *,
    power: float = 1.0,
    start: Literal["image", "noise"] = "image",
    steps: int = 64,
    lr: float = 0.03,
    transforms: Sequence[Any] | str = "[jitter(8), scale([0.95, 1.05]), jitter(4)]",
    size: int | None = None,
    seed: int = 0,
) -> Picture:
    """Exaggerate what a layer sees in an image (lucid's caricatures, 2018).

    Raises, averaged over the layer's places, the dot product of the picture's answer with the
    image's, times their cosine to a power. Both are looked at through the same transforms.

    Args:
        network: who looks.
        image: what is exaggerated, of a size that the network takes; it keeps its size.
        layer: whose answer, as in `inception4c`.
        power: of the cosine; more of it keeps closer to the image's own mixture of channels.
        start: at the image, or from noise: then nothing is in the picture but what the layer asks
            for.
        steps: how many steps to take.
        lr: Adam's step size, for the picture's frequencies.
        transforms: functions the network looks through; also as text.
        size: resize the image first, so that its longer side has so many pixels.
        seed: decides the transforms and the noise.

    Returns:
        A Picture. `score` is the mean dot product, and `measures` how many times the image's with
        itself it is, and the cosine that is left.

    Raises RequestError for a layer that is not there and for a power below 0.
    """
    if power < 0:
        raise RequestError(f"power={power}: at least 0")
    target = network.resolve(layer)
    if target.index is not None:
        raise RequestError(f"{layer}: a caricature is of a whole layer, as in {target.layer!r}")
    image = _of_size(image, size).to(network.device, network.image_dtype)
    channels, height, width = image.shape
    begun = param.fourier(start=image if start == "image" else None)
    look = parse(transforms) if isinstance(transforms, str) else transforms
    history: list[Tensor] = []
    for step in ascend(
        network,
        _alike(target.layer, power),
        _Beside(image, begun),
        steps=steps,
        optimizer="Adam",
        lr=lr,
        relative=True,
        redirect=16,
        transforms=list(look),
        shape=(channels, height, width),
        owners=[f"accentuate {target.layer}"] * 2,  # the same stream, so the same transforms
        seed=seed,
    ):
        history.append(step.scores[1])
        progress.tell("accentuate", step.index, steps)
    pair = torch.stack([image, step.images[1]])
    own, made = _places(network.read(pair, target.layer), target.layer)
    dot, length = float((own * made).sum(0).mean()), float(own.square().sum(0).mean())
    cosine = float(F.cosine_similarity(own, made, dim=0, eps=1e-12).mean())
    grown = (("times the image's", dot / length),) if length > 0 else ()
    return Picture(
        image=step.images[1].float().cpu().clamp(0, 1),
        unit=target.layer,
        score=dot,
        history=torch.stack(history).float().cpu(),
        measures=(*grown, ("cosine", cosine)),
    )


class _Beside(Parameterization):
    """What is painted, beside an image that stays as it is and is looked at in the same way."""

    def __init__(self, image: Tensor, painted: Parameterization) -> None:
        super().__init__()
        self.image, self.painted = image, painted

    def begin(self, shape: tuple[int, ...], streams: Streams, like: Tensor) -> None:
        """Set the start of what is painted."""
        self.painted.begin(shape, Streams(streams.seed, streams.owners[1:]), like)
        self.given = self.image[None].to(like)

    def canvas(self) -> Tensor:
        """The image, then the picture."""
        return torch.cat([self.given, self.painted.canvas()])

    def guard(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """As what is painted has it."""
        return self.painted.guard(gradients)

    def settle(self) -> None:
        """As what is painted has it."""
        self.painted.settle()


def _alike(layer: str, power: float) -> Objective:
    """0 for the image, and for the picture the mean of dot x max(0.1, cosine)^power."""

    def value(acts: Activations) -> PerImage:
        own, made = _places(acts, layer)
        own = own.detach()
        dots = (own * made).sum(0)
        cosine = F.cosine_similarity(own, made, dim=0, eps=1e-12).clamp(min=0.1)
        total = (dots * cosine**power).mean()
        return torch.stack([torch.zeros_like(total), total])

    return ask.objective(value, layer, text=f'caricature("{layer}", {power})')


def _places(acts: Activations, layer: str) -> tuple[Tensor, Tensor]:
    """The answers to the image and to the picture, (channel, place) each."""
    answer = acts.layers[layer]
    axis = acts.network.layer(layer).axis
    own, made = answer.movedim(axis, 1).reshape(2, answer.shape[axis], -1)
    return own, made


def _of_size(image: Tensor, size: int | None) -> Tensor:
    if size is None or max(image.shape[-2:]) == size:
        return image
    share = size / max(image.shape[-2:])
    height, width = (max(1, round(n * share)) for n in image.shape[-2:])
    whole = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
    return whole[0].clamp(0, 1)
