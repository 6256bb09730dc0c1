"""A survey's parts in a folder: what is finished stays finished, whatever happens to the program.

A part is published in three steps: its Parquet file, its arrays, and last a small JSON file, the
marker, with the hashes of both. Only what has a marker counts, so a killed run leaves nothing half
done, and the next goes on from the last marker. Markers hold no time and no machine: the same work
makes the same bytes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optogram.pictures.errors import RequestError
from optogram.pictures.files import is_abandoned, write_atomically
from optogram.pictures.recipe import canonical, recipe_digest
from optogram.survey import tables
from optogram.survey.part import Part, Range

FORMAT = 1
MARKER = "survey.json"
ROWS, ARRAYS = "units.parquet", "arrays.safetensors"


@dataclass(frozen=True)
class Store:
    """A folder for the survey that a recipe describes."""

    folder: Path
    recipe: Mapping[str, Any]

    @classmethod
    def at(cls, folder: str | os.PathLike[str], recipe: Mapping[str, Any]) -> "Store":
        """The folder, made where it is not there; drafts of killed runs are swept out.

        Raises RequestError where it holds another survey, or other files.
        """
        store = cls(Path(folder), recipe)
        if store.folder.exists() and not store.folder.is_dir():
            raise RequestError(f"'{folder}' is a file; give a folder for the survey")
        found = store.marker()
        if found is not None and canonical(found["optogram"]) != canonical(recipe):
            raise RequestError(
                f"'{folder}' holds another survey (of {found['optogram']['network']['name']!r}, "
                f"with other layers, images or settings): give another folder"
            )
        store.folder.mkdir(parents=True, exist_ok=True)
        for draft in [*store.folder.glob(".*.tmp"), *store.parts.glob(".*.tmp")]:
            if is_abandoned(draft):
                draft.unlink(missing_ok=True)
        return store

    @property
    def parts(self) -> Path:
        """Where the parts of this recipe lie."""
        return self.folder / "scan" / self.key[:12]

    @property
    def key(self) -> str:
        """The recipe's hash: another recipe never meets these parts."""
        return recipe_digest({"format": FORMAT, **self.recipe}).removeprefix("sha256:")

    def marker(self) -> dict[str, Any] | None:
        """What the finished survey says of itself; None while there is none."""
        path = self.folder / MARKER
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if found["format"] == FORMAT and found["optogram"]["network"] else None
        except (ValueError, KeyError, TypeError) as problem:
            raise RequestError(f"'{path}' is no survey that can be read: {problem}") from problem

    def finished(self, span: Range) -> Part | None:
        """The part of a range of images; None where it is not there, or is damaged."""
        return _read(self.parts, _name(span), span)

    def has(self, span: Range) -> bool:
        """Whether a range was published, whatever has become of its files."""
        return (self.parts / f"{_name(span)}.json").is_file()

    def lease(self, span: Range) -> Path:
        """The file that says that somebody is at a range."""
        return self.parts / f"{_name(span)}.lease"

    def publish(self, part: Part) -> None:
        """Write a part of one range; its marker last."""
        (span,) = part.ranges
        self.parts.mkdir(parents=True, exist_ok=True)
        _write(self.parts, _name(span), part, {"key": self.key, "range": list(span)})

    def complete(self, part: Part, about: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """Write the whole survey, its marker last: `about` goes into it, `more` are columns."""
        rows, arrays = tables.parquet(tables.table(part, more)), tables.arrays(part)
        write_atomically(self.folder / ROWS, rows)
        write_atomically(self.folder / ARRAYS, arrays)
        facts = {
            "format": FORMAT,
            "optogram": dict(self.recipe),
            "ranges": [list(span) for span in part.ranges],
            "seen": part.images,
            "skipped": part.skipped,
            "files": {ROWS: _hash(rows), ARRAYS: _hash(arrays)},
            **about,
        }
        write_atomically(self.folder / MARKER, canonical(facts).encode())

    def forget_parts(self) -> None:
        """Delete the parts; the finished survey holds all that they say."""
        shutil.rmtree(self.folder / "scan", ignore_errors=True)


def completed(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], Part]:
    """What `Store.complete` wrote: the marker and the part.

    Raises RequestError where there is no finished survey, or its files are damaged.
    """
    store = Store(Path(folder), {})
    about = store.marker()
    if about is None:
        raise RequestError(
            f"there is no finished survey in '{folder}'; `optogram survey NET DATA -o {folder}` "
            f"makes one, or goes on with one that was interrupted"
        )
    content = {name: _content(store.folder / name) for name in (ROWS, ARRAYS)}
    for name, held in content.items():
        if _hash(held) != about["files"][name]:
            raise RequestError(f"'{store.folder / name}' is damaged: delete it and survey again")
    ranges = tuple((first, end) for first, end in about["ranges"])
    return about, tables.part_of(
        content[ROWS], content[ARRAYS], ranges, about["seen"], about["skipped"]
    )


def _write(folder: Path, name: str, part: Part, facts: dict[str, Any]) -> None:
    rows, arrays = tables.parquet(tables.table(part)), tables.arrays(part)
    write_atomically(folder / f"{name}.parquet", rows)
    write_atomically(folder / f"{name}.safetensors", arrays)
    marker = {
        **facts,
        "seen": part.images,
        "skipped": part.skipped,
        "rows": sum(len(layer.top.values) for layer in part.layers.values()),
        "parquet": _hash(rows),
        "safetensors": _hash(arrays),
    }
    write_atomically(folder / f"{name}.json", canonical(marker).encode())


def _read(folder: Path, name: str, span: Range) -> Part | None:
    try:
        marker = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        rows = (folder / f"{name}.parquet").read_bytes()
        arrays = (folder / f"{name}.safetensors").read_bytes()
        whole = _hash(rows) == marker["parquet"] and _hash(arrays) == marker["safetensors"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    return tables.part_of(rows, arrays, (span,), marker["seen"], marker["skipped"])


def _name(span: Range) -> str:
    return f"part-{span[0]:09d}-{span[1]:09d}"


def _hash(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise RequestError(f"'{path}' cannot be read: {problem}") from problem
