"""Deletion and insertion: what a map is worth, told by the network itself.

Petsiuk et al. (2018): pixels are taken away from the image, or given to a blurred one, the map's
strongest first. A good map lets the score fall early and rise early. Beside it stand what a random
order and a blob in the middle of the image reach: a map that does not beat them tells nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.chance import Streams
from optogram.core.maps import Asked, Channels, Map, Score, baseline_of, over_images
from optogram.core.network import Network
from optogram.core.unit import OUTPUT, Target
from optogram.pictures import Attribution

Curve = Float[Tensor, " step"]
RIVALS = ("random", "centre")
CLEARLY = 0.01


@dataclass(frozen=True, eq=False)
class Curves:
    """The score after each step, from none of the pixels to all of them, for a map and its rivals.

    `deletion` and `insertion` hold a curve (step,) for "map", "random" and "centre"; scores are
    probabilities for outputs, else the unit's value. To beat a rival takes 0.01 of area.
    """

    deletion: dict[str, Curve]
    insertion: dict[str, Curve]

    def areas(self) -> dict[str, dict[str, float]]:
        """The area under each curve, the pixels' share running from 0 to 1."""
        kinds = {"deletion": self.deletion, "insertion": self.insertion}
        return {kind: {n: area(c) for n, c in curves.items()} for kind, curves in kinds.items()}

    def facts(self) -> dict[str, Any]:
        """For `Attribution.checks`: a line in words for each, and the numbers behind them."""
        areas = self.areas()
        words = {}
        for kind, better in (("deletion", -1), ("insertion", 1)):
            mine, random, centre = (areas[kind][name] for name in ("map", *RIVALS))
            rivals = {"random": random, "centre": centre}
            beaten = [n for n, rival in rivals.items() if better * (mine - rival) > CLEARLY]
            said = ["beats neither", f"beats {''.join(beaten)}", "beats both"][len(beaten)]
            words[kind] = f"{mine:.2g}, {said}"
        curves = {
            kind: {name: curve.tolist() for name, curve in group.items()}
            for kind, group in (("deletion", self.deletion), ("insertion", self.insertion))
        }
        return {**words, "areas": areas, "curves": curves}


def curves(
    network: Network,
    maps: Sequence[Attribution],
    target: Target,
    *,
    steps: int = 16,
    seed: int = 0,
) -> list[Curves]:
    """Delete and insert the image's pixels in each map's order, in a random one, and centre first.

    Deleted pixels take the data's mean colour; insertion starts from the blurred image. Equal
    values come in random order. The maps are of one image, whose rivals are followed once: in all
    (maps + 2) * 2 * (steps - 1) + 3 images are shown.
    """
    image = maps[0].image.to(network.device, network.dtype)
    orders = [order_of(found.spread(), str(target), seed) for found in maps]
    rivals = (torch.zeros(image.shape[1:]), _blob(image))
    orders += [order_of(values, str(target), seed) for values in rivals]
    gone, dim = (baseline_of(network, image[None], kind)[0] for kind in ("mean", "blur"))
    classes = target.layer == OUTPUT and network.layer(OUTPUT).units > 1
    score: Score = "probability" if classes else "activation"

    def ask(images: Tensor) -> Tensor:
        return Asked(network, images, (target,) * len(images), score, True).ask(images)

    whole, none, blurred = over_images(ask, torch.stack([image, gone, dim])).float().cpu()[:, None]
    deletion, insertion = [], []
    for order in orders:
        shown = _on_the_way(image, gone, order, steps), _on_the_way(dim, image, order, steps)
        lost, won = over_images(ask, torch.cat(shown)).float().cpu().chunk(2)
        deletion.append(torch.cat([whole, lost, none]))
        insertion.append(torch.cat([blurred, won, whole]))
    return [
        Curves(*(dict(zip(("map", *RIVALS), (kind[i], *kind[-2:]), strict=True)) for kind in both))
        for both in [(deletion, insertion)]
        for i in range(len(maps))
    ]


def area(curve: Curve) -> float:
    """The area under a curve over [0, 1], by trapezia."""
    return float(torch.trapezoid(curve.double(), dx=1 / (len(curve) - 1)))


def order_of(values: Map, owner: str, seed: int) -> Tensor:
    """The pixels' numbers, strongest first; NaN last; ties in an order that the seed decides."""
    flat = values.flatten().double().nan_to_num(nan=-torch.inf)
    shuffled = Streams(seed, (owner,)).uniform("order", flat.numel())[0].argsort()
    return shuffled[flat[shuffled].argsort(descending=True, stable=True)]


def _on_the_way(start: Channels, end: Channels, order: Tensor, steps: int) -> Tensor:
    """Images (step - 1, channel, height, width) between one and the other, pixel after pixel."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    bounds = torch.arange(1, steps) * len(order) / steps
    changed = (rank[None, :] < bounds[:, None]).view(steps - 1, 1, *start.shape[1:])
    return torch.where(changed.to(start.device), end, start)


def _blob(image: Channels) -> Map:
    rows, columns = (torch.linspace(-1, 1, n) for n in image.shape[1:])
    return -(rows[:, None] ** 2 + columns[None, :] ** 2)
