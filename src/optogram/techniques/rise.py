"""RISE: look through many random masks, and add those up that leave the score high."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from optogram.core import progress
from optogram.core.chance import Streams
from optogram.core.maps import BATCH, Asked, Image, Score, asked, baseline_of, finite
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import OUTPUT, Targetlike
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError

Masks = Float[Tensor, "mask 1 height width"]


@technique
def rise(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score | None = None,
    samples: int = 1000,
    cells: int = 7,
    keep: float = 0.5,
    baseline: float | str = "mean",
    batch: int = BATCH,
    seed: int = 0,
) -> Attribution | Sheet:
    """Show which pixels keep a score high, by the score under random masks (Petsiuk et al., 2018).

    Masks are random grids of cells, stretched and shifted; the map is the mean score of the masks
    that show a pixel, less the mean score of all: sum of (f(x masked by M) - mean f) M, divided by
    samples times `keep`. The network is only asked, never differentiated. What is masked takes the
    baseline's colour: a half hidden image is nothing the network has ever seen, and few samples
    leave noise of the masks' own shape.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability". By
            default the probability for classes, as in the paper, else the activation.
        samples: how many masks; the paper has 4000 to 8000.
        cells: cells along each side of a mask's grid.
        keep: the share of cells that are shown.
        baseline: a grey level in [0, 1], "mean" (the data's mean colour) or "blur".
        batch: how many masked images are computed together.
        seed: with the unit's address it decides the masks.

    Returns:
        An Attribution, or a Sheet where there are several images or units, in units of the score.

    Raises RequestError for unknown units, images that the network cannot take, and odd numbers.
    """
    if samples < 1 or cells < 1 or not 0 < keep < 1:
        raise RequestError(
            f"samples={samples}, cells={cells}, keep={keep}: at least 1 mask and 1 cell, and a "
            f"share between 0 and 1"
        )
    request = asked(network, image, unit)
    outputs = all(target.layer == OUTPUT for target in request.targets)
    request = asked(network, image, unit, score or ("probability" if outputs else "activation"))
    values = request.values()
    maps = []
    for i, one in enumerate(request.parts(1)):
        found = _masked_mean(one, samples, cells, keep, baseline, batch, seed)
        finite(found, "RISE")
        maps.append(
            Attribution(
                values=found,
                image=one.images[0],
                target=str(one.targets[0]),
                score=float(values[i]),
                unit_of_values=request.unit_of(one.targets[0]),
            )
        )
    return request.result(maps, "RISE")


def _masked_mean(
    one: Asked, samples: int, cells: int, keep: float, baseline: float | str, batch: int, seed: int
) -> Float[Tensor, "height width"]:
    image, away = one.images, baseline_of(one.network, one.images, baseline)
    size = (image.shape[2], image.shape[3])
    weighed = torch.zeros(size, dtype=torch.float64)
    shown = torch.zeros(size, dtype=torch.float64)
    total = 0.0
    for first in range(0, samples, batch):
        count = min(batch, samples - first)
        drawn = masks(str(one.targets[0]), first, count, size, cells, keep, seed)
        veil = drawn.to(image)
        some = Asked(one.network, image, one.targets * count, one.score, True)
        with torch.no_grad():
            scores = some.ask(veil * image + (1 - veil) * away).double().cpu()
        weighed += (scores.view(-1, 1, 1) * drawn[:, 0].double()).sum(0)
        shown += drawn[:, 0].double().sum(0)
        total += float(scores.sum())
        progress.tell("RISE", first + count, samples)
    return ((weighed - total / samples * shown) / (samples * keep)).float()


def masks(
    owner: str, first: int, count: int, size: tuple[int, int], cells: int, keep: float, seed: int
) -> Masks:
    """Masks from `first` on: random cells, stretched over a cell more than the image, shifted."""
    streams = Streams(seed, (owner,))
    made = []
    for number in range(first, first + count):
        open_cells = (streams.uniform("cells", cells * cells, number) < keep).float()
        high, wide = (-(-side // cells) for side in size)
        grid = open_cells.view(1, 1, cells, cells)
        large = F.interpolate(grid, size=((cells + 1) * high, (cells + 1) * wide), mode="bilinear")
        shift = streams.uniform("shift", 2, number)[0]
        top, left = int(shift[0] * high), int(shift[1] * wide)
        made.append(large[:, :, top : top + size[0], left : left + size[1]].clamp(0, 1))
    return torch.cat(made)
