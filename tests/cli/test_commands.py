"""The commands that are no technique."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import optogram as og
from optogram.cli import commands, reading
from optogram.core.technique import techniques
from optogram.zoo import training
from optogram.zoo.training import Phase, Recipe

STOP_AT = 60


class Linear(nn.Sequential):
    """A line between ten digits; it can be told to stop like somebody who presses Ctrl-C."""

    steps, stop = 0, False

    def forward(self, images):
        Linear.steps += self.training
        if Linear.stop and Linear.steps == STOP_AT:
            raise KeyboardInterrupt
        return super().forward(images)


def linear(seed):
    layer = nn.utils.skip_init(nn.Linear, 784, 10)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return Linear(nn.Flatten(), layer)


RECIPE = Recipe(
    name="line",
    build=linear,
    data="digits",
    shape=(1, 28, 28),
    hidden=(),
    output="1",
    phases=(Phase(3, lr=0.1, nominal=0.1),),
)


@pytest.fixture
def line(monkeypatch):
    monkeypatch.setattr(training, "recipe_named", {"line": RECIPE}.__getitem__)
    monkeypatch.setattr(Linear, "steps", 0)


@pytest.fixture
def saved(optogram, grey, image):
    """`why.png`, a map of two units on `ramp.png`, and its recipe."""
    assert optogram("saliency", grey, image, "0:1", "output:cat", "-o", "why.png").exit_code == 0
    return "why.png"


def test_without_a_unit_the_first_answer_is_explained(optogram, grey, image):
    made = optogram("saliency", grey, image, "-o", "first.png")
    assert made.exit_code == 0
    network = og.load(str(grey))
    answer = int(network(og.zoo.image_for(network, image)[None])[0].argmax())
    assert f"output:{answer}" in made.stdout
    assert f"'output:{answer}' is explained" in made.stderr


def test_a_target_is_a_unit_by_another_name(optogram, grey, image):
    one = optogram("saliency", grey, image, "0:1", "output:1", "--json")
    other = optogram("saliency", grey, image, "0:1", "--target", "output:1", "--json")
    assert json.loads(one.stdout) == json.loads(other.stdout)


def test_networks_are_listed(optogram, printed):
    rows = printed("networks")
    assert "mnist-mlp" in [row["name"] for row in rows]
    for row in rows:
        assert f"{row['name']}  " in optogram("networks").stdout
        assert row["description"] in optogram("networks").stdout


def test_methods_are_listed(optogram, printed):
    rows = {row["name"].replace("-", "_"): row["summary"] for row in printed("methods")}
    assert rows == {name: technique.summary for name, technique in techniques().items()}
    assert len(optogram("methods").stdout.splitlines()) == len(rows)


def test_layers_are_a_table(optogram, grey):
    assert optogram("layers", grey).stdout == f"{og.load(grey)}\n"


def test_layers_are_numbers_for_programs(printed, grey):
    about = printed("layers", grey)
    assert about["shape"] == [1, 8, 8]
    assert about["labels"] == ["cat", "dog", "red panda"]
    conv = {"name": "0", "kind": "Conv2d", "shape": [4, 6, 6], "units": 4, "field": [3, 3]}
    assert about["layers"][0] == conv
    assert about["layers"][-1]["name"] == "output"
    assert about["layers"][-1]["field"] is None


def test_a_result_that_is_made_again_is_identical(optogram, printed, saved):
    again = optogram("replay", saved)
    assert (again.stdout, again.stderr, again.exit_code) == ("identical\n", "", 0)
    assert printed("replay", saved)["identical"] is True


def test_a_result_that_comes_out_otherwise_is_a_failure(optogram, saved, tmp_path):
    recipe = og.pictures.read_recipe(tmp_path / saved) | {"result": "sha256:0"}
    (tmp_path / "other.json").write_text(json.dumps(recipe))
    again = optogram("replay", "other.json")
    assert (again.stdout, again.stderr, again.exit_code) == ("not the same numbers\n", "", 1)
    told = optogram("replay", "other.json", "--json")
    assert (json.loads(told.stdout)["identical"], told.exit_code) == (False, 1)


def test_the_image_of_a_result_may_have_moved(optogram, refused, grey, tmp_path):
    Image.linear_gradient("L").resize((30, 20)).save(tmp_path / "a.png")
    assert optogram("saliency", grey, "a.png", "0:1", "-o", "why.png").exit_code == 0
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert "a.png" in refused("replay", "why.png")
    assert optogram("replay", "why.png", "--image", "b.png").stdout == "identical\n"


def test_the_network_of_a_moved_image_comes_with_its_own_weights(
    optogram, colour, tmp_path, monkeypatch
):
    weights = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}
    save_file(weights, tmp_path / "w.safetensors")
    Image.new("RGB", (24, 16)).save(tmp_path / "a.png")
    words = ("saliency", colour, "a.png", "0:1", "--weights", "w.safetensors", "-o", "why.png")
    assert optogram(*words).exit_code == 0
    fetched = []
    monkeypatch.setattr(reading, "load", lambda *a, **k: fetched.append((a, k)) or og.load(*a, **k))
    assert optogram("replay", "why.png", "--image", "a.png").stdout == "identical\n"
    assert fetched == [((colour,), {"weights": "w.safetensors"})]


def test_a_training_that_was_interrupted_ends_with_the_same_weights(
    optogram, refused, line, monkeypatch, tmp_path
):
    assert optogram("train", "line", "-o", "whole.safetensors").exit_code == 0
    monkeypatch.setattr(Linear, "steps", 0)
    monkeypatch.setattr(Linear, "stop", True)
    words = ("train", "line", "-o", "stopped.safetensors")
    assert "the same command goes on" in refused(*words, code=130)
    assert not (tmp_path / "stopped.safetensors").exists()
    monkeypatch.setattr(Linear, "stop", False)
    assert optogram(*words).exit_code == 0
    whole, stopped = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("whole", "stopped"))
    assert whole == stopped
    steps = 3 * 41  # 1,297 digits in batches of 32
    assert Linear.steps == STOP_AT + steps - 41  # the first epoch was not done again


def test_a_training_tells_what_it_wrote(optogram, printed, line, tmp_path):
    told = printed("train", "line", "--seed", 3, "-o", "w.safetensors")
    assert told["paths"] == ["w.safetensors", "w.json", "w.records.safetensors"]
    assert all((tmp_path / path).is_file() for path in told["paths"])
    account = json.loads((tmp_path / "w.json").read_text())
    assert account["seed"] == 3
    accuracy = account["shipped"]["test_accuracy"]
    assert 0.8 < accuracy < 1
    said = optogram("train", "line", "--seed", 3, "-o", "w.safetensors")
    lines = [f"{accuracy:.2%} of the test images right", *told["paths"]]
    assert said.stdout.splitlines() == lines
    assert said.stderr == ""


def test_a_terminal_is_told_of_every_epoch(line, tmp_path, capsys):
    commands._trained(True, spec="line", out=tmp_path / "w.safetensors")
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "epoch 1 of 3",
        "epoch 2 of 3",
        "epoch 3 of 3",
    ]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["resnet18", "-o", "w.safetensors"], "mnist-mlp"),
        (["mnist-mlp", "-o", "w.pt"], ".safetensors"),
        (["mnist-mlp", "-o", "nowhere/w.safetensors"], "no folder"),
        (["mnist-mlp"], "--output"),
        (["mnist-mlp", "-o", "w.safetensors", "--device", "toaster"], "cpu"),
    ],
)
def test_a_training_that_cannot_begin(refused, words, hint):
    assert hint in refused("train", *words)


def test_a_loss_that_is_no_number_is_a_run_that_failed(refused, line, monkeypatch):
    wild = replace(RECIPE, phases=(Phase(1, lr=1e38, nominal=1.0),))
    monkeypatch.setattr(training, "recipe_named", {"line": wild}.__getitem__)
    said = refused("train", "line", "-o", "w.safetensors", code=1)
    assert said.startswith("FloatingPointError: the loss of line is")


def test_the_tour_says_where_it_is(optogram, printed, monkeypatch, tmp_path):
    asked = []

    def tour(directory, *, seed):
        asked.append((directory, seed))
        return tmp_path / directory / "index.html"

    monkeypatch.setattr("optogram.studies.tour", tour)
    assert optogram("tour").stdout == f"{tmp_path / 'optogram-tour' / 'index.html'}\n"
    assert printed("tour", "-o", "x", "--seed", 4)["path"] == str(tmp_path / "x" / "index.html")
    assert asked == [("optogram-tour", 0), ("x", 4)]


def test_the_tour_wants_a_folder(refused, image):
    assert "is a file" in refused("tour", "-o", image)


@pytest.mark.parametrize("name", ["layers", "replay", "train", "networks", "methods", "tour"])
def test_every_command_takes_seed_json_and_debug(optogram, name):
    page = optogram(name, "--help").stdout
    assert all(option in page for option in ("--seed", "--json", "--debug"))


def test_a_training_that_ends_with_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(training, "train", lambda **settings: iter(()))
    with pytest.raises(RuntimeError, match="ended without a result"):
        commands._trained(False, spec="line")


def test_a_device_that_is_there_is_used(printed, grey, device):
    assert printed("layers", grey, "--device", device)["layers"][0]["units"] == 4
