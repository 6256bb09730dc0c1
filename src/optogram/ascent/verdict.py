"""Whether a made picture should be believed: how its score compares, and how it was reached."""

import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["excited", "below data", "failed", "dead"]


@dataclass(frozen=True)
class Evidence:
    """What an ascent leaves behind for the judge.

    `score` and `start` are the target's value on the final and the first image, `best_in_data` the
    strongest that a data set reached (None where none was shown), `gradient_norm` the largest
    length of the gradient on the way, `switchable` whether the unit is off at values of 0 and
    below, as every unit that feeds a ReLU is. `reached` is what compares with the data where that
    is not `score`: a channel's strongest place, where its score is the mean over all places.
    """

    score: float
    start: float
    best_in_data: float | None
    gradient_norm: float
    switchable: bool
    reached: float | None = None


def judge(evidence: Evidence) -> Verdict:
    """A word for how an ascent ended (METHODS C2).

    "dead": a unit that is off on all data and stayed off. "failed": nothing rose, or nothing finite
    came of it. "below data": some image of the data excites the unit more, so this is not yet its
    picture. "excited": at least as strong as anything in the data; where no data was shown, it rose
    (and is on).
    """
    if not math.isfinite(evidence.score):
        return "failed"
    off = evidence.switchable and evidence.score <= 0
    best = evidence.best_in_data
    if off and (evidence.gradient_norm == 0 or (best is not None and best <= 0)):
        return "dead"
    reached = evidence.score if evidence.reached is None else evidence.reached
    if not evidence.score > evidence.start and not (best is not None and reached >= best):
        return "failed"
    if best is None:
        return "failed" if off else "excited"
    return "excited" if reached >= best else "below data"
