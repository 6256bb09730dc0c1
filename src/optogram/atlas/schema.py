"""The columns of each kind of shard, for any program that reads Parquet.

Rows of "stats" are units. Rows of the other kinds are pictures: `kind` says which of a unit's
pictures it is, and `offset` and `length` where it lies in the pack beside (-1: it is a whole image
of the data set, which "images" holds).
"""

from functools import lru_cache
from typing import Any

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

_STATS = {
    "unit": "int32",
    "maximum": "float32",
    "minimum": "float32",
    "mean": "float64",
    "variance": "float64",
    "active": "float64",
    "answer_mean": "float64",
    "answer_std": "float64",
    "sparseness": "float64",
    "selectivity": "float32",
    "prefers": "string",
    "state": "string",
    **{f"q{share}": "float64" for share in QUANTILES},
    "values": "floats",
    "images": "ints",
    "rows": "ints",
    "columns": "ints",
    "boxes": "ints",
    "labels": "ints",
    "edges": "floats",
    "counts": "ints",
    "cluster": "int32",
    "cluster_size": "int32",
    "cluster_agreement": "float32",
    "neighbours": "ints",
    "correlations": "floats",
    "outputs": "ints",
    "output_correlations": "floats",
}

_PIXELS = {
    "unit": "int32",
    "kind": "string",
    "offset": "int64",
    "length": "int64",
    "sha256": "string",
}

_PICTURES = {
    **_PIXELS,
    "facet": "int32",
    "score": "float32",
    "verdict": "string",
    "best_in_data": "float32",
    "jitter_survival": "float32",
    "gradient_norm": "float32",
    "rival": "string",
    "rival_score": "float32",
    "answers": "strings",
    "probabilities": "floats",
    "history": "floats",
    "result": "string",
}

_PATCHES = {**_PIXELS, "rank": "int32", "image": "int64", "value": "float32"}

_IMAGES = {**_PIXELS, "label": "int32", "caption": "string"}

_TABLES = {"stats": _STATS, "pictures": _PICTURES, "patches": _PATCHES, "images": _IMAGES}


@lru_cache(8)
def schema(kind: str) -> Any:
    """The Arrow schema of a kind of shard."""
    import pyarrow as pa

    lists = {
        "floats": pa.list_(pa.float32()),
        "ints": pa.list_(pa.int64()),
        "strings": pa.list_(pa.string()),
    }
    return pa.schema(
        [(name, lists.get(form) or pa.type_for_alias(form)) for name, form in _TABLES[kind].items()]
    )


def names(kind: str) -> tuple[str, ...]:
    """The columns of a kind of shard."""
    return tuple(_TABLES[kind])
