"""Reading shards: their rows by unit, their pictures by `pread`; the last ones stay at hand."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optogram.atlas.layout import Missing
from optogram.pictures.errors import RequestError

AT_HAND = 96


@dataclass(frozen=True, eq=False)
class Held:
    """A shard in memory: its table, at which rows each unit stands, where its pictures lie."""

    path: Path
    table: Any
    rows: dict[int, list[int]]
    tiles: dict[tuple[int, str], tuple[int, int, str]]
    pack: int | None

    def of(self, unit: int) -> list[dict[str, Any]]:
        """The unit's rows, in their order."""
        found = self.rows.get(unit, [])
        return [self.table.slice(row, 1).to_pylist()[0] for row in found]

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes of the pack."""
        if self.pack is None:
            raise Missing(f"the pictures of '{self.path}' are not there")
        content = os.pread(self.pack, length, offset)
        if len(content) != length:
            raise RequestError(f"'{self.path}' is cut short: run `optogram atlas verify`")
        return content

    def __del__(self) -> None:
        if self.pack is not None:
            os.close(self.pack)


class Shelf:
    """The shards that were read last. Safe from several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, Held] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path) -> Held:
        """The shard whose files begin with `path`. Raises Missing where they are not there."""
        with self._lock:
            if path in self._held:
                self._held.move_to_end(path)
                return self._held[path]
        held = _load(path)
        with self._lock:
            self._held[path] = held
            while len(self._held) > AT_HAND:
                self._held.popitem(last=False)
        return held


def _load(path: Path) -> Held:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path.with_suffix(".parquet")) as file:
            table = file.read(use_threads=False).combine_chunks()
    except FileNotFoundError as problem:
        raise Missing(f"the shard '{path}' is gone") from problem
    except (OSError, pa.ArrowException) as problem:
        raise RequestError(f"'{path}' is damaged: run `optogram atlas verify`") from problem
    rows: dict[int, list[int]] = {}
    units = table.column("unit").to_pylist()
    for row, unit in enumerate(units):
        rows.setdefault(unit, []).append(row)
    tiles = {}
    if "offset" in table.column_names:
        names = ("kind", "offset", "length", "sha256")
        columns = [table.column(name).to_pylist() for name in names]
        for unit, kind, *place in zip(units, *columns, strict=True):
            tiles[unit, kind] = (place[0], place[1], place[2])
    pack = path.with_suffix(".pack")
    return Held(path, table, rows, tiles, os.open(pack, os.O_RDONLY) if pack.is_file() else None)
