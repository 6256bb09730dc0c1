"""`optogram atlas`: building, asking, checking, exporting; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import optogram as og


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    return pictures


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "short.json"
    path.write_text(json.dumps({"name": "short", "arguments": {"steps": 2}}))
    return path


def test_an_atlas_is_built_asked_checked_and_exported(grey, folder, recipe, printed, optogram):
    np.save("two.npy", np.eye(3, dtype=np.float32)[:2])
    words = ("--pictures", "none", "--recipe", recipe, "--k", 2, "--directions", "3=two.npy")
    built = printed(
        "atlas", "build", grey, folder, "-o", "out", "--layers", "0", "--layers", "3", *words
    )
    assert {layer["name"]: layer["units"] for layer in built["layers"]} == {
        "0": 4,
        "3": 3,
        "3/two": 2,
    }
    assert built["missing"] == {}
    assert printed("atlas", "info", "out") == built
    checked = printed("atlas", "verify", "out")
    assert checked["clean"]
    assert checked["manifest"] == built["manifest"]
    assert printed("atlas", "reindex", "out")["shards"] == checked["shards"]
    paths = printed("atlas", "export", "out", "-o", "shared", "--parquet-images")["paths"]
    assert len(paths) == 10
    said = optogram("atlas", "info", "out").stdout
    assert "9 units of 3 layers" in said
    assert "short: 3 shards" in said
    pack = next((og.atlas.open("out").folder / "data").glob("*/*/*.pack"))
    pack.write_bytes(pack.read_bytes()[:-1])
    broken = optogram("atlas", "verify", "out")
    assert broken.exit_code == 1
    assert "moved to bad" in broken.stdout


def test_a_plan_says_what_would_be_built_and_builds_nothing(
    grey, folder, recipe, printed, optogram
):
    words = ("--pictures", "none", "--recipe", recipe, "--layers", "3")
    planned = printed("atlas", "build", grey, folder, "-o", "out", *words, "--plan")
    shards = {cost["name"]: cost["shards"] for cost in planned["costs"]}
    assert shards == {"survey": 1, "statistics": 1, "images": 1, "short": 1, "patches": 1}
    assert planned["shards"] == 5
    assert planned["picture_bytes"] > 0
    said = optogram("atlas", "build", grey, folder, "-o", "out", *words, "--plan").stdout
    assert "device hours" in said
    assert "nothing was built" in said
    assert not Path("out").exists()


def test_wrong_requests_are_refused_in_a_sentence(grey, folder, refused):
    assert "no atlas" in refused("atlas", "info", folder)
    assert "no atlas" in refused("atlas", "verify", "nowhere")
    build = ("atlas", "build", grey, folder, "-o", "out")
    assert "LAYER=FILE" in refused(*build, "--directions", "3")
    assert "sideways" in refused(*build, "--pictures", "sideways")
    assert "0/4" in refused(*build, "--shard", "4/4")


def test_help_names_the_commands(optogram):
    said = optogram("atlas", "--help").stdout
    assert all(name in said for name in ("build", "info", "verify", "reindex", "export"))
