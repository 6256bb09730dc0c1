"""Building an atlas: what is asked for is cut into tasks, and what is done is left alone."""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optogram.atlas import cutting, directions, painting, store
from optogram.atlas.engines import Work
from optogram.atlas.engines import engine as engine_called
from optogram.atlas.layout import (
    FIRST_DIRECTIONS,
    HEAD,
    IMAGES,
    DataSet,
    Head,
    LayerInfo,
    RecipeInfo,
    is_atlas,
    locked,
    read_head,
    read_recipes,
    recipe_of,
    short,
    spans,
    write_head,
    write_recipe,
)
from optogram.atlas.measure import Measured
from optogram.atlas.reading import Atlas
from optogram.atlas.schema import schema
from optogram.atlas.store import Shard, markers, publish, published, shards
from optogram.atlas.tasks import Task, work
from optogram.core import progress
from optogram.core.network import Layer, Network
from optogram.core.technique import techniques
from optogram.core.unit import OUTPUT
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically
from optogram.pictures.recipe import canonical
from optogram.survey import ImageSet, Survey, as_images, opened
from optogram.survey import make as survey
from optogram.survey.scan import chosen
from optogram.techniques.top_patches import Project
from optogram.version import __version__
from optogram.zoo import data as data_set
from optogram.zoo import load

MOST_IMAGES = 20_000
"""Of data sets of up to so many images the whole images are kept too."""

PICTURES: dict[str, dict[str, Any]] = {
    "positive": {"name": "positive", "sign": 1, "arguments": {}},
    "negative": {"name": "negative", "sign": -1, "arguments": {}},
    "facets": {"name": "facets", "sign": 1, "arguments": {"facets": 4}},
}
"""The recipes of pictures that have a name."""


def build(
    network: Network | str,
    dataset: ImageSet | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    layers: str | Sequence[str] | None = None,
    units: str | Sequence[str] | None = None,
    pictures: Sequence[str] = ("positive", "negative"),
    recipes: Sequence[Mapping[str, Any] | str | os.PathLike[str]] = (),
    k: int = 9,
    project: Project | str = "auto",
    vectors: Mapping[str, Any] | None = None,
    engine: str = "serial",
    workers: int | None = None,
    address: str | None = None,
    share: tuple[int, int] | None = None,
    seed: int = 0,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
) -> Atlas:
    """Put every unit of a network into a folder: statistics, patches, pictures.

    What the folder holds already is not computed again: a build that was killed goes on, and one
    that asks for more layers, another data set or another recipe adds them. Several processes may
    build in one folder. Torch works with one thread in each, so that the same content comes out
    whatever their number.

    Args:
        network: a Network, or its name as `optogram.load` takes it.
        dataset: an ImageSet, a folder or `.npz` file, or a name as `optogram.data` takes it.
        folder: the atlas; made where it is not there.
        layers: names and patterns; None for every convolution and linear layer.
        units: addresses and patterns of the units that get patches and pictures (`conv1:0-9`); None
            for all of the layers. Statistics are of all units.
        pictures: which of "positive", "negative" and "facets" (four different ones) to make.
        recipes: further ones, each a dict or the path of a JSON file: {"name": "mine",
            "technique": "maximize", "sign": 1, "arguments": {"preset": "fel2023"}}.
        k: how many patches of each unit.
        project: what stands beside them: "deconvnet", "guided", "gradient", "none", or "auto" for
            deconvnet where the network has ReLUs and the gradient where not.
        vectors: directions that become units: a matrix (directions, units), or the path of a `.npy`
            or `.safetensors` file (`FILE#NAME`), by layer (`{"fc7": "sae.npy"}`).
        engine: who works: "serial" (this process), "processes" or "ray", see
            `optogram.atlas.engines`; the others need the network and the data set by name.
        workers, address: of the engine.
        share: (i, n): one of n programs on the folder; it begins at its own place and does not wait
            for what others are at.
        seed: of pictures whose recipe says none.
        weights, device: for a network by name, as `optogram.load` takes them.
        split, data_root: for a data set by name, as `optogram.data` takes them.

    Returns:
        The Atlas.

    Raises RequestError, in a sentence, for what does not fit, and for a folder that holds the atlas
    of another network.
    """
    if share is not None and not 0 <= share[0] < share[1]:
        raise RequestError(f"share={share}: (i, n) with i from 0 to n - 1")
    given: dict[str, Any] = {
        "weights": None if weights is None else os.fspath(weights),
        "device": device,
        "split": split,
        "data_root": None if data_root is None else os.fspath(data_root),
    }
    asked: dict[str, Any] = {"layers": layers, "units": units, "k": k, "seed": seed}
    with one_thread():
        job = Job.of(
            *loaded(network, dataset, **given),
            Path(folder),
            pictures=pictures,
            recipes=recipes,
            project=project,
            vectors=vectors or {},
            **asked,
        )
        atlas = None if share is not None else _opened(job.folder)
        if engine not in ("serial", "local"):
            if not isinstance(network, str) or not isinstance(dataset, str | os.PathLike):
                raise RequestError(
                    f"engine={engine!r} needs the network and the data set by name, so that every "
                    f"worker finds them"
                )
            who = engine_called(
                engine, workers=workers, address=address, devices=(device,) if device else ()
            )
            told = {**given, **asked, **job.told(), "network": network, "dataset": str(dataset)}
            del told["device"]  # each worker has its own
            who.run(Work("optogram.atlas.build:part", told), lambda: job.count(atlas))
        work(job.tasks(), share, None if atlas is None else lambda: _followed(atlas))
    return _opened(job.folder) if atlas is None else atlas


def part(
    network: str,
    dataset: str,
    folder: str,
    *,
    device: str | None = None,
    threads: int | None = None,
    share: Sequence[int] | None = None,
    weights: str | None = None,
    split: str = "train",
    data_root: str | None = None,
    **asked: Any,
) -> None:
    """A worker's part of `build`, which see: what nobody else is at, until nothing is left."""
    torch.set_num_threads(1)
    given: dict[str, Any] = {"weights": weights, "device": device}
    given |= {"split": split, "data_root": data_root}
    job = Job.of(*loaded(network, dataset, **given), Path(folder), **asked)
    work(job.tasks(), None if share is None else (share[0], share[1]))


def loaded(
    network: Network | str,
    dataset: Any,
    *,
    weights: Any,
    device: str | None,
    split: str,
    data_root: Any,
) -> tuple[Network, ImageSet]:
    """The network, and the data set fitted to it."""
    if isinstance(network, str):
        network = load(network, weights=weights, device=device)
    if isinstance(dataset, ImageSet):
        return network, dataset.fitted(network.shape)
    if isinstance(dataset, str | os.PathLike):
        name = os.fspath(dataset)
        return network, data_set(name, root=data_root, split=split, shape=network.shape)
    return network, as_images(dataset).fitted(network.shape)


@dataclass(frozen=True, eq=False)
class Job:
    """What a build was asked for, ready to be cut into tasks."""

    network: Network
    images: ImageSet
    folder: Path
    data: DataSet
    head: Head
    layers: tuple[LayerInfo, ...]
    vectors: Mapping[str, Tensor]
    units: Mapping[str, tuple[int, ...]] | None
    stats: RecipeInfo
    whole: RecipeInfo | None
    patches: RecipeInfo
    pictures: tuple[RecipeInfo, ...]

    @classmethod
    def of(
        cls,
        network: Network,
        images: ImageSet,
        folder: Path,
        *,
        layers: str | Sequence[str] | None,
        units: str | Sequence[str] | None,
        pictures: Sequence[str],
        recipes: Sequence[Mapping[str, Any] | str | os.PathLike[str]],
        k: int,
        project: str,
        vectors: Mapping[str, Any],
        seed: int,
        dry: bool = False,
    ) -> "Job":
        """The job, written down in the folder unless it is `dry`.

        Raises RequestError for what does not fit.
        """
        if k < 1:
            raise RequestError(f"k={k}: at least one patch")
        painted = [_picture_recipe(one, seed) for one in [*_named(pictures), *recipes]]
        names = chosen(network, layers) if layers is not None or not vectors else ()
        if project == "auto":
            project = cutting.projection_for(network)
        elif project not in ("deconvnet", "guided", "gradient", "none"):
            raise RequestError(
                f"project={project!r} should be 'auto', 'deconvnet', 'guided', 'gradient' or 'none'"
            )
        matrices = {base: _matrix(given) for base, given in vectors.items()}
        if folder.exists() and not folder.is_dir():
            raise RequestError(f"'{folder}' is a file; give a folder for the atlas")
        fresh = not is_atlas(folder)
        if fresh and folder.is_dir() and any(folder.iterdir()):
            known = {"recipes", "data", "scan", "plans", "directions", HEAD, "atlas.lock"}
            if not {path.name for path in folder.iterdir()} <= known:
                raise RequestError(f"'{folder}' holds other files; give an empty folder")
        data = _dataset(images)
        if not dry:
            folder.mkdir(parents=True, exist_ok=True)
        with nullcontext() if dry else locked(folder):
            head = _head(folder, network, data)
            infos = [_info(network, name) for name in names]
            for base, (stem, matrix) in matrices.items():
                infos.append(_direction_layer(head, infos, network, base, matrix, stem))
            head = _with_layers(head, network, infos)
            if not dry:
                for layer, matrix in _pairs(infos, matrices):
                    _write_vectors(folder, layer, matrix)
                write_head(folder, head)
        primary = head.datasets[0]
        held = {info.name: matrix for info, matrix in _pairs(infos, matrices)}
        keeps = len(images) <= MOST_IMAGES
        stats = recipe_of("stats", "statistics", data.id, {"k": k, "version": 1})
        whole = recipe_of("images", "images", data.id, {"shape": list(network.shape)})
        cuts = recipe_of(
            "patches", "patches", data.id, {"k": k, "project": project, "whole": keeps}
        )
        made = tuple(
            recipe_of("pictures", name, primary.id, settings) for name, settings in painted
        )
        job = cls(
            network,
            images,
            folder,
            data,
            head,
            tuple(infos),
            held,
            _wanted(network, infos, units),
            stats,
            whole if keeps else None,
            cuts,
            made,
        )
        if not dry:
            job.write()
        return job

    def write(self) -> None:
        """Keep the recipes and the plan, so that everybody knows what is missing."""
        for recipe in self.recipes:
            write_recipe(self.folder, recipe)
        plan = {
            "layers": [layer.id for layer in self.layers],
            "units": None
            if self.units is None
            else {name: spans(units) for name, units in self.units.items()},
            "recipes": [recipe.id for recipe in self.recipes],
            "images": len(self.images),
        }
        path = self.folder / "plans" / f"{short(canonical(plan))}.json"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, canonical(plan).encode())

    @property
    def recipes(self) -> tuple[RecipeInfo, ...]:
        """All that are asked for."""
        whole = () if self.whole is None else (self.whole,)
        return (self.stats, *whole, *self.pictures, self.patches)

    def told(self) -> dict[str, Any]:
        """What further workers are told, as JSON values."""
        return {
            "folder": str(self.folder),
            "pictures": [],
            "recipes": [_as_recipe(recipe) for recipe in self.pictures],
            "project": self.patches.settings["project"],
            "vectors": {
                layer.base: [layer.name, str(self.folder / "directions" / f"{layer.vectors}.npy")]
                for layer in self.layers
                if layer.directions
            },
        }

    def count(self, atlas: Atlas | None) -> int:
        """How many shards there are; on the way the index takes them in, and progress is told."""
        if atlas is not None:
            _followed(atlas)
        tasks = self._planned
        left = sum(task.weight for task in tasks if not task.done())
        total = sum(task.weight for task in tasks)
        progress.tell("atlas", total - left, total)
        return sum(task.done() for task in tasks)

    @cached_property
    def _planned(self) -> list[Task]:
        return self.tasks()

    def tasks(self) -> list[Task]:
        """Everything that is not done yet, first what others need."""
        store.sweep(self.folder)
        sources = self.sources()
        found = [task for source in sources for task in source.tasks()]
        of = {layer.id: source for source in sources for layer in source.layers}
        for layer, recipe, some in self.pieces():
            source = of.get(layer.id) if layer is not None and recipe.kind == "stats" else None
            found += [self._task(shard, layer, recipe, source) for shard in some]
        return found

    def pieces(self) -> Iterator[tuple[LayerInfo | None, RecipeInfo, list[Shard]]]:
        """The shards that are not there, by layer and recipe; no layer stands for the images."""
        for layer in self.layers:
            yield layer, self.stats, self._missing(layer, self.stats, range(layer.units))
        if self.whole is not None:
            yield None, self.whole, self._missing(None, self.whole, range(len(self.images)))
        for recipe in (*self.pictures, self.patches):
            for layer in self.layers:
                yield layer, recipe, self._missing(layer, recipe, self._units(layer))

    def sources(self) -> "list[Source]":
        """The surveys that the missing statistics need."""
        bare = [
            layer
            for layer in self.layers
            if set(range(layer.units)) - self._done(layer.id, self.stats.id)
        ]
        plain = tuple(layer for layer in bare if not layer.directions)
        found = [Source(self, plain)] if plain else []
        return found + [Source(self, (layer,)) for layer in bare if layer.directions]

    def _units(self, layer: LayerInfo) -> Sequence[int]:
        return range(layer.units) if self.units is None else self.units.get(layer.name, ())

    def _done(self, layer: int, recipe: str) -> set[int]:
        return {unit for m in markers(self.folder, layer, recipe) for unit in m.units}

    def _missing(
        self, layer: LayerInfo | None, recipe: RecipeInfo, wanted: Sequence[int]
    ) -> list[Shard]:
        number = IMAGES if layer is None else layer.id
        total = len(self.images) if layer is None else layer.units
        missing = set(wanted) - self._done(number, recipe.id)
        facts = {
            "network": self.network.fingerprint,
            "data": None if recipe.data is None else self._digest(recipe.data),
            "layer": None if layer is None else layer.name,
            "vectors": None if layer is None else layer.vectors,
        }
        return shards(number, recipe.id, missing, total, facts)

    def _digest(self, data: str) -> str:
        return next(one.digest for one in self.head.datasets if one.id == data)

    def _task(
        self, shard: Shard, layer: LayerInfo | None, recipe: RecipeInfo, source: "Source | None"
    ) -> Task:
        def ready() -> bool:
            if source is not None:
                return source.ready()
            return layer is None or self._stats_ready(layer, recipe)

        def run() -> None:
            started = store.stamp()
            rows, pack = self.made(shard, layer, recipe, source)
            made = {
                "started": started,
                "device": str(self.network.device),
                "optogram": __version__,
                "torch": str(torch.__version__),
            }
            publish(self.folder, shard, rows, schema(recipe.kind), pack, made)
            painting.forget(self.folder, shard)

        what = "images" if layer is None else layer.name
        return Task(
            name=f"{recipe.name} of {what} from {shard.units[0]}",
            lease=(self.folder / shard.path).with_suffix(".lease"),
            weight=len(shard.units) * _COST[recipe.kind],
            ready=ready,
            done=lambda: published(self.folder, shard),
            run=run,
        )

    def made(
        self,
        shard: Shard,
        layer: LayerInfo | None,
        recipe: RecipeInfo,
        source: "Source | None",
    ) -> tuple[list[dict[str, Any]], store.Pack | None]:
        """The rows and pictures of a shard."""
        if layer is None:
            return cutting.whole_images(self.images, shard.units)
        if source is not None:
            return source.measured(layer.name).rows(shard.units), None
        vectors = self.vectors.get(layer.name)
        if recipe.kind == "patches":
            held = {row["unit"]: row for row in self.stats_rows(layer, self.data.id)}
            settings = recipe.settings
            return cutting.patches(
                self.network,
                self.images,
                layer,
                shard.units,
                held,
                vectors,
                settings["project"],
                settings["k"],
                settings["whole"],
            )
        rows = self.stats_rows(layer, str(recipe.data))
        maxima = torch.tensor([_number(row["maximum"]) for row in rows])
        bests = _bests(rows, layer, int(recipe.settings["sign"]))
        with painting.recorded(self.network, layer, maxima):
            return painting.paint(self.network, layer, shard, recipe, vectors, bests, self.folder)

    def _stats_ready(self, layer: LayerInfo, recipe: RecipeInfo) -> bool:
        wanted = self._stats_recipe(str(recipe.data))
        if (layer.id, wanted) not in self._complete:
            if len(self._done(layer.id, wanted)) < layer.units:
                return False
            self._complete.add((layer.id, wanted))
        return True

    @cached_property
    def _complete(self) -> set[tuple[int, str]]:
        return set()

    @cached_property
    def _rows(self) -> dict[tuple[int, str], list[dict[str, Any]]]:
        return {}

    def _stats_recipe(self, data: str) -> str:
        """The recipe of the statistics on a data set; this build's own where it is of that set."""
        if data == self.data.id:
            return self.stats.id
        there = (r.id for r in read_recipes(self.folder) if r.kind == "stats" and r.data == data)
        return next(there, "")

    def stats_rows(self, layer: LayerInfo, data: str) -> list[dict[str, Any]]:
        """The statistics of all units of a layer, by unit."""
        import pyarrow.parquet as pq

        recipe = self._stats_recipe(data)
        if (layer.id, recipe) not in self._rows:
            rows = []
            for marker in markers(self.folder, layer.id, recipe):
                with pq.ParquetFile(marker.path.with_suffix(".parquet")) as file:
                    rows += file.read(columns=list(_NEEDED), use_threads=False).to_pylist()
            self._rows[layer.id, recipe] = sorted(rows, key=lambda row: row["unit"])
        return self._rows[layer.id, recipe]


_NEEDED = ("unit", "maximum", "minimum", "values", "images", "rows", "columns", "boxes")
_COST = {"stats": 1, "images": 1, "patches": 10, "pictures": 20}
"""What a unit of each kind costs, roughly, for the time that is left."""


class Source:
    """A survey of some layers that lack statistics."""

    def __init__(self, job: Job, layers: tuple[LayerInfo, ...]) -> None:
        self.job, self.layers = job, layers
        plan = {
            "layers": [layer.name for layer in layers],
            "vectors": [layer.vectors for layer in layers],
            "stats": job.stats.id,
        }
        self.folder = job.folder / "scan" / short(canonical(plan))
        self._survey: Survey | None = None
        self._measured: dict[str, Measured] = {}
        self._settled = False

    @property
    def heard(self) -> list[str]:
        """The layers that it listens to; the outputs too, to know which units go with them."""
        return list(dict.fromkeys([*(layer.name for layer in self.layers), OUTPUT]))

    def ready(self) -> bool:
        """Whether the survey is finished."""
        if not self._settled:
            self._settled = (self.folder / "survey.json").is_file()
        return self._settled

    def measured(self, layer: str) -> Measured:
        """A layer of the finished survey."""
        if self._survey is None:
            self._survey = opened(self.folder, self.job.images)
        if layer not in self._measured:
            self._measured = {layer: Measured(self._survey, layer)}
        return self._measured[layer]

    def tasks(self) -> list[Task]:
        """Making it. Of plain layers any process may do a part at once; directions one does."""
        if self.ready():
            return []
        alone = self.layers[0].directions
        return [
            Task(
                name="survey",
                lease=self.folder.with_suffix(".lease") if alone else None,
                weight=sum(layer.units for layer in self.layers),
                ready=lambda: True,
                done=self.ready,
                run=self._directions if alone else self._plain,
                common=True,
            )
        ]

    def _plain(self) -> None:
        k = self.job.stats.settings["k"]
        survey(self.job.network, self.job.images, self.heard, k=k, directory=self.folder)

    def _directions(self) -> None:
        layer, job = self.layers[0], self.job
        recipe = {
            "optogram": __version__,
            "network": job.network.recipe(),
            "data": job.images.recipe(),
            "directions": {"layer": layer.base, "vectors": layer.vectors, "name": layer.name},
        }
        matrix, k = job.vectors[layer.name], job.stats.settings["k"]
        directions.surveyed(job.network, job.images, layer, matrix, k, recipe).save(self.folder)


def _named(pictures: Sequence[str]) -> list[Mapping[str, Any]]:
    for name in pictures:
        if name not in PICTURES:
            raise RequestError(
                f"no pictures called {name!r}; there is {', '.join(PICTURES)}, and recipes of "
                f"your own"
            )
    return [PICTURES[name] for name in dict.fromkeys(pictures)]


def _picture_recipe(
    given: Mapping[str, Any] | str | os.PathLike[str], seed: int
) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a recipe of pictures. Raises RequestError for what is none."""
    said = given if isinstance(given, Mapping) else _recipe_file(Path(given))
    strange = set(said) - {"name", "technique", "sign", "arguments"}
    name, arguments = said.get("name"), said.get("arguments", {})
    technique, sign = said.get("technique", "maximize"), said.get("sign", 1)
    if strange or not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise RequestError(
            'a recipe is {"name": ..., "technique": ..., "sign": 1 or -1, "arguments": {...}}; '
            f"this one has {', '.join(sorted(strange)) or 'no name or arguments'}"
        )
    known = techniques().get(technique)
    takes = [] if known is None else list(known.signature.parameters)
    if known is None or takes[:2] != ["network", "unit"]:
        raise RequestError(f"{technique!r} is no technique that makes pictures of units")
    if wrong := [key for key in arguments if key not in known.options]:
        raise RequestError(f"{technique!r} has no option {wrong[0]!r}")
    if sign not in (1, -1):
        raise RequestError(f"the sign of a recipe is 1 or -1, not {sign!r}")
    drawn = {"seed": seed} if "seed" in known.options else {}
    settings = {"technique": technique, "sign": sign, "arguments": {**drawn, **arguments}}
    return name, json.loads(canonical(settings))


def _recipe_file(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise RequestError(f"'{path}' is no recipe that can be read: {problem}") from problem
    if not isinstance(said, dict):
        raise RequestError(f"'{path}' holds no recipe: one is a JSON object")
    return said


def _as_recipe(recipe: RecipeInfo) -> dict[str, Any]:
    return {"name": recipe.name, **recipe.settings}


def _matrix(given: Any) -> tuple[str | None, Tensor]:
    """A matrix of directions, and what it is to be called; a list names both."""
    if isinstance(given, list):
        return given[0], directions.read(given[1])
    if isinstance(given, str | os.PathLike):
        return Path(os.fspath(given).partition("#")[0]).stem, directions.read(given)
    return "directions", directions.checked(given, "the matrix")


def _dataset(images: ImageSet) -> DataSet:
    name, split = images.origin or (images.name, "")
    digest = images.digest
    return DataSet(
        digest.removeprefix("sha256:")[:12], name, split, digest, len(images), tuple(images.classes)
    )


def _head(folder: Path, network: Network, data: DataSet) -> Head:
    """What the atlas says of itself, with the data set added."""
    outputs = network.layer(OUTPUT)
    about = {
        "name": network.name,
        "weights": network.fingerprint,
        "file": network.weights_file,
        "shape": list(network.shape),
        "labels": [network.label(i) for i in range(outputs.units)] if not outputs.places else [],
    }
    if not is_atlas(folder):
        versions = {"optogram": __version__, "torch": str(torch.__version__)}
        return Head(about, (data,), (), {**versions, "python": platform.python_version()})
    head = read_head(folder)
    if head.network["weights"] != about["weights"]:
        raise RequestError(
            f"'{folder}' holds the atlas of {head.network['name']!r} with other weights: give "
            f"another folder"
        )
    known = {one.id for one in head.datasets}
    more = () if data.id in known else (data,)
    return Head(head.network, (*head.datasets, *more), head.layers, head.versions)


def _with_layers(head: Head, network: Network, infos: Sequence[LayerInfo]) -> Head:
    known = {layer.id: layer for layer in (*head.layers, *infos)}
    layers = tuple(known[number] for number in sorted(known))
    return Head(head.network, head.datasets, layers, head.versions)


def _info(network: Network, name: str) -> LayerInfo:
    layer = network.layer(name)
    output = network.layer(OUTPUT)
    outputs = name in (OUTPUT, output.same_as) and not output.places
    number = 1 + next(i for i, one in enumerate(network.layers) if one.name == name)
    return LayerInfo(
        number,
        name,
        layer.kind,
        layer.units,
        tuple(layer.places),
        _field(layer),
        name,
        outputs,
    )


def _field(layer: Layer) -> tuple[int, int] | None:
    return layer.field.size if len(layer.places) == 2 else None


def _direction_layer(
    head: Head,
    infos: Sequence[LayerInfo],
    network: Network,
    base: str,
    matrix: Tensor,
    stem: str | None,
) -> LayerInfo:
    """The layer of a matrix: the one that is there, or a new one with the next free number."""
    base = network.layer(base).name
    name = stem if stem is not None and "/" in stem else f"{base}/{stem}"
    there = {layer.name: layer for layer in (*head.layers, *infos)}
    numbers = [layer.id for layer in there.values() if layer.directions]
    number = max([FIRST_DIRECTIONS - 1, *numbers]) + 1
    made = directions.layer_of(network, base, matrix, name, number)
    if name not in there:
        return made
    if there[name].vectors != made.vectors:
        raise RequestError(f"this atlas has other directions called {name!r}: rename the file")
    return there[name]


def _write_vectors(folder: Path, layer: LayerInfo, matrix: Tensor) -> None:
    import io

    import numpy as np

    path = folder / "directions" / f"{layer.vectors}.npy"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        file = io.BytesIO()
        np.save(file, matrix.numpy())
        write_atomically(path, file.getvalue())


def _pairs(
    infos: Sequence[LayerInfo], matrices: Mapping[str, tuple[str | None, Tensor]]
) -> Iterator[tuple[LayerInfo, Tensor]]:
    """Each layer of directions with its matrix."""
    held = {base: matrix for base, (_, matrix) in matrices.items()}
    return ((info, held[info.base]) for info in infos if info.directions)


def _wanted(
    network: Network, infos: Sequence[LayerInfo], units: str | Sequence[str] | None
) -> dict[str, tuple[int, ...]] | None:
    """The units that get pictures, by layer; None for all."""
    if units is None:
        return None
    found: dict[str, set[int]] = {}
    plain = {info.name for info in infos if not info.directions}
    for pattern in [units] if isinstance(units, str) else units:
        named = [unit for unit in network.units(pattern) if unit.layer in plain]
        if not named:
            raise RequestError(f"{pattern!r} names no unit of the layers that were asked for")
        for unit in named:
            found.setdefault(unit.layer, set()).add(int(str(unit.index)))
    everything = {info.name: range(info.units) for info in infos if info.directions}
    return {name: tuple(sorted(some)) for name, some in {**found, **everything}.items()}


def _bests(rows: Sequence[Mapping[str, Any]], layer: LayerInfo, sign: int) -> dict[int, float]:
    """How far the data got in a picture's direction, where that compares with its score."""
    if layer.places:  # the score is of a channel's mean, the data's best of one place
        return {}
    column = "maximum" if sign > 0 else "minimum"
    return {row["unit"]: sign * row[column] for row in rows if row[column] is not None}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _opened(folder: Path) -> Atlas:
    atlas = Atlas(folder)
    atlas.refresh()
    return atlas


def _followed(atlas: Atlas) -> None:
    with suppress(RequestError):
        atlas.refresh()


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are rounded the same way whatever the number of cores and processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
