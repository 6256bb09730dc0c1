"""What a part of the study is given: networks, images, and what was written while they learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from optogram.core.network import Network
from optogram.studies.shelf import Shelf
from optogram.survey.datasets import Images, ImageSet

CONVOLUTIONS = 5


@dataclass(frozen=True, eq=False)
class Bench:
    """What every part works with.

    `images` are those that are looked into; `training` and `test` have labels, and are what layers
    are probed with. `other` is the network with the other first layer, None where the network is
    none of the two. `checkpoints` are the network after some epochs. `accounts` holds the JSON that
    was written when a network was trained, by its name, and "comparison". `faces` are images with
    boxes around three parts of each, for the correspondence.
    """

    network: Network
    other: Network | None
    images: ImageSet
    training: ImageSet
    test: ImageSet
    checkpoints: Mapping[int, Network]
    accounts: Mapping[str, Any]
    faces: "Faces"
    shelf: Shelf
    quick: bool = False
    seed: int = 0

    @cached_property
    def convolutions(self) -> tuple[str, ...]:
        """Five convolutions that look beyond a pixel, evenly spread from the first to the last."""
        return convolutions(self.network)

    @cached_property
    def high(self) -> str:
        """The last hidden layer: the last but one that is linear, or else the last convolution."""
        linear = [layer.name for layer in self.network.layers if layer.kind == "Linear"]
        return linear[-2] if len(linear) > 1 else self.convolutions[-1]

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        """The convolutions of the study, and all hidden linear layers."""
        linear = [layer.name for layer in self.network.layers if layer.kind == "Linear"]
        return (*self.convolutions, *linear[:-1])

    @cached_property
    def shown(self) -> Images:
        """Five images that the network is sure about, of as many kinds as there are."""
        return self.images.take(torch.tensor(self.sure(5)))[0]

    @cached_property
    def said(self) -> list[tuple[int, float, int, int]]:
        """Of each image its number, the probability of the likeliest class, that class, its own."""
        found: list[tuple[int, float, int, int]] = []
        for numbers, images, labels in self.images.batches(50):
            with torch.no_grad():
                chance, said = self.network(images).softmax(1).cpu().max(1)
            columns = (numbers, chance, said, labels)
            found += zip(*(column.tolist() for column in columns), strict=True)
        return found

    def sure(self, count: int, at: float = 1.0) -> list[int]:
        """The numbers of images whose likeliest class has a probability near `at`, one of a class.

        Where labels are known and mean the same as the outputs, only images that are read rightly.
        """
        best: dict[int, tuple[float, int]] = {}
        for number, p, c, label in self.said:
            right = c == label or not self.speaks
            if right and abs(p - at) < best.get(c, (2.0, 0))[0]:
                best[c] = (abs(p - at), number)
        ranked = sorted(best.values())
        return [number for _, number in ranked[:count]]

    @cached_property
    def speaks(self) -> bool:
        """Whether the labels of the images are the network's own classes."""
        return bool(self.network.labels) and self.images.classes == self.network.labels


@dataclass(frozen=True, eq=False)
class Faces:
    """Images (image, 3, height, width) of faces, and where some parts of each are, as boxes."""

    name: str
    images: Float[Tensor, "image channel height width"]
    parts: Mapping[str, Int64[Tensor, "image 4"]]


def convolutions(network: Network) -> tuple[str, ...]:
    """Five convolutions that look beyond a pixel, evenly spread from the first to the last."""
    modules = dict(network.module.named_modules())
    wide = [
        layer.name
        for layer in network.layers
        if isinstance(conv := modules.get(layer.name), nn.Conv2d) and max(conv.kernel_size) > 1
    ]
    places = torch.linspace(0, len(wide) - 1, min(CONVOLUTIONS, len(wide)))
    return tuple(wide[int(place)] for place in places.round().tolist())


def heard(network: Network, images: Images, *layers: str, batch: int = 50) -> dict[str, Tensor]:
    """What layers answer to images, rectified but for the output, (image, unit, *place)."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    for some in images.split(batch):
        with torch.no_grad():
            read = network.read(some, *layers)
        for name in layers:
            values = read.layers[name].cpu()
            found[name].append(values if name == "output" else values.clamp(min=0))
    return {name: torch.cat(parts) for name, parts in found.items()}
