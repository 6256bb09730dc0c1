"""The units that one image excites unusually, against what the atlas's data set did."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.atlas.layout import address
from optogram.core.network import Network

if TYPE_CHECKING:
    from optogram.atlas.reading import Atlas


def unusual(
    atlas: "Atlas", network: Network, image: Float[Tensor, "channel height width"], n: int
) -> list[tuple[str, int, int, float, float]]:
    """Address, layer, unit, standard deviations above the mean answer, value; the first `n`."""
    layers = [layer for layer in atlas.layers if not layer.directions]
    known = {x.name: atlas.answers(x.id, ("unit", "answer_mean", "answer_std")) for x in layers}
    layers = [layer for layer in layers if known[layer.name]["unit"]]
    if not layers:
        return []
    with torch.no_grad():
        said = network.read(image[None], *(layer.name for layer in layers), watch=True).before
    found = []
    for layer in layers:
        maps = said.layers[layer.name].movedim(network.layer(layer.name).axis, 1)[0]
        values = maps.reshape(len(maps), -1).amax(1).double().cpu()
        rows = zip(*known[layer.name].values(), strict=True)
        for unit, mean, std in rows:
            if mean is not None and std:
                value = float(values[unit])
                where = address(layer.name, unit)
                found.append((where, layer.id, unit, (value - mean) / std, value))
    return sorted(found, key=lambda one: (-one[3], one[1], one[2]))[:n]
