"""A survey: what a data set excites in a network, unit by unit and layer by layer."""

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from optogram.core.field import Axis, Box, ReceptiveField
from optogram.core.network import Layer, Network
from optogram.core.unit import OUTPUT, Direction, Targetlike, Unit, unit
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError
from optogram.survey import clusters as grouping
from optogram.survey.clusters import Clusters
from optogram.survey.datasets import ImageSet
from optogram.survey.dead import STATES
from optogram.survey.part import LayerPart, Part
from optogram.survey.statistics import Answers
from optogram.survey.topk import NOBODY

if TYPE_CHECKING:
    import pyarrow as pa

GREY = 0.5
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, eq=False, repr=False)
class Excited:
    """What a data set does to one unit. All values are pre-activations.

    Attributes:
        unit: its address.
        values: its strongest answers, falling, (k,); fewer where the data set has fewer images.
        places: where: image number, row, column, (k, 3). Tokens have their number as the row,
            neurons are at 0, 0.
        boxes: the receptive field there, (k, 4): top, left, bottom, right in pixels, ends excluded.
        labels: the class of each of these images, -1 if unknown, (k,); None without the images.
        mean, variance, minimum, maximum: over all places of all images.
        active: the share of all places of all images with a value above 0.
        quantiles: of the images' strongest values: the share below -> the value, within 2 %.
        sparseness: of the images' strongest values, 0 (all alike) to 1 (one image alone).
        selectivity: the share of the variance of the images' strongest values that lies between
            classes, 0 to 1; None without classes.
        prefers: the class with the largest mean of strongest values; None without classes.
        state: "alive"; or its ReLU never opened on these images: "reachable" (an image that opens
            it was found), "certified-dead" (there is none), "data-dead" (neither is known).
    """

    unit: str
    values: Float[Tensor, " k"]
    places: Int64[Tensor, "k 3"]
    boxes: Int64[Tensor, "k 4"]
    labels: Int64[Tensor, " k"] | None
    mean: float | None
    variance: float | None
    minimum: float | None
    maximum: float
    active: float | None
    quantiles: dict[float, float]
    sparseness: float | None
    selectivity: float | None
    prefers: str | None
    state: str | None
    _see: Callable[[int], Tensor] = field(repr=False)
    _window: Callable[[int], tuple[int, int]] = field(repr=False)

    @property
    def k(self) -> int:
        """How many answers there are."""
        return len(self.values)

    def crop(self, rank: int) -> Float[Tensor, "channel rows columns"]:
        """What the unit saw at its answer of that rank: the image inside `boxes[rank]`, uncut."""
        top, left, bottom, right = self.boxes[rank].tolist()
        return self._see(int(self.places[rank, 0]))[:, top:bottom, left:right]

    @property
    def patches(self) -> Float[Tensor, "k channel rows columns"]:
        """All crops in one tensor: where a field hangs over the image's edge there is grey."""
        crops = [self.crop(rank) for rank in range(self.k)]
        offsets = [self._window(rank) for rank in range(self.k)]
        rows = max((c.shape[1] + o[0] for c, o in zip(crops, offsets, strict=True)), default=0)
        columns = max((c.shape[2] + o[1] for c, o in zip(crops, offsets, strict=True)), default=0)
        channels = crops[0].shape[0] if crops else 0
        canvas = torch.full((self.k, channels, rows, columns), GREY)
        for room, crop, (down, across) in zip(canvas, crops, offsets, strict=True):
            room[:, down : down + crop.shape[1], across : across + crop.shape[2]] = crop
        return canvas

    def sheet(self) -> Sheet:
        """The crops as a Sheet, each with its value."""
        pictures = [
            Picture(
                image=self.crop(rank),
                unit=self.unit,
                score=float(self.values[rank]),
                history=torch.zeros(0),
                best_in_data=float(self.maximum),
            )
            for rank in range(self.k)
        ]
        return Sheet(tuple(pictures), title=f"{self.unit}: strongest in the data")

    def __repr__(self) -> str:
        best = f"{float(self.values[0]):.4g}" if self.k else "none"
        return f"Excited({self.unit}, strongest {best}, {self.state or 'state not asked for'})"


@dataclass(frozen=True, eq=False, repr=False)
class Survey:
    """What a data set excites in some layers of a network.

    `survey[unit]` is all about one unit; the other questions are below. `part` holds the numbers
    and `layers` what the layers are; `states` are places in `STATES`, (unit,) a layer, where dead
    units were looked into. `images` shows the patches: None for a survey that was opened without
    it.
    """

    name: str
    part: Part
    layers: dict[str, Layer]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    outputs: tuple[str, ...]
    states: dict[str, Int64[Tensor, " unit"]]
    images: ImageSet | None
    recipe: dict[str, Any]

    def __getitem__(self, address: Targetlike) -> Excited:
        """What the data set does to a unit.

        Raises RequestError for a unit that is not there, or a layer that was not surveyed.
        """
        layer, index = self._unit(address)
        held = self.part.layers[layer.name]
        real = held.top.images[index] != NOBODY
        values, numbers, places = (
            part[index][real] for part in (held.top.values, held.top.images, held.top.places)
        )
        spots = [_spot(layer, int(place)) for place in places]
        where = [[int(n), *spot] for n, spot in zip(numbers, spots, strict=True)]
        boxes = [self._box(layer, spot) for spot in spots]
        few, answers = _moments(held, index), held.answers
        state = self.states.get(layer.name)
        return Excited(
            unit=str(Unit(layer.name, index)),
            values=values,
            places=torch.tensor(where, dtype=torch.int64).view(-1, 3),
            boxes=torch.tensor(boxes, dtype=torch.int64).view(-1, 4),
            labels=None if self.images is None else self.images.labels[numbers],
            maximum=float(held.top.values[index, 0]),
            **few,
            quantiles=_quantiles(answers, index),
            sparseness=None if answers is None else _number(answers.sparseness()[index]),
            selectivity=_at(self.selectivity(layer.name) if answers else None, index),
            prefers=None if answers is None else self._preferred(layer.name)[index],
            state=None if state is None else STATES[int(state[index])],
            _see=self._image,
            _window=lambda rank: self._overhang(layer, spots[rank]),
        )

    @property
    def dead(self) -> dict[str, str]:
        """The units whose ReLU opened on no image, and what is known of each (see `Excited`)."""
        return {
            str(Unit(name, index)): STATES[int(states[index])]
            for name, states in self.states.items()
            for index in states.nonzero()[:, 0].tolist()
        }

    def clusters(self, layer: str, threshold: float = 0.5) -> Clusters:
        """Units of a layer that go together, and how far that holds on other images.

        Groups are joined by average linkage while the mean correlation is at least `threshold`.
        """
        return grouping.clusters(self._layer(layer).name, self._paired(layer), threshold)

    def correlation(self, layer: str) -> Float[Tensor, "unit unit"]:
        """The correlation between the units' strongest answers, over a fair sample of images."""
        return grouping.correlation(self._paired(layer)).float()

    def participation(self, layer: str) -> Float[Tensor, "unit output"]:
        """The correlation between the units' strongest answers and the network's outputs.

        Raises RequestError unless `output` was surveyed too.
        """
        answers, own = self._answers(layer), self.part.layers.get(OUTPUT)
        if own is None or own.answers is None or not len(answers.across):
            raise RequestError(
                f"how {layer!r} takes part in the outputs is known only where 'output' is surveyed "
                f"too: add it to layers"
            )
        # For vectors of outputs moments are over images alone, as the answers are.
        if self.layers[OUTPUT].places:
            raise RequestError(
                f"the outputs of {self.name} are maps: participation needs one number"
            )
        assert own.moments is not None
        size = torch.outer(self._variance(layer).sqrt(), own.moments.variance.sqrt())
        return (
            torch.where(size > 0, answers.across / answers.images / size, 0.0).clamp(-1, 1).float()
        )

    def class_means(self, layer: str) -> Float[Tensor, "class unit"]:
        """The mean of the units' strongest answers to each class; NaN of an empty one."""
        answers = self._answers(layer)
        return (answers.class_sum / answers.class_count[:, None]).float()[: len(self.classes)]

    def selectivity(self, layer: str) -> Float[Tensor, " unit"] | None:
        """The share of the variance of answers that lies between classes; None without them."""
        answers = self._answers(layer)
        count = answers.class_count[: len(self.classes)].double()[:, None]
        if not len(count) or not bool((count > 0).any()):
            return None
        means = answers.class_sum[: len(self.classes)] / count.clamp(min=1)
        middle = (means * count).sum(0) / count.sum()
        between = (count * (means - middle).square()).sum(0) / count.sum()
        total = self._variance(layer)
        return torch.where(total > 0, between / total, torch.zeros_like(total)).clamp(0, 1).float()

    def preferring(self, name: str, layer: str, n: int = 10) -> list[tuple[str, float]]:
        """The units that prefer a class: its mean answer above that of all, in standard deviations.

        Raises RequestError for a class that is not there.
        """
        if name not in self.classes:
            near = difflib.get_close_matches(name, self.classes, n=3, cutoff=0.4)
            there = ", ".join(near or self.classes[:5]) or "none: these images have no classes"
            raise RequestError(f"no class {name!r} in these images; there is {there}")
        above = self.class_means(layer)[self.classes.index(name)] - self._answers(layer).mean
        return self._ranked(layer, above / self._variance(layer).sqrt().clamp(min=1e-12), n)

    def nearest(self, address: Targetlike, n: int = 10) -> list[tuple[str, float]]:
        """The units of the same layer whose answers go with a unit's, by correlation."""
        layer, index = self._unit(address)
        together = self.correlation(layer.name)[index].clone()
        together[index] = -torch.inf
        return self._ranked(layer.name, together, min(n, layer.units - 1))

    def unusual(
        self, network: Network, image: Float[Tensor, "channel height width"], n: int = 10
    ) -> list[tuple[str, float]]:
        """The units that an image excites unusually, over all layers surveyed.

        By how many standard deviations the image's strongest answer lies above the mean answer.
        """
        found = []
        names = [name for name, layer in self.part.layers.items() if layer.answers is not None]
        with torch.no_grad():
            said = network.read(image[None], *names, watch=True).before
        for name in names:
            maps = said.layers[name].movedim(self.layers[name].axis, 1)[0]
            found += self._ranked(name, self._standard(name, _peaks(maps)), n)
        return sorted(found, key=lambda pair: -pair[1])[:n]

    def beyond(self, reference: "Survey", n: int = 10) -> list[tuple[str, float]]:
        """What these images excite that those of a reference survey do not.

        By how many of the reference's standard deviations the mean answer is above the reference's.
        """
        found = []
        for name in self.part.layers:
            if name in reference.part.layers:
                scores = reference._standard(name, self._answers(name).mean)
                found += self._ranked(name, scores, n)
        return sorted(found, key=lambda pair: -pair[1])[:n]

    def records(self) -> dict[str, Tensor]:
        """What a Network takes as `records`, so that its pictures can be compared with the data.

        `L.maximum`, `L.minimum`, `L.mean` and `L.std`, (unit,) float32, for every layer L; a layer
        whose pre-activation is another layer's answer is recorded under that name.
        """
        found = {}
        for name, held in self.part.layers.items():
            known = self.layers[name].same_as or name
            found[f"{known}.maximum"] = held.top.values[:, 0].clone()
            if held.moments is not None:
                found[f"{known}.minimum"] = held.moments.minimum
                found[f"{known}.mean"] = held.moments.mean.float()
                found[f"{known}.std"] = held.moments.variance.sqrt().float()
        return found

    def table(self) -> "pa.Table":
        """One row a unit, as an Arrow table: it has `.to_pandas()` and `.to_pylist()`."""
        from optogram.survey import tables

        return tables.table(self.part, self.columns())

    def columns(self) -> dict[str, Any]:
        """What is worked out for each unit from the base columns, see docs/methods/survey."""
        import pyarrow as pa

        found: dict[str, list[Any]] = {}
        for name, held in self.part.layers.items():
            for column, values in self._derived(name, held).items():
                found.setdefault(column, []).extend(values)
        return {name: pa.array(values) for name, values in found.items()}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the survey into a folder, from which `optogram.survey.opened` reads it."""
        from optogram.survey.store import Store

        Store.at(folder, self.recipe).complete(self.part, self.about(), self.columns())

    def about(self) -> dict[str, Any]:
        """All that is no number of a unit, as JSON values."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "classes": list(self.classes),
            "outputs": list(self.outputs),
            "layers": [asdict(layer) for layer in self.layers.values()],
            "states": {name: states.tolist() for name, states in self.states.items()},
        }

    def __repr__(self) -> str:
        units = sum(layer.units for layer in self.layers.values())
        return (
            f"<Survey of {self.name}: {len(self.layers)} layers, {units} units, "
            f"{self.part.images} images, {len(self.part.skipped)} skipped>"
        )

    def _layer(self, name: str) -> Layer:
        if name not in self.layers:
            near = difflib.get_close_matches(name, self.layers, n=5, cutoff=0.3)
            raise RequestError(
                f"the layer {name!r} was not surveyed; there is {', '.join(near or self.layers)}"
            )
        return self.layers[name]

    def _unit(self, address: Targetlike) -> tuple[Layer, int]:
        target = unit(address)
        layer = self._layer(target.layer)
        index = target.index
        if isinstance(target, Direction) or index is None:
            raise RequestError(f"a survey knows units, as in '{layer.name}:17'; {target} is none")
        if isinstance(index, str):
            if layer.name != OUTPUT or index not in self.outputs:
                raise RequestError(f"no unit {target} in this survey: give its number")
            index = self.outputs.index(index)
        if index >= layer.units:
            raise RequestError(f"no unit {target}: {layer.name!r} has units 0 to {layer.units - 1}")
        return layer, int(index)

    def _answers(self, layer: str) -> Answers:
        answers = self.part.layers[self._layer(layer).name].answers
        if answers is None:
            raise RequestError(
                f"this survey of {layer!r} has no statistics of images: ask for statistics='all'"
            )
        return answers

    def _paired(self, layer: str) -> Answers:
        answers = self._answers(layer)
        if not answers.half_spread.shape[1]:
            raise RequestError(
                f"{layer!r} has {self.layers[layer].units} units, too many to keep how each two of "
                f"them go together"
            )
        return answers

    def _variance(self, layer: str) -> Float64[Tensor, " unit"]:
        """The variance of the units' strongest answers."""
        return self._answers(layer).variance

    def _standard(self, layer: str, values: Float64[Tensor, " unit"]) -> Float64[Tensor, " unit"]:
        answers = self._answers(layer)
        return (values - answers.mean) / answers.variance.sqrt().clamp(min=1e-12)

    def _ranked(self, layer: str, scores: Tensor, n: int) -> list[tuple[str, float]]:
        best = scores.double().sort(descending=True, stable=True)
        pairs = zip(best.indices[:n].tolist(), best.values[:n].tolist(), strict=True)
        return [(str(Unit(layer, index)), value) for index, value in pairs]

    def _preferred(self, layer: str) -> list[str | None]:
        """The class of the largest mean answer, for each unit."""
        means = self.class_means(layer)
        if not len(means) or bool(means.isnan().all()):
            return [None] * means.shape[1]
        best = means.nan_to_num(-torch.inf).argmax(0)
        return [self.classes[number] for number in best.tolist()]

    def _box(self, layer: Layer, spot: tuple[int, int]) -> Box:
        return layer.field.box(*spot, self.shape[1], self.shape[2])

    def _overhang(self, layer: Layer, spot: tuple[int, int]) -> tuple[int, int]:
        """How far a field that is smaller than the image begins before the image does."""
        axes = zip((layer.field.rows, layer.field.columns), spot, self.shape[1:], strict=True)
        return tuple(  # type: ignore[return-value]
            max(0, -(axis.first + at * axis.step)) if axis and axis.size <= limit else 0
            for axis, at, limit in axes
        )

    def _image(self, number: int) -> Tensor:
        if self.images is None:
            raise RequestError(
                "the patches are cut from the images, which this survey was opened without: give "
                "them, as in opened(folder, images)"
            )
        return self.images.take(torch.tensor([number]))[0][0]

    def _derived(self, name: str, held: LayerPart) -> dict[str, list[Any]]:
        layer, units = self.layers[name], range(self.layers[name].units)
        answers = held.answers
        spots = [[_spot(layer, max(p, 0)) for p in row] for row in held.top.places.tolist()]
        states = self.states.get(name)
        columns: dict[str, list[Any]] = {
            "rows": [[spot[0] for spot in row] for row in spots],
            "columns": [[spot[1] for spot in row] for row in spots],
            "boxes": [[list(self._box(layer, spot)) for spot in row] for row in spots],
            "state": [None if states is None else STATES[int(states[i])] for i in units],
        }
        if held.moments is not None:
            columns["variance"] = held.moments.variance.tolist()
            columns["active_share"] = (held.moments.active / held.moments.count).tolist()
        if answers is not None:
            for share, values in zip(QUANTILES, answers.quantile(*QUANTILES), strict=True):
                columns[f"q{share}"] = values.tolist()
            columns["sparseness"] = answers.sparseness().tolist()
            selectivity = self.selectivity(name)
            columns["selectivity"] = [_at(selectivity, i) for i in units]
            columns["prefers"] = self._preferred(name)
        return columns


def layer_from(facts: dict[str, Any]) -> Layer:
    """A layer from what `Survey.about` says of it."""
    axes = [None if a is None else Axis(**a) for a in facts["field"].values()]
    field = ReceptiveField(*axes)
    tuples = {name: tuple(facts.get(name, ())) for name in ("shape", "relus")}
    return Layer(**{**facts, **tuples, "field": field})


def _spot(layer: Layer, place: int) -> tuple[int, int]:
    """Row and column of a place; a token's number is its row."""
    if len(layer.places) == 2:
        return divmod(place, layer.places[1])
    return place, 0


def _peaks(maps: Float[Tensor, " unit *places"]) -> Float64[Tensor, " unit"]:
    return maps.reshape(len(maps), -1).amax(1).double().cpu()


def _moments(held: LayerPart, index: int) -> dict[str, float | None]:
    m = held.moments
    if m is None:
        return dict.fromkeys(("mean", "variance", "minimum", "active"))
    return {
        "mean": float(m.mean[index]),
        "variance": float(m.variance[index]),
        "minimum": float(m.minimum[index]),
        "active": float(m.active[index] / m.count),
    }


def _quantiles(answers: Answers | None, index: int) -> dict[float, float]:
    if answers is None:
        return {}
    found = answers.quantile(*QUANTILES, unit=index)[:, 0].tolist()
    return dict(zip(QUANTILES, found, strict=True))


def _at(values: Sequence[Any] | Tensor | None, index: int) -> float | None:
    return None if values is None else _number(values[index])


def _number(value: Any) -> float | None:
    found = float(value)
    return found if found == found else None
