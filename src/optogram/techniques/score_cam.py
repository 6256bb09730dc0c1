"""Score-CAM: a deep layer's maps, weighed by the score of the image seen through each."""

from collections.abc import Sequence

import torch

from optogram.core import progress
from optogram.core.cam import coarse_maps, deepest_maps
from optogram.core.maps import (
    BATCH,
    Asked,
    Image,
    Images,
    Score,
    asked,
    baseline_of,
    grid,
    over_images,
    resized,
)
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError


@technique
def score_cam(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    layer: str | None = None,
    score: Score = "activation",
    channels: int | None = 64,
    baseline: float | str = "mean",
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Show where a deep layer speaks for a class, without gradients (Wang et al., 2020).

    Each channel's map, stretched over the image and brought to [0, 1], is a mask; the channel's
    weight is the score of the image seen through it, less that of the baseline, under a softmax
    over the channels; below 0 the weighted sum of maps is cut off. Every channel costs a pass: by
    default only the strongest are asked, which leaves out what many weak ones say together.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        layer: whose maps; by default the last layer that the unit looks at in more than one place.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        channels: how many channels, those that reach highest; None for all, as in the paper.
        baseline: what hidden pixels become: a grey level, "mean" (of the data) or "blur".
        batch: how many masked images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is the coarse map
        with its sign, (1, rows, columns).

    Raises RequestError for unknown units, for images that the network cannot take, and for layers
    without places.
    """
    if channels is not None and channels < 1:
        raise RequestError(f"channels={channels}: at least 1, or None for all")
    request = asked(network, image, unit, score)
    name = layer if layer is not None else deepest_maps(request)
    items: list[Attribution] = []
    for one in request.parts(1):
        size = (one.images.shape[2], one.images.shape[3])
        with torch.no_grad():
            answer = network.read(one.images, name).layers[name]
            maps = grid(network, name, answer, size)[0]
        strongest = maps.flatten(1).amax(1).argsort(descending=True, stable=True)[:channels]
        weights = _weights(one, maps[strongest][:, None], baseline, batch)
        coarse = (weights.view(-1, 1, 1) * maps[strongest]).sum(0, keepdim=True)
        items += coarse_maps(one, one.values(), coarse, name, "Score-CAM", signed=False)
    return request.result(items, "Score-CAM")


def _weights(one: Asked, maps: Images, baseline: float | str, batch: int) -> torch.Tensor:
    """The softmax over channels of the score seen through each, less the baseline's score."""
    image, away = one.images, baseline_of(one.network, one.images, baseline)
    done = 0

    def through(some: Images) -> torch.Tensor:
        nonlocal done
        veil = _unit_range(resized(some, (image.shape[2], image.shape[3])))
        asked_here = Asked(one.network, image, one.targets * len(some), one.score, True)
        done += len(some)
        progress.tell("Score-CAM", done, len(maps))
        return asked_here.ask(veil * image + (1 - veil) * away)

    scores = over_images(through, maps, batch)
    nothing = Asked(one.network, away, one.targets, one.score, True).values()
    return (scores - nothing).softmax(0)


def _unit_range(masks: Images) -> Images:
    low, high = (masks.flatten(1).aminmax(dim=1)[end].view(-1, 1, 1, 1) for end in (0, 1))
    span = high - low
    return torch.where(span > 0, (masks - low) / span.where(span > 0, span.new_ones(())), 0.0)
