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
    `moved` says whether the image is another than at the start, `late` is the share of what was
    gained that the last tenth of the steps brought, `extreme` the share of the picture's numbers
    that are at an end of their range.
    """

    score: float
    start: float
    best_in_data: float | None
    gradient_norm: float
    switchable: bool
    reached: float | None = None
    moved: bool = True
    late: float = 0.0
    extreme: float = 0.0


RISING = 0.05  # of all that was gained, in the last tenth of the steps: it goes on
FAR, ENDS = 0.1, 0.5  # this share of the data's strongest, with so many numbers at their ends


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


def likely_cause(evidence: Evidence) -> str | None:
    """Why a verdict is not "excited", in a few words; None where it is.

    "dead"; "no gradient" (saturated, or cut off by dead ReLUs); "nothing moved" (a step of size 0,
    or none); "not finite"; "too few steps" (it was still rising); "wrong input range" (most numbers
    are at an end of [0, 1] and the data reached ten times as much, so that theirs had another
    range); "saturated" (most numbers are at an end, or it no longer rose); "fell" (too large a step
    or too strong a regulariser).
    """
    verdict = judge(evidence)
    if verdict in ("excited", "dead"):
        return None if verdict == "excited" else "off whatever was tried"
    if not math.isfinite(evidence.score):
        return "not finite"
    if evidence.gradient_norm == 0:
        return "no gradient"
    if not evidence.moved:
        return "nothing moved"
    if verdict == "failed":
        return "off" if evidence.score > evidence.start else "fell"
    if evidence.late > RISING:
        return "too few steps"
    reached = evidence.score if evidence.reached is None else evidence.reached
    best = evidence.best_in_data
    if best is not None and best > 0 and reached < FAR * best and evidence.extreme > ENDS:
        return "wrong input range"
    return "saturated"
