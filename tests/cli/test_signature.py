"""A signature and a docstring become a command; what is typed arrives as Python would have it."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import click
import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import optogram as og
from optogram.cli.signature import command_of, described, slot
from optogram.core.technique import techniques
from optogram.core.unit import Targetlike
from optogram.pictures import RequestError

Image = Float[Tensor, "channel height width"] | Float[Tensor, "batch channel height width"]
Masks = Bool[Tensor, "mask height width"]
EMPTY = inspect.Parameter.empty


def parameter(annotation: Any, name: str = "it", default: Any = None, option: bool = True):
    kind = inspect.Parameter.KEYWORD_ONLY if option else inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


@pytest.fixture
def arrives(grey):
    """`arrives(annotation, words...)` is what the technique is given when somebody types these."""

    def run(annotation: Any, *words: str) -> Any:
        made = slot(parameter(annotation), "help")
        context = click.Command("c", params=[made.parameter]).make_context("c", list(words))
        typed = context.params["it"]
        return None if typed is None else made.read(typed, og.load(grey))

    return run


@pytest.mark.parametrize(
    ("annotation", "words", "value"),
    [
        (int, ["--it", "3"], 3),
        (int | None, ["--it", "-3"], -3),
        (float, ["--it", "1e-3"], 0.001),
        (int | float, ["--it", "2"], 2.0),
        (str, ["--it", "2"], "2"),
        (str | None, ["--it", "None"], None),
        (bool, ["--it"], True),
        (bool, ["--no-it"], False),
        (bool | None, [], None),
        (Literal["a", "b"], ["--it", "b"], "b"),
        (Literal[1, 2] | None, ["--it", "2"], 2),
        (float | str, ["--it", "0.5"], 0.5),
        (float | str, ["--it", "mean"], "mean"),
        (float | str | Sequence[float] | Tensor, ["--it", "0.1,0.2,0.3"], (0.1, 0.2, 0.3)),
        (int | tuple[int, int] | list[int] | None, ["--it", "4"], 4),
        (int | tuple[int, int] | list[int] | None, ["--it", "4,5"], (4, 5)),
        (int | tuple[int, int] | list[int] | None, ["--it", "[4,5]"], [4, 5]),
        (int | tuple[int, int] | None, ["--it", "none"], None),
        (Sequence[str], ["--it", "a, b"], ["a", "b"]),
        (Targetlike | None, ["--it", "fc:3"], "fc:3"),
        (Targetlike, ["--it", "3"], "3"),
    ],
)
def test_what_is_typed_arrives_as_what_the_annotation_says(arrives, annotation, words, value):
    arrived = arrives(annotation, *words)
    assert (arrived, type(arrived)) == (value, type(value))


def test_an_expression_arrives_as_what_it_says(arrives):
    assert arrives(Sequence[Any], "--it", "[jitter(2)]") == [og.transform.jitter(2)]


@pytest.mark.parametrize(
    ("name", "annotation", "metavar", "nargs"),
    [
        ("image", Image, "IMAGE", 1),
        ("picture", Float[Tensor, "channel height width"], "IMAGE", 1),
        ("unit", Targetlike, "UNIT", 1),
        ("unit", Targetlike | Sequence[Targetlike], "UNIT...", -1),
        ("layer", str, "LAYER", 1),
        ("style", str, "STYLE", 1),
    ],
)
def test_what_stands_without_a_name_is_called_by_what_it_is(name, annotation, metavar, nargs):
    made = slot(parameter(annotation, name, EMPTY, option=False), "").parameter
    assert (made.metavar, made.nargs, made.required) == (metavar, nargs, True)


def test_where_one_unit_is_meant_several_are_refused(grey):
    read = slot(parameter(Targetlike, "unit", EMPTY, option=False), "").read
    assert read("0:3-3", og.load(grey)) == "0:3"
    with pytest.raises(RequestError, match="names 4 units and this takes one"):
        read("0", og.load(grey))


def test_an_image_can_be_an_option():
    assert slot(parameter(Image | None), "").parameter.metavar == "IMAGE"


def test_what_is_called_an_image_is_one_whatever_its_annotation():
    for annotation in (Tensor, EMPTY):
        made = slot(parameter(annotation, "image", EMPTY, option=False), "").parameter
        assert made.metavar == "IMAGE"


@pytest.mark.parametrize("text", ["big", "jitter(1)", "'8'", "{1: 2}", ""])
def test_what_should_be_numbers_is_refused_in_a_sentence(arrives, text):
    with pytest.raises(RequestError, match="is no number: write 8"):
        arrives(int | tuple[int, int] | list[tuple[int, int]] | None, "--it", text)


def test_what_nobody_can_type_is_no_option():
    assert slot(parameter(Masks | None), "") is None


def test_a_docstring_is_divided_into_what_it_says():
    about, arguments = described(
        inspect.cleandoc("""Make it (Who, 1999).

    It is `made`: slowly.

    Args:
        network: who is asked.
        mean, std: what the images
            have: a number each.
        last: the end.

    Returns:
        nothing: at all.

    Raises RequestError.
    """)
    )
    assert about == "Make it (Who, 1999).\n\nIt is `made`: slowly."
    assert arguments == {
        "network": "who is asked.",
        "mean": "what the images have: a number each.",
        "std": "what the images have: a number each.",
        "last": "the end.",
    }


def test_a_docstring_without_arguments_ends_before_its_returns():
    assert described("Do it.\n\nReturns:\n    it.") == ("Do it.", {})


@pytest.mark.parametrize("name", list(techniques()))
def test_every_technique_is_a_command_with_all_its_options_explained(optogram, name):
    technique = techniques()[name]
    page = optogram(name.replace("_", "-"), "--help").stdout
    for option, about in technique.options.items():
        if option == "seed" or "mask height" in str(about.annotation) or option == "masks":
            continue
        shown = f"--{option.replace('_', '-')}"
        assert shown in page
        made = next(p for p in command_of(name).params if p.name == option)
        assert made.help, f"{name} does not explain {option}"
    assert technique.summary.split()[0] in page


def test_defaults_are_shown_and_left_to_the_technique(optogram, printed, grey):
    page = " ".join(optogram("filters", "--help").stdout.split())
    assert "[default: 64]" in page
    recipe = printed("filters", grey, "0", "--batch", 2)["recipe"]["arguments"]
    assert recipe["constraint"] == techniques()["filters"].options["constraint"].default
    assert recipe["batch"] == 2


def test_one_unit_makes_a_picture_and_several_a_sheet(printed, grey):
    assert [len(printed("maximize", grey, *u, "--steps", 0)["results"]) for u in ONE_AND_MORE] == [
        1,
        1,
        2,
        4,
        7,
        3,
    ]


ONE_AND_MORE = [
    ["0:1"],
    ["output:red panda"],
    ["0:1", "output:2"],
    ["0"],
    ["0", "output"],
    ["0:1-3"],
]


def test_what_is_typed_equals_what_is_written_in_python(printed, grey, image):
    network = og.load(grey)
    typed = printed("saliency", grey, image, "output:dog", "0:3@2,2", "--signed")
    written = og.saliency(network, og.image(image), ["output:1", "0:3@2,2"], signed=True)
    assert [row["score"] for row in typed["results"]] == [item.score for item in written]
    assert typed["recipe"]["result"] == written.recipe["result"]


def test_a_seed_is_taken_by_techniques_that_draw_nothing(printed, grey):
    assert "seed" not in printed("filters", grey, "0", "--seed", 5)["recipe"]["arguments"]


def test_a_seed_reaches_a_technique_that_draws(printed, grey):
    words = ("maximize", grey, "0:0", "--param", 'pixels(start="uniform")', "--steps", 1)
    seeds = [printed(*words, "--seed", seed)["recipe"] for seed in (0, 7, 7)]
    assert [recipe["arguments"]["seed"] for recipe in seeds] == [0, 7, 7]
    assert seeds[0]["result"] != seeds[1]["result"] == seeds[2]["result"]


def test_text_in_the_language_of_objectives_reaches_the_technique(printed, grey):
    words = ("maximize", grey, "0:0", "--steps", 2, "--regularizer")
    assert printed(*words, "0.1 * norm(1)")["recipe"]["arguments"]["regularizer"] == "0.1 * norm(1)"
    assert printed(*words, "none")["recipe"]["arguments"]["regularizer"] is None


def test_the_device_is_where_it_runs(printed, grey, device):
    words = ("maximize", grey, "0:0", "--steps", 2, "--device", device)
    assert printed(*words)["results"][0]["unit"] == "0:0"


def test_weights_are_those_of_the_file(printed, colour, tmp_path):
    from safetensors.torch import save_file

    weights = {"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    save_file(weights, tmp_path / "w.safetensors")
    made = printed("maximize", colour, "0:2", "--weights", "w.safetensors", "--steps", 0)
    assert made["results"][0]["score"] == 3.0


def test_verbose_tells_what_was_planned_and_only_then(optogram, grey, image):
    words = ("occlusion", grey, image, "output:dog", "--patch", 2, "--json")
    before, told, after = optogram(*words), optogram(*words, "--verbose"), optogram(*words)
    assert told.exit_code == 0
    assert "occluders in" in told.stderr
    assert "occluders in" not in before.stderr + after.stderr
