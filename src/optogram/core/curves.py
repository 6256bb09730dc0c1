"""Deletion and insertion: what a map is worth, told by the network itself.

Petsiuk et al. (2018): pixels are taken away from the image, or given to a blurred one, the map's
strongest first. A good map lets the score fall early and rise early. Beside it stand what a random
order and a blob in the middle of the image reach: a map that does not beat them tells nothing.
"""

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
    found: Attribution,
    target: Target,
    *,
    rivals: Curves | None = None,
    steps: int = 16,
    seed: int = 0,
) -> Curves:
    """Delete and insert the image's pixels in the map's order, in a random one, and centre first.

    Deleted pixels take the data's mean colour; insertion starts from the blurred image. Equal
    values come in random order. `rivals` are curves of another map of the same image and target,
    whose random and centre curves are taken over.
    """
    image = found.image.to(network.device, network.dtype)
    orders = {"map": order_of(found.spread(), str(target), seed)}
    if rivals is None:
        orders["random"] = order_of(torch.zeros(image.shape[1:]), str(target), seed)
        orders["centre"] = order_of(_blob(image), str(target), seed)
    gone, dim = (baseline_of(network, image[None], kind)[0] for kind in ("mean", "blur"))
    classes = target.layer == OUTPUT and network.layer(OUTPUT).units > 1
    score: Score = "probability" if classes else "activation"

    def follow(start: Channels, end: Channels, order: Tensor) -> Curve:
        shown = _on_the_way(start, end, order, steps)

        def ask(images: Tensor) -> Tensor:
            return Asked(network, images, (target,) * len(images), score, True).ask(images)

        return over_images(ask, shown).float().cpu()

    deletion = {name: follow(image, gone, order) for name, order in orders.items()}
    insertion = {name: follow(dim, image, order) for name, order in orders.items()}
    if rivals is None:
        return Curves(deletion, insertion)
    return Curves(rivals.deletion | deletion, rivals.insertion | insertion)


def area(curve: Curve) -> float:
    """The area under a curve over [0, 1], by trapezia."""
    return float(torch.trapezoid(curve.double(), dx=1 / (len(curve) - 1)))


def order_of(values: Map, owner: str, seed: int) -> Tensor:
    """The pixels' numbers, strongest first; NaN last; ties in an order that the seed decides."""
    flat = values.flatten().double().nan_to_num(nan=-torch.inf)
    shuffled = Streams(seed, (owner,)).uniform("order", flat.numel())[0].argsort()
    return shuffled[flat[shuffled].argsort(descending=True, stable=True)]


def _on_the_way(start: Channels, end: Channels, order: Tensor, steps: int) -> Tensor:
    """Images (step, channel, height, width) from one to the other, pixels changing in order."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    bounds = torch.arange(steps + 1) * len(order) / steps
    changed = (rank[None, :] < bounds[:, None]).view(steps + 1, 1, *start.shape[1:])
    return torch.where(changed.to(start.device), end, start)


def _blob(image: Channels) -> Map:
    rows, columns = (torch.linspace(-1, 1, n) for n in image.shape[1:])
    return -(rows[:, None] ** 2 + columns[None, :] ** 2)
