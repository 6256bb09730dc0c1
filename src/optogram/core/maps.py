"""What techniques that explain an image share: who is asked what, and how numbers become a map."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from optogram.core import objective as ask
from optogram.core.activations import PerImage
from optogram.core.gradient import value_and_gradient
from optogram.core.layout import laid_out
from optogram.core.network import Network
from optogram.core.objective import Objective
from optogram.core.rules import Rule, plain
from optogram.core.unit import OUTPUT, Target, Targetlike, units
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError

Image = Float[Tensor, "channel height width"] | Float[Tensor, "batch channel height width"]
Images = Float[Tensor, "batch channel height width"]
Map = Float[Tensor, "height width"]
Channels = Float[Tensor, "channel height width"]
Score = Literal["activation", "probability"]
BATCH = 16


@dataclass(frozen=True, eq=False)
class Asked:
    """Images and the unit that each is asked about: image i goes with target i.

    `several` says that the request was about several, so that a Sheet is expected.
    """

    network: Network
    images: Images
    targets: tuple[Target, ...]
    score: Score
    several: bool

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def question(self) -> Objective:
        """The objective that image i is asked: the value of target i, or its probability."""
        kind = ask.activation if self.score == "activation" else ask.probability
        return kind(list(self.targets))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the targets are units of."""
        return tuple(dict.fromkeys(target.layer for target in self.targets))

    def parts(self, batch: int = BATCH) -> Iterator["Asked"]:
        """The same request in pieces of at most `batch` images."""
        for first in range(0, len(self), max(batch, 1)):
            some = slice(first, first + max(batch, 1))
            yield replace(self, images=self.images[some], targets=self.targets[some])

    def values(self) -> PerImage:
        """The target's value on its image, (batch,), without gradients."""
        with torch.no_grad():
            return torch.cat([part.ask(part.images) for part in self.parts()])

    def ask(self, images: Images) -> PerImage:
        """What other images, one for each target, are worth to the targets; gradients flow."""
        question = self.question
        return question(self.network.read(images, *question.layers, watch=True))

    def unit_of(self, target: Target, per: str = "") -> str:
        """What a value is measured in: `logit per pixel`, `activation at inception5b`, ..."""
        value = "logit" if target.layer == OUTPUT else "activation"
        return f"{'probability' if self.score == 'probability' else value}{per}"

    def result(self, maps: Sequence[Attribution], title: str) -> Attribution | Sheet:
        """One map, or a Sheet of them where several were asked for."""
        return (
            Sheet(tuple(maps), title=f"{self.network.name}: {title}") if self.several else maps[0]
        )


def asked(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    score: Score = "activation",
) -> Asked:
    """A checked request: one image and one unit, several of either, or as many of both.

    Raises RequestError for unknown units, for numbers that do not match, for a score that does not
    exist and for images that hold no numbers.
    """
    if score not in ("activation", "probability"):
        raise RequestError(f"score={score!r} should be 'activation' or 'probability'")
    images = image if image.dim() == 4 else image[None]
    wanted = [network.resolve(target) for target in units(unit)]
    several = image.dim() == 4 or not (isinstance(unit, str) or not isinstance(unit, Sequence))
    count = max(len(images), len(wanted))
    if not wanted or len(images) not in (1, count) or len(wanted) not in (1, count):
        raise RequestError(
            f"{len(images)} images and {len(wanted)} units: give one of either, or as many of both"
        )
    if not bool(torch.isfinite(images).all()):
        raise RequestError("the image holds NaN or infinity: load it again")
    images = images.detach().expand(count, *images.shape[1:]).to(network.device, network.dtype)
    return Asked(network, images, tuple(wanted * (count // len(wanted))), score, several)


def gradients(request: Asked, rule: Rule = plain, batch: int = BATCH) -> tuple[PerImage, Images]:
    """Each target's value and its gradient at its image, (batch,) and the images' shape.

    Raises RequestError as `backpropagate` does, and for images that the network cannot take.
    """
    found = []
    for part in request.parts(batch):
        found.append(value_and_gradient(request.network, part.images, part.question, rule))
    if len(found) == 1:
        return found[0]
    values, slopes = zip(*found, strict=True)
    return torch.cat(values), torch.cat(slopes)


def pixel_maps(
    request: Asked, values: PerImage, gradients: Images, *, signed: bool, title: str
) -> Attribution | Sheet:
    """Maps of what arrives at each pixel: the channel of largest size, with its sign or without."""
    reduce = strongest if signed else largest
    raws, images = gradients.float().cpu(), request.images.float().cpu()
    numbers = values.tolist()
    maps = [
        Attribution(
            values=reduce(raws[i]),
            raw=raws[i],
            image=images[i],
            target=str(target),
            score=numbers[i],
            signed=signed,
            unit_of_values=request.unit_of(target, " per pixel"),
        )
        for i, target in enumerate(request.targets)
    ]
    return request.result(maps, title)


def share_maps(
    request: Asked,
    values: PerImage,
    shares: Images,
    title: str,
    checks: Sequence[dict] | None = None,
) -> Attribution | Sheet:
    """Maps of what each pixel contributed, its channels summed; signed, in the target's own units.

    Raises RequestError where a share is not finite.
    """
    finite(shares, title)
    raws, images = shares.float().cpu(), request.images.float().cpu()
    maps = [
        Attribution(
            values=raws[i].sum(0),
            raw=raws[i],
            image=images[i],
            target=str(target),
            score=float(values[i]),
            signed=True,
            checks=checks[i] if checks else None,
            unit_of_values=request.unit_of(target),
        )
        for i, target in enumerate(request.targets)
    ]
    return request.result(maps, title)


def finite(values: Tensor, what: str) -> None:
    """Refuse a map of NaNs. Raises RequestError."""
    if not bool(torch.isfinite(values).all()):
        raise RequestError(
            f"the map of {what} holds NaN or infinity on this image, so it says nothing"
        )


def largest(raw: Channels) -> Map:
    """The largest |value| of each pixel's channels (Simonyan et al., 2013, sec. 3.1)."""
    return raw.abs().amax(0)


def strongest(raw: Channels) -> Map:
    """The value of largest size of each pixel's channels, with its sign."""
    return raw.gather(0, raw.abs().argmax(0, keepdim=True))[0]


def baseline_of(network: Network, images: Images, baseline: float | str) -> Images:
    """The image that counts as no evidence, for each image: a grey level, "mean" or "blur".

    A number is a grey level in [0, 1], 0 black; "mean" is the data's mean colour, which is 0 after
    the network's normalisation (0 where it has none); "blur" is the image itself, blurred by a
    Gaussian of a tenth of its shorter side.

    Raises RequestError for anything else.
    """
    if baseline == "mean":
        # Normalising is the Network's business: where it gives 0 follows from two greys.
        black = network.normalized(torch.zeros_like(images[:1]))
        white = network.normalized(torch.ones_like(images[:1]))
        return (-black / (white - black)).expand_as(images)
    if baseline == "blur":
        return blurred(images, min(images.shape[-2:]) / 10)
    try:
        level = float(baseline)
    except (TypeError, ValueError):
        level = -1.0
    if not 0 <= level <= 1:
        raise RequestError(
            f"baseline={baseline!r} should be a grey level in [0, 1], 'mean' or 'blur'"
        )
    return torch.full_like(images, level)


def blurred(images: Images, sigma: float) -> Images:
    """Images under a Gaussian of `sigma` pixels, cut at 3 sigma; edges are repeated."""
    reach = max(1, round(3 * sigma))
    along = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (along / max(sigma, 1e-6)) ** 2)
    weights = (weights / weights.sum()).repeat(images.shape[1], 1)
    for axis, pad in ((-1, (reach, reach, 0, 0)), (-2, (0, 0, reach, reach))):
        padded = F.pad(images, pad, mode="replicate")
        kernel = weights[:, None, None, :] if axis == -1 else weights[:, None, :, None]
        images = F.conv2d(padded, kernel, groups=images.shape[1])
    return images


def resized(maps: Float[Tensor, "batch channel rows columns"], size: tuple[int, int]) -> Images:
    """Coarse maps stretched over the image, bilinearly, their outer edges on the image's."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def grid(
    network: Network, layer: str, answer: Tensor, image: tuple[int, int]
) -> Float[Tensor, "batch unit rows columns"]:
    """A layer's answer as maps, (batch, units, rows, columns): tokens are laid out over the image.

    A layer of n tokens is a grid of h x w with the image's proportions, its first tokens (class and
    register tokens) left out. `network.module.num_prefix_tokens` says how many those are where the
    model has it, else the fewest that leave a grid.

    Raises RequestError for a layer that has no places, and for tokens that form no such grid.
    """
    described = network.layer(layer)
    channels_first = answer.movedim(described.axis, 1)
    if channels_first.dim() == 4:
        return channels_first
    if channels_first.dim() != 3:
        raise RequestError(
            f"{layer!r} of {network.name} has no places, one number a unit: take an earlier layer"
        )
    tokens = channels_first.shape[2]
    prefix, rows, columns = _token_grid(network, layer, tokens, image)
    return channels_first[:, :, prefix:].unflatten(2, (rows, columns))


def over_images(function: Callable[[Images], Tensor], images: Images, batch: int = BATCH) -> Tensor:
    """A function's answers for many images, `batch` at a time, joined; without gradients."""
    with torch.no_grad():
        return torch.cat([function(laid_out(part)) for part in images.split(batch)])


def _token_grid(
    network: Network, layer: str, tokens: int, image: tuple[int, int]
) -> tuple[int, int, int]:
    said = getattr(network.module, "num_prefix_tokens", None)
    for prefix in [said] if isinstance(said, int) else range(0, min(tokens, 17)):
        columns = round(((tokens - prefix) * image[1] / image[0]) ** 0.5)
        rows = (tokens - prefix) // max(columns, 1)
        if rows * columns == tokens - prefix and rows > 1 and columns > 1:
            exact = rows * image[1] == columns * image[0]
            if exact or isinstance(said, int):
                return prefix, rows, columns
    raise RequestError(
        f"the {tokens} tokens of {layer!r} are no grid over an image of "
        f"{image[0]}x{image[1]} pixels: take another layer"
    )
