"""The small language: what prints is what is read back, and nothing else is ever evaluated."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from optogram.ascent import param, transform
from optogram.core import Activations, Network, Objective, Unit, parse
from optogram.core import objective as ask
from optogram.core.expression import VOCABULARY, say, spoken_as
from optogram.pictures.errors import RequestError


@pytest.fixture(scope="module")
def heard() -> Activations:
    """Two images, and what two layers of fixed numbers said about them."""
    made = torch.nn.Sequential()
    made.add_module("flatten", torch.nn.Flatten())
    made.add_module("fc", torch.nn.Linear(12, 5))
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(generator=chance)
    network = Network(made.double(), (1, 3, 4), labels=["a:b", "ü", "c@1", '"', "e\n"])
    return network.read(torch.rand(2, 1, 3, 4, generator=chance).double(), "fc", "output")


FACTORS = st.one_of(st.sampled_from([-3, 1, 2, 5, 0.1, 0.3, 1e-7, 3.5e5, 0.0]), st.floats(-4, 4))
LEAVES = st.one_of(
    st.sampled_from(
        [
            lambda: ask.total_variation(),
            lambda: ask.total_variation(0.1, boundary="zero"),
            lambda: ask.total_variation(delta=0),
            lambda: ask.total_variation(boundary="circular", beta=1.5),
            lambda: ask.norm(1),
            lambda: ask.norm(),
            lambda: ask.norm(math.inf),
            lambda: ask.alpha_norm(6, about=0.5),
            lambda: ask.activation("fc:3"),
            lambda: ask.activation(Unit("output", "ü"), pre=False),
            lambda: ask.activation(["output:a:b", Unit("output", "c@1")]),
            lambda: ask.activation(Unit("output", '"')),
            lambda: ask.activation(Unit("output", "e\n")),
            lambda: ask.probability("output:2"),
            lambda: ask.log_probability(["output:1", "fc:2"]),
            lambda: ask.others("fc:0"),
            lambda: ask.energy("fc"),
        ]
    )
)


def grown(smaller):
    return st.one_of(
        st.tuples(st.just("+"), smaller, smaller),
        st.tuples(st.just("-"), smaller, smaller),
        st.tuples(st.just("*"), FACTORS, smaller),
        st.tuples(st.just("r*"), smaller, FACTORS),
        st.tuples(st.just("/"), smaller, FACTORS.filter(lambda f: abs(f) > 1e-3)),
        st.tuples(st.just("neg"), smaller),
    )


TREES = st.recursive(LEAVES, grown, max_leaves=8)


def built(tree) -> Objective:
    if callable(tree):
        return tree()
    match tree:
        case ("+", a, b):
            return built(a) + built(b)
        case ("-", a, b):
            return built(a) - built(b)
        case ("*", factor, a):
            return factor * built(a)
        case ("r*", a, factor):
            return built(a) * factor
        case ("/", a, factor):
            return built(a) / factor
        case ("neg", a):
            return -built(a)
    raise AssertionError(tree)


def worth(tree, heard) -> torch.Tensor:
    """The value, by arithmetic on the leaves' numbers: what the tree says."""
    if callable(tree):
        return tree()(heard)
    match tree:
        case ("+", a, b):
            return worth(a, heard) + worth(b, heard)
        case ("-", a, b):
            return worth(a, heard) - worth(b, heard)
        case ("*", factor, a) | ("r*", a, factor):
            return factor * worth(a, heard)
        case ("/", a, factor):
            return worth(a, heard) / factor
        case ("neg", a):
            return -worth(a, heard)
    raise AssertionError(tree)


@given(tree=TREES)
@example(tree=("-", lambda: ask.norm(1), ("-", lambda: ask.norm(2), lambda: ask.norm(1))))
@example(tree=("*", 2, ("neg", ("+", lambda: ask.norm(1), lambda: ask.norm(2)))))
@example(tree=("/", ("/", lambda: ask.norm(1), 3), 7))
@example(tree=("neg", ("neg", lambda: ask.norm(1))))
@example(tree=("*", 0.1, ("*", 0.3, lambda: ask.norm(1))))
def test_an_objective_is_read_back_from_its_text_with_the_same_value(tree, heard):
    made = built(tree)
    again = parse(str(made))
    assert isinstance(again, Objective)
    scale = 1 + float(sum(abs(t.weight) * t.value(heard).abs().max() for t in made.terms))
    for found in (made(heard), again(heard)):
        torch.testing.assert_close(found, worth(tree, heard), rtol=1e-12, atol=1e-12 * scale)
    assert str(again) == str(made)
    assert again.layers == made.layers


@pytest.mark.parametrize(
    "text",
    [
        "0.032 * total_variation() + 0.0032 * norm(1)",
        'activation("fc:17") - 0.02 * total_variation(boundary="zero")',
        "2 * (norm(1) - norm(2)) / 3",
        "norm(1) - (norm(2) + norm(3))",
        "-norm(inf)",
        'pixels(start="uniform", box="sigmoid")',
        "pixels(shape=[1, 28, 28])",
        "sphere(9.2)",
        "compose(jitter(8), jitter(pixels=1))",
    ],
)
def test_what_was_written_is_what_prints(text):
    assert str(getattr(parse(text), "text", None)) == text


def test_lists_numbers_and_texts_are_read_as_such():
    assert parse("[jitter(1), jitter(2)]") == [transform.jitter(1), transform.jitter(2)]
    assert parse(" -2 * 3 + 0.5 ") == -5.5
    assert parse("'a'") == "a"
    assert parse("None") is None
    assert parse("[1, [2], {'a': True}]") == [1, [2], {"a": True}]


def test_numpys_numbers_print_as_numbers():
    assert str(np.float64(0.5).item() * ask.norm(np.float64(2.0))) == "0.5 * norm(2.0)"
    assert str(ask.norm(1) * np.float64(0.25)) == "0.25 * norm(1)"


HARM = [
    "__import__('os').system('true')",
    "__import__('os')",
    "os.getcwd()",
    "norm.__globals__",
    "norm(1).terms",
    "norm",
    "torch",
    "(lambda: 1)()",
    "lambda: 1",
    "[x for x in [1]]",
    "{x for x in [1]}",
    "(x for x in [1])",
    "{1, 2}",
    "9**9**9**9",
    "2**2",
    "1 << 40",
    "7 // 2",
    "7 % 2",
    "not 1",
    "~1",
    "+1",
    "1 if 1 else 2",
    "1 < 2",
    "1 and 2",
    "f'{1}'",
    "b'a'",
    "1j",
    "...",
    "[1][0]",
    "(y := 1)",
    "exec('1')",
    "eval('1')",
    "open('/etc/passwd')",
    "norm(*[1])",
    "norm(**{'p': 1})",
    "{**{'a': 1}}",
    "norm(1)(2)",
    "norm(q=1)",
    "norm(1, 2, 3)",
    "norm(1) + 1",
    "norm(1) * norm(2)",
    "2 / norm(1)",
    "1 / 0",
    "norm(1) / 0",
    "inf * norm(1)",
    "'a' * 9999999999",
    "9999999999 * [1]",
    "[1] + [2]",
    "{[1]: 2}",
    "",
    "   ",
    "norm(1",
    "1; 2",
    "import os",
    "a = 1",
    "norm(1)\nnorm(2)",
    "\0",
    "1" + "+1" * 5000,
    "-" * 5000 + "1",
    "(" * 5000 + "1" + ")" * 5000,
    "[" * 300 + "]" * 300,
    "9" * 5000,
    "energee('fc')",
]


@pytest.mark.parametrize("text", HARM, ids=lambda text: repr(text[:30]))
def test_what_is_not_in_the_language_is_refused_in_one_sentence(text):
    with pytest.raises(RequestError) as refusal:
        parse(text)
    said = str(refusal.value)
    assert "\n" not in said
    assert len(said) < 700


def test_an_unknown_word_is_answered_with_the_nearest():
    with pytest.raises(RequestError, match="there is total_variation"):
        parse("total_variaton()")


def test_every_word_of_the_language_can_be_called_by_nothing_but_its_name():
    assert {"norm", "pixels", "sphere", "jitter", "activation", "total_variation"} <= set(
        VOCABULARY
    )
    assert not any(word.startswith("_") for word in VOCABULARY)


def test_a_kind_is_asked_for_by_name():
    assert isinstance(spoken_as(Objective, "norm(1)"), Objective)
    assert spoken_as(Objective, None) is None
    made = param.sphere(2.0)
    assert spoken_as(param.Sphere, made) is made
    with pytest.raises(RequestError, match="is no Objective: it is a Sphere"):
        spoken_as(Objective, "sphere(2)")


def test_values_are_said_so_that_they_are_read_back():
    for value in [True, None, 3, -0.25, 1e-12, "ü\n\"'", [1, "a"], {"a": [1, 2]}, math.inf]:
        assert parse(say(value)) == value


def test_an_image_is_said_by_its_source_or_by_its_shape():
    picture = torch.zeros(1, 2, 3)
    assert say(picture) == "<tensor (1, 2, 3)>"
    picture.source = "dog.png"  # type: ignore[attr-defined]
    assert say(picture) == 'image("dog.png")'
