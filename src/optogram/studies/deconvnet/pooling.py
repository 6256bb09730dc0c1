"""Average pooling in place of maximum pooling: what it does to projections and to style."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.network import Network
from optogram.core.unit import Unit
from optogram.pictures import Sheet
from optogram.pictures.errors import RequestError
from optogram.studies.drawing import Line, Tile, grid
from optogram.studies.found import Claim, Figure, Found
from optogram.techniques import deconvnet, strongest_map

from .bench import Bench, heard
from .tiles import enhanced


def pooling(bench: Bench) -> Found:
    """The strongest map's projection under both poolings, the answers and the Gram matrices."""
    network = bench.network
    try:
        averaged = network.with_pooling("average")
    except RequestError as problem:
        return Found({"skipped": str(problem)})
    images = bench.shown[:4]
    last = bench.convolutions[-1]
    rows, spread = [], {"max": [], "average": []}  # type: ignore[var-annotated]
    for image in images:
        tiles = [Tile(image)]
        for kind, one in (("max", network), ("average", averaged)):
            unit = Unit(last, strongest_map(network, image, last).index, "strongest")
            found = deconvnet(one, image, unit, signed=True)
            assert not isinstance(found, Sheet)
            assert found.raw is not None
            spread[kind].append(_participation(found.raw))
            tiles.append(
                Tile(
                    enhanced(found.raw),
                    (Line(f"{unit.layer}:{unit.index}"), Line(f"{spread[kind][-1]:.0f} pixels")),
                )
            )
        rows.append(tiles)
    same = _agreement(network, averaged, bench)
    gram = {layer: _gram_distance(network, averaged, images, layer) for layer in bench.convolutions}
    means = {kind: sum(values) / len(values) for kind, values in spread.items()}
    numbers: dict[str, Any] = {
        "pixels_that_share_the_projection": spread,
        "same_class": same,
        "gram_distance": gram,
    }
    wider = means["average"] / max(means["max"], 1e-9)
    claims = (
        Claim(
            "Without the switches of max pooling a projection is spread and less sharp.",
            f"{means['max']:.0f} pixels share a projection's energy with max pooling, "
            f"{means['average']:.0f} with average pooling (participation ratio)",
            "confirmed" if wider > 1.1 else "not confirmed" if wider > 0.9 else "opposite",
            "pooling",
        ),
        Claim(
            "A trained network does not survive the exchange unharmed.",
            f"{same:.0%} of the images keep their class; relative distance of the Gram matrices, "
            "the "
            "style of Gatys et al., "
            + ", ".join(f"{layer} {value:.2f}" for layer, value in gram.items()),
            "confirmed" if same < 0.9 else "not confirmed",
            "pooling",
        ),
    )
    caption = (
        "Projection of the strongest place of the map that is strongest on the image, as the "
        "network "
        "was trained and with means in place of maxima. Underneath how many pixels share the "
        "energy."
    )
    drawn = grid(rows, heads=["image", "max pooling", "average pooling"], side=128)
    return Found(numbers, claims, (Figure("pooling", caption, drawn),))


def _participation(raw: Float[Tensor, "channel row column"]) -> float:
    """(sum e)^2 / sum e^2 of the pixels' energies: 1 for one pixel, all for a flat image."""
    energy = raw.double().square().sum(0)
    return float(energy.sum().square() / energy.square().sum().clamp(min=1e-300))


def _agreement(network: Network, other: Network, bench: Bench) -> float:
    images = bench.images.take(torch.arange(min(len(bench.images), 200)))[0]
    a, b = (heard(one, images, "output")["output"].argmax(1) for one in (network, other))
    return float((a == b).float().mean())


def _gram_distance(network: Network, other: Network, images: Tensor, layer: str) -> float:
    a, b = (_gram(heard(one, images, layer)[layer]) for one in (network, other))
    return float((a - b).norm() / a.norm().clamp(min=1e-12))


def _gram(maps: Float[Tensor, "image unit row column"]) -> Float[Tensor, "image unit unit"]:
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]
