"""One address for a unit everywhere: in Python, in a URL, in a file name, in a recipe."""

import re
import string

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from optogram.core import Direction, Unit, unit
from optogram.core.unit import units
from optogram.pictures.errors import RequestError

# Everything that UTF-8 can write, and more often than chance would have it what carries meaning.
TEXTS = st.text(
    st.one_of(st.sampled_from(":@%#=,./\\ \t0123456789ä漢"), st.characters(codec="utf-8")),
    min_size=1,
    max_size=12,
)
LABELS = TEXTS.filter(lambda text: not re.fullmatch("[0-9]+", text))
PLACES = st.one_of(
    st.none(),
    st.just("strongest"),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=3).map(tuple),
)


@st.composite
def addressed(draw) -> tuple:
    """A layer, an index and a place; the unit itself is built in the test, where it is checked."""
    index = draw(st.one_of(st.none(), st.integers(0, 10**9), LABELS))
    return draw(TEXTS), index, draw(PLACES) if index is not None else None


@given(addressed())
@example(("features.0", 17, (3, 5)))
@example(("a:b@c%d#2", "x@strongest", "strongest"))
@example(("layer", "7@3,5", None))
@example((".", "..", None))
@example(("%41", "%3a", None))
@example(("=", "=", (0,)))
def test_a_unit_is_what_its_address_its_url_and_its_file_name_say(parts):
    asked = Unit(*parts)
    assert unit(str(asked)) == asked
    assert Unit.from_url(asked.url) == asked
    assert Unit.from_filename(asked.filename) == asked


@given(addressed(), addressed())
@example(("a", "b:c", None), ("a:b", "c", None))
@example(("a=b", None, None), ("a", "b", None))
@example(("a", 1, "strongest"), ("a", "1@strongest", None))
def test_different_units_have_different_file_names(one, other):
    first, second = Unit(*one), Unit(*other)
    assert (first.filename == second.filename) == (first == second)
    assert (str(first) == str(second)) == (first == second)


@given(addressed())
def test_a_url_and_a_file_name_hold_only_characters_that_are_safe_there(parts):
    asked = Unit(*parts)
    assert set(asked.url) <= set(string.ascii_letters + string.digits + "-._~%")
    assert set(asked.filename) <= set(string.ascii_letters + string.digits + "-._~%@,# ()'+=")
    assert not asked.filename.startswith(".")


@given(addressed())
def test_an_address_is_printable(parts):
    assert str(Unit(*parts)).isprintable()


@pytest.mark.parametrize(
    ("text", "layer", "index", "place"),
    [
        ("fc7", "fc7", None, None),
        ("fc7:17", "fc7", 17, None),
        ("fc7:007", "fc7", 7, None),
        ("relu#2:17@3,5", "relu#2", 17, (3, 5)),
        ("tokens:17@4", "tokens", 17, (4,)),
        ("relu:17@strongest", "relu", 17, "strongest"),
        ("output:Pomeranian", "output", "Pomeranian", None),
        (
            "output:black-and-tan coonhound@strongest",
            "output",
            "black-and-tan coonhound",
            "strongest",
        ),
        ("output:a:b", "output", "a:b", None),
        ("output:who@home", "output", "who@home", None),
        ("a%3Ab:1", "a:b", 1, None),
        ("output:٣", "output", "٣", None),
    ],
)
def test_an_address_reads_as_it_looks(text, layer, index, place):
    assert unit(text) == Unit(layer, index, place)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "a unit's address starts with a layer"),
        (":3", "a unit's address starts with a layer"),
        ("fc7:", "ends after the colon: write a number or a label, as in 'fc7:17'"),
        ("fc7:17@", "neither 'strongest' nor row,column"),
        ("fc7:17@3;5", "neither 'strongest' nor row,column"),
        ("fc7:17@3,", "neither 'strongest' nor row,column"),
        ("fc7:17@weakest", "neither 'strongest' nor row,column"),
        ("fc7:17@-1,2", "neither 'strongest' nor row,column"),
        ("fc7:" + "9" * 5000, "reads as a number"),
        ("fc7:%35", "reads as a number"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(RequestError, match=sentence) as refusal:
        unit(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Unit(""), "starts with a layer"),
        (lambda: Unit("fc7", "12"), "reads as a number; address it by its index"),
        (lambda: Unit("fc7", ""), "reads as a number"),
        (lambda: Unit("fc7", -1), "numbers start at 0"),
        (lambda: Unit("fc7", None, (1, 2)), "a place needs a unit, as in 'fc7:17@3,5'"),
        (lambda: Unit("fc7", 1, ()), "an empty place"),
        (lambda: Unit("fc7", 1, (-1, 2)), "numbers start at 0"),
        (lambda: Direction("fc7", torch.zeros(3)), "zero or not finite"),
        (lambda: Direction("fc7", torch.tensor([1.0, torch.nan])), "zero or not finite"),
    ],
)
def test_a_unit_that_cannot_be_is_refused(make, sentence):
    with pytest.raises(RequestError, match=sentence):
        make()


def test_one_address_or_several_become_units():
    direction = Direction("fc7", torch.tensor([1.0, 2.0]))
    assert units("fc7:1") == (Unit("fc7", 1),)
    assert units(Unit("fc7", 1)) == (Unit("fc7", 1),)
    assert units(direction) == (direction,)
    assert units(["fc7:1", Unit("fc7", 2), direction]) == (
        Unit("fc7", 1),
        Unit("fc7", 2),
        direction,
    )
    assert units(()) == ()


def test_a_direction_is_a_float32_vector_of_its_own_with_a_name():
    direction = Direction("fc:7", torch.tensor([1.0, 2.0], dtype=torch.float64), "age", (3, 5))
    assert direction.vector.dtype == torch.float32
    assert direction.vector.tolist() == [1.0, 2.0]
    assert str(direction) == "fc%3A7:<age>@3,5"
    assert direction.index is None


def test_a_unit_can_be_a_key():
    assert {Unit("a", 1): "x"}[unit("a:1")] == "x"
