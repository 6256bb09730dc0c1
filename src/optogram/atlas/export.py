"""An atlas for other programs: one Parquet file a layer and recipe, its pictures in a column."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from optogram.atlas.layout import IMAGES, Missing, RecipeInfo
from optogram.atlas.reading import Atlas
from optogram.atlas.schema import schema
from optogram.atlas.store import Marker, markers
from optogram.core import progress
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically


def export_parquet(atlas: Atlas, out: str | os.PathLike[str]) -> list[Path]:
    """Write what an atlas holds as Parquet, for pandas, polars, DuckDB and Hugging Face's datasets.

    Each file has the columns of its shards, `layer` and `address`, and for pictures `image`, a
    struct of `bytes` (WebP) and `path`, which `datasets` shows as an image. The paths are returned.

    Raises RequestError where `out` is a file or holds other files.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"'{out}' is there already: give a new folder")
    folder.mkdir(parents=True)
    pairs = [
        (layer.id, layer.name, r) for layer in atlas.layers for r in atlas.recipes_of(layer.id)
    ]
    pairs += [(IMAGES, "images", r) for r in atlas.recipes if r.kind == "images"]
    written = []
    for done, (number, name, recipe) in enumerate(pairs, start=1):
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
        path = folder / f"{number:05d}-{safe}-{recipe.kind}-{recipe.name}-{recipe.id}.parquet"
        write_atomically(path, partial(_write, atlas, number, name, recipe))
        written.append(path)
        progress.tell("export", done, len(pairs))
    return written


def _write(atlas: Atlas, number: int, name: str, recipe: RecipeInfo, file: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels = recipe.kind != "stats"
    fields = [pa.field("layer", pa.string()), pa.field("address", pa.string())]
    fields += list(schema(recipe.kind))
    if pixels:
        fields.append(pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()})))
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    notes = {b"optogram": json.dumps(atlas.network["name"]).encode()}
    if pixels and recipe.kind != "patches":  # patches have an image number of that name
        notes[b"huggingface"] = json.dumps(features).encode()
    form = pa.schema(_distinct(fields), metadata=notes)
    with pq.ParquetWriter(file, form, compression="zstd") as writer:
        for marker in markers(atlas.folder, number, recipe.id):
            rows = list(_rows(atlas, marker, number, name, recipe, form.names))
            writer.write_table(pa.Table.from_pylist(rows, schema=form))


def _distinct(fields: list[Any]) -> list[Any]:
    """The fields under distinct names: the number of a patch's image is called `image_number`."""
    seen: list[Any] = []
    for field in fields:
        if field.name == "image" and str(field.type) == "int64":
            field = field.with_name("image_number")
        seen.append(field)
    return seen


def _rows(
    atlas: Atlas, marker: Marker, number: int, name: str, recipe: RecipeInfo, names: list[str]
) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(marker.path.with_suffix(".parquet")) as file:
        held = file.read(use_threads=False).to_pylist()
    for row in held:
        about = {"layer": name, "address": f"{name}:{row['unit']}", **row}
        if recipe.kind != "stats":
            if "image_number" in names:
                about["image_number"] = row["image"]
            try:
                content = atlas.tile(recipe.id, number, row["unit"], row["kind"])
            except Missing:  # a whole image that is not kept
                content = None
            path = f"{number}-{row['unit']}-{row['kind']}.webp"
            about["image"] = {"bytes": content, "path": path}
        yield about
