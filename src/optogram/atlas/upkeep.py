"""Looking after an atlas: what is in it, whether it is whole, and what of it is damaged."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optogram.atlas import notes, store
from optogram.atlas.layout import FORMAT, IMAGES, numbers, read_head, read_recipes
from optogram.atlas.reading import Atlas
from optogram.atlas.schema import names
from optogram.atlas.store import BLOCK, Marker, manifest, markers
from optogram.core import progress
from optogram.pictures.recipe import recipe_digest

BAD = "bad"


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Attributes:
        shards: how many were looked at.
        damaged: those that are not what their marker says, with the reason; they were moved to
            `bad/`, where `build` will not see them.
        missing: what was asked for and is not there: layer, recipe and how many units.
        litter: files of work that was never finished.
        manifest: the hash over the shards that are whole.
    """

    shards: int
    damaged: dict[str, str]
    missing: dict[str, int]
    litter: tuple[str, ...]
    manifest: str

    @property
    def clean(self) -> bool:
        """Whether all that was asked for is there and whole."""
        return not self.damaged and not self.missing


def verify(folder: str | os.PathLike[str]) -> Verified:
    """Read every byte of an atlas and compare it with the markers.

    What is damaged is moved to `bad/`, with its marker, so that the next `build` makes it again.
    Raises RequestError where there is no atlas.
    """
    root = Path(folder)
    read_head(root)
    litter = [str(path.relative_to(root)) for path in store.sweep(root)]
    kinds = {recipe.id: recipe.kind for recipe in read_recipes(root)}
    paths = sorted((root / "data").glob("*/*/*.json"))
    damaged = {}
    for done, path in enumerate(paths, start=1):
        why = _wrong(path, kinds)
        if why:
            damaged[str(path.relative_to(root).with_suffix(""))] = why
            _move_away(root, path)
        progress.tell("verify", done, len(paths))
    for path in sorted((root / "data").glob("*/*/*")):
        if path.suffix in (".pack", ".parquet") and not path.with_suffix(".json").is_file():
            litter.append(str(path.relative_to(root)))
    return Verified(len(paths), damaged, missing(root), tuple(litter), manifest(root))


def missing(folder: Path) -> dict[str, int]:
    """What builds asked for and is not there: units by layer and recipe."""
    head, recipes = read_head(folder), {r.id: r for r in read_recipes(folder)}
    layers = {layer.id: layer for layer in head.layers}
    done: dict[tuple[int, str], set[int]] = {}
    for marker in markers(folder):
        done.setdefault((marker.layer, marker.recipe), set()).update(marker.units)
    wanted: dict[tuple[int, str], set[int]] = {}
    for path in sorted((folder / "plans").glob("*.json")):
        plan = json.loads(path.read_text(encoding="utf-8"))
        for id in plan["recipes"]:
            kind = recipes[id].kind if id in recipes else ""
            if kind == "images":
                wanted.setdefault((IMAGES, id), set()).update(range(plan["images"]))
                continue
            for number in plan["layers"]:
                layer = layers[number]
                some: Any = range(layer.units)
                if plan["units"] is not None and kind != "stats":
                    some = numbers(plan["units"].get(layer.name, ()))
                wanted.setdefault((number, id), set()).update(some)
    found = {}
    for (number, id), units in sorted(wanted.items()):
        if left := len(units - done.get((number, id), set())):
            where = "images" if number == IMAGES else layers[number].name
            found[f"{where}: {recipes[id].name if id in recipes else id}"] = left
    return found


def info(atlas: Atlas) -> dict[str, Any]:
    """An atlas in numbers, as JSON values."""
    folder = atlas.folder
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0]
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    shards: dict[str, int] = {}
    for marker in markers(folder):
        shards[marker.recipe] = shards.get(marker.recipe, 0) + 1
    return {
        "path": str(folder),
        "network": dict(atlas.network, labels=len(atlas.network["labels"])),
        "datasets": [
            {"id": d.id, "name": d.name, "split": d.split, "images": d.images}
            for d in atlas.datasets
        ],
        "layers": [
            {"id": layer.id, "name": layer.name, "units": layer.units, **{"counts": layer.counts}}
            for layer in atlas.layers
        ],
        "recipes": [
            {"id": r.id, "kind": r.kind, "name": r.name, "shards": shards.get(r.id, 0)}
            for r in atlas.recipes
        ],
        "bytes": sizes,
        "missing": missing(folder),
        "notes": len(notes.read(folder)),
        "manifest": atlas.manifest,
    }


def _wrong(path: Path, kinds: dict[str, str]) -> str | None:
    """What is wrong with a shard; None where all is well."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        marker = Marker(path, facts)
        if facts["format"] != FORMAT or not marker.units or len(facts["key"]) != 64:
            return "its marker is of another form"
        if facts["check"] != recipe_digest({k: v for k, v in facts.items() if k != "check"}):
            return "its marker has changed"
        for suffix in ("parquet", "pack"):
            said = facts[suffix]
            if said is None:
                continue
            file = path.with_suffix(f".{suffix}")
            if not file.is_file():
                return f"its .{suffix} is missing"
            content = file.read_bytes()
            if len(content) != said["bytes"]:
                return f"its .{suffix} has {len(content)} bytes and should have {said['bytes']}"
            if hashlib.sha256(content).hexdigest() != said["sha256"]:
                return f"its .{suffix} has changed"
    except (OSError, ValueError, KeyError, TypeError) as problem:
        return f"its marker cannot be read: {problem}"
    first = f"{marker.units[0] // BLOCK * BLOCK:08d}"
    if path.stem not in (first, f"{first}-{facts['key'][:8]}") or marker.recipe not in kinds:
        return "it lies where it does not belong"
    return _rows_wrong(marker, kinds[marker.recipe])


def _rows_wrong(marker: Marker, kind: str) -> str | None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(marker.path.with_suffix(".parquet")) as file:
        if tuple(file.schema_arrow.names) != names(kind):
            return "its columns are others"
        if file.metadata.num_rows != marker.facts["rows"]:
            return "it has another number of rows"
    return None


def _move_away(root: Path, path: Path) -> None:
    for suffix in (".json", ".parquet", ".pack"):
        file = path.with_suffix(suffix)
        if file.is_file():
            target = root / BAD / file.relative_to(root / "data")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
