"""Colours against matplotlib's own maps, and what must never be bright."""

import matplotlib
import numpy as np
import pytest
import torch

from optogram.pictures import RequestError
from optogram.pictures.colour import BELOW_FLOOR, colour_bar, limit_of, magnitude, signed

NOTHING = np.array(BELOW_FLOOR)


def oracle(name: str, shares: np.ndarray) -> np.ndarray:
    return matplotlib.colormaps[name](shares)[..., :3] * 255


def test_magnitudes_have_the_colours_of_magma():
    values = np.linspace(0, 5, 256)[None]  # matplotlib has 256 steps
    assert np.abs(magnitude(values, 5.0) - oracle("magma", values / 5)).max() <= 3


def test_signed_values_have_the_colours_of_rdbu_reversed():
    values = np.linspace(-5, 5, 256)[None]
    assert np.abs(signed(values, 5.0) - oracle("RdBu_r", values / 10 + 0.5)).max() <= 3


def test_the_sign_of_a_magnitude_does_not_count():
    values = np.linspace(-3, 3, 50)[None]
    assert (magnitude(values) == magnitude(-values)).all()


def test_zero_is_the_middle_of_a_signed_map_however_lopsided_the_values():
    colours = signed(np.array([[0.0, 10.0, -0.1]]))
    assert colours[0, 0].tolist() == [0xF7, 0xF7, 0xF7]


def test_one_pixel_of_thousands_does_not_decide_the_scale():
    values = np.zeros((300, 300))
    values[:100] = np.linspace(0.001, 1, 30_000).reshape(100, 300)
    values[200, 200] = 1e6
    assert limit_of(values) == pytest.approx(0.995, abs=1e-3)  # of the values that are not 0
    few = np.linspace(0, 1, 200)
    assert limit_of(few) == 1.0


def test_the_limit_is_where_the_colours_end():
    values = np.array([[1.0, 2.0, 4.0, np.inf]])
    colours = magnitude(values, 2.0)[0]
    assert (colours[1] == colours[2]).all()
    assert (colours[1] == colours[3]).all()
    assert (colours[0] != colours[1]).any()
    assert limit_of(values) == 4.0


def test_two_maps_with_one_limit_keep_their_proportion():
    weak, strong = magnitude(np.array([[0.1]]), 1.0), magnitude(np.array([[1.0]]), 1.0)
    assert strong.sum() > 5 * weak.sum()


def test_values_under_the_floor_are_grey():
    colours = signed(np.array([[0.5, -0.5, 2.0, -2.0]]), 2.0, floor=1.0)[0]
    assert (colours[:2] == NOTHING).all()
    assert (colours[2:] != NOTHING).any(axis=1).all()


@pytest.mark.parametrize("paint", [signed, magnitude])
def test_a_map_a_million_times_weaker_is_drawn_as_below_the_floor(paint):
    values = np.random.default_rng(0).normal(size=(8, 8))
    assert (paint(values * 1e-6, floor=1e-3) == NOTHING).all()


@pytest.mark.parametrize("paint", [signed, magnitude])
@pytest.mark.parametrize("limit", [None, 1.0])
def test_a_map_of_zeros_is_drawn_as_nothing(paint, limit):
    assert (paint(np.zeros((3, 4)), limit) == NOTHING).all()


def test_what_is_no_number_is_drawn_as_nothing():
    colours = signed(np.array([[np.nan, 1.0]]))[0]
    assert (colours[0] == NOTHING).all()
    assert (colours[1] != NOTHING).any()
    assert limit_of(np.array([np.nan])) == 0


def test_tensors_and_arrays_have_the_same_colours():
    values = torch.randn(4, 5, requires_grad=True)
    assert (signed(values) == signed(values.detach().numpy())).all()


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(RequestError, match="limit"):
        signed(np.ones((2, 2)), limit)


def test_a_map_has_two_axes():
    with pytest.raises(RequestError, match="rows, columns"):
        signed(np.ones((2, 2, 3)))


def test_the_bar_shows_the_same_colours_as_the_map():
    bar = np.asarray(colour_bar(2.0, 201, floor=0.5))[5, 1:-1]
    ramp = np.linspace(-2, 2, 201)[None, 1:-1]
    assert (bar == signed(ramp, 2.0, 0.5)[0]).all()


def test_the_bar_of_nothing_is_grey():
    assert (np.asarray(colour_bar(0.0, 100))[5, 1:-1] == NOTHING).all()


def test_the_unit_and_limits_are_written_under_the_bar():
    plain, named = (np.asarray(colour_bar(1.0, 200, unit=unit)) for unit in ("", "probability"))
    assert (plain != named).any()
    assert (np.asarray(colour_bar(1.0, 200))[12:] != np.asarray(colour_bar(2.0, 200))[12:]).any()
