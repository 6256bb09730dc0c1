"""What was learned from a range of a data set's images, in a form in which ranges add up."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import pairwise
from typing import Any

from optogram.pictures.errors import RequestError
from optogram.survey.statistics import Answers, Moments
from optogram.survey.topk import TopK, merged

Range = tuple[int, int]


@dataclass(frozen=True, eq=False)
class LayerPart:
    """One layer's strongest answers, and its statistics where they were asked for."""

    top: TopK
    moments: Moments | None = None
    answers: Answers | None = None

    def merge(self, other: "LayerPart") -> "LayerPart":
        """Of the images of both."""
        return LayerPart(
            merged(self.top, other.top),
            _either(self.moments, other.moments),
            _either(self.answers, other.answers),
        )


@dataclass(frozen=True, eq=False)
class Part:
    """All layers on the images of some `ranges` (first, one past the last) of a data set.

    `images` were really seen; `skipped` names those that could not be read, with the reason.
    """

    ranges: tuple[Range, ...]
    images: int
    layers: dict[str, LayerPart]
    skipped: dict[str, str] = field(default_factory=dict)


def merged_parts(parts: Sequence[Part], *, spent: bool = False) -> Part:
    """One part of many. A range that is given twice counts once.

    Sums cannot tell whether an image was counted before, so ranges that overlap in part are
    refused. Parts that nobody needs any more are `spent`: of each layer then only one sum is held
    beside theirs, and they are empty afterwards.

    Raises RequestError for overlapping ranges, and where there is nothing to merge.
    """
    distinct = {part.ranges: part for part in parts}
    ordered = [distinct[ranges] for ranges in sorted(distinct)]
    if not ordered:
        raise RequestError("there is no part to merge: survey at least one image")
    spans = sorted(span for part in ordered for span in part.ranges)
    for (first, end), (start, stop) in pairwise(spans):
        if start < end:
            raise RequestError(
                f"images {start} to {min(end, stop)} were surveyed twice, in the ranges "
                f"{first}-{end} and {start}-{stop}: leave one of them out"
            )
    if not spent:
        ordered = [replace(part, layers=dict(part.layers)) for part in ordered]
    return reduce(_merged, ordered)


def _merged(one: Part, other: Part) -> Part:
    """Both, a layer at a time; it takes their layers from them."""
    return Part(
        tuple(sorted(one.ranges + other.ranges)),
        one.images + other.images,
        {name: one.layers.pop(name).merge(other.layers.pop(name)) for name in list(one.layers)},
        {**one.skipped, **other.skipped},
    )


def _either(one: Any, other: Any) -> Any:
    """Both together; None stands for what no image has been added to."""
    return one.merge(other) if one and other else one or other
