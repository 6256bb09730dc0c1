"""What lies where in an atlas, and what it says of itself: network, data sets, layers, recipes.

atlas.json              network, data sets and layers
recipes/<r12>.json      one recipe; r12 is the beginning of its hash
plans/<p12>.json        what a build was asked for
directions/<d12>.npy    the vectors of a layer of directions
data/<layer>/<r12>/     shards, see `optogram.atlas.store`
scan/<r12>/             the survey that statistics were taken from
sheets/<layer>/<r12>/   sprite sheets, derived
index.sqlite            derived
notes.jsonl             what people wrote
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from dataclasses import field as by_default
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically
from optogram.pictures.recipe import canonical, recipe_digest

FORMAT = 1
HEAD, LOCK = "atlas.json", "atlas.lock"
KINDS = ("stats", "images", "pictures", "patches")
IMAGES = 0
"""The number under which whole images stand; a network's layers count from 1."""

FIRST_DIRECTIONS = 10_000
"""Layers of directions are numbered from here on."""


class Missing(RequestError):
    """What was asked for is not in this atlas."""


@dataclass(frozen=True)
class DataSet:
    """A data set that the atlas was built from; `id` is the beginning of its digest."""

    id: str
    name: str
    split: str
    digest: str
    images: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class LayerInfo:
    """A layer of the atlas.

    Attributes:
        id: its number, which names its folder.
        name: what it is called; for directions a name of their own.
        kind: the module's class, or "directions".
        units: how many channels, neurons or directions.
        places: the shape of one unit's map; () for a neuron.
        field: height and width in pixels of what one place sees; None for the whole image.
        base: the layer that the directions live in; the name itself where they are plain units.
        outputs: whether its units are the network's outputs, which have labels.
        vectors: the hash of the directions' vectors.
        counts: units that the atlas has, and of these dead, failed and pictured ones.
    """

    id: int
    name: str
    kind: str
    units: int
    places: tuple[int, ...]
    field: tuple[int, int] | None
    base: str
    outputs: bool = False
    vectors: str | None = None
    counts: Mapping[str, int] = by_default(default_factory=dict)

    @property
    def directions(self) -> bool:
        """Whether its units are directions in another layer."""
        return self.vectors is not None


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe: what was computed for every unit, and how.

    `kind` is one of `KINDS`; `data` the id of the data set that it depends on, None for none.
    """

    id: str
    kind: str
    name: str
    data: str | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Head:
    """All that `atlas.json` says."""

    network: Mapping[str, Any]
    datasets: tuple[DataSet, ...]
    layers: tuple[LayerInfo, ...]
    versions: Mapping[str, str]

    def layer(self, which: int | str) -> LayerInfo:
        """The layer of that number or name. Raises Missing."""
        for layer in self.layers:
            if which in (layer.id, layer.name):
                return layer
        raise Missing(f"this atlas has no layer {which!r}")


def is_atlas(folder: str | os.PathLike[str]) -> bool:
    """Whether there is an atlas in a folder."""
    return (Path(folder) / HEAD).is_file()


def read_head(folder: Path) -> Head:
    """What an atlas says of itself. Raises RequestError where there is none, or a broken one."""
    path = folder / HEAD
    if not path.is_file():
        raise RequestError(
            f"there is no atlas in '{folder}'; `optogram atlas build NET DATA -o {folder}` makes "
            f"one"
        )
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["format"] != FORMAT:
            raise RequestError(
                f"'{path}' has format {held['format']}, and this optogram reads {FORMAT}: use the "
                f"version that made it"
            )
        return Head(
            held["network"],
            tuple(DataSet(**{**one, "classes": tuple(one["classes"])}) for one in held["datasets"]),
            tuple(_layer(one) for one in held["layers"]),
            held["versions"],
        )
    except (ValueError, KeyError, TypeError) as problem:
        if isinstance(problem, RequestError):
            raise
        raise RequestError(f"'{path}' is no atlas that can be read: {problem}") from problem


def write_head(folder: Path, head: Head) -> None:
    """Write `atlas.json`; only under `locked`."""
    layers = [
        {name: value for name, value in asdict(layer).items() if name != "counts"}
        for layer in head.layers
    ]
    facts = {
        "format": FORMAT,
        "network": dict(head.network),
        "datasets": [asdict(one) for one in head.datasets],
        "layers": layers,
        "versions": dict(head.versions),
    }
    write_atomically(folder / HEAD, json.dumps(facts, indent=1, ensure_ascii=False).encode())


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Alone among the processes of this machine, for the length of a `with`."""
    import fcntl

    with (folder / name).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def recipe_of(kind: str, name: str, data: str | None, settings: Mapping[str, Any]) -> RecipeInfo:
    """A recipe with its id, which follows from all the rest."""
    text = {"format": FORMAT, "kind": kind, "name": name, "data": data, "settings": dict(settings)}
    digest = recipe_digest(text).removeprefix("sha256:")
    return RecipeInfo(digest[:12], kind, name, data, dict(settings))


def write_recipe(folder: Path, recipe: RecipeInfo) -> None:
    """Keep a recipe in the atlas; the same one twice is one."""
    path = folder / "recipes" / f"{recipe.id}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, canonical(asdict(recipe)).encode())


def read_recipes(folder: Path) -> tuple[RecipeInfo, ...]:
    """The recipes of an atlas, by kind and name."""
    found = []
    for path in sorted((folder / "recipes").glob("*.json")):
        try:
            found.append(RecipeInfo(**json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError) as problem:
            raise RequestError(f"'{path}' is no recipe of an atlas: {problem}") from problem
    order = {"positive": 0, "negative": 1}
    return tuple(
        sorted(found, key=lambda r: (KINDS.index(r.kind), order.get(r.name, 2), r.name, r.id))
    )


def spans(units: Sequence[int]) -> list[list[int]]:
    """Rising numbers as ranges [first, one past the last]."""
    found: list[list[int]] = []
    for unit in units:
        if found and found[-1][1] == unit:
            found[-1][1] = unit + 1
        else:
            found.append([unit, unit + 1])
    return found


def numbers(ranges: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The numbers of ranges that `spans` made."""
    return tuple(number for first, end in ranges for number in range(first, end))


def short(text: str) -> str:
    """Twelve letters of a text's hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _layer(held: Mapping[str, Any]) -> LayerInfo:
    pair = held["field"]
    return LayerInfo(
        **{
            **held,
            "places": tuple(held["places"]),
            "field": None if pair is None else (pair[0], pair[1]),
        }
    )


def address(layer: str, unit: int) -> str:
    """The address of a unit, as `str(Unit(layer, unit))` writes it, without loading torch."""
    special = (quote(c, safe="") if c in ":%" or not c.isprintable() else c for c in layer)
    return f"{''.join(special)}:{unit}"
