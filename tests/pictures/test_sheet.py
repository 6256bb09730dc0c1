"""Sheets: a sequence like any other, one scale for all, and a paper that stays within bounds."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image
from safetensors.torch import load_file

from optogram.pictures import Attribution, Picture, RequestError, Sheet
from optogram.pictures.colour import BELOW_FLOOR
from optogram.pictures.contact import shared_limit


def picture(place: int, side: int = 28, channels: int = 1, **others) -> Picture:
    generator = torch.Generator().manual_seed(place)
    image = torch.rand(channels, side, side, generator=generator)
    return Picture(image, f"fc1:{place}", float(place), torch.zeros(2), **others)


def attribution(strength: float, image=None, **others) -> Attribution:
    image = torch.zeros(1, 6, 6) if image is None else image
    return Attribution(torch.full((6, 6), strength), image, "output:1", 1.0, **others)


def test_a_sheet_is_a_sequence():
    items = [picture(place) for place in range(5)]
    sheet = Sheet(items, "five")
    assert isinstance(sheet, Sequence)
    assert list(sheet) == items
    assert (len(sheet), sheet[1], sheet[-1]) == (5, items[1], items[4])
    assert sheet.index(items[3]) == 3
    with pytest.raises(IndexError):
        sheet[5]


def test_a_slice_of_a_sheet_is_a_sheet():
    sheet = Sheet([picture(place) for place in range(5)], "five", {"a": 1}, columns=2)
    part = sheet[1:4]
    assert isinstance(part, Sheet)
    assert (part.title, part.recipe, part.columns) == ("five", {"a": 1}, 2)
    assert list(part) == list(sheet)[1:4]


def test_a_sheet_does_not_change_with_the_list_it_was_made_of():
    items = [picture(0)]
    sheet = Sheet(items)
    items.append(picture(1))
    assert len(sheet) == 1
    with pytest.raises(AttributeError):
        sheet.title = "other"


def test_tensors_are_stacked_where_shapes_allow():
    sheet = Sheet([picture(0), picture(1)])
    assert torch.equal(sheet.images, torch.stack([sheet[0].image, sheet[1].image]))
    assert sheet.scores.tolist() == [0, 1]
    assert sheet.units == ("fc1:0", "fc1:1")
    with pytest.raises(RequestError, match="cannot be stacked"):
        _ = Sheet([picture(0), picture(1, 14)]).images
    with pytest.raises(RequestError, match="only Attributions"):
        _ = sheet.values
    assert Sheet([attribution(1.0)] * 3).values.shape == (3, 6, 6)


def test_a_sheet_prints_as_a_line():
    assert repr(Sheet([picture(0)] * 2, "first")) == "Sheet(2 Pictures 'first')"


def test_what_is_no_result_is_refused():
    with pytest.raises((RequestError, TypeCheckError), match="int"):
        Sheet([3])
    with pytest.raises(RequestError, match="1 column"):
        Sheet([], columns=0)
    with pytest.raises(RequestError, match="colour scale"):
        Sheet([], scale="own")


def where(paper: Image.Image, tile: np.ndarray) -> list[tuple[int, int]]:
    """Every place of the paper where the tile stands, looked for pixel by pixel."""
    paper = np.asarray(paper.convert("L"))
    windows = np.lib.stride_tricks.sliding_window_view(paper, tile.shape[-2:])
    first = np.argwhere(windows[..., 0, 0] == tile[0, 0])
    return [(y, x) for y, x in first if (windows[y, x] == tile).all()]


@pytest.mark.parametrize("count", [1, 3, 12, 30, 61])
def test_every_picture_stands_on_the_paper_once_in_reading_order(count):
    items = [picture(place, 7, verdict="excited") for place in range(count)]
    paper = Sheet(items, "title").pil()
    side = next(most for most in (48, 32, 22, 18) if where(paper, tile_of(items[0], most)))
    places = [where(paper, tile_of(item, side)) for item in items]
    assert [len(place) for place in places] == [1] * count
    assert [place[0] for place in places] == sorted(place[0] for place in places)


def tile_of(item: Picture, scale: int) -> np.ndarray:
    pixels = np.rint(item.image[0].numpy() * 255).astype(np.uint8)
    return np.kron(pixels, np.ones((scale, scale), np.uint8))


def test_the_columns_that_were_asked_for_are_kept():
    wide, high = (Sheet([picture(i) for i in range(8)], columns=n).pil() for n in (8, 2))
    assert wide.width > 2 * wide.height
    assert high.height > 1.5 * high.width


def test_thousands_of_pictures_fit_on_one_paper(tmp_path):
    sheet = Sheet([picture(place) for place in range(3892)], "all")
    with Image.open(sheet.save(tmp_path / "a.png")) as opened:
        assert max(opened.size) < 12_000
        assert opened.width > 3_000
        opened.load()


@pytest.mark.parametrize(
    ("count", "side", "channels"), [(300, 224, 3), (2000, 3, 3), (201, 500, 1)]
)
def test_large_images_shrink_on_a_full_paper(count, side, channels):
    one = picture(0, side, channels)
    paper = Sheet([one] * count).pil()
    assert max(paper.size) < 12_000


def test_the_more_pictures_the_smaller():
    """A full paper is about fifty million pixels, whatever it holds."""
    papers = [Sheet([picture(0, 28)] * count).pil() for count in (1_000, 4_000, 12_000)]
    assert all(paper.width * paper.height < 60_000_000 for paper in papers)


def test_a_paper_beyond_the_bounds_is_refused():
    with pytest.raises(RequestError, match="choose other columns"):
        Sheet([picture(0)] * 1000, columns=1).pil()


def test_no_pictures_make_a_paper_that_says_so(tmp_path):
    assert Sheet([], "none").save(tmp_path / "a.png").exists()
    assert Sheet([]).save(tmp_path / "a.html").exists()


def test_images_of_other_shapes_stand_side_by_side():
    assert Sheet([picture(0), picture(1, 14), picture(2, 30, 3)]).pil().mode == "RGB"


def test_all_maps_share_one_scale():
    weak, strong = attribution(0.1), attribution(1.0)
    assert shared_limit(Sheet([weak, strong])) == 1.0
    assert shared_limit(Sheet([weak, strong], scale="each")) is None
    paper = np.asarray(Sheet([weak, strong]).pil())
    pale, full = weak.heatmap(limit=1.0)[0, 0], strong.heatmap()[0, 0]
    assert (pale != full).any()
    assert (paper == pale).all(axis=2).sum() > 10_000
    assert (paper == full).all(axis=2).sum() > 10_000


def test_maps_in_other_units_cannot_share_a_scale():
    mixed = [
        attribution(1.0, unit_of_values="logit"),
        attribution(1.0, unit_of_values="probability"),
    ]
    assert shared_limit(Sheet(mixed)) is None
    assert shared_limit(Sheet([attribution(1.0), attribution(1.0, signed=False)])) is None


def test_maps_of_one_unit_share_a_scale_beside_maps_of_another():
    weak, strong, other = attribution(0.1), attribution(1.0), attribution(0.3, unit_of_values="p")
    paper = np.asarray(Sheet([weak, strong, other]).pil())
    for shown, limit in ((weak, 1.0), (strong, 1.0), (other, 0.3)):
        colour = shown.heatmap(limit=limit)[0, 0]
        assert (paper == colour).all(axis=2).sum() > 10_000
    each = np.asarray(Sheet([weak, strong, other], scale="each").pil())
    pale = weak.heatmap(limit=1.0)[0, 0]
    assert (each == pale).all(axis=2).sum() < 10_000


def test_maps_of_zeros_are_drawn_as_nothing():
    sheet = Sheet([attribution(0.0), attribution(0.0)])
    assert (np.asarray(sheet.pil()) == np.array(BELOW_FLOOR)).all(axis=2).sum() > 10_000


def test_maps_of_one_image_show_it_once_and_others_each_their_own():
    same = Sheet([attribution(1.0), attribution(0.5)]).pil()
    other = torch.ones(1, 6, 6)
    different = Sheet([attribution(1.0), attribution(0.5, other)]).pil()
    assert same.width != different.width


def test_safetensors_hold_all_tensors(tmp_path):
    sheet = Sheet([attribution(0.5), attribution(1.0)])
    tensors = load_file(sheet.save(tmp_path / "a.safetensors"))
    assert torch.equal(tensors["values"], sheet.values)
    assert torch.equal(tensors["images"], sheet.images)
    assert tensors["scores"].tolist() == [1, 1]
    mixed = load_file(Sheet([picture(0), picture(1, 14)]).save(tmp_path / "b.safetensors"))
    assert mixed["images.1"].shape == (1, 14, 14)


def test_json_holds_the_numbers(tmp_path):
    odd = Picture(torch.zeros(1, 2, 2), "fc1:9", float("nan"), torch.zeros(1))
    sheet = Sheet([picture(3, verdict="failed", best_in_data=9.0), odd], "numbers", {"seed": 4})
    found = json.loads(sheet.save(tmp_path / "a.json").read_text("utf-8"))
    assert found["optogram"] == {"seed": 4}
    assert found["items"][0]["unit"] == "fc1:3"
    assert (found["items"][0]["verdict"], found["items"][0]["best_in_data"]) == ("failed", 9.0)
    assert found["items"][1]["score"] is None


def test_a_mixed_sheet_keeps_its_maps_under_the_numbers_of_their_places(tmp_path):
    chart = attribution(2.0)
    Sheet((picture(0, side=6), chart)).save(tmp_path / "x.safetensors")
    there = load_file(tmp_path / "x.safetensors")
    assert torch.equal(there["values.1"], chart.values)
    assert there["images"].shape == (2, 1, 6, 6)


def test_a_single_result_has_a_json_of_its_numbers_with_its_recipe(tmp_path):
    for item in (picture(3, recipe={"a": 1}), attribution(2.0, recipe={"a": 1})):
        item.save(tmp_path / "x.json")
        there = json.loads((tmp_path / "x.json").read_text())
        assert there["optogram"] == {"a": 1}
        assert there["score"] == item.score
