"""What an image is looked through: shifts even in every direction, undone on the way back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optogram.ascent import transform
from optogram.ascent.transform import drawn, shifted
from optogram.core import Streams, parse
from optogram.pictures.errors import RequestError


def images(count: int, height: int, width: int) -> torch.Tensor:
    numbers = torch.arange(count * 2 * height * width, dtype=torch.float64)
    return numbers.view(count, 2, height, width)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(-9, 9), st.integers(-9, 9))
def test_a_shift_moves_down_and_right_and_wraps_around(height, width, down, right):
    x = images(2, height, width)
    moved = shifted(x, torch.tensor([[down, right], [0, 0]]))
    assert torch.equal(moved[0], x[0].roll((down, right), (1, 2)))
    assert torch.equal(moved[1], x[1])
    for i in range(height):
        for j in range(width):
            assert torch.equal(moved[0, :, (i + down) % height, (j + right) % width], x[0, :, i, j])


def test_the_gradient_of_a_shift_is_the_shift_back():
    x = images(3, 4, 5).requires_grad_()
    shifts = torch.tensor([[1, -2], [0, 0], [-3, 4]])
    weights = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((shifted(x, shifts) * weights).sum(), x)
    for row, (down, right) in enumerate(shifts.tolist()):
        assert torch.equal(gradient[row], weights[row].roll((-down, -right), (1, 2)))
    assert torch.autograd.gradcheck(lambda x: shifted(x, shifts), x)


def test_jitter_is_even_over_all_shifts_in_both_directions():
    jitter, counts = transform.jitter(2), torch.zeros(5, 5)
    streams = Streams(0, tuple(map(str, range(500))))
    x = torch.zeros(500, 1, 7, 7)
    x[:, 0, 3, 3] = 1
    for step in range(10):
        counts += jitter.at(streams, step)(x).sum((0, 1))[1:6, 1:6]
    assert counts.sum() == 5000  # nothing further than two pixels
    chi_square = float(((counts - 200).square() / 200).sum())
    assert chi_square < 60  # 24 degrees of freedom: about 1 in 10,000
    assert counts.min() > 150


def test_each_image_is_moved_by_its_own_stream():
    jitter = transform.jitter(3)
    x = images(1, 9, 9)
    for step in (0, 7):
        together = jitter.at(Streams(5, ("a", "b", "c")), step)(x.expand(3, -1, -1, -1))
        for row, owner in enumerate("abc"):
            alone = jitter.at(Streams(5, (owner,)), step)(x)
            assert torch.equal(together[row : row + 1], alone)
    steps = [jitter.at(Streams(5, ("a",)), step)(x) for step in range(20)]
    assert len({tuple(s.flatten().tolist()) for s in steps}) > 10


def test_no_jitter_is_no_change():
    x = images(2, 3, 3)
    assert torch.equal(transform.jitter(0).at(Streams(0, ("a", "b")), 4)(x), x)


def test_transforms_are_taken_one_after_another_the_first_one_first():
    double, more = (lambda x: x * 2), (lambda x: x + 1)
    x = images(1, 2, 2)
    streams = Streams(0, ("a",))
    assert torch.equal(drawn([double, more], streams, 0)(x), x * 2 + 1)
    assert torch.equal(drawn([more, double], streams, 0)(x), (x + 1) * 2)
    assert torch.equal(drawn([], streams, 0)(x), x)
    composed = transform.compose(double, transform.jitter(1), more)
    expected = transform.jitter(1).at(streams, 3)(x * 2) + 1
    assert torch.equal(drawn([composed], streams, 3)(x), expected)


def test_transforms_print_as_the_calls_that_make_them():
    text = "compose(jitter(8), jitter(1))"
    assert parse(text).text == text
    assert parse("[jitter(2)]") == [transform.jitter(2)]


@pytest.mark.parametrize("pixels", [-1, 1.5])
def test_jitter_is_by_whole_pixels(pixels):
    with pytest.raises(
        (RequestError, TypeError), match=r"a whole number of pixels|parameter 'pixels'"
    ):
        transform.jitter(pixels)
