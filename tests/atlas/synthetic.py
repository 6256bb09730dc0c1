"""A whole atlas of made-up numbers and patterns, written without torch: for tests, benchmarks."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from optogram.atlas.layout import (
    IMAGES,
    DataSet,
    Head,
    LayerInfo,
    recipe_of,
    write_head,
    write_recipe,
)
from optogram.atlas.schema import QUANTILES, schema
from optogram.atlas.sprites import tile_webp
from optogram.atlas.store import NOWHERE, Pack, publish, shards

DATA = "d" * 12
CLASSES = ("cat", "dog", "owl")
STATES = ("alive", "alive", "alive", "reachable", "data-dead")
VERDICTS = ("excited", "excited", "below data", "failed")
K = 9


def write_atlas(
    folder: Path,
    layers: dict[str, int] | None = None,
    seed: int = 0,
    pictures: bool = True,
    patches: bool = True,
    side: int = 28,
    images: int = 40,
    labels: tuple[str, ...] | None = None,
) -> Path:
    """Write an atlas; the last layer is the network's output, its labels `labels`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layers = {"conv1": 300, "fc": 20} if layers is None else layers
    last = list(layers)[-1]
    labels = tuple(f"label {n}" for n in range(layers[last])) if labels is None else labels
    infos = []
    for number, (name, units) in enumerate(layers.items(), start=1):
        plain = name == last
        infos.append(
            LayerInfo(
                id=number,
                name=name,
                kind="Linear" if plain else "Conv2d",
                units=units,
                places=() if plain else (7, 7),
                field=None if plain else (9, 9),
                base=name,
                outputs=plain,
            )
        )
    network = {
        "name": "synthetic",
        "weights": "sha256:" + "0" * 64,
        "file": None,
        "shape": [3, side, side],
        "labels": list(labels),
    }
    data = DataSet(DATA, "made up", "train", "sha256:" + DATA, images, CLASSES)
    write_head(folder, Head(network, (data,), tuple(infos), {"optogram": "0", "torch": "0"}))
    facts = {"network": network["weights"]}
    random = np.random.default_rng(seed)
    _images(folder, images, side, facts)
    for layer in infos:
        _stats(folder, layer, random, images, side, facts)
        if pictures:
            for name, sign in (("positive", 1), ("negative", -1)):
                _pictures(folder, layer, name, sign, random, side, facts)
        if patches:
            _patches(folder, layer, random, images, side, facts)
    return folder


def pattern(number: int, side: int) -> bytes:
    """A tile that no other number has: stripes whose colour and slant say the number."""
    rows, columns = np.mgrid[:side, :side]
    angle = number * 0.7
    wave = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) * (0.3 + number % 5 * 0.15))
    tint = np.array([number * 37 % 256, number * 91 % 256, number * 53 % 256])
    values = (0.5 + 0.5 * wave[..., None]) * tint
    return tile_webp(Image.fromarray(values.astype(np.uint8)))


def decoded(content: bytes) -> np.ndarray:
    """The pixels of a WebP file."""
    with Image.open(io.BytesIO(content)) as file:
        return np.asarray(file.convert("RGB"))


def _publish(
    folder: Path, layer: int, total: int, recipe: Any, facts: dict[str, Any], rows: Any, pack: bool
) -> None:
    write_recipe(folder, recipe)
    for shard in shards(layer, recipe.id, range(total), total, facts):
        content = Pack() if pack else None
        found = [row for unit in shard.units for row in rows(unit, content)]
        publish(folder, shard, found, schema(recipe.kind), content, {"started": "", "device": ""})


def _images(folder: Path, count: int, side: int, facts: dict[str, Any]) -> None:
    recipe = recipe_of("images", "images", DATA, {"shape": [3, side, side]})

    def rows(unit: int, pack: Any) -> list[dict[str, Any]]:
        place = pack.add(pattern(1000 + unit, side))
        about = {"label": unit % len(CLASSES), "caption": f"picture {unit}.png"}
        return [{"unit": unit, "kind": "image", **place, **about}]

    _publish(folder, IMAGES, count, recipe, facts, rows, True)


def _stats(
    folder: Path, layer: LayerInfo, random: Any, images: int, side: int, facts: dict[str, Any]
) -> None:
    recipe = recipe_of("stats", "statistics", DATA, {"k": K})
    numbers = random.random((layer.units, 6))
    listed = min(K, images)

    def rows(unit: int, _: Any) -> list[dict[str, Any]]:
        mean, spread, active, sparse, select, top = numbers[unit].tolist()
        near = [(unit + step) % layer.units for step in range(1, min(6, layer.units))]
        row = {
            "unit": unit,
            "maximum": 3 + top,
            "minimum": -2.0,
            "mean": mean,
            "variance": spread,
            "active": active,
            "answer_mean": mean + 1,
            "answer_std": 0.5 + spread,
            "sparseness": sparse,
            "selectivity": select,
            "prefers": CLASSES[unit % len(CLASSES)],
            "state": STATES[unit % len(STATES)],
            **{f"q{share}": mean + share for share in QUANTILES},
            "values": [3 + top - 0.1 * rank for rank in range(listed)],
            "images": [(unit + rank) % images for rank in range(listed)],
            "rows": [0] * listed,
            "columns": [0] * listed,
            "boxes": ([0, 0, side, side] if layer.field is None else [0, 0, 9, 9]) * listed,
            "labels": [(unit + rank) % images % len(CLASSES) for rank in range(listed)],
            "edges": [float(edge) for edge in range(9)],
            "counts": [1, 4, 9, 12, 7, 4, 2, 1],
            "cluster": unit % 7 if unit % 3 else None,
            "cluster_size": 5 if unit % 3 else None,
            "cluster_agreement": 0.75,
            "neighbours": near,
            "correlations": [0.9 - 0.1 * step for step in range(len(near))],
            "outputs": [0, 1],
            "output_correlations": [0.8, -0.6],
        }
        return [row]

    _publish(folder, layer.id, layer.units, recipe, facts, rows, False)


def _pictures(
    folder: Path,
    layer: LayerInfo,
    name: str,
    sign: int,
    random: Any,
    side: int,
    facts: dict[str, Any],
) -> None:
    settings = {"technique": "maximize", "sign": sign, "arguments": {"seed": 0}}
    recipe = recipe_of("pictures", name, DATA, settings)
    scores = (5 * random.random(layer.units)).tolist()

    def rows(unit: int, pack: Any) -> list[dict[str, Any]]:
        place = pack.add(pattern(unit if sign > 0 else unit + 500, side))
        row = {
            "unit": unit,
            "kind": "picture0",
            **place,
            "facet": 0,
            "score": scores[unit],
            "verdict": VERDICTS[unit % len(VERDICTS)],
            "best_in_data": 2.0,
            "jitter_survival": 0.9,
            "gradient_norm": 0.1,
            "rival": f"{layer.name}:{(unit + 1) % layer.units}",
            "rival_score": 0.5,
            "answers": ["label 0", "label 1"],
            "probabilities": [0.7, 0.2],
            "history": [0.1, 0.5, scores[unit]],
            "result": f"sha256:{unit:064d}",
        }
        return [row]

    _publish(folder, layer.id, layer.units, recipe, facts, rows, True)


def _patches(
    folder: Path, layer: LayerInfo, random: Any, images: int, side: int, facts: dict[str, Any]
) -> None:
    recipe = recipe_of("patches", "patches", DATA, {"k": K, "project": "deconvnet"})

    def rows(unit: int, pack: Any) -> list[dict[str, Any]]:
        found = []
        for rank in range(min(K, images)):
            whole = layer.field is None
            patch = NOWHERE if whole else pack.add(pattern(unit * 7 + rank, 9))
            about = {"rank": rank, "image": (unit + rank) % images, "value": 3.0 - 0.1 * rank}
            found.append({"unit": unit, "kind": f"patch{rank}", **patch, **about})
            other = pack.add(pattern(unit * 7 + rank + 300, 28 if whole else 9))
            found.append({"unit": unit, "kind": f"projection{rank}", **other, **about})
        return found

    _publish(folder, layer.id, layer.units, recipe, facts, rows, True)
