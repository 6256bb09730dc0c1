"""How a survey lies on the disk: one Parquet row a unit, and arrays for what belongs to a layer.

Any program that reads Parquet and safetensors reads it. The base columns of a row (`layer`, `unit`,
the lists `values`, `images`, `places`, and running sums) are the whole truth about the unit; the
others are worked out from them for the reader's comfort.
"""

import io
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from optogram.survey.part import LayerPart, Part, Range
from optogram.survey.statistics import Answers, Moments
from optogram.survey.topk import TopK

if TYPE_CHECKING:
    import pyarrow as pa

ARRAYS = ("class_sum", "half_mean", "half_spread", "across", "across_mean")
COUNTS = ("class_count",)


def table(part: Part, more: Mapping[str, Any] | None = None) -> "pa.Table":
    """A row for each unit; `more` adds columns."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    for name, layer in part.layers.items():
        for column, values in _columns(name, layer).items():
            columns.setdefault(column, []).append(values)
    joined = {name: pa.concat_arrays(values) for name, values in columns.items()}
    return pa.table({**joined, **(more or {})})


def parquet(rows: "pa.Table") -> bytes:
    """The bytes of a Parquet file; the same rows make the same bytes."""
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(rows, file, compression="zstd")
    return file.getvalue()


def arrays(part: Part) -> bytes:
    """The bytes of a safetensors file: `<layer>/<name>` for what belongs to a layer as a whole."""
    from safetensors.torch import save

    found: dict[str, Tensor] = {}
    for name, layer in part.layers.items():
        if layer.answers is not None:
            for field in (*ARRAYS, *COUNTS):
                found[f"{name}/{field}"] = getattr(layer.answers, field).contiguous()
            found[f"{name}/half_count"] = torch.tensor(layer.answers.half_count)
    return save(found, {"format": "optogram survey arrays"})


def part_of(
    rows: bytes, tensors: bytes, ranges: tuple[Range, ...], images: int, skipped: dict[str, str]
) -> Part:
    """The part that `table` and `arrays` were made of."""
    import pyarrow.parquet as pq
    from safetensors.torch import load

    held = pq.read_table(io.BytesIO(rows))
    kept = load(tensors)
    names = held.column("layer").to_numpy(zero_copy_only=False)
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    layers = {}
    for first, end in pairwise(starts):
        name = str(names[first])
        layers[name] = _layer(name, held.slice(first, end - first), kept)
    return Part(ranges, images, layers, skipped)


def _columns(name: str, layer: LayerPart) -> dict[str, Any]:
    import pyarrow as pa

    units = len(layer.top.values)
    columns = {
        "layer": pa.array([name] * units),
        "unit": pa.array(np.arange(units, dtype=np.int32)),
        "values": _lists(layer.top.values),
        "images": _lists(layer.top.images),
        "places": _lists(layer.top.places),
    }
    if layer.moments is not None:
        m = layer.moments
        columns["count"] = pa.array(np.full(units, m.count, dtype=np.int64))
        for field in ("mean", "spread", "minimum", "maximum", "active"):
            columns[field] = pa.array(getattr(m, field).numpy())
    if layer.answers is not None:
        a = layer.answers
        columns["answers"] = pa.array(np.full(units, a.images, dtype=np.int64))
        columns["scatter"] = pa.array(a.scatter.numpy())
        columns["rectified"] = pa.array(a.rectified[0].numpy())
        columns["rectified_squares"] = pa.array(a.rectified[1].numpy())
        columns["bins"] = _lists(a.bins)
    return columns


def _lists(values: Tensor) -> Any:
    """A column of lists, all of one length."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.contiguous().flatten().numpy()), values.shape[1]
    )


def _layer(name: str, rows: "pa.Table", kept: dict[str, Tensor]) -> LayerPart:
    def numbers(column: str) -> Tensor:
        held = rows.column(column).combine_chunks()
        if hasattr(held.type, "list_size"):
            return torch.from_numpy(held.flatten().to_numpy().copy()).view(len(held), -1)
        return torch.from_numpy(held.to_numpy().copy())

    top = TopK(numbers("values"), numbers("images"), numbers("places"))
    moments = answers = None
    if "spread" in rows.column_names:
        fields = [numbers(f) for f in ("mean", "spread", "minimum", "maximum", "active")]
        moments = Moments(int(numbers("count")[0]), *fields)
    if "bins" in rows.column_names:
        array = {field: kept[f"{name}/{field}"] for field in (*ARRAYS, *COUNTS)}
        first, second = kept[f"{name}/half_count"].tolist()
        answers = Answers(
            images=int(numbers("answers")[0]),
            rectified=torch.stack([numbers("rectified"), numbers("rectified_squares")]),
            scatter=numbers("scatter"),
            bins=numbers("bins"),
            half_count=(first, second),
            **array,
        )
    return LayerPart(top, moments, answers)
