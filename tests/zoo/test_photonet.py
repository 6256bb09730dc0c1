"""AlexNet and ZFNet: the published sizes, their small brothers, and how these are trained."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from optogram import data, load
from optogram.cli.commands import train as command
from optogram.pictures.errors import RequestError
from optogram.survey import from_arrays
from optogram.zoo.networks import shipped
from optogram.zoo.photonet import alexnet, tiny_alexnet, tiny_zfnet, zfnet
from optogram.zoo.photos_taught import (
    RECIPES,
    QuickNorm,
    cropped_and_flipped,
    falling,
    renormalised,
    seen_otherwise,
    without_batch_norm,
)
from optogram.zoo.training import Phase, Trained, recipe_named, train


def sides(build, size):
    """The height of every layer's map, by its name."""
    with torch.device("meta"):
        x = torch.empty(1, 3, size, size)
        found = {}
        for name, layer in build().eval().named_children():
            x = layer(x)
            found[name] = x.shape[-1]
    return found


def test_alexnet_has_the_published_number_of_weights_and_maps():
    with torch.device("meta"):
        assert sum(p.numel() for p in alexnet().parameters()) == 60_965_224
    found = sides(alexnet, 224)
    assert [found[n] for n in ("conv1", "pool1", "pool2", "pool5", "fc6")] == [55, 27, 13, 6, 4096]


def test_zfnets_maps_are_as_large_as_its_figure_says():
    found = sides(zfnet, 224)
    layers = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc7", "fc8")
    assert [found[n] for n in layers] == [110, 55, 26, 13, 13, 13, 13, 6, 4096, 1000]


def test_the_small_ones_differ_in_their_first_stage_alone_and_hardly_in_size():
    old, new = tiny_alexnet(), tiny_zfnet()
    weights = [sum(p.numel() for p in net.parameters()) for net in (old, new)]
    assert abs(weights[0] - weights[1]) < 0.01 * weights[1]
    differ = [a for (a, x), y in zip(old.named_children(), new.children(), strict=True)
              if str(x) != str(y)]  # fmt: skip
    assert differ == ["conv1", "pool1"]
    assert (old.conv1.kernel_size[0], old.conv1.stride[0]) == (11, 4)
    assert (new.conv1.kernel_size[0], new.conv1.stride[0]) == (7, 2)
    assert sides(tiny_alexnet, 64)["pool1"] == sides(tiny_zfnet, 64)["pool1"] == 16


def test_pooling_can_be_an_average_from_the_start():
    pools = [m for m in tiny_zfnet(pooling="average").modules() if isinstance(m, nn.AvgPool2d)]
    assert len(pools) == 3
    assert sides(lambda: tiny_zfnet(pooling="average"), 64)["pool5"] == 4


@pytest.mark.parametrize("name", ["tiny-alexnet", "tiny-zfnet"])
def test_the_shipped_weights_come_with_labels_records_and_an_account(name):
    network = load(name)
    account = json.loads(shipped(f"{name}.json").read_text())
    assert network.labels == tuple(account["data"]["training"]["classes"])
    assert len(network.labels) == 20
    assert network.best_in_data(network.units("conv5:3")[0]) is not None
    assert account["shipped"]["test_accuracy"] > 0.4  # chance is 0.05
    assert account["command"].startswith(f"optogram train {name}")
    assert shipped(f"{name}.safetensors").stat().st_size < 8e6
    for file, digest in account["sha256"].items():
        assert hashlib.sha256(shipped(file).read_bytes()).hexdigest() == digest


def test_the_comparison_over_seeds_is_of_equal_epochs_and_of_the_two_networks():
    found = json.loads(shipped("photonets.json").read_text())
    assert set(found["accuracy"]) == {"tiny-alexnet", "tiny-zfnet"}
    assert all(len(runs) == len(found["seeds"]) >= 3 for runs in found["accuracy"].values())
    assert all(0.3 < value < 1 for runs in found["accuracy"].values() for value in runs)
    assert found["data"] == json.loads(shipped("tiny-zfnet.json").read_text())["data"]


def test_without_checkpoints_none_is_kept_and_the_account_says_so(tmp_path):
    out = tmp_path / "colours.safetensors"
    *_, trained = train(
        "tiny-zfnet", data=(kinds(12), kinds(6)), out=out, epochs=2, checkpoints=False
    )
    assert isinstance(trained, Trained)
    assert "--no-checkpoints" in trained.report["command"]
    assert not list(tmp_path.glob("*.epochs.*"))
    assert all((tmp_path / name).is_file() for name in trained.report["sha256"])


@pytest.mark.data
@pytest.mark.parametrize("name", ["tiny-alexnet", "tiny-zfnet"])
def test_the_shipped_weights_are_as_good_as_their_account_says(name, data_root):
    images = data(
        "tinyimagenet20/tinyimagenet20.npz", split="val", shape=(3, 64, 64), root=data_root
    )
    network, right = load(name), 0
    for _, shown, labels in images.batches(250):
        right += int((network(shown).argmax(1) == labels).sum())
    account = json.loads(shipped(f"{name}.json").read_text())
    assert right / 1000 == pytest.approx(account["shipped"]["test_accuracy"], abs=0.01)
    assert images.digest == account["data"]["test"]["digest"]


def test_what_the_quick_contrast_normalisation_computes_is_torchs():
    norm = nn.LocalResponseNorm(5, 0.3, 0.75, 1.5)
    x = torch.randn(2, 9, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    quick = QuickNorm(norm, 9)
    torch.testing.assert_close(quick(x), norm(x))
    torch.testing.assert_close(quick.plain()(x), norm(x))


def test_the_plain_network_answers_as_the_one_with_batch_normalisation():
    module = RECIPES["tiny-zfnet"].build(7, 0)
    x = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        module(x)
    module.eval()
    plain = without_batch_norm(module)
    assert not any(
        "Norm" in type(m).__name__ and "Local" not in type(m).__name__ for m in plain.modules()
    )
    assert list(plain.state_dict()) == list(tiny_zfnet(7).state_dict())
    torch.testing.assert_close(plain(x), module(x), rtol=1e-3, atol=1e-4)


def test_the_rate_warms_up_and_falls():
    rates = [phase.lr for phase in falling(9)]
    assert len(rates) == 9
    assert rates[0] < rates[1] == max(rates)
    assert rates[1:] == sorted(rates[1:], reverse=True)


def test_augmented_images_follow_from_the_generator_and_stay_images():
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    once, again = (seen_otherwise(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.shape == images.shape
    assert 0 <= once.min() <= once.max() <= 1
    assert not torch.equal(once, images)
    crops = cropped_and_flipped(images, torch.Generator().manual_seed(3), side=40)
    assert crops.shape == (6, 3, 40, 40)
    assert all(
        bool(torch.isin(crop, image).all()) for crop, image in zip(crops, images, strict=True)
    )


def test_large_filters_are_scaled_back_and_small_ones_left():
    conv = nn.Conv2d(1, 2, 2)
    with torch.no_grad():
        conv.weight[0], conv.weight[1] = 0.5, 0.05
    renormalised(nn.Sequential(conv))
    torch.testing.assert_close(conv.weight[0], torch.full((1, 2, 2), 0.1))
    torch.testing.assert_close(conv.weight[1], torch.full((1, 2, 2), 0.05))


def kinds(count, classes=3):
    """Images of one colour each, which is their class, with noise."""
    chance = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % classes
    images = torch.rand(count, 3, 64, 64, generator=chance) * 0.5
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label] += 0.5
    names = ("red", "green", "blue")
    return from_arrays(
        images, labels.numpy(), classes=names, name=f"colours {count}", shape=(3, 64, 64)
    )


def test_any_classes_can_be_taught_and_loaded_again(tmp_path):
    out = tmp_path / "colours.safetensors"
    *_, trained = train("tiny-zfnet", data=(kinds(24), kinds(12)), out=out, epochs=2)
    assert isinstance(trained, Trained)
    assert trained.report["command"].startswith("optogram train tiny-zfnet --epochs 2 ")
    network = load("tiny-zfnet", weights=out)
    assert network.labels == ("red", "green", "blue")
    assert network(kinds(12).take(torch.arange(2))[0]).shape == (2, 3)
    epochs = load_epochs(tmp_path / "colours.epochs.safetensors")
    assert set(epochs) == {1, 2}
    assert {name.split(".")[0] for name in epochs[1]} == {f"conv{n}" for n in range(1, 6)}
    torch.testing.assert_close(epochs[2]["conv5.bias"], network.module.state_dict()["conv5.bias"])


def load_epochs(path):
    from safetensors.torch import load_file

    found = {}
    for name, value in load_file(path).items():
        epoch, _, rest = name.partition("/")
        found.setdefault(int(epoch), {})[rest] = value
    return found


def test_a_folder_of_photographs_is_data(tmp_path):
    for split in ("train", "val"):
        for name, colour in (("warm", (200, 80, 30)), ("cold", (20, 60, 210))):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (70, 66 + number), colour).save(folder / f"{number}.png")
    out = tmp_path / "two.safetensors"
    *_, trained = train("tiny-alexnet", root=tmp_path / "set", out=out, epochs=2)
    assert trained.report["data"]["training"]["classes"] == ("cold", "warm")
    assert load("tiny-alexnet", weights=out).labels == ("cold", "warm")


def test_the_full_size_recipe_is_the_papers():
    recipe = recipe_named("zfnet")
    assert (recipe.batch, recipe.momentum, recipe.epochs) == (128, 0.9, 70)
    assert recipe.phases[0].lr == 1e-2
    assert (recipe.shape, recipe.seen) == ((3, 256, 256), (224, 224))
    assert recipe.after_step is renormalised
    assert recipe_named("alexnet").after_step is None


def test_the_middle_is_seen_of_images_that_are_larger_than_the_network_takes(tmp_path):
    def mean(classes, seed):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 2, classes))

    recipe = replace(
        recipe_named("zfnet"), name="middle", build=mean, hidden=(), output="1", seen=(2, 2),
        shape=(3, 64, 64), phases=(Phase(2, 0.05, 0.05),), keep=(), augment=None, after_step=None,
    )  # fmt: skip
    *_, trained = train(recipe, data=(kinds(24), kinds(12)), out=tmp_path / "m.safetensors")
    assert trained.report["shipped"]["test_accuracy"] > 0.5  # the colours are in the middle too


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"spec": "mnist-mlp", "epochs": 3}, "its own number of epochs"),
        ({"spec": "tiny-zfnet", "epochs": 1}, "at least 2"),
    ],
)
def test_epochs_that_cannot_be_had_are_refused(tmp_path, settings, says):
    with pytest.raises(RequestError, match=says):
        next(train(data=(kinds(6), kinds(6)), out=tmp_path / "x.safetensors", **settings))


def test_the_command_knows_the_option():
    assert "--epochs" in CliRunner().invoke(command, ["--help"]).output


def test_a_file_of_other_weights_is_refused_in_a_sentence(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"fc8.bias": torch.zeros(20)}, tmp_path / "w.safetensors")
    with pytest.raises(RequestError, match="for another network"):
        load("tiny-zfnet", weights=tmp_path / "w.safetensors")
