"""Correspondence: does hiding the same part of different objects change a layer in the same way?

Zeiler & Fergus (2013), section 5.1: whether a network knows that eyes belong to faces shows in the
signs of the changes that hiding the left eye makes in several images. Where they agree more than
those of parts hidden at random, the layer establishes a correspondence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optogram.core.chance import Streams
from optogram.core.incremental import instead
from optogram.core.network import Network
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "image channel height width"]
Boxes = Int[Tensor, "image 4"]


@dataclass(frozen=True, eq=False)
class Correspondence:
    """How differently a layer reacts to a part hidden in several images; lower is more consistent.

    `distances` (image, image) is the share of the layer's numbers whose change has another sign (of
    minus, none and plus) in the one image than in the other. `mean` is their mean over all pairs,
    in [0, 1]; `total` the paper's sum of Hamming distances over ordered pairs.
    """

    layer: str
    distances: Float[Tensor, "image image"]
    numbers: int

    @property
    def mean(self) -> float:
        """The share of signs that differ, averaged over the pairs of images."""
        count = len(self.distances)
        return float(self.distances.sum()) / (count * (count - 1))

    @property
    def total(self) -> int:
        """The paper's Delta: the sum of H(sign e_i, sign e_j) over all i, j with i != j."""
        return round(float(self.distances.double().sum()) * self.numbers)


def correspondence(
    network: Network,
    images: Images,
    boxes: Boxes,
    layer: str,
    *,
    value: float | int | str | Sequence[float] | Tensor = 0.5,
) -> Correspondence:
    """How consistently hiding one part, such as the left eye, changes a layer in several images.

    Args:
        network: who is asked.
        images: (image, channel, height, width) in [0, 1], two or more.
        boxes: where the part is in each, (top, left, bottom, right) in pixels, ends excluded.
        layer: whose answer is compared, such as "features.12" or "fc7".
        value: what is shown instead, as in `occlusion`.

    Raises RequestError for fewer than two images, boxes that are not in the image, unknown layers.
    """
    _check(images, boxes)
    hidden = images.clone()
    for image, copy, (top, left, bottom, right) in zip(images, hidden, boxes.tolist(), strict=True):
        content = instead(network, image, value, (bottom - top, right - left))
        copy[:, top:bottom, left:right] = content[:, top:bottom, left:right]
    with torch.no_grad():
        whole, changed = (network.read(shown, layer).layers[layer] for shown in (images, hidden))
    signs = (whole - changed).flatten(1).sign()
    distances = (signs[:, None] != signs[None]).double().mean(-1).float().cpu()
    return Correspondence(layer, distances, signs.shape[1])


def correspondence_by_chance(
    network: Network,
    images: Images,
    size: tuple[int, int],
    layer: str,
    *,
    draws: int = 10,
    seed: int = 0,
    value: float | int | str | Sequence[float] | Tensor = 0.5,
) -> tuple[Correspondence, ...]:
    """The same with a box of that (height, width) at a random place of each image, several times.

    What a part's correspondence is to be compared with: the paper's row of random parts. The places
    follow from the seed alone.
    """
    height, width = images.shape[-2:]
    if size[0] > height or size[1] > width or min(size) < 1:
        raise RequestError(f"size={size}: the images have {height}x{width} pixels")
    streams = Streams(seed, tuple(f"image {number}" for number in range(len(images))))
    tops = streams.integers("top", 0, height - size[0], draws)
    lefts = streams.integers("left", 0, width - size[1], draws)
    found = []
    for top, left in zip(tops.T, lefts.T, strict=True):
        boxes = torch.stack([top, left, top + size[0], left + size[1]], 1)
        found.append(correspondence(network, images, boxes, layer, value=value))
    return tuple(found)


def _check(images: Images, boxes: Boxes) -> None:
    if len(images) < 2 or len(boxes) != len(images):
        raise RequestError(
            f"{len(images)} image(s) and {len(boxes)} box(es): give at least two, one box each"
        )
    height, width = images.shape[-2:]
    for top, left, bottom, right in boxes.tolist():
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise RequestError(
                f"the box {(top, left, bottom, right)} is not inside an image of {height}x{width}"
            )
