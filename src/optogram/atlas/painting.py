"""Pictures for the units of a shard: made in groups, each kept when it is done."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from optogram.atlas import store
from optogram.atlas.layout import (
    LayerInfo,
    RecipeInfo,
    address,
    read_head,
    recipe_of,
    write_recipe,
)
from optogram.atlas.schema import schema
from optogram.atlas.sprites import tile_webp
from optogram.atlas.store import Pack, Shard
from optogram.core.memory import Room
from optogram.core.network import Network
from optogram.core.technique import call
from optogram.core.unit import Direction, Target, Unit
from optogram.pictures import Picture, Sheet
from optogram.pictures.drawing import as_pil
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically

SMALL, FEW = 4096, 16
"""Images of up to so many numbers are made a shard at a time, larger ones so many units."""


def targets(
    layer: LayerInfo, units: Sequence[int], sign: int, vectors: torch.Tensor | None
) -> list[Target]:
    """What a technique is asked for: units, directions, or the opposite of either."""
    found: list[Target] = []
    for unit in units:
        name = address(layer.name, unit)
        if vectors is None and sign > 0:
            found.append(Unit(layer.name, unit))
            continue
        vector = torch.zeros(layer.units) if vectors is None else vectors[unit] * sign
        if vectors is None:
            vector[unit] = sign
        found.append(Direction(layer.base, vector, name if sign > 0 else f"-{name}"))
    return found


def paint(
    network: Network,
    layer: LayerInfo,
    shard: Shard,
    recipe: RecipeInfo,
    vectors: torch.Tensor | None,
    bests: Mapping[int, float],
    folder: Path,
) -> tuple[list[dict[str, Any]], Pack]:
    """The rows and pictures of a shard. Groups that a killed run finished are not made again.

    `bests` is the data's strongest answer of each unit, of the sign that the recipe asks for.
    """
    size = math.prod(network.shape)
    group = len(shard.units) if size <= SMALL else FEW
    rows: list[dict[str, Any]] = []
    pack = Pack()
    parts = []
    room = Room("units")

    def climb(some: Sequence[int]) -> list[tuple[dict[str, Any], bytes]]:
        return _group(network, layer, some, recipe, vectors, bests)

    for first in range(0, len(shard.units), group):
        units = shard.units[first : first + group]
        path = (folder / shard.path).with_suffix(f".{first:03d}.part")
        made = _kept(path, shard.key)
        if made is None:
            made = [one for some in room.each(units, climb) for one in some]
            if group < len(shard.units):
                _keep(path, shard.key, made)
        parts.append(path)
        for row, content in made:
            rows.append({**row, **pack.add(content)})
    return rows, pack


def forget(folder: Path, shard: Shard) -> None:
    """Delete the groups of a shard that is published."""
    base = folder / shard.path
    for path in base.parent.glob(f"{base.name}.*.part"):
        path.unlink(missing_ok=True)


def keep(folder: Path, layer: LayerInfo, unit: int, result: Any, name: str) -> RecipeInfo:
    """Publish a picture that was made outside a build, as a shard of its own."""
    pictures = list(result) if isinstance(result, Sheet) else [result]
    if not pictures or not all(isinstance(one, Picture) for one in pictures):
        raise RequestError("an atlas keeps pictures that a technique made of a unit")
    if not 0 <= unit < layer.units:
        raise RequestError(f"no unit {unit}: {layer.name!r} has units 0 to {layer.units - 1}")
    made_by = result.recipe
    given = made_by.get("arguments", {})
    arguments = {k: v for k, v in given.items() if k not in ("network", "unit", "batch")}
    settings = {
        "technique": made_by.get("technique", "maximize"),
        "sign": 1,
        "arguments": _decoded(arguments),
    }
    recipe = recipe_of("pictures", name, None, settings)
    head = read_head(folder)
    facts = {"network": head.network["weights"], "layer": layer.name, "vectors": layer.vectors}
    shard = store.shards(layer.id, recipe.id, [unit], layer.units, facts)[0]
    pack = Pack()
    rows = [
        {**_row(picture, unit, facet, picture.best_in_data), **pack.add(_tile(picture))}
        for facet, picture in enumerate(pictures)
    ]
    write_recipe(folder, recipe)
    made = {"started": store.stamp(), "device": "cpu"}
    store.publish(folder, shard, rows, schema("pictures"), pack, made)
    return recipe


@contextmanager
def recorded(network: Network, layer: LayerInfo, maxima: torch.Tensor | None) -> Any:
    """The network with what the atlas's data reached in its records, for the length of a `with`."""
    before = dict(network.records)
    if maxima is not None and not layer.directions:
        known = network.layer(layer.name)
        network.records[f"{known.same_as or known.name}.maximum"] = maxima
    try:
        yield
    finally:
        network.records.clear()
        network.records.update(before)


def _group(
    network: Network,
    layer: LayerInfo,
    units: Sequence[int],
    recipe: RecipeInfo,
    vectors: torch.Tensor | None,
    bests: Mapping[int, float],
) -> list[tuple[dict[str, Any], bytes]]:
    sign = int(recipe.settings.get("sign", 1))
    asked = targets(layer, units, sign, vectors)
    arguments = dict(recipe.settings["arguments"])
    made = call(recipe.settings["technique"], network=network, unit=asked, **arguments)
    pictures = list(made)
    facets = len(pictures) // len(units)
    if facets * len(units) != len(pictures) or not isinstance(pictures[0], Picture):
        raise RequestError(
            f"{recipe.settings['technique']!r} makes no pictures of units: an atlas cannot hold it"
        )
    found = []
    for place, picture in enumerate(pictures):
        unit, facet = units[place // facets], place % facets
        best = picture.best_in_data if sign > 0 and vectors is None else bests.get(unit)
        found.append((_row(picture, unit, facet, best), _tile(picture)))
    return found


def _row(picture: Picture, unit: int, facet: int, best: float | None) -> dict[str, Any]:
    return {
        "unit": unit,
        "kind": f"picture{facet}",
        "facet": facet,
        "score": _real(picture.score),
        "verdict": picture.verdict,
        "best_in_data": _real(best),
        "jitter_survival": _real(picture.jitter_survival),
        "gradient_norm": _real(picture.gradient_norm),
        "rival": picture.rival,
        "rival_score": _real(picture.rival_score),
        "answers": [label for label, _ in picture.answers],
        "probabilities": [share for _, share in picture.answers],
        "history": _thinned(picture.history),
        "result": picture.recipe.get("result"),
    }


def _thinned(history: torch.Tensor, most: int = 64) -> list[float]:
    """A curve of at most so many points, its ends among them."""
    if len(history) <= most:
        return [float(value) for value in history]
    steps = torch.linspace(0, len(history) - 1, most).round().long()
    return [float(value) for value in history[steps]]


def _tile(picture: Picture) -> bytes:
    return tile_webp(as_pil(picture.image))


def _real(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _decoded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a recipe wrote them down, in the form in which they can be given again."""
    return {
        key: value["says"] if isinstance(value, Mapping) and "says" in value else value
        for key, value in arguments.items()
    }


def _keep(path: Path, key: str, made: list[tuple[dict[str, Any], bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    held = [{"row": row, "tile": base64.b64encode(content).decode()} for row, content in made]
    write_atomically(path, json.dumps({"key": key, "made": held}).encode())


def _kept(path: Path, key: str) -> list[tuple[dict[str, Any], bytes]] | None:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if held["key"] != key:
        return None
    return [(one["row"], base64.b64decode(one["tile"])) for one in held["made"]]
