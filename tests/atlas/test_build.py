"""Building an atlas: what it holds is what the techniques say, however the building went."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import optogram as og
from optogram.atlas import verify
from optogram.atlas.store import markers
from optogram.pictures.drawing import as_pil
from tests.atlas import kills
from tests.atlas.synthetic import decoded
from tests.survey.small import images, network

LAYERS = ["conv1", "conv2", "fc1", "output"]
QUICK = {"arguments": {"steps": 5}}
EVERYTHING = {
    "pictures": [],
    "recipes": [
        {"name": "positive", "arguments": {"steps": 8}},
        {"name": "negative", "sign": -1, "arguments": {"steps": 8}},
    ],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "a"
    return og.atlas.build(network(), images(), folder, layers=LAYERS, **EVERYTHING)


def pixels(tensor):
    shown = as_pil(tensor).convert("RGB")
    return np.asarray(shown)


def published(folder):
    return {str(m.path): (m.path.stat().st_mtime_ns, m.line) for m in markers(folder)}


def test_statistics_are_those_of_the_survey(built):
    survey = og.survey(network(), images(), LAYERS)
    for name, unit in (("conv1", 2), ("conv2", 5), ("fc1", 0), ("output", 1)):
        held, seen = built.unit(name, unit), survey[f"{name}:{unit}"]
        assert held.stats.maximum == pytest.approx(seen.maximum)
        assert held.stats.mean == pytest.approx(seen.mean, rel=1e-4, abs=1e-6)
        assert held.stats.active == pytest.approx(seen.active)
        assert held.stats.state == seen.state
        assert held.stats.prefers == seen.prefers
        assert [patch.image for patch in held.patches] == seen.places[:, 0].tolist()
        assert [list(patch.box) for patch in held.patches] == seen.boxes.tolist()
        nearest = [f"{name}:{one.unit}" for one in held.neighbours]
        assert nearest[0] == survey.nearest(f"{name}:{unit}")[0][0]
        assert sum(held.histogram.counts) == 40


def test_outputs_are_named_and_go_with_themselves(built):
    unit = built.unit("output", 1)
    assert unit.label == "b"
    assert unit.outputs[0][:2] == ("b", 1)
    assert unit.outputs[0][2] == pytest.approx(1.0, abs=1e-4)


def test_a_picture_is_what_the_technique_makes(built):
    net, survey = network(), og.survey(network(), images(), LAYERS)
    net.records.update(survey.records())
    made = og.maximize(net, net.units("fc1"), steps=8)
    held = built.unit("fc1", 3).pictures[0]
    assert held.score == pytest.approx(made[3].score, rel=1e-3, abs=1e-4)
    assert held.verdict == made[3].verdict
    assert held.best_in_data == pytest.approx(made[3].best_in_data)
    tile = decoded(built.tile(held.recipe, "fc1", 3, held.kind)).astype(int)
    assert np.abs(tile - pixels(made[3].image)).max() <= 1


def test_a_negative_picture_lowers_its_unit(built):
    positive, negative = built.unit("output", 2).pictures
    assert (positive.name, negative.name) == ("positive", "negative")
    shown = torch.from_numpy(decoded(built.tile(negative.recipe, "output", 2)).copy())
    image = shown.permute(2, 0, 1)[None, :1].float() / 255
    value = float(network()(image)[0, 2])
    assert value == pytest.approx(-negative.score, abs=0.05)
    assert value < built.unit("output", 2).stats.answer_mean


def test_a_patch_and_its_projection_are_those_of_top_patches(built):
    sheet = og.top_patches(network(), images(), "conv2:4", project="deconvnet")
    unit = built.unit("conv2", 4)
    for patch in unit.patches:
        tile = decoded(built.tile(patch.recipe, "conv2", 4, patch.patch))
        assert np.array_equal(tile, pixels(sheet[patch.rank].image))
        sent = decoded(built.tile(patch.recipe, "conv2", 4, patch.projection)).astype(int)
        assert np.abs(sent - pixels(sheet[9 + patch.rank].image)).max() <= 1
    neuron = built.unit("fc1", 0).patches[0]
    whole = pixels(images()[neuron.image][0])
    assert np.array_equal(decoded(built.tile(neuron.recipe, "fc1", 0, neuron.patch)), whole)


def test_building_again_does_nothing(built):
    before = published(built.folder)
    again = og.atlas.build(network(), images(), built.folder, layers=LAYERS, **EVERYTHING)
    assert published(built.folder) == before
    assert again.manifest == built.manifest


def test_what_is_added_later_leaves_the_rest_alone(tmp_path):
    first = og.atlas.build(
        network(), images(), tmp_path / "a", layers="fc1", units="fc1:1", **EVERYTHING
    )
    assert [row.unit for row in first.rows("fc1") if row.verdict] == [1]
    assert first.layer("fc1").counts["units"] == 5
    steps = (
        {"layers": "fc1", **EVERYTHING},
        {"layers": ["fc1", "conv1"], **EVERYTHING},
        {"layers": "fc1", "pictures": [], "recipes": [{"name": "short", **QUICK}]},
        {"layers": "fc1", "pictures": [], "dataset": images(20, seed=9)},
    )
    for step in steps:
        before = published(first.folder)
        data = step.pop("dataset", images())
        atlas = og.atlas.build(network(), data, first.folder, **step)
        after = published(first.folder)
        assert before.items() < after.items()  # nothing was done again, and something new
    unit = atlas.unit("fc1", 1)
    assert [made.name for made in unit.pictures] == ["positive", "negative", "short"]
    assert len(atlas.datasets) == 2
    other = atlas.unit("fc1", 1, data=atlas.datasets[1].id)
    assert other.stats.maximum != unit.stats.maximum
    assert verify(first.folder).clean


def test_pictures_of_some_units_and_then_of_all_are_each_made_once(tmp_path):
    asked = {"layers": "fc1", "pictures": [], "recipes": [{"name": "short", **QUICK}]}
    og.atlas.build(network(), images(), tmp_path / "a", units="fc1:3", **asked)
    atlas = og.atlas.build(network(), images(), tmp_path / "a", **asked)
    recipe = next(r for r in atlas.recipes if r.name == "short")
    units = [m.units for m in markers(atlas.folder, None, recipe.id)]
    assert sorted(units) == [(0, 1, 2, 4), (3,)]
    assert all(atlas.tile(recipe.id, "fc1", unit) for unit in range(5))


def test_directions_along_the_axes_are_the_units_themselves(tmp_path):
    np.save(tmp_path / "axes.npy", np.eye(6, dtype=np.float32)[[4, 1]] * 2)
    asked = {"layers": "conv2", "pictures": [], "recipes": [{"name": "short", **QUICK}]}
    vectors = {"conv2": tmp_path / "axes.npy"}
    atlas = og.atlas.build(network(), images(), tmp_path / "a", vectors=vectors, **asked)
    layer = atlas.layer("conv2/axes")
    assert (layer.units, layer.directions, layer.base) == (2, True, "conv2")
    for number, unit in enumerate((4, 1)):
        direction, plain = atlas.unit("conv2/axes", number), atlas.unit("conv2", unit)
        assert direction.stats.maximum == pytest.approx(2 * plain.stats.maximum, rel=1e-5)
        assert direction.stats.mean == pytest.approx(2 * plain.stats.mean, rel=1e-5)
        assert [p.image for p in direction.patches] == [p.image for p in plain.patches]
        assert direction.patches[0].projection
        (made,) = direction.pictures
        image = decoded(atlas.tile(made.recipe, "conv2/axes", number)).copy()
        shown = torch.from_numpy(image).permute(2, 0, 1)[None, :1].float() / 255
        value = network().read(shown, "conv2").layers["conv2"][0, unit].mean()
        assert made.score == pytest.approx(2 * float(value), abs=0.3)
    assert len(atlas.target("conv2/axes", 0).vector) == 6
    said = atlas.replayable(direction.pictures[0].recipe, "conv2/axes", 1)
    assert said["arguments"]["unit"]["vector"] == [0, 2, 0, 0, 0, 0]


def test_a_kept_picture_is_found_again(built, tmp_path):
    atlas = og.atlas.build(network(), images(), tmp_path / "a", layers="fc1", pictures=[])
    sheet = og.maximize(network(), "fc1:2", steps=5, facets=2)
    recipe = atlas.keep("fc1", 2, sheet, "by hand")
    unit = atlas.unit("fc1", 2)
    assert [(made.name, made.kind) for made in unit.pictures] == [
        ("by hand", "picture0"),
        ("by hand", "picture1"),
    ]
    assert np.array_equal(
        decoded(atlas.tile(recipe.id, "fc1", 2, "picture1")), pixels(sheet[1].image)
    )
    assert atlas.replayable(recipe.id, "fc1", 2)["arguments"]["steps"] == 5
    assert verify(atlas.folder).clean


def test_an_image_excites_units_that_it_is_at_the_top_of(built):
    bright = images()[int(built.unit("conv2", 3).patches[0].image)][0]
    found = built.unusual(network(), bright, n=50)
    scores = {where: z for where, _, _, z, _ in found}
    row = next(one for one in found if one[0] == "conv2:3")
    assert row[4] == pytest.approx(built.unit("conv2", 3).stats.maximum, rel=1e-4)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layers": "conv9"}, "conv9"),
        ({"units": "conv1:99"}, "conv1"),
        ({"units": "conv2:0", "layers": "conv1"}, "conv2:0"),
        ({"pictures": ["sideways"]}, "sideways"),
        ({"recipes": [{"name": "x", "technique": "saliency"}]}, "saliency"),
        ({"recipes": [{"name": "x", "arguments": {"stepz": 3}}]}, "stepz"),
        ({"recipes": [{"nome": "x"}]}, "nome"),
        ({"recipes": ["no/such/file.json"]}, "file.json"),
        ({"vectors": {"conv1": torch.zeros(2, 4)}}, "row 0"),
        ({"vectors": {"conv1": torch.ones(2, 5)}}, "5 numbers"),
        ({"vectors": {"conv1": "none.npy"}}, "none.npy"),
        ({"engine": "processes"}, "by name"),
        ({"engine": "magic"}, "magic"),
        ({"project": "sideways"}, "sideways"),
        ({"k": 0}, "k=0"),
        ({"share": (2, 2)}, "share"),
    ],
)
def test_wrong_requests_are_refused_in_a_sentence(asked, said, tmp_path):
    with pytest.raises(og.RequestError, match=said.replace(".", r"\.")):
        og.atlas.build(network(), images(10), tmp_path / "a", **{"pictures": [], **asked})


def test_another_network_does_not_enter(built):
    before = published(built.folder)
    with pytest.raises(og.RequestError, match="other weights"):
        og.atlas.build(network(seed=1), images(), built.folder, layers="fc1")
    assert published(built.folder) == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(og.RequestError, match="other files"):
        og.atlas.build(network(), images(10), tmp_path, layers="fc1")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("workers", [[], ["4"]], ids=["one", "four"])
def test_killed_at_ten_moments_it_ends_with_the_same_bytes(tmp_path, workers):
    """The program of `kills` forks, which wants one thread: so it is one of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.atlas.kills", str(tmp_path / "killed"), "3", "10"]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [*command, *workers], capture_output=True, text=True, cwd=root, env=environment, timeout=300
    )
    assert run.returncode == 0, run.stderr
    deaths, manifest = run.stdout.split()
    assert int(deaths) >= (1 if workers else 5)
    found = verify(tmp_path / "killed")
    assert found.clean
    assert not found.litter
    assert found.manifest == manifest
    assert manifest == kills.build(tmp_path / "whole")
    left = [path for path in (tmp_path / "killed").rglob("*") if path.suffix in (".tmp", ".lease")]
    assert not left


def test_two_shares_make_what_one_makes(tmp_path, built):
    for turn in (1, 0):
        og.atlas.build(
            network(), images(), tmp_path / "a", layers=LAYERS, share=(turn, 2), **EVERYTHING
        )
    assert og.atlas.open(tmp_path / "a").manifest == built.manifest


@pytest.mark.slow
def test_two_processes_make_what_one_makes(tmp_path):
    asked = {"layers": ["fc7", "fc8"], "pictures": [], "recipes": [{"name": "short", **QUICK}]}
    one = og.atlas.build("mnist-mlp", "digits", tmp_path / "one", **asked)
    two = og.atlas.build(
        "mnist-mlp", "digits", tmp_path / "two", engine="processes", workers=2, **asked
    )
    assert two.manifest == one.manifest
    assert verify(tmp_path / "two").clean


def test_any_reader_of_parquet_reads_a_shard(built):
    import pyarrow.parquet as pq

    marker = next(m for m in markers(built.folder) if m.layer == built.layer("fc1").id)
    table = pq.read_table(marker.path.with_suffix(".parquet"))
    assert table.column("unit").to_pylist()[0] == 0
    assert json.loads(marker.path.read_text())["rows"] == len(table)
