"""The index of an atlas: a SQLite file that says in no time what the shards say in minutes.

It is derived: delete it, and `optogram atlas reindex` makes it again from the markers.
"""

import math
import os
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optogram.atlas import notes
from optogram.atlas.layout import Head, LayerInfo, RecipeInfo, address, read_head, read_recipes
from optogram.atlas.store import BLOCK, Marker, markers

FILE = "index.sqlite"
VERSION = 1

NUMBERS = ("maximum", "mean", "active", "sparseness", "selectivity", "score", "ratio")
"""What units can be sorted by, each with an index of its own."""

COLUMNS = (
    "layer", "unit", "label", "maximum", "mean", "active", "sparseness", "selectivity", "prefers",
    "state", "cluster", "score", "verdict", "ratio",
)  # fmt: skip

_TABLES = """
CREATE TABLE shards (path TEXT PRIMARY KEY, layer INTEGER, recipe TEXT, block INTEGER, rows INTEGER,
    key TEXT, line TEXT) WITHOUT ROWID;
CREATE INDEX shards_by_block ON shards (layer, recipe, block);
CREATE TABLE units (layer INTEGER, unit INTEGER, label TEXT, maximum REAL, mean REAL, active REAL,
    sparseness REAL, selectivity REAL, prefers TEXT, state TEXT, cluster INTEGER, score REAL,
    verdict TEXT, ratio REAL, PRIMARY KEY (layer, unit)) WITHOUT ROWID;
CREATE VIRTUAL TABLE texts USING fts5 (text, what UNINDEXED, layer UNINDEXED, unit UNINDEXED,
    id UNINDEXED, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3');
"""
_SORTED = "".join(
    f"CREATE INDEX IF NOT EXISTS units_by_{name} ON units (layer, {name});"
    for name in (*NUMBERS, "cluster", "state", "prefers")
)
_STATS = ["maximum", "mean", "active", "sparseness", "selectivity", "prefers", "state", "cluster"]


class Index:
    """The index of one atlas, opened by one thread."""

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        self.folder = folder
        self.path = path or folder / FILE
        self.base = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        self.base.execute("PRAGMA synchronous = NORMAL")
        self.base.execute("PRAGMA cache_size = -65536")
        self._findable: set[tuple[int, int]] = set()

    def close(self) -> None:
        """Let go of the file."""
        self.base.close()

    def add(self, found: Iterable[Marker]) -> int:
        """Take in shards that are not in it yet, those of one call together."""
        head, recipes = read_head(self.folder), {r.id: r for r in read_recipes(self.folder)}
        layers = {layer.id: layer for layer in head.layers}
        known = dict(self.base.execute("SELECT path, key FROM shards"))
        there = self.base.execute("SELECT layer, unit FROM texts WHERE what = 'output'")
        self._findable = set(there.fetchall())
        fresh = 0
        self.base.execute("BEGIN IMMEDIATE")
        try:
            for marker in found:
                name = str(marker.path.relative_to(self.folder).with_suffix(""))
                recipe, layer = recipes.get(marker.recipe), layers.get(marker.layer)
                if name in known or recipe is None or (layer is None and recipe.kind != "images"):
                    continue
                self._take_in(name, marker, recipe, layer, head)
                fresh += 1
            self.base.execute("COMMIT")
        except BaseException:
            self.base.execute("ROLLBACK")
            raise
        return fresh

    def add_text(self, text: str, what: str, layer: int, unit: int | None, id: str = "") -> None:
        """Make a text findable."""
        self.base.execute("INSERT INTO texts VALUES (?, ?, ?, ?, ?)", (text, what, layer, unit, id))

    def take_notes(self) -> None:
        """Make the notes findable, and give units the labels that people gave them."""
        head = read_head(self.folder)
        named = {layer.id: layer for layer in head.layers}
        self.base.execute("BEGIN IMMEDIATE")
        try:
            stale = self.base.execute("SELECT layer, unit FROM texts WHERE what = 'label'")
            for layer, unit in stale.fetchall():
                own = _own_label(named.get(layer), unit, head)
                self.base.execute(
                    "UPDATE units SET label = ? WHERE layer = ? AND unit = ?", (own, layer, unit)
                )
            self.base.execute("DELETE FROM texts WHERE what IN ('note', 'label')")
            labels: dict[tuple[int, int], str] = {}
            for note in notes.read(self.folder):
                if note.kind == "note":
                    self.add_text(note.text, "note", note.layer, note.unit, note.id)
                else:
                    labels[note.layer, note.unit] = note.text
            for (layer, unit), text in labels.items():
                if text:
                    self.add_text(text, "label", layer, unit)
                    self.base.execute(
                        "UPDATE units SET label = ? WHERE layer = ? AND unit = ?",
                        (text, layer, unit),
                    )
            self.base.execute("COMMIT")
        except BaseException:
            self.base.execute("ROLLBACK")
            raise

    def _take_in(
        self, name: str, marker: Marker, recipe: RecipeInfo, layer: LayerInfo | None, head: Head
    ) -> None:
        units = marker.units
        facts = marker.facts
        self.base.execute(
            "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                name,
                marker.layer,
                recipe.id,
                units[0] // BLOCK,
                facts["rows"],
                facts["key"],
                marker.line,
            ),
        )
        if layer is None:
            return
        if recipe.kind == "stats" and recipe.data == head.datasets[0].id:
            self._stats(layer, rows_of(marker, ("unit", *_STATS)), head)
        elif recipe.kind == "pictures":
            wanted = ("unit", "facet", "score", "verdict", "best_in_data")
            self._pictures(layer, recipe, rows_of(marker, wanted), head)
        else:
            self._named(layer, units, head)

    def _stats(self, layer: LayerInfo, held: Mapping[str, list[Any]], head: Head) -> None:
        names = [_own_label(layer, unit, head) for unit in held["unit"]]
        columns = [held[name] for name in _STATS]
        places = ", ".join(["?"] * (3 + len(_STATS)))
        fresh = ", ".join(f"{name} = excluded.{name}" for name in _STATS)
        self.base.executemany(
            f"INSERT INTO units (layer, unit, label, {', '.join(_STATS)}) VALUES ({places}) "
            f"ON CONFLICT DO UPDATE SET {fresh}",
            zip([layer.id] * len(names), held["unit"], names, *columns, strict=True),
        )
        self._label(layer, held["unit"], names)

    def _pictures(
        self, layer: LayerInfo, recipe: RecipeInfo, held: Mapping[str, list[Any]], head: Head
    ) -> None:
        rows = []
        for unit, facet, score, verdict, best in zip(*held.values(), strict=True):
            if facet == 0:
                ratio = score / best if best and best > 0 and score > 0 else None
                rows.append((layer.id, unit, _own_label(layer, unit, head), score, verdict, ratio))
        # The plain picture speaks for its unit; any other only where there is no plain one.
        keep = "" if recipe.name == "positive" else " WHERE units.score IS NULL"
        self.base.executemany(
            "INSERT INTO units (layer, unit, label, score, verdict, ratio) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "score = excluded.score, verdict = excluded.verdict, "
            f"ratio = excluded.ratio{keep}",
            rows,
        )
        self._label(layer, [row[1] for row in rows], [row[2] for row in rows])

    def _named(self, layer: LayerInfo, units: Iterable[int], head: Head) -> None:
        rows = [(layer.id, unit, _own_label(layer, unit, head)) for unit in units]
        self.base.executemany(
            "INSERT OR IGNORE INTO units (layer, unit, label) VALUES (?, ?, ?)", rows
        )

    def _label(self, layer: LayerInfo, units: Iterable[int], names: Iterable[str | None]) -> None:
        for unit, name in zip(units, names, strict=True):
            if name is not None and (layer.id, unit) not in self._findable:
                self._findable.add((layer.id, unit))
                self.add_text(name, "output", layer.id, unit)


def build(folder: Path, path: Path | None = None) -> int:
    """Make the index anew from the markers; the number of shards in it.

    It is made beside and renamed, so that readers see the old one or the new one.
    """
    target = path or folder / FILE
    draft = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    index = Index(folder, draft)
    try:
        index.base.execute("PRAGMA journal_mode = OFF")
        index.base.execute("PRAGMA synchronous = OFF")
        index.base.executescript(_TABLES)
        index.base.execute(f"PRAGMA user_version = {VERSION}")
        count = index.add(markers(folder))
        index.base.executescript(_SORTED)
        index.take_notes()
        index.close()
        os.replace(draft, target)
    except BaseException:
        index.close()
        draft.unlink(missing_ok=True)
        raise
    return count


def is_there(path: Path) -> bool:
    """Whether there is an index of this version."""
    if not path.is_file():
        return False
    try:
        base = sqlite3.connect(path, timeout=30)
        try:
            return base.execute("PRAGMA user_version").fetchone()[0] == VERSION
        finally:
            base.close()
    except sqlite3.DatabaseError:
        return False


def rows_of(marker: Marker, columns: Iterable[str]) -> dict[str, list[Any]]:
    """Some columns of a shard; what is no number there is None."""
    import pyarrow.parquet as pq

    wanted = list(columns)
    with pq.ParquetFile(marker.path.with_suffix(".parquet")) as file:
        held = file.read(columns=wanted, use_threads=False)
    return {name: [_real(v) for v in held.column(name).to_pylist()] for name in wanted}


def _real(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _own_label(layer: LayerInfo | None, unit: int, head: Head) -> str | None:
    """The network's own name for a unit."""
    labels = head.network["labels"]
    return labels[unit] if layer is not None and layer.outputs and unit < len(labels) else None


def address_of(layer: LayerInfo, unit: int) -> str:
    """The address of a unit of the atlas."""
    return address(layer.name, unit)
