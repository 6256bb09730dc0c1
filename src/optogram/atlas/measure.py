"""Statistics of a layer's units: a row each, from a survey."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optogram.atlas.schema import QUANTILES
from optogram.pictures.errors import RequestError
from optogram.survey import Survey
from optogram.survey.dead import STATES
from optogram.survey.statistics import BINS, value_of
from optogram.survey.topk import NOBODY

BARS, NEIGHBOURS, OUTPUTS = 32, 10, 10


class Measured:
    """A layer of a survey, with what concerns all its units worked out once."""

    def __init__(self, survey: Survey, layer: str) -> None:
        self.survey, self.layer = survey, layer
        self.part = survey.part.layers[layer]
        answers = self.part.answers
        paired = answers is not None and answers.half_spread.shape[1] > 0
        self.together = survey.correlation(layer) if paired else None
        self.clusters = survey.clusters(layer) if paired else None
        self.selectivity = survey.selectivity(layer) if answers is not None else None
        self.prefers = self._preferred()
        self.outputs = self._participation()
        self.quantiles = None if answers is None else answers.quantile(*QUANTILES)
        self.sparseness = None if answers is None else answers.sparseness()
        self.answer_mean = None if answers is None else answers.mean
        self.answer_std = None if answers is None else answers.variance.sqrt()

    def rows(self, units: Iterable[int]) -> list[dict[str, Any]]:
        """The rows of some units, as `schema("stats")` has them."""
        return [self._row(unit) for unit in units]

    def _row(self, unit: int) -> dict[str, Any]:
        top, moments = self.part.top, self.part.moments
        real = top.images[unit] != NOBODY
        images = top.images[unit][real]
        spots = [self._spot(place) for place in top.places[unit][real].tolist()]
        field, size = self.survey.layers[self.layer].field, self.survey.shape[1:]
        known = self.survey.images
        states = self.survey.states.get(self.layer)
        edges, counts = self._histogram(unit)
        near, alike = _first(None if self.together is None else self.together[unit], unit)
        outputs, shares = _first(None if self.outputs is None else self.outputs[unit], None)
        group = self._group(unit)
        row = {
            "unit": unit,
            "maximum": float(top.values[unit, 0]),
            "minimum": float(moments.minimum[unit]) if moments is not None else None,
            "mean": float(moments.mean[unit]) if moments is not None else None,
            "variance": float(moments.variance[unit]) if moments is not None else None,
            "active": float(moments.active[unit] / moments.count) if moments is not None else None,
            "answer_mean": None if self.answer_mean is None else float(self.answer_mean[unit]),
            "answer_std": None if self.answer_std is None else float(self.answer_std[unit]),
            "sparseness": None if self.sparseness is None else float(self.sparseness[unit]),
            "selectivity": None if self.selectivity is None else float(self.selectivity[unit]),
            "prefers": self.prefers[unit],
            "state": None if states is None else STATES[int(states[unit])],
            "values": top.values[unit][real].tolist(),
            "images": images.tolist(),
            "rows": [spot[0] for spot in spots],
            "columns": [spot[1] for spot in spots],
            "boxes": [edge for spot in spots for edge in field.box(*spot, *size)],
            "labels": [-1] * len(images) if known is None else known.labels[images].tolist(),
            "edges": edges,
            "counts": counts,
            "neighbours": near,
            "correlations": alike,
            "outputs": outputs,
            "output_correlations": shares,
            **group,
        }
        for number, share in enumerate(QUANTILES):
            row[f"q{share}"] = (
                None if self.quantiles is None else float(self.quantiles[number, unit])
            )
        return {name: _finite(value) for name, value in row.items()}

    def _spot(self, place: int) -> tuple[int, int]:
        """Row and column; a token's number is its row, a neuron is at 0, 0."""
        places = self.survey.layers[self.layer].places
        return divmod(place, places[1]) if len(places) == 2 else (place, 0)

    def _preferred(self) -> list[str | None]:
        units = len(self.part.top.values)
        if self.part.answers is None or not self.survey.classes:
            return [None] * units
        means = self.survey.class_means(self.layer)
        if not len(means) or bool(means.isnan().all()):
            return [None] * units
        return [self.survey.classes[n] for n in means.nan_to_num(-torch.inf).argmax(0).tolist()]

    def _participation(self) -> Tensor | None:
        try:
            return self.survey.participation(self.layer)
        except RequestError:  # the outputs are maps, or were not surveyed
            return None

    def _histogram(self, unit: int) -> tuple[list[float], list[int]]:
        """The images' strongest answers in bars of equal width, from the survey's fine bins."""
        if self.part.answers is None:
            return [], []
        counts = self.part.answers.bins[unit].numpy()
        filled = np.flatnonzero(counts)
        if not len(filled):
            return [], []
        middles = value_of(torch.arange(BINS)).numpy()[filled]
        low, high = float(middles[0]), float(middles[-1])
        room = max(high - low, 1e-6 * max(abs(low), 1.0))
        bars = ((middles - low) / room * BARS).astype(int).clip(0, BARS - 1)
        heights = np.bincount(bars, counts[filled], BARS).astype(int)
        return np.linspace(low, low + room, BARS + 1).tolist(), heights.tolist()

    def _group(self, unit: int) -> dict[str, Any]:
        if self.clusters is None:
            return {"cluster": None, "cluster_size": None, "cluster_agreement": None}
        label = int(self.clusters.labels[unit])
        grouped = label < len(self.clusters.members)
        return {
            "cluster": label if grouped else None,
            "cluster_size": len(self.clusters.members[label]) if grouped else None,
            "cluster_agreement": self.clusters.agreement,
        }


def _first(line: Tensor | None, but: int | None) -> tuple[list[int], list[float]]:
    """The largest of a line of correlations, by size for outputs, and which they are."""
    if line is None:
        return [], []
    sizes = line.abs() if but is None else line.clone()
    if but is not None:
        sizes[but] = -torch.inf
    few = min(NEIGHBOURS if but is not None else OUTPUTS, len(line) - (but is not None))
    best = sizes.double().sort(descending=True, stable=True).indices[:few]
    return best.tolist(), line[best].tolist()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
