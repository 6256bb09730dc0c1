"""What people wrote about units: one line a note, only ever appended, each on the disk at once."""

import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path

from optogram.atlas.layout import locked
from optogram.atlas.records import Note
from optogram.atlas.store import stamp
from optogram.pictures.errors import RequestError

FILE = "notes.jsonl"
KINDS = ("note", "label")
LONGEST = 4000


def read(folder: Path) -> list[Note]:
    """All notes that were not removed, in the order in which they were written.

    A line that was cut short by a power failure is left out.
    """
    path = folder / FILE
    found: dict[str, Note] = {}
    if not path.is_file():
        return []
    for line in path.read_bytes().split(b"\n"):
        try:
            said = json.loads(line)
            if "removes" in said:
                found.pop(said["removes"], None)
            else:
                found[said["id"]] = Note(**said)
        except (ValueError, TypeError, KeyError):
            continue
    return list(found.values())


def add(folder: Path, layer: int, unit: int, text: str, kind: str, by: str) -> Note:
    """Write a note. Raises RequestError for one that is too long, or of another kind."""
    if kind not in KINDS:
        raise RequestError(f"{kind!r} is no kind of note; there is {', '.join(KINDS)}")
    if len(text) > LONGEST or len(by) > LONGEST:
        raise RequestError(f"a note has at most {LONGEST} characters, and this has {len(text)}")
    if kind == "note" and not text.strip():
        raise RequestError("a note without words says nothing: write some")
    note = Note(secrets.token_hex(8), stamp(), layer, unit, kind, text, by)
    _append(folder, asdict(note))
    return note


def remove(folder: Path, id: str) -> None:
    """Take a note back. Raises RequestError where there is none of that id."""
    if all(note.id != id for note in read(folder)):
        raise RequestError(f"there is no note {id!r}")
    _append(folder, {"removes": id, "time": stamp()})


def _append(folder: Path, said: dict[str, object]) -> None:
    with locked(folder), (folder / FILE).open("ab") as file:
        # A line that was cut short must not swallow this one.
        start = b"" if file.tell() == 0 or _ends_well(folder / FILE) else b"\n"
        file.write(start + json.dumps(said, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
