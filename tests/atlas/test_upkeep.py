"""Looking after an atlas: damage is found, put aside and mended; what is exported can be read."""

import shutil

import pyarrow.parquet as pq
import pytest

import optogram as og
from optogram.atlas import export_parquet, verify
from optogram.atlas.store import markers
from tests.atlas.synthetic import decoded, write_atlas
from tests.survey.small import images, network


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "a"
    recipe = {"name": "short", "arguments": {"steps": 3}}
    asked = {"layers": ["conv1", "fc1"], "pictures": [], "recipes": [recipe]}
    og.atlas.build(network(), images(), folder, **asked)
    return folder, asked


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "bit":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif how == "short":
        path.write_bytes(content[:-7])
    else:
        path.unlink()


@pytest.mark.parametrize("suffix", [".pack", ".parquet", ".json"])
@pytest.mark.parametrize("how", ["bit", "short", "gone"])
def test_damage_is_found_put_aside_and_mended(built, tmp_path, suffix, how):
    whole, asked = built
    folder = shutil.copytree(whole, tmp_path / "a")
    before = verify(folder)
    assert before.clean
    recipe = next(r for r in og.atlas.open(folder).recipes if r.name == "short")
    victim = next(m for m in markers(folder, None, recipe.id))
    damaged(victim.path.with_suffix(suffix), how)
    found = verify(folder)
    assert not found.clean
    if (suffix, how) != (".json", "gone"):
        assert list(found.damaged) == [str(victim.path.relative_to(folder).with_suffix(""))]
        assert list((folder / "bad").rglob("*.p*"))
    assert sum(found.missing.values()) == len(victim.units)
    og.atlas.build(network(), images(), folder, **asked)
    again = verify(folder)
    assert again.clean
    assert again.manifest == before.manifest
    assert og.atlas.open(folder).tile(recipe.id, victim.layer, victim.units[0])


def test_an_atlas_says_what_is_in_it(built):
    said = og.atlas.open(built[0]).info()
    assert [layer["name"] for layer in said["layers"]] == ["conv1", "fc1"]
    assert said["missing"] == {}
    assert {r["name"]: r["shards"] for r in said["recipes"]}["statistics"] == 2


def test_parquet_with_pictures_holds_every_picture(tmp_path):
    atlas = og.atlas.open(write_atlas(tmp_path / "a", {"conv1": 270, "fc": 5}))
    paths = export_parquet(atlas, tmp_path / "out")
    assert len(paths) == 2 * 4 + 1
    recipe = atlas.picture_recipe("conv1")
    (path,) = [p for p in paths if recipe.id in p.name and "conv1" in p.name]
    table = pq.read_table(path)
    assert table.column("address").to_pylist() == [f"conv1:{n}" for n in range(270)]
    held = table.column("image")[261].as_py()["bytes"]
    assert held == atlas.tile(recipe.id, "conv1", 261)
    assert b"Image" in table.schema.metadata[b"huggingface"]
    (patches,) = [p for p in paths if "fc-patches" in p.name]
    row = pq.read_table(patches).slice(0, 1).to_pylist()[0]
    assert decoded(row["image"]["bytes"]).shape == (28, 28, 3)
    assert row["image_number"] == 0
    with pytest.raises(og.RequestError, match="already"):
        export_parquet(atlas, tmp_path / "out")
