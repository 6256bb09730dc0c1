"""A million units: how long the index takes to make, and how long what a page asks for.

The rows are made up and lie in 3,906 shards of statistics and as many of pictures' rows; the times
are seconds on the clock and of the processor, for the worst of many calls where there are many.
OPTOGRAM_BENCH=mnist measures the atlas of the MNIST network on digits instead: all 3,892 units.
"""

import hashlib
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from optogram.atlas.layout import DataSet, Head, LayerInfo, recipe_of, write_head, write_recipe
from optogram.atlas.reading import Atlas
from optogram.atlas.reading import open as opened
from optogram.atlas.schema import schema
from optogram.atlas.store import BLOCK, shards

LAYERS, UNITS, IMAGES, K = 10, 100_000, 10_000, 9
CALLS = 100
CLASSES = tuple(f"class {n}" for n in range(50))
Row = dict[str, object]


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="optogram-bench-") as place:
        if "mnist" in os.environ.get("OPTOGRAM_BENCH", ""):
            return built(Path(place))
        write(Path(place))
        return measured(Path(place))


def built(folder: Path) -> list[Row]:
    import optogram as og

    start = time.perf_counter()
    atlas = og.atlas.build("mnist-mlp", "digits", folder / "a", engine="processes")
    wall = time.perf_counter() - start
    units = sum(layer.units for layer in atlas.layers)
    return [{"what": "atlas of mnist-mlp on digits", "units": units, "seconds": wall}]


def measured(folder: Path) -> list[Row]:
    wall, cpu = time.perf_counter(), time.process_time()
    atlas = opened(folder)
    rows: list[Row] = [
        {
            "what": "make the index",
            "units": LAYERS * UNITS,
            "seconds": time.perf_counter() - wall,
            "cpu seconds": time.process_time() - cpu,
        }
    ]
    chance = random.Random(0)

    def unit() -> None:
        atlas.unit(f"layer{chance.randrange(LAYERS)}", chance.randrange(UNITS)).as_dict()

    def top() -> None:
        by = chance.choice(("maximum", "sparseness", "selectivity", "score"))
        atlas.top(f"layer{chance.randrange(LAYERS)}", by, 100)

    def dead() -> None:
        atlas.rows(f"layer{chance.randrange(LAYERS)}", where={"state": "dead"}, n=256)

    def search() -> None:
        atlas.search(f"layer{chance.randrange(LAYERS)}:{chance.randrange(UNITS)}")

    again = Atlas(folder)
    again.unit("layer0", 0)
    what = {"unit's record": unit, "top 100 of a layer": top, "256 dead units": dead}
    what["search an address"] = search
    return [*rows, *(timed(name, call) for name, call in what.items())]


def timed(name: str, call: Callable[[], None]) -> Row:
    call()
    walls, cpus = [], []
    for _ in range(CALLS):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {
        "what": name,
        "units": LAYERS * UNITS,
        "seconds": median(walls),
        "cpu seconds": median(cpus),
        "worst": max(walls),
    }


def write(folder: Path) -> None:
    """Statistics and pictures' rows for every unit; what is the same for all costs nothing."""
    shape = [3, 64, 64]
    network = {"name": "synthetic", "weights": "sha256:0", "file": None, "shape": shape}
    infos = tuple(
        LayerInfo(n + 1, f"layer{n}", "Linear", UNITS, (), None, f"layer{n}") for n in range(LAYERS)
    )
    data = DataSet("d" * 12, "made up", "train", "sha256:d", IMAGES, CLASSES)
    versions = {"optogram": "0", "torch": "0"}
    write_head(folder, Head({**network, "labels": []}, (data,), infos, versions))
    stats = recipe_of("stats", "statistics", data.id, {"k": K})
    settings = {"technique": "maximize", "sign": 1, "arguments": {}}
    drawn = recipe_of("pictures", "positive", data.id, settings)
    write_recipe(folder, stats)
    write_recipe(folder, drawn)
    chance = np.random.default_rng(0)
    for layer in infos:
        for recipe in (stats, drawn):
            for shard in shards(layer.id, recipe.id, range(UNITS), UNITS, {}):
                base = folder / shard.path
                base.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(table(recipe.kind, np.array(shard.units), chance), f"{base}.parquet")
                digest = hashlib.sha256(shard.key.encode()).hexdigest()
                facts = {
                    "format": 1,
                    "units": [[shard.units[0], shard.units[-1] + 1]],
                    "rows": len(shard.units),
                    "key": shard.key,
                    "parquet": {"sha256": digest, "bytes": 0},
                    "pack": None,
                    "made": {},
                }
                base.with_suffix(".json").write_text(json.dumps(facts))


def table(kind: str, units: np.ndarray, chance: np.random.Generator) -> pa.Table:
    count = len(units)
    texts = {
        "state": ["alive", "data-dead"],
        "verdict": ["excited", "failed"],
        "kind": ["picture0"],
    }
    texts["prefers"] = list(CLASSES)
    columns = []
    for field in schema(kind):
        if field.name == "unit":
            columns.append(pa.array(units, field.type))
        elif field.name == "facet":
            columns.append(pa.array(np.zeros(count, np.int32)))
        elif pa.types.is_list(field.type):
            length = {"boxes": 4 * K, "edges": 33, "counts": 32}.get(field.name, K)
            value = ["x"] * length if pa.types.is_string(field.type.value_type) else [1] * length
            columns.append(pa.array([value] * count, field.type))
        elif pa.types.is_string(field.type):
            words = texts.get(field.name, ["x"])
            columns.append(pa.array(np.array(words)[chance.integers(0, len(words), count)]))
        elif pa.types.is_integer(field.type):
            columns.append(pa.array(chance.integers(0, BLOCK, count)).cast(field.type))
        else:
            columns.append(pa.array(chance.random(count)).cast(field.type))
    return pa.table(columns, schema=schema(kind))
