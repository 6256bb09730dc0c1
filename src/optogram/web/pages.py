"""What each page says, as plain values: the `.json` twin is this, and the template draws it.

Nothing here knows a web framework, so the explorer and the static export say the same.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from optogram.pictures.errors import RequestError
from optogram.pictures.lettering import brief
from optogram.web.links import address

BLOCK, SIDE = 256, 16
STRIP = 16
PAGE = 4096
SMALL = 64
SORTS = {
    "unit": "number",
    "maximum": "strongest answer",
    "mean": "mean answer",
    "active": "share active",
    "selectivity": "selectivity",
    "sparseness": "sparseness",
    "score": "score of its picture",
    "ratio": "picture over data",
    "cluster": "cluster",
}
SHOWS: dict[str, dict[str, Any]] = {
    "all": {},
    "alive": {"state": "alive"},
    "dead": {"state": "dead"},
    "failed": {"verdict": "failed"},
    "selective": {"selective": 0.5},
}


class Nowhere(RequestError):
    """There is no such page."""


def network_facts(atlas: Any) -> dict[str, Any]:
    """What the head of every page says of the network."""
    shape = list(atlas.network["shape"])
    return {
        "name": atlas.network["name"],
        "shape": shape,
        "weights": atlas.network["weights"],
        "labels": list(atlas.network.get("labels") or ()),
        "small": max(shape[1:]) <= SMALL,
    }


def network_page(atlas: Any) -> dict[str, Any]:
    """The layers in order, each with a strip of tiles and its counts."""
    layers = []
    for layer in atlas.layers:
        rows = atlas.rows(layer.id, n=STRIP)
        layers.append(layer_facts(layer) | {"tiles": tiles(atlas, layer, rows)})
    data = [dataset_facts(atlas, number) for number in range(len(atlas.datasets))]
    totals = {
        name: sum(_whole(layer.counts.get(name)) for layer in atlas.layers)
        for name in ("units", "dead", "failed", "pictures")
    }
    return {"data": data, "layers": layers, "totals": totals}


def layer_page(
    atlas: Any, layer: Any, query: Mapping[str, str], most: int = PAGE
) -> dict[str, Any]:
    """All units of a layer as tiles, sorted and filtered; at most `most` on a page."""
    facts, parts = layer_parts(atlas, layer, query, most)
    return facts | {"tiles": [tile for part in parts for tile in part]}


def layer_parts(
    atlas: Any, layer: Any, query: Mapping[str, str], most: int = PAGE
) -> tuple[dict[str, Any], Iterator[list[dict[str, Any]]]]:
    """The same in parts: the tiles come by 256, so that the first are there before the last."""
    by = query.get("sort") or "unit"
    show = query.get("show") or "all"
    if by not in SORTS or show not in SHOWS:
        raise RequestError(f"units are sorted by {', '.join(SORTS)} and shown: {', '.join(SHOWS)}")
    where: dict[str, Any] = dict(SHOWS[show])
    if cluster := query.get("cluster"):
        where["cluster"] = whole(cluster, "cluster")
    if label := (query.get("label") or "").strip()[:200]:
        where["label"] = label
    order = query.get("order") or ""
    falling = (order or ("up" if by in ("unit", "cluster") else "down")) == "down"
    count = atlas.count(layer.id, where=where or None)
    page = whole(query.get("page") or "0", "page")
    before, after = beside(atlas.layers, layer)
    chosen = {"sort": by, "order": order if order in ("up", "down") else "", "show": show}
    chosen |= {"cluster": cluster or "", "label": label}
    facts = {
        "layer": layer_facts(layer),
        "query": chosen,
        "count": count,
        "page": page,
        "pages": max(1, math.ceil(count / most)),
        "previous": before and layer_facts(before),
        "next": after and layer_facts(after),
    }

    def parts() -> Iterator[list[dict[str, Any]]]:
        for start, n in ((0, min(BLOCK, most)), (BLOCK, most - BLOCK)):
            asked: dict[str, Any] = {"by": by, "descending": falling, "where": where or None}
            asked |= {"start": page * most + start, "n": n}
            rows = atlas.rows(layer.id, **asked) if n > 0 and start < count else []
            for first in range(0, len(rows), BLOCK):
                yield tiles(atlas, layer, rows[first : first + BLOCK], by)

    return facts, parts()


def unit_page(atlas: Any, record: Any) -> dict[str, Any]:
    """All about one unit."""
    said = plain(record.as_dict())
    layer = record.layer
    said["layer"] = layer_facts(layer)
    said["unit"], said["address"] = record.unit, record.address
    said["histogram"] = None if record.histogram is None else histogram(record.histogram)
    said["outputs"] = [
        {"name": name, "value": value, "text": f"{value:+.2f}", "output": output}
        for name, output, value in record.outputs[:10]
    ]
    near = {n.unit: n.correlation for n in record.neighbours[:12]}
    said["neighbours"] = [
        tile | {"correlation": near[tile["unit"]]} for tile in some_tiles(atlas, layer, list(near))
    ]
    others = [unit for unit in record.members if unit != record.unit]
    said["members"] = some_tiles(atlas, layer, others[:16])
    said["in_cluster"] = len(record.members)
    said["statistics"] = statistics(record.stats)
    said["pictures"] = [picture(atlas, made) for made in record.pictures]
    said["patches"] = [plain(dataclasses.asdict(patch)) for patch in record.patches]
    said["notes"] = [
        plain(dataclasses.asdict(note)) for note in record.notes if note.kind == "note"
    ]
    return said


def compare_page(one: Any, other: Any, a: Any, b: Any) -> dict[str, Any]:
    """Two units side by side, and what they share."""
    first, second = unit_page(one, a), unit_page(other, b)
    for atlas, said in ((one, first), (other, second)):  # where no patches were cut out
        said["whole_images"] = bool(atlas.datasets and atlas.has_images(atlas.datasets[0].id))
    same_data = bool(one.datasets and other.datasets) and (
        one.datasets[0].digest == other.datasets[0].digest
    )
    images = [{patch.image for patch in record.patches} for record in (a, b)]
    together = None
    if one is other and a.layer.id == b.layer.id:
        known = {(a.unit, n.unit): n.correlation for n in a.neighbours}
        known |= {(n.unit, b.unit): n.correlation for n in b.neighbours}
        together = known.get((a.unit, b.unit))
    return {
        "first": first,
        "second": second,
        "shared_images": sorted(images[0] & images[1]) if same_data else None,
        "of": min(map(len, images)),
        "correlation": together,
        "rows": _rows(first["statistics"], second["statistics"]),
    }


def networks_page(one: Any, other: Any) -> dict[str, Any]:
    """Two networks side by side, layer by layer of the same name, else of the same place."""
    theirs = {layer.name: layer for layer in other.layers}
    rows = [
        {
            "name": layer.name,
            "first": layer_facts(layer),
            "second": layer_facts(theirs.pop(layer.name)) if layer.name in theirs else None,
        }
        for layer in one.layers
    ]
    rows += [{"name": n, "first": None, "second": layer_facts(x)} for n, x in theirs.items()]
    names = ("units", "dead", "failed", "pictures")
    totals = [
        {name: sum(_whole(layer.counts.get(name)) for layer in atlas.layers) for name in names}
        for atlas in (one, other)
    ]
    facts = [network_facts(one), network_facts(other)]
    return {"networks": facts, "totals": totals, "layers": rows}


def search_page(atlas: Any, text: str) -> dict[str, Any]:
    """What is found for some words."""
    text = text.strip()[:200]
    hits = [plain(dataclasses.asdict(hit)) for hit in atlas.search(text, n=60)] if text else []
    for hit in hits:
        hit["layer_name"] = atlas.layer(hit["layer"]).name
        hit["tile"] = _only_tile(atlas, hit["layer"], hit["unit"])
    return {"words": text, "hits": hits}


def notes_page(atlas: Any) -> dict[str, Any]:
    """All notes and names, the newest first."""
    notes = [plain(dataclasses.asdict(note)) for note in atlas.notes()]
    for note in notes:
        layer = atlas.layer(note["layer"])
        note |= {"layer_name": layer.name, "address": address({"name": layer.name}, note["unit"])}
        note["tile"] = _only_tile(atlas, layer.id, note["unit"])
    return {"notes": notes[::-1]}


def find_unit(atlas: Any, text: str) -> tuple[Any, int]:
    """The layer and the number that an address names. Raises Nowhere."""
    name, colon, number = text.rpartition(":")
    if not colon:
        raise Nowhere(f"{shown(text)} is no unit: write a layer and a number, as in fc7:17")
    layer = find_layer(atlas, unquote(name))
    labels = list(atlas.network.get("labels") or ())
    if layer.name == "output" and not number.isdecimal() and unquote(number) in labels:
        number = str(labels.index(unquote(number)))
    if not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise Nowhere(f"{shown(text)} is no unit: {shown(number)} is no number")
    if int(number) >= layer.units:
        raise Nowhere(f"{layer.name} has units 0 to {layer.units - 1}, and no {int(number)}")
    return layer, int(number)


def find_layer(atlas: Any, name: str) -> Any:
    """The layer of that name. Raises Nowhere."""
    for layer in atlas.layers:
        if layer.name == name:
            return layer
    raise Nowhere(f"there is no layer {shown(name)} in this atlas")


def layer_facts(layer: Any) -> dict[str, Any]:
    """What is said of a layer wherever it stands."""
    return {
        "id": layer.id,
        "name": layer.name,
        "kind": layer.kind,
        "units": layer.units,
        "places": list(layer.places),
        "field": None if layer.field is None else list(layer.field),
        "directions": layer.directions,
        "base": layer.base,
        "counts": plain(layer.counts),
    }


def dataset_facts(atlas: Any, number: int) -> dict[str, Any]:
    """A data set by its place in the atlas."""
    data = atlas.datasets[number]
    facts = {"number": number, "name": data.name, "split": data.split, "images": data.images}
    return facts | {"digest": data.digest, "kept": bool(atlas.has_images(data.id))}


def kept_images(atlas: Any, data: Any, start: int, n: int) -> list[int]:
    """The numbers of the next images that the atlas has kept."""
    found: list[int] = []
    for number in range(start, min(start + 20 * n, data.images)):
        with contextlib.suppress(RequestError):
            atlas.image(data.id, number)
            found.append(number)
        if len(found) == n:
            break
    return found


def tiles(atlas: Any, layer: Any, rows: Iterable[Any], by: str = "unit") -> list[dict[str, Any]]:
    """Units as tiles: which cell of which sheet, and a few words."""
    recipe = atlas.picture_recipe(layer.id)
    return [_tile(layer, row, recipe, by) for row in rows]


def some_tiles(atlas: Any, layer: Any, units: Sequence[int]) -> list[dict[str, Any]]:
    """Tiles of units by their numbers, in that order."""
    found = (atlas.rows(layer.id, start=unit, n=1) for unit in units)
    return tiles(atlas, layer, [row for rows in found for row in rows])


def _only_tile(atlas: Any, layer: int, unit: int | None) -> dict[str, Any] | None:
    found = [] if unit is None else some_tiles(atlas, atlas.layer(layer), [unit])
    return found[0] if found else None


def sheet_class(layer: int, block: int) -> str:
    """The class of the tiles of one sheet."""
    return f"s{layer}-{block}"


def statistics(stats: Any) -> dict[str, Any] | None:
    """The numbers of a unit over the data set, None where not known."""
    if stats is None:
        return None
    said = plain(dataclasses.asdict(stats))
    variance = said.get("variance")
    said["deviation"] = math.sqrt(variance) if variance is not None and variance >= 0 else None
    return said


def histogram(found: Any) -> dict[str, Any]:
    """The counts as heights in percent of the highest, on a root scale, so that few are seen."""
    counts, edges = list(found.counts), list(found.edges)
    top = max(counts, default=0)
    heights = [round(100 * math.sqrt(n / top), 2) if top else 0 for n in counts]
    low, high = (brief(edges[0]), brief(edges[-1])) if edges else ("", "")
    most = counts.index(top) if top else 0
    says = f"{sum(counts)} images between {low} and {high}"
    if top:
        says += f"; most, {top}, around {brief((edges[most] + edges[most + 1]) / 2)}"
    return {"counts": counts, "edges": edges, "heights": heights, "low": low, "high": high} | {
        "says": says,
        "note": "how many images have a strongest answer of that size; heights on a root scale",
    }


def picture(atlas: Any, made: Any) -> dict[str, Any]:
    """A picture that was made for a unit, and what speaks for and against it."""
    said = plain(dataclasses.asdict(made))
    said["recipe_name"] = atlas.recipe(made.recipe).name
    return said


def beside(items: Sequence[Any], item: Any) -> tuple[Any, Any]:
    """What stands before and after one of some layers, None at the ends."""
    place = [each.id for each in items].index(item.id)
    return (
        items[place - 1] if place else None,
        items[place + 1] if place + 1 < len(items) else None,
    )


def plain(value: Any) -> Any:
    """The same as JSON values; what is infinite or no number becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return str(value)


def whole(text: str, what: str) -> int:
    """A whole number from an address. Raises RequestError for anything else."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise RequestError(f"{what} is a whole number, not {shown(text)}")
    return int(text)


def shown(text: str) -> str:
    """Somebody's text in a sentence: short, and in quotes."""
    return repr(text if len(text) <= 80 else text[:80] + "...")


def _tile(layer: Any, row: Any, recipe: Any, by: str) -> dict[str, Any]:
    block, place = divmod(row.unit, BLOCK)
    name = row.label or str(row.unit)
    value = getattr(row, by, None) if by != "unit" else None
    caption = name if value is None else f"{name} · {_short(value)}"
    words = [row.address, row.label, row.state if row.state != "alive" else None, row.verdict]
    if row.maximum is not None:
        words.append(f"strongest {brief(row.maximum)}")
    if row.prefers:
        words.append(f"prefers {row.prefers}")
    patch = bool(recipe) and recipe.kind == "pictures" and row.score is None
    if patch:
        words.append("no picture yet: its strongest patch")
    cell = f"{sheet_class(layer.id, block)} c{place % SIDE:x} r{place // SIDE:x}" if recipe else ""
    return {
        "unit": row.unit,
        "address": row.address,
        "name": name,
        "caption": caption,
        "title": ", ".join(str(word) for word in words if word),
        "cell": cell,
        "block": block,
        "recipe": recipe.id if recipe else None,
        "patch": patch,
        "dead": bool(row.state) and row.state != "alive",
        "doubt": row.verdict == "failed",
        "state": row.state,
        "verdict": row.verdict,
        "value": plain(value),
    }


def _short(value: Any) -> str:
    return brief(value) if isinstance(value, float) else str(value)


def _rows(one: Any, other: Any) -> list[dict[str, Any]]:
    names = {
        "maximum": "strongest answer",
        "mean": "mean",
        "deviation": "standard deviation",
        "minimum": "weakest",
        "active": "share active",
        "sparseness": "sparseness",
        "selectivity": "selectivity",
        "prefers": "prefers",
        "state": "state",
    }
    return [
        {"name": text, "first": (one or {}).get(key), "second": (other or {}).get(key)}
        for key, text in names.items()
    ]


def _whole(value: Any) -> int:
    return int(value or 0)
