"""What is said about a result, and under which suffixes it can be saved."""

import json

import pytest
import torch
from PIL import Image

import optogram as og
from optogram.cli.results import FORMS, MOST_LINES, as_data, as_text
from optogram.pictures import Attribution, Picture, RequestError, Sheet

PICTURE = Picture(torch.zeros(1, 4, 4), "fc:0", float("nan"), torch.zeros(0), verdict="failed")
MAP = Attribution(torch.eye(4), torch.zeros(1, 4, 4), "fc:1", 2.5)
SHEET = Sheet((PICTURE, MAP))
EVERY = {".png", ".webp", ".jpg", ".jpeg", ".html", ".safetensors", ".json", ".gif", ".pt", ""}


@pytest.mark.parametrize("result", [PICTURE, MAP, Sheet((PICTURE,)), Sheet((MAP,)), SHEET])
def test_what_is_offered_is_what_the_result_can_do(result, tmp_path):
    can = set()
    for suffix in EVERY:
        try:
            result.save(tmp_path / f"file{suffix}")
            can.add(suffix)
        except RequestError:
            pass
    assert set(FORMS) == can


def test_a_few_results_have_a_line_each_and_many_are_counted():
    assert as_text(SHEET, "x.png") == "fc:0  nan  failed\nfc:1  score 2.5\nx.png"
    many = Sheet((PICTURE,) * (MOST_LINES + 1) + (MAP,))
    assert as_text(many, None) == "22 results: 21 failed"
    assert as_text(Sheet((MAP,) * 30), None) == "30 results"


def test_a_number_that_is_none_is_null_for_programs():
    told = json.loads(json.dumps(as_data(SHEET, None), allow_nan=False))
    assert [row["score"] for row in told["results"]] == [None, 2.5]


def test_a_result_can_be_saved_and_printed_at_once(printed, grey, tmp_path):
    told = printed("maximize", grey, "0:1", "0:2", "--steps", 3, "-o", "x.webp")
    assert told["path"] == "x.webp"
    assert [row["unit"] for row in told["results"]] == ["0:1", "0:2"]
    assert {row["verdict"] for row in told["results"]} <= {"excited", "failed", "dead"}
    assert told["recipe"] == og.pictures.read_recipe(tmp_path / "x.webp")


def test_the_suffix_says_in_which_form(optogram, grey, tmp_path):
    for suffix in FORMS:
        words = ("maximize", grey, "0:1", "--steps", 1, "-o", f"x{suffix}")
        assert optogram(*words).stdout.splitlines()[-1] == f"x{suffix}"
        assert (tmp_path / f"x{suffix}").stat().st_size > 0
    assert optogram("filters", grey, "0", "-o", "x.json").exit_code == 0
    assert len(json.loads((tmp_path / "x.json").read_text())["items"]) == 4


def test_an_image_of_another_size_is_fitted_and_that_is_said(optogram, colour, tmp_path):
    Image.new("RGB", (100, 50), "red").save(tmp_path / "red.png")
    result = optogram("saliency", colour, "red.png", "0:1", "--json")
    assert result.stderr == (
        "red.png has 100x50 pixels: its short side was resized and the middle 24x16 taken\n"
    )
    assert json.loads(result.stdout)["recipe"]["arguments"]["image"]["image"] == "red.png"


def test_an_image_on_its_side_is_measured_as_it_is_seen(optogram, colour, tmp_path):
    note = Image.Exif()
    note[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (100, 50)).save(tmp_path / "side.jpg", exif=note)
    assert "50x100 pixels" in optogram("saliency", colour, "side.jpg", "0:1", "--json").stderr
    Image.new("RGB", (16, 24)).save(tmp_path / "fits.jpg", exif=note)
    assert optogram("saliency", colour, "fits.jpg", "0:1", "--json").stderr == ""


def test_an_image_of_the_right_size_needs_no_word(optogram, grey, image):
    assert optogram("saliency", grey, image, "0:1", "--json").stderr == ""


def test_an_image_can_come_from_a_data_set(printed, grey):
    told = printed("saliency", grey, "digits:7", "0:1")
    assert told["recipe"]["arguments"]["image"]["image"] == "digits:7"
