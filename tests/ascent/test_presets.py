"""Presets by paper: their constants, their order of operations, and that recipes hold them."""

from typing import get_args

import pytest
import torch
from torch import nn

from optogram.ascent import ascend, param, presets
from optogram.ascent.damped import Damped
from optogram.ascent.presets import PRESETS, Name, preset, usual
from optogram.ascent.transform import blurred
from optogram.core import Network, Streams, parse
from optogram.core import objective as ask
from optogram.core.technique import encode
from optogram.pictures.errors import RequestError
from optogram.techniques import maximize
from optogram.zoo import load
from optogram.zoo.replay import replay
from optogram.zoo.tiny import tiny
from tests.core.nets import images, named

LIKE = torch.empty(())
YOSINSKI = {  # the Deep Visualization Toolbox: decay, blur, every, norm, contribution, steps, most
    1: (0.0, 0.5, 4, 50, 0, 500, 100.0, 2.0),
    2: (0.3, 0.0, 4, 20, 0, 750, 100.0, None),
    3: (0.0001, 1.0, 4, 0, 0, 1000, 100.0, None),
    4: (0.0, 0.5, 4, 0, 90, 1000, 1e8, 2.0),
}


def network(size: int = 16) -> Network:
    module = named(conv=nn.Conv2d(3, 4, 3, padding=1), relu=nn.ReLU(), out=nn.Conv2d(4, 3, 3))
    return Network(module, (3, size, size), name="net")


@pytest.mark.parametrize("number", YOSINSKI)
def test_yosinskis_four_settings_are_those_of_the_toolbox(number):
    made = parse(PRESETS[f"yosinski2015-{number}"].settings["param"])
    assert isinstance(made, Damped)
    steps = PRESETS[f"yosinski2015-{number}"].settings["steps"]
    found = (made.decay, made.sigma, made.every, made.norm, made.contribution, steps)
    assert (*found, made.most, made.gain) == YOSINSKI[number]


def test_the_order_is_step_decay_blur_small_contribution_clip(monkeypatch):
    called = []
    names = ["decayed", "smoothed", "without_small", "without_idle", "clipped"]
    for name in ["guard", *names]:
        real = getattr(Damped, name)
        monkeypatch.setattr(
            Damped, name, lambda self, x, real=real, name=name: called.append(name) or real(self, x)
        )
    made = param.damped(decay=0.1, blur=0.7, every=4, norm=10, contribution=10)
    list(ascend(network(), ask.activation("conv:0"), made, steps=3, optimizer="SGD", lr=1.0))
    assert called == ["guard", *names] * 3


def test_the_blur_comes_every_few_steps_only():
    made = param.damped(blur=1.0, every=4)
    made.begin((1, 12, 12), Streams(0, ("a",)), LIKE)
    for step in range(1, 13):
        before = made.pixels.data.clone()
        made.guard([torch.zeros_like(before)])
        made.settle()
        due = step % 4 == 0
        expected = 0.5 + blurred(before - 0.5, 1.0) if due else before
        torch.testing.assert_close(made.pixels.data, expected)


def test_a_step_is_meant_to_raise_the_unit_by_two():
    asked, unit = network(), "out:1@5,5"
    made = param.damped(gain=2.0, most=1e12)
    made.begin((3, 16, 16), Streams(0, ("a",)), LIKE)
    value = ask.activation(unit)(asked.read(made(), "out"))
    (gradient,) = torch.autograd.grad(value.sum(), made.pixels)
    (moved,) = made.guard([gradient])
    assert float((moved * gradient).detach().sum()) == pytest.approx(2.0, rel=1e-4)
    capped = param.damped(gain=2.0, most=100.0)
    (moved,) = capped.guard([gradient * 1e-6])
    torch.testing.assert_close(moved, gradient * 1e-6 * 100 / 255**2)


@pytest.mark.parametrize(("name", "share"), [("yosinski2015-4", 0.9), ("yosinski2015-1", 0.5)])
def test_exactly_so_many_pixels_are_put_back_to_the_mean(name, share):
    made = parse(PRESETS[name].settings["param"])
    run = ascend(network(), ask.activation("out:1"), made, steps=3, optimizer="SGD", lr=1.0)
    *_, end = run
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    back = ((end.images - mean).abs() < 1e-6).all(1)
    assert int(back.sum()) == int(share * 256)


def test_what_is_put_back_is_what_is_smallest():
    made = param.damped(norm=50, contribution=25)
    x = images(2, (3, 4, 4)) - 0.5
    made.gradient = images(2, (3, 4, 4), seed=3) - 0.5
    sizes = x.square().sum(1).sqrt()
    kept = made.without_small(x).abs().sum(1) > 0
    for one, size in zip(kept, sizes, strict=True):
        assert int(one.sum()) == 8
        assert size[one].min() >= size[~one].max()
    shares = (x * made.gradient).sum(1).abs()
    kept = made.without_idle(x).abs().sum(1) > 0
    for one, share in zip(kept, shares, strict=True):
        assert int(one.sum()) == 12
        assert share[one].min() >= share[~one].max()


def test_lucids_numbers():
    settings = PRESETS["olah2017"].options(output=False)
    assert (settings["optimizer"], settings["lr"], settings["steps"]) == ("Adam", 0.05, 512)
    assert settings["redirect"] == 16
    edge, first, scale, rotate, last = parse(settings["transforms"])
    assert edge.beyond == 0.5
    assert (first.pixels, last.pixels) == (8, 4)
    assert scale.factors == tuple(1 + (i - 5) / 50 for i in range(11))
    assert sorted(rotate.degrees) == sorted([*range(-10, 11), *[0] * 5])
    assert not scale.between
    assert not rotate.between


def test_macos_numbers():
    settings = PRESETS["fel2023"].options(output=False)
    assert (settings["optimizer"], settings["lr"], settings["steps"]) == ("NAdam", 1.0, 256)
    assert settings["looks"] == 32
    crop, noise = parse(settings["transforms"])
    assert (crop.size, crop.to, crop.steps, crop.spread, crop.wander) == (
        0.5,
        0.05,
        256,
        0.05,
        0.15,
    )
    assert crop.least == 0.05
    assert (noise.normal, noise.uniform) == (0.08, 0.04)


def test_a_sphere_without_a_radius_has_the_datas():
    made = param.sphere()
    made.begin((1, 28, 28), Streams(0, ("a",)), LIKE)
    assert float(made.pixels.detach().norm()) == pytest.approx(9.20, rel=1e-5)


def test_every_preset_can_be_read_and_says_where_it_comes_from():
    for name in get_args(Name):
        one = preset(name)
        assert one.source
        for output in (False, True):
            options = one.options(output=output)
            assert options.keys() == presets.BASE.keys()
            assert encode(options) is not None
            parse(options["param"])
            parse(options["transforms"])
            assert options["regularizer"] is None or parse(options["regularizer"])
        for key, value in one.settings.items():
            assert f"{key} = {value}" in str(one)
        assert all(sentence in str(one) for sentence in one.differs)
    with pytest.raises(RequestError, match="there is optogram, plain, erhan2009"):
        preset("best")


def test_small_images_have_a_preset_of_their_own():
    assert usual((1, 28, 28)).name == "plain"
    assert usual((3, 31, 400)).name == "plain"
    assert usual((1, 32, 32)).name == "optogram"
    assert usual((3, 224, 224)).name == "optogram"


@pytest.mark.parametrize("name", get_args(Name))
def test_a_picture_of_every_preset_is_made_again_from_its_recipe(name):
    sheet = maximize(load("mnist-mlp"), ["fc7:1", "output:2"], preset=name, steps=2)
    for picture in sheet:
        assert picture.recipe["preset"]["name"] == name
        assert picture.recipe["preset"]["differs"] == list(PRESETS[name].differs)
        assert picture.recipe["arguments"]["steps"] == 2
        said = PRESETS[name].settings.get("param", "pixels()")
        assert picture.recipe["arguments"]["param"] == said
        assert replay(picture.recipe).identical
    assert replay(sheet.recipe).identical


def test_an_option_that_is_given_wins_over_the_presets():
    picture = maximize(tiny(), "fc:1", preset="olah2017", steps=3, lr=0.01, transforms="jitter(1)")
    arguments = picture.recipe["arguments"]
    assert (arguments["steps"], arguments["lr"]) == (3, 0.01)
    assert arguments["transforms"] == "jitter(1)"
    assert arguments["optimizer"] == "Adam"
    assert len(picture.history) == 3


def test_a_preset_may_be_another_for_outputs():
    hidden, output = (
        maximize(tiny(), u, preset="seed_mnist", steps=1) for u in ("fc:1", "output:1")
    )
    assert hidden.recipe["arguments"]["activation"] == "post"
    assert output.recipe["arguments"]["score"] == "probability"


def test_presets_raise_what_they_should_raise():
    asked = network(40)
    for name in get_args(Name):
        if name in ("yosinski2015-2", "yosinski2015-3", "seed_mnist"):
            continue  # their rates are for networks whose units answer in tens, or for digits
        steps = {"fel2023": 6}.get(name, 25)
        first, end = (
            maximize(asked, "out:1", preset=name, steps=n, looks=2 if name == "fel2023" else None)
            for n in (0, steps)
        )
        assert end.score > first.score, name
