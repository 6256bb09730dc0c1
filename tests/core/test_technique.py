"""One signature, from which recipe, command, form and documentation follow."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from optogram.ascent import param
from optogram.core import Direction, Network, Unit, technique, techniques
from optogram.core import objective as ask
from optogram.core import rules as known_rules
from optogram.core.technique import call, encode
from optogram.pictures import Attribution, Picture, Sheet, digest
from optogram.pictures.errors import RequestError
from optogram.version import __version__
from optogram.zoo.tiny import tiny

HOME = sys.modules["optogram.core.technique"]  # the room exports a function of the same name


def drawn(network: Network, unit: str, *, shade: float = 0.5, rule: object = None) -> Picture:
    """Draw a grey picture.

    A second paragraph, which no summary shows.
    """
    return Picture(torch.full((1, 2, 2), shade), str(unit), shade, torch.zeros(0))


def mapped(network: Network, image: Tensor, unit: object, *, times: int = 1) -> Attribution | Sheet:
    """Map each image onto itself."""
    images = image if image.dim() == 4 else image[None]
    wanted = unit if isinstance(unit, list) else [unit] * len(images)
    maps = [
        Attribution(
            times * images[i % len(images)][0], images[i % len(images)], str(wanted[i]), 0.0
        )
        for i in range(len(wanted))
    ]
    return Sheet(tuple(maps)) if len(maps) > 1 else maps[0]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests make known is unknown after them."""
    techniques()
    monkeypatch.setattr(HOME, "_REGISTRY", dict(HOME._REGISTRY))
    monkeypatch.setattr(HOME, "_WRAPPED", dict(HOME._WRAPPED))


def test_the_entry_point_makes_our_techniques_known():
    assert {"maximize", "filters", "saliency"} <= set(techniques())
    assert list(techniques()) == sorted(techniques())


def test_a_marked_function_is_known_by_name_and_works_as_before():
    made = technique(drawn)
    assert techniques()["drawn"].function is drawn
    assert made.__doc__ == drawn.__doc__
    assert made.__name__ == "drawn"
    assert made(tiny(), "conv:0").score == 0.5
    assert call("drawn", network=tiny(), unit="conv:0", shade=0.25).score == 0.25


def test_the_signature_says_what_a_form_needs():
    technique(drawn)
    known = techniques()["drawn"]
    assert known.summary == "Draw a grey picture."
    assert list(known.options) == ["shade", "rule"]
    assert known.options["shade"].default == 0.5
    assert list(known.signature.parameters) == ["network", "unit", "shade", "rule"]


def test_a_recipe_names_every_argument_defaults_too():
    network = tiny()
    recipe = technique(drawn)(network, "conv:0", rule=known_rules.guided).recipe
    assert recipe["optogram"] == __version__
    assert recipe["torch"] == torch.__version__
    assert recipe["technique"] == "drawn"
    assert recipe["arguments"] == {
        "network": network.recipe(),
        "unit": "conv:0",
        "shade": 0.5,
        "rule": {"function": "optogram.core.rules.guided"},
    }
    assert recipe["result"] == digest(torch.full((1, 2, 2), 0.5))
    assert json.loads(json.dumps(recipe, allow_nan=False)) == recipe


def test_each_item_of_a_sheet_has_the_recipe_that_makes_it_alone():
    again = technique(mapped)
    image = torch.rand(1, 2, 3)
    image.source = "digits:3"  # type: ignore[attr-defined]
    sheet = again(tiny(), image, ["a:1", Unit("b", 2)], times=3)
    assert sheet.recipe["arguments"]["unit"] == ["a:1", "b:2"]
    for item, unit in zip(sheet, ["a:1", "b:2"], strict=True):
        assert item.recipe["arguments"]["unit"] == unit
        assert item.recipe["arguments"]["image"] == {"image": "digits:3", "sha256": digest(image)}
        assert again(tiny(), image, unit, times=3).recipe["result"] == item.recipe["result"]
    assert sheet.recipe["result"] not in {item.recipe["result"] for item in sheet}


def test_each_item_of_a_sheet_of_several_images_names_its_own():
    again = technique(mapped)
    images = torch.rand(3, 1, 2, 3)
    sheet = again(tiny(), images, "a:1")
    assert sheet.recipe["arguments"]["image"]["sha256"] == digest(images)
    for item, image in zip(sheet, images, strict=True):
        assert item.recipe == again(tiny(), image, "a:1").recipe


def test_an_item_that_another_technique_made_keeps_its_recipe():
    made = technique(drawn)(tiny(), "conv:0")

    def gathered(network: Network) -> Sheet:
        """Gather."""
        return Sheet((made, drawn(network, "conv:1")))

    sheet = technique(gathered)(tiny())
    assert sheet[0].recipe == made.recipe
    assert sheet[1].recipe["technique"] == "gathered"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, True),
        (3, 3),
        ("a", "a"),
        (None, None),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (Unit("a", 3, (1, 2)), "a:3@1,2"),
        ([1, (Unit("a", 3), None)], [1, ["a:3", None]]),
        (0.5 * ask.norm(1), {"says": "0.5 * norm(1)"}),
        (param.sphere(2.5), {"says": "sphere(2.5)"}),
        (
            Direction("a", torch.tensor([1.0, 0.5]), "age", (1, 2)),
            {"direction": "age", "layer": "a", "vector": [1.0, 0.5], "place": (1, 2)},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_are_written_as_json(value, written):
    found = encode(value)
    assert found == written
    assert type(found) is type(written)
    json.dumps(found, allow_nan=False)


def test_an_image_is_written_as_its_source_and_a_hash_of_its_numbers():
    image = torch.rand(1, 2, 3)
    assert encode(image) == {"image": None, "sha256": digest(image)}


def test_two_techniques_of_one_name_from_two_places_are_refused():
    technique(drawn)
    other = type(drawn)(drawn.__code__, globals(), "drawn")
    other.__module__ = "somewhere.else"
    with pytest.raises(
        RequestError, match=r"two techniques are called 'drawn': somewhere\.else adds"
    ):
        technique(other)
    technique(drawn)  # the same one again, as on a reload


def test_an_unknown_technique_is_answered_with_what_there_is():
    with pytest.raises(RequestError, match=r"no technique called 'dream2'; there is .*maximize"):
        call("dream2")


def test_a_failing_technique_makes_no_recipe():
    def fails(network: Network) -> Picture:
        """Fail."""
        raise RequestError("no")

    with pytest.raises(RequestError, match="no"):
        technique(fails)(tiny())
