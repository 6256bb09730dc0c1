"""A network that is studied, its data, and the sphere that both are compared on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.network import Network
from optogram.core.unit import Unit
from optogram.pictures import Picture
from optogram.survey.datasets import Images, ImageSet
from optogram.techniques import maximize

LAYERS = ("h1", "h2", "h3")
STARTS, COMPARED, AT_ONCE = 9, 10_000, 1000
PIXEL = 0.33
"""What the preset's step is made for: a digit's pixel, in the root mean square."""

Values = Float[Tensor, " image"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with training images, all seen on the sphere of the data's mean norm."""

    network: Network
    data: ImageSet
    quick: bool = False
    seed: int = 0

    @property
    def belief(self) -> bool:
        """Whether it has a distribution to sample from."""
        return hasattr(self.network.module, "boltzmanns")

    @property
    def rho(self) -> float:
        """The mean norm of the data, from their centre."""
        return float(self.network.records["data.mean_norm"])

    @property
    def centre(self) -> float:
        """The grey that norms are taken from."""
        return float(self.network.records.get("data.centre", torch.tensor(0.0)))

    @cached_property
    def images(self) -> Images:
        """The first 10,000 training images, at the mean norm."""
        stop = COMPARED // 5 if self.quick else COMPARED
        shown = torch.cat([images for _, images, _ in self.data.batches(AT_ONCE, stop=stop)])
        kept = (shown - self.centre).flatten(1).norm(dim=1) > 1e-3
        return self.on_sphere(shown[kept])

    @cached_property
    def optima(self) -> dict[str, list[list[Picture]]]:
        """Of some units of each layer what each of nine starts led to."""
        return {layer: list(self._climbed(self.units(layer))) for layer in LAYERS}

    def units(self, layer: str, count: int | None = None) -> list[Unit]:
        """Units of a layer, evenly spread over it."""
        of = self.network.layer(layer).units
        count = count or (8 if self.quick else 40)
        return [Unit(layer, int(i * of / count)) for i in range(min(count, of))]

    def on_sphere(self, images: Images) -> Images:
        """Images moved towards the centre, or away from it, until they have the mean norm."""
        away = images - self.centre
        lengths = away.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
        return self.centre + away * (self.rho / lengths)

    def away(self, images: Images) -> Float[Tensor, "image number"]:
        """Directions of images from the centre, each of length 1."""
        return torch.nn.functional.normalize((images - self.centre).flatten(1), dim=1)

    def ask(self, unit: Unit, images: Images) -> Values:
        """What goes into a unit's sigmoid."""
        assert isinstance(unit.index, int)
        return self.heard(unit.layer, images)[:, unit.index]

    def heard(self, layer: str, images: Images) -> Float[Tensor, "image unit"]:
        """What goes into the sigmoids of a layer."""
        asked = images.split(AT_ONCE)
        with torch.no_grad():
            return torch.cat([self.network.read(x, layer).layers[layer].cpu() for x in asked])

    def best(self, layer: str) -> dict[int, Picture]:
        """By unit the best of what the starts led to."""
        return {
            _number(starts[0]): max(starts, key=lambda p: p.score or 0.0)
            for starts in self.optima[layer]
        }

    def _climbed(self, units: list[Unit]) -> Iterator[list[Picture]]:
        lr = 0.05 * self.rho / (self.images[0].numel() ** 0.5 * PIXEL)
        options = {"preset": "erhan2009", "lr": lr, "seed": self.seed}
        options |= {"facets": STARTS, "diversity": 0.0}
        made = list(maximize(self.network, units, **options))  # type: ignore[arg-type]
        for first in range(0, len(made), STARTS):
            yield made[first : first + STARTS]


def numbers(pictures: list[Picture]) -> Images:
    """Pictures as the network was asked about them, not as they are shown."""
    return torch.stack([p.image if p.raw is None else p.raw for p in pictures])


def _number(picture: Picture) -> int:
    return int(picture.unit.split(":")[1])
