"""Numbers and letters in pictures are short, and no line is wider than its place."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optogram.pictures.lettering import brief, fitted, font, wrapped


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(4.8213, "4.82"), (-0.0031, "-0.0031"), (1.2e-7, "1.2e-7"), (1250.0, "1250"), (0.0, "0")],
        *[(123456.0, "123456"), (2.5e9, "2.5e9"), (-1e-12, "-1e-12"), (float("nan"), "nan")],
    ],
)
def test_a_number_in_few_letters(value, text):
    assert brief(value) == text


@given(value=st.floats(-1e300, 1e300), digits=st.integers(2, 6))
def test_a_short_number_is_the_number(value, digits):
    assert math.isclose(float(brief(value, digits)), value, rel_tol=10.0 ** (1 - digits))


@given(text=st.text(max_size=60), width=st.integers(0, 300), size=st.sampled_from([10, 12, 14]))
def test_no_line_is_wider_than_its_place(text, width, size):
    assert font(size).getlength(fitted(text, width, size)) <= width
    assert all(font(size).getlength(line) <= width for line in wrapped(text, width, size))


def test_what_does_not_fit_keeps_both_ends():
    text = fitted("features.denseblock4.denselayer32.conv2:1023", 120, 12)
    assert text.startswith("feat")
    assert text.endswith(":1023")
    assert "…" in text


@given(words=st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), max_size=20))
def test_breaking_lines_loses_no_word(words):
    assert " ".join(wrapped(" ".join(words), 120, 12)).split() == words
