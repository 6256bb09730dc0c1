"""Two numbers about a map: how badly it foretells what changes do, and how much it changes itself.

Yeh et al. (2019): infidelity is the mean squared difference between what a map says a perturbation
will cost and what it costs; max-sensitivity how far a map moves when the image hardly does.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.activations import PerImage
from optogram.core.chance import Streams
from optogram.core.maps import Asked, Channels, Images, baseline_of, over_images
from optogram.core.network import Network
from optogram.core.unit import Target
from optogram.pictures import Attribution

Shifts = Float[Tensor, "perturbation channel height width"]


def infidelity(
    network: Network,
    found: Attribution,
    target: Target,
    shifts: Shifts,
    cost: PerImage | None = None,
) -> float | None:
    """E[(shift . map - cost)^2] over the shifts, cost = value(x) - value(x - shift), by E[cost^2].

    The map is scaled first so that the number is as small as it can be: 0 foretells every cost
    exactly, 1 none at all. For a map of contributions (whose unit is the score's, not `per pixel`)
    shift . map is the sum of the map where the image is shifted, in the proportion of the shift to
    x - baseline. `cost` is what `costs` says of the shifts, if it is known already. None for maps
    that are coarser than pixels, and where nothing costs anything.
    """
    image = found.image[None].to(network.device)
    told = foretold(found, shifts, baseline_of(network, image, "mean")[0])
    if told is None:
        return None
    cost = costs(network, found.image, target, shifts) if cost is None else cost
    cost, told = cost.double(), told.double()
    total = float(cost.square().mean())
    if total == 0:
        return None
    both, own = float((told * cost).mean()), float(told.square().mean())
    scale = both / own if own else 0.0
    return float((scale * told - cost).square().mean()) / total


def foretold(found: Attribution, shifts: Shifts, baseline: Channels) -> PerImage | None:
    """What the map says that each shift costs, up to a factor."""
    if found.raw is None or found.raw.shape != found.image.shape:
        return None
    shifts = shifts.float().cpu()
    if found.unit_of_values.endswith("per pixel"):
        return (shifts * found.raw).flatten(1).sum(1)
    away = found.image - baseline.float().cpu()
    there = away.abs() > 1e-6
    shares = torch.where(there, shifts / away.where(there, torch.ones(())), 0.0)
    return (shares * found.raw).flatten(1).sum(1)


def squares(network: Network, image: Channels, owner: str, count: int, seed: int) -> Shifts:
    """Shifts that take random squares, a quarter of the shorter side, to the data's mean colour."""
    height, width = image.shape[1:]
    side = max(1, min(height, width) // 4)
    streams = Streams(seed, (owner,))
    tops = streams.integers("tops", 0, height - side, count)[0]
    lefts = streams.integers("lefts", 0, width - side, count)[0]
    away = image - baseline_of(network, image[None], "mean")[0]
    shifts = torch.zeros(count, *image.shape, dtype=image.dtype, device=image.device)
    for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        part = (slice(None), slice(top, top + side), slice(left, left + side))
        shifts[i][part] = away[part]
    return shifts


def max_sensitivity(
    explain: Callable[[Images], Sequence[Attribution]],
    found: Attribution,
    *,
    radius: float = 0.02,
    samples: int = 4,
    seed: int = 0,
) -> float | None:
    """The largest |map(x + d) - map(x)| / |map(x)| over d uniform in [-radius, radius] a pixel.

    Norms are Euclidean, over the map before its channels were reduced. `explain` makes the maps of
    several images. None for a map of zeros.
    """
    if not bool(_whole(found).any()):
        return None
    streams = Streams(seed, (found.target,))
    shape, count = found.image.shape, found.image.numel()
    drawn = [
        streams.uniform("nearby", count, i).float().view(shape) * 2 - 1 for i in range(samples)
    ]
    nearby = (found.image + radius * torch.stack(drawn)).clamp(0, 1)
    here = _whole(found)
    away = [float((_whole(moved) - here).norm() / here.norm()) for moved in explain(nearby)]
    return max(away, default=0.0)


def costs(network: Network, image: Channels, target: Target, shifts: Shifts) -> PerImage:
    """What each shift costs the target: value(x) - value(x - shift), in the target's units."""
    image = image.to(network.device, network.dtype)

    def ask(images: Images) -> Tensor:
        return Asked(network, images, (target,) * len(images), "activation", True).ask(images)

    values = over_images(ask, torch.cat([image[None], image - shifts.to(image)])).detach().cpu()
    return values[0] - values[1:]


def _whole(found: Attribution) -> Tensor:
    return found.values if found.raw is None else found.raw
