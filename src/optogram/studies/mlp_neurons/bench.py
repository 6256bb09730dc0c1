"""What a part of the study is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from optogram.core.network import Network
from optogram.core.unit import Unit
from optogram.studies.shelf import Shelf
from optogram.survey.datasets import Images, ImageSet

HIDDEN = tuple(f"fc{number}" for number in range(1, 8))
LAYERS = (*HIDDEN, "output")


@dataclass(frozen=True, eq=False)
class Bench:
    """What every part works with: the network, its data, and what earlier parts left on the shelf.

    `account` is the JSON that was written when the network was trained, {} where there is none.
    """

    network: Network
    training: ImageSet
    test: ImageSet
    shelf: Shelf
    account: Mapping[str, Any]
    quick: bool = False
    seed: int = 0

    @cached_property
    def class_means(self) -> Float[Tensor, "10 channel height width"]:
        """The mean training image of each digit."""
        sums = torch.zeros(10, *self.network.shape, dtype=torch.float64)
        counts = torch.zeros(10, dtype=torch.float64)
        for _, images, labels in self.training.batches(1000):
            sums.index_add_(0, labels, images.double())
            counts += torch.bincount(labels, minlength=10)
        return (sums / counts.clamp(min=1)[:, None, None, None]).float()

    def digits(self, count: int) -> tuple[Images, Int64[Tensor, " image"]]:
        """The first `count` test images that the network reads rightly, and their labels."""
        images, labels = self.test.take(torch.arange(min(len(self.test), 2 * count + 20)))
        right = (self.network(images).argmax(1).cpu() == labels).nonzero()[:count, 0]
        return images[right], labels[right]

    def outputs(self) -> list[Unit]:
        """The ten outputs."""
        return [Unit("output", digit) for digit in range(10)]

    def live(self, layer: str, count: int) -> list[Unit]:
        """Units of a layer that some training image opens, evenly spread over it."""
        maxima = self.maxima(layer)
        open_ = (maxima > 0).nonzero()[:, 0]
        places = torch.linspace(0, len(open_) - 1, min(count, len(open_))).long()
        return [Unit(layer, int(index)) for index in open_[places]]

    def strong(self, layer: str, count: int) -> list[Unit]:
        """As `live`, of the half of the layer that reaches most in the data."""
        maxima = self.maxima(layer)
        loud = (maxima >= maxima.median()).nonzero()[:, 0]
        places = torch.linspace(0, len(loud) - 1, min(count, len(loud))).long()
        return [Unit(layer, int(index)) for index in loud[places]]

    def maxima(self, layer: str) -> Float[Tensor, " unit"]:
        """The largest pre-activation of each unit of a layer on the training images."""
        return self.shelf.arrays("survey")[f"{layer}.maximum"]
