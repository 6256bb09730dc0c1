"""`optogram survey` keeps what a data set excites in a folder, and says what it found."""

import json

import numpy as np
import pytest
from PIL import Image

from optogram.survey import opened


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    for number in range(6):
        place = pictures / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    (pictures / "cat" / "broken.png").write_bytes(b"no picture")
    return pictures


def test_a_survey_is_written_and_can_be_opened(grey, folder, printed, tmp_path):
    said = printed("survey", grey, folder, "-o", "out", "--k", 3)
    assert said["path"] == "out"
    assert said["units"] == {"0": 4, "3": 3}
    assert said["images"] == 6
    assert list(said["skipped"]) == ["cat/broken.png"]
    held = opened(tmp_path / "out")
    assert held["3:1"].k == 3
    assert held.classes == ("cat", "dog")
    assert said["dead"] == held.dead


def test_people_are_told_in_sentences(grey, folder, optogram):
    result = optogram("survey", grey, folder, "-o", "out", "--layers", "0")
    assert result.exit_code == 0
    first, second, path = result.stdout.splitlines()
    assert first == "4 units of 1 layers on 6 images, 1 that cannot be read"
    assert second.endswith("units opened on no image")
    assert path == "out"


def test_the_same_command_again_opens_what_is_there(grey, folder, printed):
    one = printed("survey", grey, folder, "-o", "out", "--layers", "?")
    assert printed("survey", grey, folder, "-o", "out", "--layers", "?") == one


def test_wrong_requests_are_refused_in_a_sentence(grey, folder, refused, optogram):
    assert "no layer called 'x'" in refused("survey", grey, folder, "-o", "out", "--layers", "x")
    optogram("survey", grey, folder, "-o", "out")
    assert "holds another survey" in refused("survey", grey, folder, "-o", "out", "--k", 2)


def test_top_patches_is_a_command_too(grey, folder, printed):
    said = printed("top-patches", grey, folder, "0:1", "--k", 2, "--project", "deconvnet")
    assert json.dumps(said)


def test_a_layers_name_is_figure_2_some_of_its_units_patches_beside_projections(
    grey, folder, printed
):
    ask = ("top-patches", grey, folder, "0", "--k", 2, "--project", "deconvnet", "--sample", 2)
    units = lambda said: [made["unit"] for made in said["results"]]  # noqa: E731
    # Of the units 0 to 3 two, evenly spread; behind two patches stand their two projections.
    assert units(printed(*ask, "-o", "figure.png")) == ["0:0"] * 4 + ["0:2"] * 4
    beside = printed("top-patches", grey, folder, "0:1", "0", "--k", 1, "--sample", 4)
    assert units(beside) == ["0:1", "0:0", "0:1", "0:2", "0:3"]
    every = printed("top-patches", grey, folder, "0:*", "--k", 1, "--sample", 2)
    assert units(every) == ["0:0", "0:1", "0:2", "0:3"]  # all were asked for by pattern


def test_a_survey_is_made_again_and_said_to_be_the_same(grey, folder, printed, refused, tmp_path):
    printed("survey", grey, folder, "-o", "out", "--layers", "?", "--k", 2)
    assert "identical" in printed("replay", "out")
    marker = tmp_path / "out" / "survey.json"
    said = json.loads(marker.read_text())
    said["optogram"]["data"]["digest"] = "sha256:0"
    marker.write_text(json.dumps(said))
    assert "other images now" in refused("replay", "out")
