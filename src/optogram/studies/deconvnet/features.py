"""Sections 2 and 3: what excites the units of every layer, and when in training that settles."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optogram.core.network import Network
from optogram.core.unit import Unit
from optogram.pictures import Picture, Sheet
from optogram.studies.drawing import Line, Tile, chart, grid
from optogram.studies.found import Claim, Figure, Found
from optogram.survey.patches import Found as Patch
from optogram.survey.patches import strongest
from optogram.techniques import top_patches

from .bench import Bench
from .tiles import squared

NINE = 9
SETTLED = 0.5


def features(bench: Bench) -> Found:
    """Figure 2: for some units of five layers the nine strongest patches and their projections."""
    found = tops(bench, bench.network)
    figures: list[Figure] = []
    layers: dict[str, dict[str, Any]] = {}
    for number, layer in enumerate(bench.convolutions, start=1):
        lists = found[layer]
        alive = [unit for unit, patches in enumerate(lists) if patches[0].value > 0]
        chosen = _spread(alive, 3 if bench.quick else 6)
        layers[layer] = {
            "units": len(lists),
            "alive": len(alive),
            "same_class": _purity(bench, [lists[unit] for unit in alive]),
            "shown": chosen,
        }
        caption = (
            f"{layer}, {len(chosen)} of {len(lists)} units, evenly spread: left what the unit took "
            "from its nine strongest patches (deconvnet, contrast raised picture by picture), "
            "right "
            f"the patches, at most one of an image."
        )
        figures.append(
            Figure(f"layer-{number}", caption, nines(bench.network, bench, layer, chosen))
        )
    purity = [each["same_class"] for each in layers.values()]
    known = len(bench.images.classes) > 1
    numbers = {"images": bench.images.name, "count": len(bench.images), "layers": layers}
    said = ", ".join(f"{value:.0%}" for value in purity)
    claim = Claim(
        "Higher layers respond to parts and objects, lower ones to edges and textures.",
        f"of a unit's nine strongest patches the commonest class holds {said} from the first to "
        "the "
        f"last layer (by chance about {_chance(bench):.0%})"
        if known
        else "the images have no labels to tell by",
        "confirmed" if known and purity[-1] > purity[0] + 0.05 else "not confirmed",
        f"layer-{len(purity)}",
    )
    return Found(numbers, (claim,), tuple(figures))


def tops(bench: Bench, network: Network) -> dict[str, list[list[Patch]]]:
    """The nine strongest patches of every unit of five layers."""
    units = [Unit(n, i) for n in bench.convolutions for i in range(network.layer(n).units)]
    found = iter(strongest(network, bench.images, units, k=NINE, batch=50))
    return {n: [next(found) for _ in range(network.layer(n).units)] for n in bench.convolutions}


def nines(network: Network, bench: Bench, layer: str, units: Sequence[int]) -> Any:
    """Blocks of nine projections and of nine patches, three units in a row."""
    sheet = top_patches(
        network, bench.images, [Unit(layer, u) for u in units], k=NINE, project="deconvnet"
    )
    assert isinstance(sheet, Sheet)
    pictures = list(sheet)
    tiles = []
    for place, unit in enumerate(units):
        some = pictures[2 * NINE * place : 2 * NINE * (place + 1)]
        tiles += [
            Tile(_block(some[NINE:]), (Line(f"{layer}:{unit}"),)),
            Tile(
                _block(some[:NINE]), (Line(f"{some[0].score:.2f} to {some[NINE - 1].score:.2f}"),)
            ),
        ]
    return grid([tiles[i : i + 6] for i in range(0, len(tiles), 6)], side=168)


def _block(pictures: Sequence[Picture], side: int = 54) -> Tensor:
    """Nine pictures as one, each in the middle of a square of its own, with white between."""
    size = max(max(p.image.shape[-2:]) for p in pictures)
    block = torch.ones(3, 3 * side + 6, 3 * side + 6)
    for place, picture in enumerate(pictures):
        square = squared(picture.image, size)
        mode = "nearest" if size <= side else "area"
        y, x = (k * (side + 3) for k in divmod(place, 3))
        block[:, y : y + side, x : x + side] = F.interpolate(square[None], (side, side), mode=mode)[
            0
        ]
    return block


def evolution(bench: Bench) -> Found:
    """Figure 4: the strongest patch of some units after some epochs, and when it settles."""
    if not bench.checkpoints:
        text = "no checkpoints of this network are at hand: give them with --checkpoints"
        return Found({"skipped": text})
    last = tops(bench, bench.network)
    epochs = sorted(bench.checkpoints)
    shares: dict[str, list[float]] = {layer: [] for layer in bench.convolutions}
    for epoch in epochs:
        found = tops(bench, bench.checkpoints[epoch])
        for layer in bench.convolutions:
            shares[layer].append(_shared(found[layer], last[layer]))
    settled = {layer: _first_settled(values, [*epochs]) for layer, values in shares.items()}
    end = bench.accounts.get("own", {}).get("curves", [])
    final = len(end) or max(epochs) + 1
    order = [settled[layer] or final for layer in bench.convolutions]
    rising = order == sorted(order) and order[0] < order[-1]
    said = ", ".join(f"{n} {settled[n] or f'not before {final}'}" for n in settled)
    first = ", ".join(f"{values[0]:.0%}" for values in shares.values())
    numbers = {"epochs": epochs, "final": final, "shared": shares, "settled": settled}
    claims = (
        Claim(
            "Lower layers settle within a few epochs, upper ones late in training.",
            f"first epoch from which half of a unit's final nine strongest images are in its list: "
            f"{said}; shared after epoch {epochs[0]}: {first}, first to last layer",
            "confirmed" if rising else "not confirmed",
            "evolution",
        ),
    )
    figures = [Figure("evolution", _EVOLUTION, _columns(bench, last, epochs))]
    curve = chart(
        {layer: (list(map(float, epochs)), values) for layer, values in shares.items()},
        across="epoch",
        up="share of the final nine",
    )
    if curve is not None:
        figures.append(
            Figure(
                "settling",
                "How many of a unit's nine strongest images at the end were among its nine after "
                "an epoch, mean over the layer.",
                curve,
            )
        )
    return Found(numbers, claims, tuple(figures))


_EVOLUTION = (
    "Projection of the strongest patch of some units (rows) after some epochs (columns; the last "
    "is "
    "the trained network). A sudden jump is another image that became the strongest."
)


def _columns(bench: Bench, last: dict[str, list[list[Patch]]], epochs: Sequence[int]) -> Any:
    networks = [*(bench.checkpoints[epoch] for epoch in epochs), bench.network]
    rows, sides = [], []
    for layer in bench.convolutions:
        alive = [u for u, patches in enumerate(last[layer]) if patches[0].value > 0]
        units = _spread(alive, 2 if bench.quick else 3)
        wanted = [Unit(layer, unit) for unit in units]
        columns = [
            list(top_patches(n, bench.images, wanted, k=1, project="deconvnet")) for n in networks
        ]
        for place, unit in enumerate(units):
            rows.append([Tile(squared(column[2 * place + 1].image)) for column in columns])
            sides.append(f"{layer}:{unit}")
    return grid(rows, heads=[*(f"epoch {e}" for e in epochs), "end"], sides=sides, side=72)


def _shared(found: Sequence[Sequence[Patch]], last: Sequence[Sequence[Patch]]) -> float:
    shares = [
        len({p.image for p in now} & {p.image for p in then}) / len(then)
        for now, then in zip(found, last, strict=True)
        if then[0].value > 0
    ]
    return sum(shares) / max(len(shares), 1)


def _first_settled(values: Sequence[float], epochs: Sequence[int]) -> int | None:
    """The first epoch from which on the share stays at half or more."""
    for place, epoch in enumerate(epochs):
        if all(value >= SETTLED for value in values[place:]):
            return epoch
    return None


def _purity(bench: Bench, lists: Sequence[Sequence[Patch]]) -> float:
    labels = bench.images.labels.tolist()
    shares = [
        Counter(labels[p.image] for p in patches).most_common(1)[0][1] / len(patches)
        for patches in lists
    ]
    return sum(shares) / max(len(shares), 1)


def _chance(bench: Bench) -> float:
    """The expected share of the commonest label among nine images drawn at random."""
    from optogram.core.chance import generator

    chance = generator(bench.seed, "deconvnet", "purity")
    draws = torch.randint(len(bench.images), (500, NINE), generator=chance)
    labels = bench.images.labels[draws]
    return float(torch.stack([row.bincount().max() for row in labels]).float().mean() / NINE)


def _spread(units: Sequence[int], count: int) -> list[int]:
    places = torch.linspace(0, len(units) - 1, min(count, len(units)))
    return [units[int(place)] for place in places.round().tolist()]
