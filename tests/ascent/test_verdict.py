"""A word for how an ascent ended."""

import math

import pytest

from optogram.ascent import judge
from optogram.ascent.verdict import Evidence, likely_cause


@pytest.mark.parametrize(
    ("score", "start", "best", "gradient", "switchable", "verdict"),
    [
        (5.0, 1.0, 4.0, 1.0, True, "excited"),
        (4.0, 1.0, 4.0, 1.0, True, "excited"),
        (3.9, 1.0, 4.0, 1.0, True, "below data"),
        (5.0, 1.0, None, 1.0, True, "excited"),
        (5.0, 5.0, 4.0, 0.0, True, "excited"),  # it began as strong as the data
        (1.0, 1.0, 4.0, 0.0, True, "failed"),  # nothing moved
        (1.0, 1.0, None, 0.0, False, "failed"),
        (0.5, 1.0, None, 1.0, False, "failed"),  # it fell
        (0.5, 1.0, 4.0, 1.0, True, "failed"),
        (-3.0, -9.0, None, 1.0, True, "failed"),  # it rose, and is off still
        (-3.0, -9.0, 4.0, 1.0, True, "below data"),
        (-3.0, -9.0, -1.0, 1.0, True, "dead"),  # off on all data, and here
        (0.0, 0.0, -1.0, 1.0, True, "dead"),
        (-3.0, -3.0, None, 0.0, True, "dead"),  # nothing about the image matters to it
        (0.5, -3.0, -1.0, 1.0, True, "excited"),  # off on all data, and yet it can be reached
        (-3.0, -9.0, None, 1.0, False, "excited"),  # a logit may be negative
        (-3.0, -9.0, -4.0, 1.0, False, "excited"),
        (-5.0, -9.0, -4.0, 1.0, False, "below data"),
        (math.nan, 0.0, 4.0, 1.0, True, "failed"),
        (math.inf, 0.0, 4.0, 1.0, True, "failed"),
        (5.0, math.nan, None, 1.0, True, "failed"),
    ],
)
def test_a_verdict_follows_from_the_evidence(score, start, best, gradient, switchable, verdict):
    assert judge(Evidence(score, start, best, gradient, switchable)) == verdict


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (Evidence(5.0, 1.0, 4.0, 1.0, True, late=0.5, extreme=1.0), None),
        (Evidence(-3.0, -9.0, -1.0, 1.0, True), "off whatever was tried"),
        (Evidence(math.nan, 0.0, 4.0, 1.0, True), "not finite"),
        (Evidence(1.0, 1.0, 4.0, 0.0, True, moved=False), "no gradient"),
        (Evidence(1.0, 1.0, 4.0, 1.0, True, moved=False), "nothing moved"),
        (Evidence(0.5, 1.0, 4.0, 1.0, True), "fell"),
        (Evidence(-3.0, -9.0, None, 1.0, True), "off"),
        (Evidence(3.0, 1.0, 100.0, 1.0, True, late=0.01, extreme=0.9), "wrong input range"),
        (Evidence(3.0, 1.0, 100.0, 1.0, True, late=0.2, extreme=0.9), "too few steps"),
        (Evidence(3.0, 1.0, 100.0, 1.0, True, late=0.2, extreme=0.1), "too few steps"),
        (Evidence(3.0, 1.0, 4.0, 1.0, True, late=0.2, extreme=0.9), "too few steps"),
        (Evidence(3.0, 1.0, 4.0, 1.0, True, late=0.0, extreme=0.9), "saturated"),
        (Evidence(-5.0, -9.0, -4.0, 1.0, False, late=0.0, extreme=0.9), "saturated"),
    ],
)
def test_a_cause_follows_from_the_evidence(evidence, cause):
    assert likely_cause(evidence) == cause
