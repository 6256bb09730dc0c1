"""An atlas that can be read: its layers, units, pictures and notes. No torch is needed."""

import hashlib
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optogram.atlas import index as indexing
from optogram.atlas import notes as noting
from optogram.atlas.index import COLUMNS, NUMBERS, Index, address_of
from optogram.atlas.layout import (
    IMAGES,
    DataSet,
    Head,
    LayerInfo,
    Missing,
    RecipeInfo,
    read_head,
    read_recipes,
)
from optogram.atlas.records import (
    Histogram,
    Hit,
    Made,
    Neighbour,
    Note,
    Patch,
    Row,
    Sprite,
    Stats,
    UnitRecord,
)
from optogram.atlas.schema import QUANTILES
from optogram.atlas.shards import Held, Shelf
from optogram.atlas.sprites import LARGEST, sheet_webp
from optogram.atlas.store import BLOCK, Marker, manifest, markers
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically

if TYPE_CHECKING:
    from optogram.core.unit import Target

SORTS = ("unit", *NUMBERS, "cluster")


def open(folder: str | os.PathLike[str]) -> "Atlas":
    """The atlas in a folder; its index is made where it is not there.

    Raises RequestError where there is no atlas.
    """
    return Atlas(Path(folder))


class Atlas:
    """Every unit of a network, as a folder holds it. Safe from several threads.

    Raises RequestError for wrong requests, and its kind `Missing` for what is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._head: Head = read_head(folder)
        self._recipes = read_recipes(folder)
        self._path = folder / indexing.FILE
        self._temporary: Any = None
        self._threads = threading.local()
        self._shelf = Shelf()
        self._lock = threading.RLock()
        self._layers: tuple[LayerInfo, ...] | None = None
        self._facts: dict[str, dict[str, Any]] = {}
        if not indexing.is_there(self._path):
            self.reindex()

    # -- what there is ---------------------------------------------------------------------------

    @property
    def network(self) -> Mapping[str, Any]:
        """The network's name, weights (a hash), file, shape and labels."""
        return self._head.network

    @property
    def datasets(self) -> tuple[DataSet, ...]:
        """The data sets it was built from; the first is the one that pictures are judged by."""
        return self._head.datasets

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers that have units in it, in the network's order; directions come last."""
        with self._lock:
            if self._layers is None:
                self._layers = self._counted()
            return self._layers

    def layer(self, which: int | str) -> LayerInfo:
        """The layer of a number or a name. Raises Missing."""
        for layer in self.layers:
            if which in (layer.id, layer.name):
                return layer
        raise Missing(f"this atlas has no layer {which!r}")

    @property
    def recipes(self) -> tuple[RecipeInfo, ...]:
        """What was computed, and how; by kind and name."""
        return self._recipes

    def recipe(self, id: str) -> RecipeInfo:
        """The recipe of an id. Raises Missing."""
        for recipe in self._recipes:
            if recipe.id == id:
                return recipe
        raise Missing(f"this atlas has no recipe {id!r}")

    def recipes_of(self, layer: int | str) -> tuple[RecipeInfo, ...]:
        """The recipes that something of a layer was computed by."""
        number = self.layer(layer).id
        found = self._ask("SELECT DISTINCT recipe FROM shards WHERE layer = ?", (number,))
        there = {row[0] for row in found}
        return tuple(recipe for recipe in self._recipes if recipe.id in there)

    def picture_recipe(self, layer: int | str) -> RecipeInfo | None:
        """The recipe whose pictures stand for the layer's units."""
        there = self.recipes_of(layer)
        made = [r for r in there if r.kind == "pictures"] + [
            r for r in there if r.kind == "patches"
        ]
        return made[0] if made else None

    # -- many units ------------------------------------------------------------------------------

    def rows(
        self,
        layer: int | str,
        *,
        by: str = "unit",
        descending: bool = False,
        where: Mapping[str, Any] | None = None,
        start: int = 0,
        n: int = 256,
    ) -> list[Row]:
        """Units of a layer in the order of a column; those without a value stand last."""
        found = self.layer(layer)
        if by not in SORTS:
            raise RequestError(f"units cannot be sorted by {by!r}; there is {', '.join(SORTS)}")
        if start < 0 or n < 0:
            raise RequestError(f"start={start}, n={n}: neither is below 0")
        condition, values = _condition(found.id, where)
        known = f"{condition} AND {by} IS NOT NULL"
        way = "DESC" if descending else "ASC"
        columns = ", ".join(COLUMNS)
        query = (
            f"SELECT {columns} FROM units WHERE {known} ORDER BY {by} {way}, unit LIMIT ? OFFSET ?"
        )
        rows = self._ask(query, (*values, n, start))
        if len(rows) < n and by != "unit":
            count = self._ask(f"SELECT count(*) FROM units WHERE {known}", values)[0][0]
            rest = (n - len(rows), max(0, start - count))
            query = (
                f"SELECT {columns} FROM units WHERE {condition} AND {by} IS NULL "
                f"ORDER BY unit LIMIT ? OFFSET ?"
            )
            rows = [*rows, *self._ask(query, (*values, *rest))]
        return [_row(found, row) for row in rows]

    def top(
        self,
        layer: int | str,
        by: str,
        n: int = 100,
        descending: bool = True,
        where: Mapping[str, Any] | None = None,
    ) -> list[Row]:
        """The first units of a layer in the order of a column."""
        return self.rows(layer, by=by, descending=descending, where=where, n=n)

    def count(self, layer: int | str, where: Mapping[str, Any] | None = None) -> int:
        """How many units of a layer there are that `where` says, see `rows`."""
        condition, values = _condition(self.layer(layer).id, where)
        return int(self._ask(f"SELECT count(*) FROM units WHERE {condition}", values)[0][0])

    def frame(self, layer: int | str | None = None) -> Any:
        """The rows of a layer, or of all, as a DataFrame of pandas or polars, else of Arrow."""
        condition, values = ("1", ()) if layer is None else ("layer = ?", (self.layer(layer).id,))
        query = f"SELECT {', '.join(COLUMNS)} FROM units WHERE {condition} ORDER BY layer, unit"
        held = self._ask(query, values)
        names = {one.id: one.name for one in self.layers}
        columns: dict[str, list[Any]] = dict(
            zip(COLUMNS, map(list, zip(*held, strict=True)) if held else [[]] * 14, strict=True)
        )
        columns["layer"] = [names.get(number, str(number)) for number in columns["layer"]]
        return _framed(columns)

    # -- one unit --------------------------------------------------------------------------------

    def unit(self, layer: int | str, unit: int, data: str | None = None) -> UnitRecord:
        """All about a unit; statistics and patches are those of one data set, the first by default.

        Raises Missing for a unit that the atlas does not have.
        """
        found = self.layer(layer)
        query = f"SELECT {', '.join(COLUMNS)} FROM units WHERE layer = ? AND unit = ?"
        rows = self._ask(query, (found.id, unit))
        if not rows:
            raise Missing(f"this atlas has no unit {address_of(found, unit)}")
        row = _row(found, rows[0])
        dataset = self._dataset(data)
        held = self._stats_of(found, unit, dataset)
        stats = None if held is None else _stats(held)
        alone = stats is None or stats.cluster is None
        there = self.recipes_of(found.id)
        return UnitRecord(
            layer=found,
            unit=unit,
            address=row.address,
            label=row.label,
            row=row,
            previous=self._beside(found, unit, "<", "DESC"),
            next=self._beside(found, unit, ">", "ASC"),
            stats=stats,
            histogram=None if held is None else Histogram(held["edges"], held["counts"]),
            patches=self._patches(found, unit, dataset, held, there),
            pictures=self._pictures(found, unit, there),
            outputs=() if held is None else self._outputs(held),
            neighbours=() if held is None else _neighbours(found, held),
            members=() if alone or stats is None else self._members(found, stats.cluster),
            notes=self.notes(found.id, unit),
        )

    def replayable(self, recipe: str, layer: int | str, unit: int) -> dict[str, Any]:
        """The recipe of one picture as `og.replay` takes it."""
        chosen, found = self.recipe(recipe), self.layer(layer)
        rows = self._rows(chosen.id, found.id, unit)
        if chosen.kind != "pictures" or not rows:
            raise Missing(f"no picture of {address_of(found, unit)} was made by {recipe}")
        sign = -1.0 if chosen.settings.get("sign", 1) < 0 else 1.0
        address: Any = address_of(found, unit)
        if found.directions or sign < 0:
            vector = self._vector(found, unit, sign)
            name = address if sign > 0 else f"-{address}"
            address = {
                "direction": name, "layer": found.base, "vector": vector, "place": None
            }  # fmt: skip
        network = {key: self.network[key] for key in ("name", "weights", "file")}
        versions = self._head.versions
        return {
            "optogram": versions["optogram"],
            "torch": versions["torch"],
            "technique": chosen.settings["technique"],
            "arguments": {
                **chosen.settings["arguments"],
                "network": {key: value for key, value in network.items() if value is not None},
                "unit": address,
            },
            "result": rows[0]["result"],
        }

    # -- pixels ----------------------------------------------------------------------------------

    def tile(self, recipe: str, layer: int | str, unit: int, kind: str = "picture0") -> bytes:
        """One picture as WebP. Raises Missing where it is not there."""
        held, (offset, length, _) = self._tile(recipe, self._number(layer), unit, kind)
        if offset >= 0:
            return held.read(offset, length)
        return self.image(*self._elsewhere(recipe, held, unit, kind))

    def etag(self, recipe: str, layer: int | str, unit: int, kind: str = "picture0") -> str:
        """The hash of a picture's bytes."""
        held, (offset, _, digest) = self._tile(recipe, self._number(layer), unit, kind)
        if offset >= 0:
            return digest
        data, number = self._elsewhere(recipe, held, unit, kind)
        return self.etag(self._images_of(data).id, IMAGES, number, "image")

    def image(self, data: str, number: int) -> bytes:
        """A whole image of a data set, fitted to the network, as WebP. Raises Missing."""
        return self.tile(self._images_of(data).id, IMAGES, number, "image")

    def has_images(self, data: str) -> bool:
        """Whether the whole images of a data set are kept."""
        return any(r.kind == "images" and r.data == data for r in self._recipes)

    def sprite(self, layer: int | str, recipe: str | None = None) -> Sprite:
        """How the sheets of a layer are made."""
        found, chosen = self._shown(layer, recipe)
        return Sprite(self._side(found, chosen), -(-found.units // BLOCK))

    def sprites(self, layer: int | str, recipe: str | None = None, block: int = 0) -> bytes:
        """The sheet of the units from 256 * block on, as WebP; kept where the folder allows it."""
        found, chosen = self._shown(layer, recipe)
        name = f"{block:06d}-{self.sprite_etag(layer, recipe, block)[:12]}.webp"
        path = self.folder / "sheets" / str(found.id) / chosen.id / name
        if path.is_file():
            return path.read_bytes()
        content = sheet_webp(self._tiles(found, chosen, block), self._side(found, chosen))
        with suppress(OSError, RequestError):
            path.parent.mkdir(parents=True, exist_ok=True)
            for old in path.parent.glob(f"{block:06d}-*.webp"):
                old.unlink(missing_ok=True)
            write_atomically(path, content)
        return content

    def sprite_etag(self, layer: int | str, recipe: str | None = None, block: int = 0) -> str:
        """The hash of what a sheet shows. Raises Missing where that is nothing."""
        found, chosen = self._shown(layer, recipe)
        query = "SELECT line FROM shards WHERE layer = ? AND recipe = ? AND block = ? ORDER BY path"
        lines = [
            line
            for shown in self._standing(found, chosen)
            for line in self._ask(query, (found.id, shown.id, block))
        ]
        if not lines:
            raise Missing(f"{found.name} has no pictures of block {block} by {chosen.name}")
        return hashlib.sha256("\n".join(line[0] for line in lines).encode()).hexdigest()

    # -- notes and search ------------------------------------------------------------------------

    def notes(self, layer: int | str | None = None, unit: int | None = None) -> tuple[Note, ...]:
        """What people wrote, about all, a layer or a unit."""
        number = None if layer is None else self.layer(layer).id
        return tuple(
            note
            for note in noting.read(self.folder)
            if number in (None, note.layer) and unit in (None, note.unit)
        )

    def add_note(
        self, layer: int | str, unit: int, text: str, *, kind: str = "note", by: str = ""
    ) -> Note:
        """Write about a unit; a "label" names it, and an empty one takes the name away."""
        found = self.layer(layer)
        if not self._ask("SELECT 1 FROM units WHERE layer = ? AND unit = ?", (found.id, unit)):
            raise Missing(f"this atlas has no unit {address_of(found, unit)}")
        note = noting.add(self.folder, found.id, unit, text, kind, by)
        self._take_notes()
        return note

    def remove_note(self, id: str) -> None:
        """Take a note back. Raises RequestError where there is none of that id."""
        noting.remove(self.folder, id)
        self._take_notes()

    def search(self, text: str, n: int = 50) -> list[Hit]:
        """Units by address, label, note or the class they prefer, and layers by name."""
        words = text.strip()[:200]
        if not words:
            return []
        hits = self._by_address(words)
        hits += [
            Hit(layer.id, None, layer.name, "layer", layer.name)
            for layer in self.layers
            if words.casefold() in layer.name.casefold()
        ]
        tokens = re.findall(r"\w+", words)
        if tokens:
            asked = " ".join(f'"{token}"*' for token in tokens)
            query = (
                "SELECT text, what, layer, unit FROM texts WHERE texts MATCH ? "
                "ORDER BY rank LIMIT ?"
            )
            hits += [self._hit(*row) for row in self._ask(query, (asked, n))]
        hits += self._preferring(words, n)
        return list(dict.fromkeys(hits))[:n]

    # -- new work --------------------------------------------------------------------------------

    def refresh(self) -> int:
        """Take in what was computed since; how many shards."""
        with self._lock:
            fresh = self._fresh()
            if fresh is None:
                return self.reindex()
            if not fresh:
                return 0
            self._head, self._recipes = read_head(self.folder), read_recipes(self.folder)
            count = self._writer().add(fresh)
            self._writer().take_notes()
            self._layers = None
            return count

    def reindex(self) -> int:
        """Make the index anew; how many shards. In a folder that is read-only it lies elsewhere."""
        with self._lock:
            self._head, self._recipes = read_head(self.folder), read_recipes(self.folder)
            if not os.access(self.folder, os.W_OK):
                self._temporary = tempfile.TemporaryDirectory(prefix="optogram-")
                self._path = Path(self._temporary.name) / indexing.FILE
            count = indexing.build(self.folder, self._path)
            self._threads = threading.local()
            self._layers = None
            return count

    def keep(self, layer: int | str, unit: int, result: Any, name: str = "mine") -> RecipeInfo:
        """Keep a picture, or several facets, that `maximize` made for a unit of the atlas."""
        from optogram.atlas.painting import keep

        recipe = keep(self.folder, self._head.layer(layer), unit, result, name)
        self.refresh()
        return recipe

    def unusual(
        self, network: Any, image: Any, n: int = 20
    ) -> list[tuple[str, int, int, float, float]]:
        """The units that an image excites unusually: address, layer, unit, how many, value.

        By how many standard deviations its strongest answer lies above the mean of the data's.
        """
        from optogram.atlas.unusual import unusual

        return unusual(self, network, image, n)

    def target(self, layer: int | str, unit: int) -> "Target":
        """What techniques take for a unit of the atlas."""
        from optogram.core.unit import Direction, Unit

        found = self.layer(layer)
        if not found.directions:
            return Unit(found.name, unit)
        import torch

        vector = torch.tensor(self._vector(found, unit, 1.0))
        return Direction(found.base, vector, address_of(found, unit))

    @property
    def manifest(self) -> str:
        """The hash over all shards: equal content, equal hash, however it was built."""
        return manifest(self.folder)

    def info(self) -> dict[str, Any]:
        """How large it is, and what is in it and what not."""
        from optogram.atlas.upkeep import info

        return info(self)

    def answers(self, layer: int | str, columns: Sequence[str]) -> dict[str, list[Any]]:
        """Some columns of the statistics of all units of a layer, by unit."""
        found = self.layer(layer)
        chosen = self._stats_recipe(self.datasets[0].id)
        paths = self._ask(
            "SELECT path FROM shards WHERE layer = ? AND recipe = ? ORDER BY block, path",
            (found.id, "" if chosen is None else chosen.id),
        )
        held: dict[str, list[Any]] = {name: [] for name in columns}
        for (path,) in paths:
            marker = Marker(self.folder / f"{path}.json", {})
            for name, values in indexing.rows_of(marker, columns).items():
                held[name] += values
        return held

    # -- inside ----------------------------------------------------------------------------------

    def _reader(self) -> sqlite3.Connection:
        base = getattr(self._threads, "base", None)
        if base is None:
            base = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            base.execute("PRAGMA query_only = ON")
            self._threads.base = base
        return base

    def _writer(self) -> Index:
        return Index(self.folder, self._path)

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._reader().execute(query, tuple(values)).fetchall()

    def _take_notes(self) -> None:
        with self._lock:
            index = self._writer()
            index.take_notes()
            index.close()

    def _fresh(self) -> list[Marker] | None:
        """Markers that the index does not know; None where it knows shards that are gone."""
        known = {row[0] for row in self._ask("SELECT path FROM shards")}
        names = sorted((self.folder / "data").glob("*/*/*.json"))
        there = {str(path.relative_to(self.folder).with_suffix("")): path for path in names}
        if known - there.keys():
            return None
        fresh = {path for name, path in there.items() if name not in known}
        if not fresh:
            return []
        folders = {(int(p.parent.parent.name), p.parent.name) for p in fresh}
        return [m for f in sorted(folders) for m in markers(self.folder, *f) if m.path in fresh]

    def _counted(self) -> tuple[LayerInfo, ...]:
        query = (
            "SELECT layer, count(*), sum(state IS NOT NULL AND state != 'alive'), "
            "sum(verdict = 'failed'), sum(verdict IS NOT NULL) FROM units GROUP BY layer"
        )
        names = ("units", "dead", "failed", "pictures")
        counts = {
            row[0]: dict(zip(names, (int(v or 0) for v in row[1:]), strict=True))
            for row in self._ask(query)
        }
        return tuple(
            LayerInfo(**{**vars(layer), "counts": counts[layer.id]})
            for layer in self._head.layers
            if layer.id in counts
        )

    def _number(self, layer: int | str) -> int:
        return IMAGES if layer == IMAGES else self.layer(layer).id

    def _dataset(self, data: str | None) -> DataSet | None:
        if data is None:
            return self.datasets[0] if self.datasets else None
        for one in self.datasets:
            if data in (one.id, one.name):
                return one
        raise Missing(f"this atlas has no data set {data!r}")

    def _held(self, recipe: str, layer: int, unit: int) -> list[Held]:
        """The shards that may hold a unit."""
        query = "SELECT path FROM shards WHERE layer = ? AND recipe = ? AND block = ? ORDER BY path"
        paths = self._ask(query, (layer, recipe, unit // BLOCK))
        return [self._shelf.get(self.folder / path) for (path,) in paths]

    def _rows(self, recipe: str, layer: int, unit: int) -> list[dict[str, Any]]:
        for held in self._held(recipe, layer, unit):
            if unit in held.rows:
                return held.of(unit)
        return []

    def _tile(
        self, recipe: str, layer: int, unit: int, kind: str
    ) -> tuple[Held, tuple[int, int, str]]:
        for held in self._held(recipe, layer, unit):
            if (unit, kind) in held.tiles:
                return held, held.tiles[unit, kind]
        raise Missing(f"there is no {kind!r} of unit {unit} of layer {layer} by {recipe!r}")

    def _elsewhere(self, recipe: str, held: Held, unit: int, kind: str) -> tuple[str, int]:
        """The data set and the number of the whole image that a patch is."""
        rows = {row["kind"]: row for row in held.of(unit)}
        return str(self.recipe(recipe).data), int(rows[kind]["image"])

    def _images_of(self, data: str) -> RecipeInfo:
        for recipe in self._recipes:
            if recipe.kind == "images" and recipe.data == data:
                return recipe
        raise Missing(f"the images of data set {data!r} are not kept in this atlas")

    def _shown(self, layer: int | str, recipe: str | None) -> tuple[LayerInfo, RecipeInfo]:
        found = self.layer(layer)
        chosen = self.picture_recipe(found.id) if recipe is None else self.recipe(recipe)
        if chosen is None or chosen.kind not in ("pictures", "patches"):
            raise Missing(f"{found.name} has no pictures")
        return found, chosen

    def _side(self, layer: LayerInfo, recipe: RecipeInfo) -> int:
        """As large as the pictures can be, up to 112 pixels."""
        whole = max(self.network["shape"][1:])
        field = max(layer.field) if layer.field and recipe.kind == "patches" else whole
        return int(min(whole, field, LARGEST))

    def _standing(self, layer: LayerInfo, chosen: RecipeInfo) -> list[RecipeInfo]:
        """What stands for a unit on a sheet, the best first.

        Its picture, else one of another recipe for the same sign, else its strongest patch.
        """
        sign = chosen.settings.get("sign", 1)
        first = self.datasets[0].id if self.datasets else None
        there = [r for r in self.recipes_of(layer.id) if r.id != chosen.id]
        others = [r for r in there if r.kind == "pictures" and r.settings.get("sign", 1) == sign]
        cut = [r for r in there if r.kind == "patches" and r.data == first]
        return [chosen, *others, *cut]

    def _tiles(self, layer: LayerInfo, recipe: RecipeInfo, block: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for shown in self._standing(layer, recipe):
            kind = "picture0" if shown.kind == "pictures" else "patch0"
            for held in self._held(shown.id, layer.id, block * BLOCK):
                for unit, name in held.tiles:
                    if name == kind and unit % BLOCK not in found:
                        found[unit % BLOCK] = self.tile(shown.id, layer.id, unit, kind)
        return found

    def _stats_recipe(self, data: str) -> RecipeInfo | None:
        return next((r for r in self._recipes if r.kind == "stats" and r.data == data), None)

    def _stats_of(
        self, layer: LayerInfo, unit: int, dataset: DataSet | None
    ) -> dict[str, Any] | None:
        chosen = None if dataset is None else self._stats_recipe(dataset.id)
        rows = [] if chosen is None else self._rows(chosen.id, layer.id, unit)
        return rows[0] if rows else None

    def _beside(self, layer: LayerInfo, unit: int, than: str, way: str) -> int | None:
        query = (
            f"SELECT unit FROM units WHERE layer = ? AND unit {than} ? ORDER BY unit {way} LIMIT 1"
        )
        rows = self._ask(query, (layer.id, unit))
        return int(rows[0][0]) if rows else None

    def _members(self, layer: LayerInfo, cluster: int | None) -> tuple[int, ...]:
        query = "SELECT unit FROM units WHERE layer = ? AND cluster = ? ORDER BY unit"
        return tuple(row[0] for row in self._ask(query, (layer.id, cluster)))

    def _outputs(self, held: Mapping[str, Any]) -> tuple[tuple[str, int, float], ...]:
        labels = self.network["labels"]
        pairs = zip(held["outputs"], held["output_correlations"], strict=True)
        return tuple((labels[i] if i < len(labels) else str(i), i, r) for i, r in pairs)

    def _patches(
        self,
        layer: LayerInfo,
        unit: int,
        dataset: DataSet | None,
        held: Mapping[str, Any] | None,
        there: tuple[RecipeInfo, ...],
    ) -> tuple[Patch, ...]:
        if held is None or dataset is None:
            return ()
        cut = [r for r in there if r.kind == "patches" and r.data == dataset.id]
        held_by = [(r, self._rows(r.id, layer.id, unit)) for r in cut]
        # Some units may have been cut out again, with projections: theirs say more.
        chosen, rows = max(held_by, key=lambda one: len(one[1]), default=(None, []))
        kinds = {row["kind"] for row in rows}
        captions = self._captions(dataset, held["images"])
        found = []
        for rank, (value, image) in enumerate(zip(held["values"], held["images"], strict=True)):
            label = held["labels"][rank]
            top, left, bottom, right = held["boxes"][4 * rank : 4 * rank + 4]
            tiles = [f"{name}{rank}" for name in ("patch", "projection")]
            patch, projection = (tile if tile in kinds else None for tile in tiles)
            found.append(
                Patch(
                    rank=rank,
                    value=value,
                    image=image,
                    row=held["rows"][rank],
                    column=held["columns"][rank],
                    box=(top, left, bottom, right),
                    label=dataset.classes[label] if 0 <= label < len(dataset.classes) else None,
                    caption=captions.get(image, f"image {image}"),
                    recipe=None if chosen is None else chosen.id,
                    patch=patch,
                    projection=projection,
                )
            )
        return tuple(found)

    def _captions(self, dataset: DataSet, images: Sequence[int]) -> dict[int, str]:
        if not self.has_images(dataset.id):
            return {}
        chosen = self._images_of(dataset.id)
        found = {n: self._rows(chosen.id, IMAGES, n) for n in set(images)}
        return {n: rows[0]["caption"] for n, rows in found.items() if rows}

    def _pictures(
        self, layer: LayerInfo, unit: int, there: tuple[RecipeInfo, ...]
    ) -> tuple[Made, ...]:
        return tuple(
            _made(recipe, row)
            for recipe in there
            if recipe.kind == "pictures"
            for row in self._rows(recipe.id, layer.id, unit)
        )

    def _vector(self, layer: LayerInfo, unit: int, sign: float) -> list[float]:
        import numpy as np

        if layer.vectors is None:
            vector = np.zeros(layer.units, dtype=np.float32)
            vector[unit] = sign
            return vector.tolist()
        held = np.load(self.folder / "directions" / f"{layer.vectors}.npy", mmap_mode="r")
        return (sign * np.asarray(held[unit], dtype=np.float32)).tolist()

    def _by_address(self, words: str) -> list[Hit]:
        name, colon, number = words.rpartition(":")
        if not colon:
            return []
        hits = []
        for layer in self.layers:
            if layer.name == name and number.isdecimal() and len(number) < 18:
                query = "SELECT 1 FROM units WHERE layer = ? AND unit = ?"
                if self._ask(query, (layer.id, int(number))):
                    where = address_of(layer, int(number))
                    hits.append(Hit(layer.id, int(number), where, "unit", where))
        return hits

    def _preferring(self, words: str, n: int) -> list[Hit]:
        """The most selective units that prefer a class whose name begins so."""
        classes = self.datasets[0].classes if self.datasets else ()
        named = [one for one in classes if one.casefold().startswith(words.casefold())][:20]
        query = (
            "SELECT prefers, 'prefers', layer, unit, selectivity FROM units "
            "WHERE layer = ? AND prefers = ? ORDER BY selectivity DESC LIMIT ?"
        )
        rows = [
            row
            for layer in self.layers
            for one in named
            for row in self._ask(query, (layer.id, one, n))
        ]
        rows.sort(key=lambda row: -(row[4] or 0.0))
        return [self._hit(*row[:4]) for row in rows[:n]]

    def _hit(self, text: str, what: str, layer: int, unit: int | None) -> Hit:
        found = self._head.layer(layer)
        where = found.name if unit is None else address_of(found, unit)
        return Hit(layer, unit, where, what, text)


def _condition(layer: int, where: Mapping[str, Any] | None) -> tuple[str, tuple[Any, ...]]:
    """The SQL of `where`. Raises RequestError for a filter that there is not."""
    parts, values = ["layer = ?"], [layer]
    for name, value in (where or {}).items():
        if name == "state" and value == "dead":
            parts.append("state IS NOT NULL AND state != 'alive'")
            continue
        if name in ("state", "verdict", "prefers", "cluster", "label"):
            parts.append(f"{name} = ?")
        elif name == "selective":
            parts.append("selectivity >= ?")
        else:
            raise RequestError(
                f"units cannot be chosen by {name!r}; there is state, verdict, prefers, cluster, "
                f"label and selective"
            )
        values.append(value)
    return " AND ".join(parts), tuple(values)


def _row(layer: LayerInfo, row: Sequence[Any]) -> Row:
    return Row(row[0], row[1], address_of(layer, row[1]), *row[2:])


def _stats(held: Mapping[str, Any]) -> Stats:
    plain = (
        "mean", "variance", "minimum", "maximum", "active", "sparseness", "selectivity", "prefers",
        "state", "answer_mean", "answer_std", "cluster", "cluster_size", "cluster_agreement",
    )  # fmt: skip
    quantiles = {share: held[f"q{share}"] for share in QUANTILES if held[f"q{share}"] is not None}
    return Stats(**{name: held[name] for name in plain}, quantiles=quantiles)


def _neighbours(layer: LayerInfo, held: Mapping[str, Any]) -> tuple[Neighbour, ...]:
    pairs = zip(held["neighbours"], held["correlations"], strict=True)
    return tuple(Neighbour(unit, address_of(layer, unit), r) for unit, r in pairs)


def _made(recipe: RecipeInfo, row: Mapping[str, Any]) -> Made:
    best, score = row["best_in_data"], row["score"]
    same = (
        "kind", "facet", "score", "verdict", "best_in_data", "jitter_survival", "gradient_norm",
        "rival", "rival_score", "history", "result",
    )  # fmt: skip
    return Made(
        recipe=recipe.id,
        name=recipe.name,
        ratio=score / best if best is not None and best > 0 and score > 0 else None,
        answers=tuple(zip(row["answers"], row["probabilities"], strict=True)),
        **{name: row[name] for name in same},
    )


def _framed(columns: dict[str, list[Any]]) -> Any:
    try:
        import pandas

        return pandas.DataFrame(columns)
    except ImportError:
        pass
    try:
        import polars

        return polars.DataFrame(columns)
    except ImportError:
        import pyarrow

        return pyarrow.table(columns)
