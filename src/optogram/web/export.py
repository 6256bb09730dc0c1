"""The explorer as a folder: pages that open from the disk, with no server and no network."""

import os
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from optogram.pictures.errors import RequestError
from optogram.web import pages
from optogram.web.drawing import STATIC, drawn, in_chunks, sheets_of
from optogram.web.links import FileLinks
from optogram.web.unit import extras

MARK = "optogram-export"
NEEDED = ("style.css", "keys.js", "icon.svg")


def export(atlas: Any, out: str | os.PathLike[str]) -> Path:
    """Write an atlas as a folder of HTML that opens from `file://`; returns the first page.

    It appears whole or not at all. An earlier export at the same place is replaced.

    Raises RequestError for a place that holds something else.
    """
    target = Path(os.path.realpath(out))
    if target.exists() and not _may_replace(target):
        raise RequestError(f"'{out}' is there and is no earlier export: choose another folder")
    if not target.parent.is_dir():
        raise RequestError(f"there is no folder '{target.parent}' to write '{out}' into")
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name[:60]}.", dir=target.parent))
    try:
        draft.chmod(0o755)
        _Writer(atlas, draft).everything()
        _put(draft, target)
    except BaseException:  # Ctrl-C too must leave no litter
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target / "index.html"


class _Writer:
    """One export under way: where it goes, and which images of the data it shows."""

    def __init__(self, atlas: Any, folder: Path) -> None:
        self.atlas, self.folder = atlas, folder
        self.network = pages.network_facts(atlas)
        self.shown: set[int] = set()

    def everything(self) -> None:
        (self.folder / MARK).write_text(f"{self.network['name']}\n", encoding="utf-8")
        for name in NEEDED:
            self._write(f"static/{name}", (STATIC / name).read_bytes())
        facts = pages.network_page(self.atlas)
        self._page("index.html", "network.html", "network", facts)
        self._page("notes.html", "notes.html", "notes", pages.notes_page(self.atlas))
        from optogram.core.progress import tell  # with torch, which this room loads when it must

        total, done = facts["totals"]["units"], 0
        for layer in self.atlas.layers:
            self._layer(layer)
            for unit in range(layer.units):
                self._unit(layer, unit)
                done += 1
                if done % 16 == 0 or done == total:
                    tell("export", done, total)
        for number in sorted(self.shown):
            content = self.atlas.image(self.atlas.datasets[0].id, number)
            self._write(f"media/data/0-{number}.webp", content)

    def _layer(self, layer: Any) -> None:
        facts, parts = pages.layer_parts(self.atlas, layer, {}, most=max(1, layer.units))
        held = list(parts)
        path = f"layers/{layer.id}.html"
        head, chunks = in_chunks(self._links(path), facts["layer"], held)
        self._page(path, "layer.html", "network", {**facts, **head, "chunks": chunks})
        shown = {(t["block"], t["recipe"]) for part in held for t in part if t["recipe"]}
        for block, recipe in shown:
            with suppress(RequestError):  # of an unfinished build there may be nothing to show yet
                sheet = self.atlas.sprites(layer.id, recipe, block)
                self._write(f"sheets/{recipe}/{layer.id}-{block}.webp", sheet)

    def _unit(self, layer: Any, number: int) -> None:
        try:
            record = self.atlas.unit(layer.id, number)
        except RequestError:  # an unfinished build: there is no such unit yet
            return
        facts = pages.unit_page(self.atlas, record)
        more = extras(self.atlas, record, facts)
        if more["whole_images"] and not (more["whole_field"] and more["has_projections"]):
            self.shown |= {patch.image for patch in record.patches}
        self._page(f"units/{layer.id}/{number}.html", "unit.html", "network", {**facts, **more})

    def _page(self, path: str, template: str, section: str, facts: dict[str, Any]) -> None:
        to = self._links(path)
        around = {"section": section, "sheets": sheets_of(to, facts)}
        html = drawn(template, to, self.network, {**around, **facts})
        self._write(path, html.encode("utf-8", errors="replace"))

    def _links(self, path: str) -> FileLinks:
        return FileLinks(path.count("/"), partial(_tile, self.atlas))

    def _write(self, path: str, content: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _tile(atlas: Any, recipe: str, layer: int, unit: int, kind: str) -> bytes:
    found: bytes = atlas.tile(recipe, layer, unit, kind)
    return found


def _may_replace(target: Path) -> bool:
    return target.is_dir() and ((target / MARK).is_file() or not any(target.iterdir()))


def _put(draft: Path, target: Path) -> None:
    """The new folder in the place of the old one."""
    if not target.exists():
        os.replace(draft, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name[:60]}.old.", dir=target.parent))
    os.replace(target, old / "export")
    os.replace(draft, target)
    shutil.rmtree(old, ignore_errors=True)
