"""Painting only what a unit can see: a convolutional unit on an image of its receptive field.

One place of an early layer sees a small square of the image. A network that is given only that
square, cut out at a multiple of the layer's step, computes the same number there, for a fraction of
the arithmetic; whether it does is tried once for each layer before it is relied upon.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor

from optogram.ascent.transform import Composed, Frame, Jitter
from optogram.core.chance import Streams
from optogram.core.network import Network
from optogram.core.unit import Place
from optogram.pictures.errors import RequestError

WORTHWHILE = 0.8  # a crop of more than this share of the image is not worth it
ROUND = 8  # sizes are multiples of this, for the processor's vectors
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Crop:
    """An image that holds all that one place of a layer sees.

    `size` is its height and width, `place` where in the layer's map of it the unit is read, `box`
    (top, left, bottom, right) what that place sees of it, and `step` the multiples at which it may
    be pasted into a full image; all in pixels but the place.
    """

    size: tuple[int, int]
    place: tuple[int, int]
    box: tuple[int, int, int, int]
    step: tuple[int, int]

    def seen(self, images: Float[Tensor, "batch channel height width"]) -> Tensor:
        """The part of such images that the place sees."""
        top, left, bottom, right = self.box
        return images[..., top:bottom, left:right]

    def pasted(
        self,
        images: Float[Tensor, "batch channel height width"],
        full: Float[Tensor, "batch channel full_height full_width"],
    ) -> tuple[Tensor, tuple[int, int]]:
        """Full images with such images pasted near their middle, and the place that sees them."""
        (top, left), place = self._near_the_middle(full.shape[-2], full.shape[-1])
        made = full.clone()
        height, width = images.shape[-2:]
        made[..., top : top + height, left : left + width] = images
        return made, place

    def _near_the_middle(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        down, right = (
            (whole - part) // 2 // step
            for whole, part, step in zip((height, width), self.size, self.step, strict=True)
        )
        at = down * self.step[0], right * self.step[1]
        return at, (self.place[0] + down, self.place[1] + right)


def crop_for(network: Network, layer: str, place: Place = None) -> Crop | None:
    """The crop on which a unit of a layer can be excited; None where it has to be the whole image.

    That is where the field is the whole image or most of it, where the place is at an edge, where
    the network takes no smaller images, and where one tried crop gave another number than the full
    image: a network with global context.
    """
    made = _planned(network, layer, place)
    if made is None:
        return None
    tried = _TRIED.setdefault(network, {})
    if (layer, made) not in tried:
        tried[layer, made] = _is_exact(network, layer, made)
    return made if tried[layer, made] else None


def margin_for(crop: Crop, transforms: Sequence[Any], shape: tuple[int, int, int]) -> int:
    """How many pixels to paint beyond each edge of the crop, so that a jitter finds them there."""
    room = min(shape[1] - crop.size[0], shape[2] - crop.size[1]) // 2
    wanted = sum(one.pixels for one in _flat(transforms) if isinstance(one, Jitter))
    return max(0, min(wanted, room)) // (ROUND // 2) * (ROUND // 2)


def window(margin: int) -> Frame:
    """The transform that shows the middle of a canvas, without its margin."""
    return Frame(-margin, "mirror")


def _planned(network: Network, name: str, place: Place) -> Crop | None:
    layer = network.layer(name)
    rows, columns = layer.field.rows, layer.field.columns
    if rows is None or columns is None or rows.fold or columns.fold or len(layer.places) != 2:
        return None
    sizes, places, spans = [], [], []
    for axis, limit, at, count in zip(
        (rows, columns), network.shape[1:], _wanted(place, layer.places), layer.places, strict=True
    ):
        first = axis.first + at * axis.step
        if not 0 <= at < count or first < 0 or first + axis.size > limit:
            return None
        own = -(-max(-axis.first, 0) // axis.step)
        begin = axis.first + own * axis.step
        sizes.append(_rounded(begin + axis.size))
        places.append(own)
        spans.append((begin, begin + axis.size))
    _, height, width = network.shape
    if sizes[0] * sizes[1] > WORTHWHILE * height * width or sizes[0] > height or sizes[1] > width:
        return None
    (top, bottom), (left, right) = spans
    return Crop(
        (sizes[0], sizes[1]),
        (places[0], places[1]),
        (top, left, bottom, right),
        (rows.step, columns.step),
    )


def _wanted(place: Place, places: tuple[int, ...]) -> tuple[int, int]:
    if isinstance(place, tuple):
        return place[0], place[1]
    return places[0] // 2, places[1] // 2


def _is_exact(network: Network, layer: str, crop: Crop) -> bool:
    streams = Streams(0, ("crop", "full"))
    channels, height, width = network.shape
    noise = streams.uniform("crop", channels * height * width).view(2, channels, height, width)
    full = noise.to(network.device, network.image_dtype)
    small = full[:, :, : crop.size[0], : crop.size[1]].flip(2).contiguous()
    pasted, place = crop.pasted(small, full.flip(0))
    try:
        alone = network.read(small, layer).layers[layer]
        within = network.read(pasted, layer).layers[layer]
    except (RequestError, RuntimeError, AssertionError, ValueError):
        return False
    if alone.dim() != 4 or min(a - p for a, p in zip(alone.shape[2:], crop.place, strict=True)) < 1:
        return False
    one, other = alone[..., crop.place[0], crop.place[1]], within[..., place[0], place[1]]
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max().clamp(min=1e-12))


def _rounded(size: int) -> int:
    return -(-size // ROUND) * ROUND


def _flat(transforms: Sequence[Any]) -> list[Any]:
    found = []
    for one in transforms:
        found += _flat(one.parts) if isinstance(one, Composed) else [one]
    return found


_TRIED: WeakKeyDictionary[Network, dict[tuple[str, Crop], bool]] = WeakKeyDictionary()
