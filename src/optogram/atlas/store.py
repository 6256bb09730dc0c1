"""Shards: the rows and pictures of up to 256 units, published whole or not at all.

A shard is a Parquet file of rows, a pack of WebP files end to end (where it has pictures), and last
a small JSON file, the marker. Only what has a marker counts, so a killed run leaves nothing half
done, and resuming is to list markers. A lease says that somebody works on a shard; one whose owner
has died is taken over.
"""

import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optogram.atlas.layout import FORMAT, spans
from optogram.pictures.files import is_abandoned, write_atomically
from optogram.pictures.leases import is_free
from optogram.pictures.recipe import canonical, recipe_digest

BLOCK = 256
"""Units whose numbers differ only below this belong to one shard."""


@dataclass(frozen=True)
class Shard:
    """A piece of work: some units of one block of a layer, under one recipe.

    `key` is the hash of all that decides its content.
    """

    layer: int
    recipe: str
    units: tuple[int, ...]
    key: str
    whole: bool

    @property
    def name(self) -> str:
        """The name of its files: of the whole block its first unit, else with the units' hash."""
        first = self.units[0] // BLOCK * BLOCK
        return f"{first:08d}" if self.whole else f"{first:08d}-{self.key[:8]}"

    @property
    def path(self) -> Path:
        """Its files, without a suffix, inside an atlas."""
        return Path("data") / str(self.layer) / self.recipe / self.name


def shards(
    layer: int, recipe: str, units: Iterable[int], total: int, facts: Mapping[str, Any]
) -> list[Shard]:
    """The shards that hold some units of a layer of `total`; `facts` decide their content."""
    blocks: dict[int, list[int]] = {}
    for unit in sorted(set(units)):
        blocks.setdefault(unit // BLOCK, []).append(unit)
    found = []
    for block, some in blocks.items():
        whole = len(some) == min(BLOCK, total - block * BLOCK)
        text = {"format": FORMAT, "recipe": recipe, "units": spans(some), **facts}
        key = recipe_digest(text).removeprefix("sha256:")
        found.append(Shard(layer, recipe, tuple(some), key, whole))
    return found


@dataclass(frozen=True)
class Marker:
    """A published shard: where it is, and what its marker says."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def layer(self) -> int:
        """The number of its layer, which its folder says."""
        return int(self.path.parent.parent.name)

    @property
    def recipe(self) -> str:
        """The id of its recipe, which its folder says."""
        return self.path.parent.name

    @property
    def units(self) -> tuple[int, ...]:
        """Its units' numbers."""
        return tuple(n for first, end in self.facts["units"] for n in range(first, end))

    @property
    def line(self) -> str:
        """What a manifest says of it: all but who made it when."""
        held = self.facts
        pack = (held["pack"] or {}).get("sha256", "-")
        parquet = held["parquet"]["sha256"]
        return f"{self.layer}/{self.recipe}/{self.path.stem} {held['key']} {parquet} {pack}"


class Pack:
    """Pictures end to end, and where each begins."""

    def __init__(self) -> None:
        self._file = io.BytesIO()

    def add(self, content: bytes) -> dict[str, Any]:
        """Append a file; the columns that say where it is."""
        start = self._file.tell()
        self._file.write(content)
        digest = hashlib.sha256(content).hexdigest()
        return {"offset": start, "length": len(content), "sha256": digest}

    def content(self) -> bytes:
        """All of it."""
        return self._file.getvalue()


NOWHERE = {"offset": -1, "length": 0, "sha256": ""}
"""The columns of a picture that is kept elsewhere."""


def publish(
    folder: Path,
    shard: Shard,
    rows: Sequence[Mapping[str, Any]],
    schema: Any,
    pack: Pack | None,
    made: Mapping[str, Any],
) -> None:
    """Write a shard: the pack, the rows, and its marker last; each to the disk, then renamed."""
    base = folder / shard.path
    base.parent.mkdir(parents=True, exist_ok=True)
    parquet = parquet_bytes(rows, schema)
    marker = {
        "format": FORMAT,
        "units": spans(shard.units),
        "rows": len(rows),
        "key": shard.key,
        "parquet": _described(parquet),
        "pack": None,
        "made": {**made, "ended": stamp(), "host": socket.gethostname(), "pid": os.getpid()},
    }
    if pack is not None:
        content = pack.content()
        marker["pack"] = _described(content)
        write_atomically(base.with_suffix(".pack"), content)
    write_atomically(base.with_suffix(".parquet"), parquet)
    checked = {**marker, "check": recipe_digest(marker)}
    write_atomically(base.with_suffix(".json"), canonical(checked).encode())


def parquet_bytes(rows: Sequence[Mapping[str, Any]], schema: Any) -> bytes:
    """The bytes of a Parquet file; the same rows make the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def markers(folder: Path, layer: int | None = None, recipe: str | None = None) -> Iterator[Marker]:
    """The published shards, in the order of their paths; a marker that cannot be read is none."""
    pattern = f"{'*' if layer is None else layer}/{recipe or '*'}/*.json"
    for path in sorted((folder / "data").glob(pattern)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["format"] == FORMAT and facts["units"] is not None:
                yield Marker(path, facts)


def published(folder: Path, shard: Shard) -> bool:
    """Whether a shard is there."""
    return (folder / shard.path).with_suffix(".json").is_file()


def manifest(folder: Path) -> str:
    """The hash over all shards of an atlas: equal content, equal hash, however it was built."""
    lines = "\n".join(sorted(marker.line for marker in markers(folder)))
    return hashlib.sha256(lines.encode()).hexdigest()


def stamp() -> str:
    """Now, as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes left: drafts and leases."""
    litter = [path for path in (folder / "data").glob("*/*/.*.tmp") if is_abandoned(path)]
    litter += [
        path
        for path in [*folder.glob("data/*/*/*.lease"), *folder.glob("scan/*.lease")]
        if is_free(path)
    ]
    for path in litter:
        path.unlink(missing_ok=True)
    return litter


def _described(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
