"""What an atlas says of one unit: typed rows, and the same as JSON values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from optogram.atlas.layout import LayerInfo

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Row:
    """A unit in a list: what one sorts and filters by. None where it is not known."""

    layer: int
    unit: int
    address: str
    label: str | None
    maximum: float | None
    mean: float | None
    active: float | None
    sparseness: float | None
    selectivity: float | None
    prefers: str | None
    state: str | None
    cluster: int | None
    score: float | None
    verdict: str | None
    ratio: float | None


@dataclass(frozen=True)
class Stats:
    """How a data set moves a unit, see `optogram.survey.Excited`; `answer` is of images' strongest.

    `cluster` numbers the layer's groups of units that go together, None for a unit that is alone;
    `cluster_agreement` says how far the layer's groups hold on other images.
    """

    mean: float | None
    variance: float | None
    minimum: float | None
    maximum: float | None
    active: float | None
    sparseness: float | None
    selectivity: float | None
    prefers: str | None
    state: str | None
    quantiles: Mapping[float, float]
    answer_mean: float | None
    answer_std: float | None
    cluster: int | None
    cluster_size: int | None
    cluster_agreement: float | None


@dataclass(frozen=True)
class Histogram:
    """Of the images' strongest answers: `counts` between `edges`, of which there is one more."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Patch:
    """One of the unit's strongest answers: where, what it saw, and what it took from it.

    `box` is the receptive field in the whole image. `patch` and `projection` are kinds of tiles of
    `recipe`, None where there is none.
    """

    rank: int
    value: float
    image: int
    row: int
    column: int
    box: Box
    label: str | None
    caption: str
    recipe: str | None
    patch: str | None
    projection: str | None


@dataclass(frozen=True)
class Made:
    """A picture made for the unit, see `optogram.Picture`; `kind` is its tile."""

    recipe: str
    name: str
    kind: str
    facet: int
    score: float
    verdict: str | None
    best_in_data: float | None
    ratio: float | None
    jitter_survival: float | None
    gradient_norm: float | None
    rival: str | None
    rival_score: float | None
    answers: tuple[tuple[str, float], ...]
    history: list[float]
    result: str | None


@dataclass(frozen=True)
class Neighbour:
    """A unit of the same layer that the data move alike."""

    unit: int
    address: str
    correlation: float


@dataclass(frozen=True)
class Note:
    """What somebody wrote about a unit: a note, or a label, which names it."""

    id: str
    time: str
    layer: int
    unit: int
    kind: str
    text: str
    by: str


@dataclass(frozen=True)
class Hit:
    """Something that a search found; `unit` is None for a layer."""

    layer: int
    unit: int | None
    address: str
    what: str
    text: str


@dataclass(frozen=True)
class Sprite:
    """How a layer's sprite sheets are made: tiles of `side` pixels, `columns` a row."""

    side: int
    blocks: int
    columns: int = 16


@dataclass(frozen=True)
class UnitRecord:
    """All that the atlas holds about a unit."""

    layer: LayerInfo
    unit: int
    address: str
    label: str | None
    row: Row
    previous: int | None
    next: int | None
    stats: Stats | None
    histogram: Histogram | None
    patches: tuple[Patch, ...]
    pictures: tuple[Made, ...]
    outputs: tuple[tuple[str, int, float], ...]
    neighbours: tuple[Neighbour, ...]
    members: tuple[int, ...]
    notes: tuple[Note, ...]

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, LayerInfo):
        return {"id": value.id, "name": value.name, "kind": value.kind, "units": value.units}
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value
