"""What a build would cost: its shards, the hours of a device, the bytes, from a short calibration.

Shards are counted as `build` counts them. Hours and bytes come from doing a little of everything
here, in a folder that is thrown away: a survey of some images, and of layers spread over the
network's depth the statistics, the patches of some units and one group of pictures, which is left
off where it takes long. Layers in between are taken to cost what the nearest of these does.
"""

import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from optogram.atlas.build import Job, Source, loaded, one_thread
from optogram.atlas.layout import LayerInfo, RecipeInfo, is_atlas
from optogram.atlas.painting import FEW, SMALL
from optogram.atlas.schema import schema
from optogram.atlas.sprites import tile_webp
from optogram.atlas.store import BLOCK, Shard, parquet_bytes, publish, shards
from optogram.core import film, progress
from optogram.core.network import Network
from optogram.pictures.drawing import as_pil
from optogram.survey import ImageSet
from optogram.survey.run import batch_for, shard_for
from optogram.techniques.top_patches import Project

LAYERS, IMAGES, UNITS = 8, 64, 4
"""How many layers, images, and units of a layer a calibration looks into."""

MARKER = 760
"""About the bytes of a shard's marker."""

ROW = 420
"""About the bytes of the row of a picture that was not finished."""

SURVEY = ("survey", "stats")


@dataclass(frozen=True)
class Cost:
    """One kind of work of a build.

    Attributes:
        name: the recipe's name; "survey" for showing the images.
        kind: "survey", "stats", "images", "patches" or "pictures".
        shards: pieces that any worker may take.
        units: how many units or images they are about.
        hours: of one device like the one that was calibrated on.
        bytes: what will lie on the disk.
        meanwhile: what lies there besides until the survey is merged.
    """

    name: str
    kind: str
    shards: int
    units: int
    hours: float
    bytes: int
    meanwhile: int = 0


@dataclass(frozen=True)
class Plan:
    """What a build would do and cost.

    Attributes:
        costs: of each kind of work that is left.
        device: what was calibrated on.
        seconds: that it took.
    """

    costs: tuple[Cost, ...]
    device: str
    seconds: float

    @property
    def shards(self) -> int:
        """Of all kinds together."""
        return sum(cost.shards for cost in self.costs)

    @property
    def hours(self) -> float:
        """Of one device, for all."""
        return sum(cost.hours for cost in self.costs)

    @property
    def survey_bytes(self) -> int:
        """Of the survey and the statistics."""
        return sum(cost.bytes for cost in self.costs if cost.kind in SURVEY)

    @property
    def picture_bytes(self) -> int:
        """Of images, patches, projections and pictures."""
        return sum(cost.bytes for cost in self.costs if cost.kind not in SURVEY)


def plan(
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
    seconds: float = 60.0,
    seed: int = 0,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    split: str = "train",
    data_root: str | os.PathLike[str] | None = None,
) -> Plan:
    """What `build` with these arguments would do and cost; nothing is written into the folder.

    Of an atlas that is there only what is missing counts. Hours are those of one device like this
    one, working on nothing else; bytes are good to a quarter where pictures are finished within the
    calibration and to a factor of two where they are not.

    Args:
        seconds: about how long pictures may be made for the calibration; the rest of it shows a few
            dozen images to the network and sends some of their patches back.

    The other arguments are those of `build`, which see for what is refused.
    """
    begun = time.perf_counter()
    with one_thread():
        net, images = loaded(
            network, dataset, weights=weights, device=device, split=split, data_root=data_root
        )
        if not is_atlas(folder):  # there are no shards to know again: no need to read every image
            images = replace(images, content=lambda: ())
        asked: dict[str, Any] = {"layers": layers, "units": units, "k": k, "seed": seed}
        asked |= {"pictures": pictures, "recipes": recipes, "project": project}
        job = Job.of(net, images, Path(folder), vectors=vectors or {}, dry=True, **asked)
        with tempfile.TemporaryDirectory(prefix="optogram-plan-") as place:
            few = _few(images, max(IMAGES, 2 * batch_for(net.shape)))
            trial = Job.of(net, few, Path(place), vectors=vectors or {}, **asked)
            found = [*_surveys(job, trial), *_shards(job, trial, seconds)]
    costs = tuple(cost for cost in found if cost.shards)
    return Plan(costs, str(net.device), time.perf_counter() - begun)


def _few(images: ImageSet, most: int) -> ImageSet:
    """Some images, evenly spread over a set."""
    count = min(most, len(images))
    chosen = [number * len(images) // count for number in range(count)]
    return replace(
        images,
        labels=images.labels[chosen],
        read=lambda numbers: images.read([chosen[number] for number in numbers]),
        content=lambda: (),
        caption=lambda number: images.caption(chosen[number]),
    )


def _surveys(job: Job, trial: Job) -> Iterator[Cost]:
    """The cost of showing the images; the trial's surveys are made on the way, for the rest."""
    sources = {tuple(layer.id for layer in source.layers): source for source in job.sources()}
    for tried in trial.sources():
        source = sources.get(tuple(layer.id for layer in tried.layers))
        clock = _Clock()
        begun = time.perf_counter()
        with progress.listening(clock.tell):
            for task in tried.tasks():
                task.run()
        took = time.perf_counter() - begun
        if source is None or source.ready():
            continue
        each = clock.pace if clock.pace is not None else took / len(trial.images)
        once = max(0.0, took - each * len(trial.images))
        size = sum(path.stat().st_size for path in tried.folder.rglob("*") if path.is_file())
        batch = batch_for(job.network.shape)
        alone = source.layers[0].directions
        step = len(job.images) if alone else shard_for(len(job.images), batch)
        done = len(list(source.folder.glob("scan/*/part-*.json")))
        pieces = -(-len(job.images) // step) - done
        left = len(job.images) - done * step
        hours = (each * left + once) / 3600
        yield Cost(
            "survey", "survey", pieces, left, hours, size, 0 if alone else size * (pieces + done)
        )


class _Clock:
    """Hears how far a survey is; `pace` is its seconds an image, without its beginning and end."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, int]] = []

    def tell(self, what: str, done: int, total: int) -> None:
        if what.startswith("survey"):
            self.heard.append((time.perf_counter(), done))

    @property
    def pace(self) -> float | None:
        """None where there was but one batch."""
        if len(self.heard) < 2 or self.heard[-1][1] <= self.heard[0][1]:
            return None
        (start, before), (end, after) = self.heard[0], self.heard[-1]
        return (end - start) / (after - before)


def _shards(job: Job, trial: Job, seconds: float) -> Iterator[Cost]:
    """The cost of everything that is published as shards of units or images."""
    missing: dict[str, list[tuple[int | None, list[Shard]]]] = {}
    for layer, recipe, some in job.pieces():
        if some:
            place = None if layer is None else job.layers.index(layer)
            missing.setdefault(recipe.id, []).append((place, some))
    recipes = {mine.id: (mine, his) for mine, his in zip(job.recipes, trial.recipes, strict=True)}
    painted = sum(recipes[id][0].kind == "pictures" for id in missing)
    tried = _Trial.of(trial, seconds / max(1, painted * LAYERS))
    for id, pieces in missing.items():
        recipe, his = recipes[id]
        known = dict(pieces)
        looked = {place: tried.rate(place, his, known[place]) for place in _spread(list(known))}
        units, hours, size = 0, 0.0, 0.0
        for place, some in pieces:
            near = min(looked, key=lambda one: 0 if place is None else abs((one or 0) - place))
            rate, many = looked[near], sum(len(shard.units) for shard in some)
            units += many
            hours += rate.seconds * many / 3600
            size += rate.bytes * many + rate.fixed * len(some)
        count = sum(len(some) for _, some in pieces)
        yield Cost(recipe.name, recipe.kind, count, units, hours, round(size))


def _spread(places: Sequence[int | None]) -> list[int | None]:
    """Some of the layers, evenly over the depth, the first and the last among them."""
    count = min(LAYERS, len(places))
    return list(
        dict.fromkeys(places[n * (len(places) - 1) // max(1, count - 1)] for n in range(count))
    )


@dataclass(frozen=True)
class _Rate:
    """Seconds and bytes a unit, and the bytes of a shard of none."""

    seconds: float
    bytes: float
    fixed: int


@dataclass(frozen=True)
class _Trial:
    """A build of some images, a little of which is done; `patience` is for a group of pictures."""

    job: Job
    sources: Mapping[int, Source]
    patience: float
    statistics: dict[int, _Rate]

    @classmethod
    def of(cls, job: Job, patience: float) -> "_Trial":
        sources = {layer.id: source for source in job.sources() for layer in source.layers}
        return cls(job, sources, patience, {})

    def rate(self, place: int | None, recipe: RecipeInfo, wanted: Sequence[Shard]) -> _Rate:
        """What a unit of a layer, or an image, costs under a recipe."""
        if place is None:
            return self._made(None, recipe, range(len(self.job.images)))
        layer, units = self.job.layers[place], wanted[0].units
        self._prepare(layer)
        if recipe.kind == "stats":
            return self.statistics[layer.id]
        few = UNITS
        if recipe.kind == "pictures":
            few = FEW if math.prod(self.job.network.shape) > SMALL else BLOCK
        count = min(few, len(units))
        return self._made(layer, recipe, [units[n * len(units) // count] for n in range(count)])

    def _prepare(self, layer: LayerInfo) -> None:
        """Publish a layer's statistics, from which all else follows."""
        if layer.id in self.statistics:
            return
        stats = self.job.stats
        shards_of = shards(layer.id, stats.id, range(layer.units), layer.units, {})
        rates = []
        for shard in shards_of:
            begun = time.perf_counter()
            rows, _ = self.job.made(shard, layer, stats, self.sources[layer.id])
            publish(self.job.folder, shard, rows, schema("stats"), None, {})
            rates.append((time.perf_counter() - begun, rows))
        took = sum(seconds for seconds, _ in rates)
        fixed = _fixed("stats")
        size = sum(len(parquet_bytes(rows, schema("stats"))) + MARKER - fixed for _, rows in rates)
        self.statistics[layer.id] = _Rate(took / layer.units, size / layer.units, fixed)

    def _made(self, layer: LayerInfo | None, recipe: RecipeInfo, units: Sequence[int]) -> _Rate:
        shard = Shard(0 if layer is None else layer.id, recipe.id, tuple(units), "", True)
        fixed, count = _fixed(recipe.kind), len(units)
        facets = recipe.settings.get("arguments", {}).get("facets") or 1
        watch = _Watch(self.patience, count * facets)
        begun = time.perf_counter()
        try:
            with watch.watching() if recipe.kind == "pictures" else nullcontext():
                rows, pack = self.job.made(shard, layer, recipe, None)
        except _Enough:
            took = time.perf_counter() - begun
            return _Rate(took / watch.share / count, (watch.size() + ROW) * facets, fixed)
        took = time.perf_counter() - begun
        size = len(parquet_bytes(rows, schema(recipe.kind))) + MARKER - fixed
        size += 0 if pack is None else len(pack.content())
        return _Rate(took / count, size / count, fixed)


def _fixed(kind: str) -> int:
    return MARKER + len(parquet_bytes([], schema(kind)))


class _Enough(Exception):
    """As much of a picture was made as the calibration has time for."""


class _Watch:
    """Sees pictures grow, and ends it when time is up and their pace is known."""

    def __init__(self, patience: float, wanted: int) -> None:
        self.end, self.wanted = time.perf_counter() + patience, wanted
        self.finished = self.batch = self.before = 0
        self.share = 0.0
        self.frame: torch.Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        with progress.listening(self.tell), film.filming(self.show):
            yield

    def show(self, images: torch.Tensor) -> None:
        self.batch, self.frame = len(images), images[0]

    def tell(self, what: str, done: int, total: int) -> None:
        if what != "steps" or not total:
            return
        self.finished += self.batch if done < self.before else 0
        self.before = done
        self.share = min(1.0, (self.finished + self.batch * done / total) / self.wanted)
        if self.share and self.share < 1 and time.perf_counter() > self.end:
            raise _Enough

    def size(self) -> int:
        """Bytes of a picture on its way."""
        return 0 if self.frame is None else len(tile_webp(as_pil(self.frame.float().cpu())))
