"""Reading an atlas: what was written comes back, in any order, and nothing else."""

import shutil
import sqlite3
import threading

import numpy as np
import pytest
from PIL import Image

import optogram as og
from optogram.atlas import Missing
from optogram.atlas.layout import address
from tests.atlas.synthetic import CLASSES, K, decoded, pattern, write_atlas


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_atlas(tmp_path_factory.mktemp("atlas") / "a", {"conv1": 300, "fc": 20})


@pytest.fixture
def atlas(made, tmp_path):
    """An atlas of its own, for tests that write."""
    return og.atlas.open(shutil.copytree(made, tmp_path / "a"))


@pytest.fixture(scope="module")
def shared(made):
    return og.atlas.open(made)


def test_a_unit_says_what_was_written(shared):
    unit = shared.unit("conv1", 7)
    assert unit.address == str(og.unit("conv1:7"))
    assert (unit.previous, unit.next) == (6, 8)
    assert unit.stats.prefers == CLASSES[7 % 3]
    assert unit.histogram.counts == [1, 4, 9, 12, 7, 4, 2, 1]
    assert [patch.image for patch in unit.patches] == [7 + rank for rank in range(K)]
    assert unit.patches[2].caption == "picture 9.png"
    assert unit.patches[0].box == (0, 0, 9, 9)
    assert [made.name for made in unit.pictures] == ["positive", "negative"]
    assert unit.outputs[0] == ("label 0", 0, pytest.approx(0.8))
    assert unit.neighbours[0].unit == 8
    assert unit.members == tuple(n for n in range(300) if n % 3 and n % 7 == 0)
    assert unit.as_dict()["layer"]["name"] == "conv1"


def test_a_picture_is_the_one_of_its_unit(shared):
    recipe = shared.picture_recipe("conv1")
    for unit in (0, 255, 256, 299):  # both sides of the end of a shard
        held = decoded(shared.tile(recipe.id, "conv1", unit))
        assert np.array_equal(held, decoded(pattern(unit, 28)))
        assert shared.etag(recipe.id, "conv1", unit)


def test_a_patch_that_is_a_whole_image_is_kept_once(shared):
    patches = next(r for r in shared.recipes if r.kind == "patches")
    patch = decoded(shared.tile(patches.id, "fc", 3, "patch2"))
    assert np.array_equal(patch, decoded(pattern(1000 + 5, 28)))
    own = shared.datasets[0].id
    assert shared.tile(patches.id, "fc", 3, "patch2") == shared.image(own, 5)


def test_a_sheet_shows_every_unit_at_its_place(shared):
    sheet = decoded(shared.sprites("conv1", block=1))
    assert sheet.shape == (16 * 28, 16 * 28, 3)
    for unit in (256, 271, 272, 299):
        row, column = divmod(unit % 256, 16)
        tile = sheet[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28]
        assert np.array_equal(tile, decoded(pattern(unit, 28)))


def test_a_unit_without_a_picture_stands_on_the_sheet_with_its_strongest_patch(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "some")
    painted = next(r for r in og.atlas.open(folder).recipes if r.name == "positive")
    for path in folder.glob(f"data/1/{painted.id}/00000256.*"):  # 256 to 299 have none yet
        path.unlink()
    atlas = og.atlas.open(folder)
    atlas.reindex()
    assert not any(made.name == "positive" for made in atlas.unit("conv1", 256).pictures)
    patches = next(r for r in atlas.recipes if r.kind == "patches")
    sheet = decoded(atlas.sprites("conv1", painted.id, block=1))
    for unit in (256, 299):
        row, column = divmod(unit % 256, 16)
        tile = sheet[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28]
        patch = decoded(atlas.tile(patches.id, "conv1", unit, "patch0"))
        large = Image.fromarray(patch).resize((28, 28), Image.Resampling.NEAREST)
        assert np.array_equal(tile, np.asarray(large))
    assert atlas.sprite_etag("conv1", painted.id, 1) != atlas.sprite_etag("conv1", painted.id, 0)


@pytest.mark.parametrize("by", ["maximum", "sparseness", "selectivity", "ratio", "score"])
def test_the_first_of_a_layer_are_those_that_sorting_all_would_give(shared, by):
    everyone = shared.rows("conv1", n=1000)
    known = [row for row in everyone if getattr(row, by) is not None]
    best = sorted(known, key=lambda row: -getattr(row, by))[:10]
    assert [row.unit for row in shared.top("conv1", by, 10)] == [row.unit for row in best]


def test_pages_of_rows_join_without_gap_where_some_have_no_value(shared):
    pages = [shared.rows("conv1", by="cluster", start=start, n=70) for start in range(0, 350, 70)]
    units = [row.unit for page in pages for row in page]
    assert sorted(units) == list(range(300))
    clusters = [row.cluster for page in pages for row in page]
    assert clusters[-100:] == [None] * 100
    assert clusters[:200] == sorted(clusters[:200])


def test_filters_take_the_units_that_they_say(shared):
    dead = shared.rows("conv1", where={"state": "dead"}, n=1000)
    assert {row.unit for row in dead} == {n for n in range(300) if n % 5 in (3, 4)}
    both = {"verdict": "failed", "prefers": "dog"}
    assert shared.count("conv1", both) == len([n for n in range(300) if n % 4 == 3 and n % 3 == 1])
    assert shared.layer("conv1").counts["dead"] == len(dead)


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda a: a.unit("conv1", 300), Missing),
        (lambda a: a.unit("conv9", 0), Missing),
        (lambda a: a.tile("0" * 12, "conv1", 0), Missing),
        (lambda a: a.tile(a.picture_recipe("conv1").id, "conv1", 0, "../atlas.json"), Missing),
        (lambda a: a.image("d" * 12, 4000), Missing),
        (lambda a: a.sprites("conv1", block=99), Missing),
        (lambda a: a.rows("conv1", by="unit; DROP TABLE units"), og.RequestError),
        (lambda a: a.rows("conv1", where={"1=1 OR unit": 3}), og.RequestError),
        (lambda a: a.add_note("conv1", 4000, "x"), Missing),
        (lambda a: a.add_note("conv1", 4, "x" * 5000), og.RequestError),
    ],
)
def test_what_is_not_there_is_refused_in_a_sentence(shared, ask, problem):
    with pytest.raises(problem):
        ask(shared)


def test_search_finds_addresses_layers_outputs_notes_and_classes(atlas):
    assert atlas.search("conv1:7")[0].unit == 7
    assert any(hit.what == "layer" and hit.address == "fc" for hit in atlas.search("fc"))
    assert atlas.search("label 13")[0].address == "fc:13"
    atlas.add_note("conv1", 9, "looks like a <b>snout</b>")
    assert [hit.unit for hit in atlas.search("snou") if hit.what == "note"] == [9]
    assert {hit.what for hit in atlas.search("owl")} == {"prefers"}
    for odd in ('"', "*", "a OR", "100%", "(", ":", "NEAR(", "", "  "):
        atlas.search(odd)


def test_a_label_names_its_unit_until_it_is_taken_away(atlas):
    atlas.add_note("fc", 3, "owl eyes", kind="label")
    again = og.atlas.open(atlas.folder)
    assert again.unit("fc", 3).label == "owl eyes"
    assert again.rows("fc", where={"label": "owl eyes"})[0].unit == 3
    again.add_note("fc", 3, "", kind="label")
    assert again.unit("fc", 3).label == "label 3"


def test_a_note_survives_a_lost_index_and_a_line_that_was_cut_short(atlas):
    note = atlas.add_note("conv1", 5, "first")
    with (atlas.folder / "notes.jsonl").open("ab") as file:
        file.write(b'{"id": "half')
    atlas.add_note("conv1", 5, "second")
    (atlas.folder / "index.sqlite").unlink()
    again = og.atlas.open(atlas.folder)
    assert [one.text for one in again.notes("conv1", 5)] == ["first", "second"]
    again.remove_note(note.id)
    assert [one.text for one in again.notes()] == ["second"]
    assert not again.search("first")


def test_a_broken_index_is_made_again(atlas):
    (atlas.folder / "index.sqlite").write_bytes(b"no database")
    assert og.atlas.open(atlas.folder).unit("fc", 0).row.unit == 0


def test_many_threads_read_at_once(shared):
    wrong = []

    def read(start: int) -> None:
        for unit in range(start, 300, 8):
            if shared.unit("conv1", unit).unit != unit:
                wrong.append(unit)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_picture_can_say_how_it_was_made(shared):
    recipe = shared.picture_recipe("conv1")
    said = shared.replayable(recipe.id, "conv1", 3)
    assert said["technique"] == "maximize"
    assert said["arguments"]["unit"] == "conv1:3"
    negative = next(r for r in shared.recipes if r.name == "negative")
    vector = shared.replayable(negative.id, "fc", 2)["arguments"]["unit"]["vector"]
    assert vector == [0.0, 0.0, -1.0] + [0.0] * 17


@pytest.mark.parametrize("layer", ["a", "a:b", "ä%", "relu#2", "x\ty", "layer3.1.conv2"])
def test_addresses_are_written_as_everywhere_else(layer):
    assert address(layer, 3) == str(og.core.Unit(layer, 3))


def test_a_folder_without_an_atlas_is_refused(tmp_path):
    with pytest.raises(og.RequestError, match="no atlas"):
        og.atlas.open(tmp_path)


def test_the_index_can_be_read_by_any_sqlite(shared):
    base = sqlite3.connect(shared.folder / "index.sqlite")
    assert base.execute("SELECT count(*) FROM units").fetchone() == (320,)
    base.close()
