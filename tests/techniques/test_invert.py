"""Images from a layer's answers: closed forms, the paper's numbers, and what is lost with depth."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from optogram import data, load
from optogram.core import Activations, Direction, Network
from optogram.core import objective as ask
from optogram.core.technique import call
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError
from optogram.survey.datasets import fit
from optogram.techniques import invert
from optogram.techniques.invert import DEVIATION, _natural
from optogram.zoo import replay
from tests.core.nets import images, named, seeded
from tests.techniques.trained import reader

DEPTHS = ["conv1", "conv2", "conv3", "fc4", "relu4", "fc5"]


def digit(number: int = 3) -> torch.Tensor:
    return data("digits", split="test", shape=(1, 28, 28))[number][0]


def linear(inputs: int = 48, outputs: int = 48) -> Network:
    """An orthogonal map, which loses nothing."""
    module = named(flat=nn.Flatten(), fc=nn.Linear(inputs, outputs, bias=False))
    nn.init.orthogonal_(module.fc.weight, generator=torch.Generator().manual_seed(1))
    return Network(module, (3, 4, 4))


def measured(picture: Picture) -> dict[str, float]:
    return dict(picture.measures)


@pytest.mark.parametrize("optimizer", ["SGD", "L-BFGS", "Adam"])
def test_a_map_that_loses_nothing_gives_the_image_back(optimizer):
    image = images(1, (3, 4, 4), seed=3)[0]
    faster = {"SGD": {"lr": 0.2}, "Adam": {"lr": 0.05}}.get(optimizer, {})
    picture = invert(
        linear(), image, "fc", regularizer=None, optimizer=optimizer, steps=150, **faster
    )
    assert torch.allclose(picture.image, image, atol=0.04)
    assert measured(picture)["image distance"] < 0.01
    assert picture.score > -1e-3


@pytest.mark.parametrize(("alpha", "beta"), [(6.0, 2.0), (6.0, 1.5), (3.0, 1.0)])
def test_the_gradients_of_both_regularisers_are_those_of_the_formulas(alpha, beta):
    x = (images(1, (3, 7, 5), seed=1).double() * 3 - 1).requires_grad_()
    grey = [0.2, 0.4, 0.6]
    terms = ask.alpha_norm(alpha, about=grey) + 0.3 * ask.total_variation(beta=beta)
    (found,) = torch.autograd.grad(terms(Activations(linear(), x, {})).sum(), x)
    u = x.detach().numpy()[0]
    away = u - np.array(grey)[:, None, None]
    expected = alpha * np.abs(away) ** (alpha - 1) * np.sign(away)
    right, below = np.zeros_like(u), np.zeros_like(u)
    right[:, :, :-1], below[:, :-1] = np.diff(u, axis=2), np.diff(u, axis=1)
    squares = right**2 + below**2
    slope = beta / 2 * squares ** (beta / 2 - 1, 0)[0] if beta == 2 else None
    if slope is None:
        slope = np.where(squares > 1e-5, beta / 2 * np.maximum(squares, 1e-30) ** (beta / 2 - 1), 0)
    pull = np.zeros_like(u)
    pull -= 2 * slope * (right + below)
    pull[:, :, 1:] += 2 * (slope * right)[:, :, :-1]
    pull[:, 1:] += 2 * (slope * below)[:, :-1]
    expected += 0.3 * pull
    assert np.abs(found[0].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_regulariser_is_the_released_codes_in_pixel_units():
    """With 227x227x3 numbers u = 255 (x - mean): [TV/2 + 8e-10 sum u^6 / 2] / sigma^2."""
    network = Network(nn.Sequential(nn.Conv2d(3, 2, 3)), (3, 227, 227), mean=(0.4, 0.5, 0.6))
    x = images(1, (3, 227, 227), seed=2)
    told = float(
        _natural(network, network.resolve("0"), network.shape)(Activations(network, x, {}))
    )
    u = 255 * (x[0].double() - torch.tensor([0.4, 0.5, 0.6]).double()[:, None, None])
    variation = float(u.diff(dim=1).square().sum() + u.diff(dim=2).square().sum())
    sigma = 27098.1
    # A network of one layer is at the end of its depth, where TV weighs 100.
    expected = (0.5 * 100 * variation + 0.5 * 8e-10 * float((u**6).sum())) / sigma**2
    assert told == pytest.approx(expected, rel=1e-4)
    assert pytest.approx(sigma, rel=1e-6) == DEVIATION * 255 * (227 * 227 * 3) ** 0.5


def test_the_first_layers_are_matched_and_the_image_is_lost_with_depth():
    network, image = reader(), digit()
    fast: dict[str, Any] = {"optimizer": "L-BFGS", "steps": 60}
    light = invert(
        network, image, DEPTHS[:3], regularizer="1e-5 * total_variation(beta=2.0)", **fast
    )
    assert all(-picture.score <= 0.05 for picture in light)
    sheet = invert(network, image, DEPTHS, **fast)
    lost = [measured(picture)["image distance"] for picture in sheet]
    assert spearmanr(lost, range(len(lost))).statistic >= 0.8
    assert measured(sheet[0])["SSIM"] > measured(sheet[3])["SSIM"] + 0.2
    assert lost[0] < 0.3 < lost[3]


def test_the_papers_regulariser_lets_a_convolutional_networks_first_layers_be_matched():
    """tiny-zfnet's first three convolutions, everything at its default but the optimiser."""
    network = load("tiny-zfnet")
    cat = fit(data("photos")[1][0], network.shape)
    layers = ["conv1", "conv2", "conv3", "conv5", "fc8"]
    sheet = invert(network, cat, layers, optimizer="L-BFGS", steps=40)
    assert all(-picture.score <= 0.05 for picture in sheet.items[:3])
    lost = [measured(picture)["image distance"] for picture in sheet]
    assert spearmanr(lost, range(len(lost))).statistic >= 0.8
    assert measured(sheet[0])["SSIM"] > 0.9


def test_the_seeds_formula_shrinks_the_answer_where_the_papers_keeps_it():
    """Along phi0 the seed's sum is (z - 1)^2 + z^6, least at z = 0.6505 and not at 1."""
    image = images(1, (3, 4, 4), seed=3)[0]
    literal = invert(
        linear(), image, "fc", formula="seed_literal", optimizer="L-BFGS", start="mean"
    )
    whole = float(linear()(image[None]).norm())
    assert float(linear()(literal.raw[None]).norm()) / whole == pytest.approx(0.6505, abs=0.01)
    paper = invert(linear(), image, "fc", optimizer="L-BFGS", steps=60, regularizer=None)
    assert float(linear()(paper.raw[None]).norm()) / whole == pytest.approx(1, abs=0.01)


def test_one_units_map_one_place_and_a_direction_are_matched_alone():
    network, image = reader(), digit()
    along = Direction("conv2", torch.linspace(-1, 1, 16), "ramp")
    for target in ("conv2:5", "conv2:3@6,6", along):
        picture = invert(network, image, target, regularizer=None, optimizer="L-BFGS", steps=30)
        assert picture.unit == str(target)
        assert -picture.score < 0.05, target
        assert measured(picture)["image distance"] > 0.2, target


def test_a_code_from_outside_is_inverted_with_no_image(tmp_path):
    network, image = reader(), digit()
    answer = network.read(image[None], "conv1").layers["conv1"]
    np.save(tmp_path / "code.npy", answer[0].numpy())
    given = invert(network, image, "conv1", steps=20, optimizer="L-BFGS")
    for code in (answer, answer[0], str(tmp_path / "code.npy")):
        picture = invert(network, None, "conv1", code=code, steps=20, optimizer="L-BFGS")
        assert torch.allclose(picture.image, given.image, atol=1e-4)
        assert "image distance" not in measured(picture)
    with pytest.raises(RequestError, match=r"the code is \(3, 4\); conv1 answers"):
        invert(network, None, "conv1", code=torch.ones(3, 4))
    with pytest.raises(RequestError, match=r"no file 'nowhere\.npy'"):
        invert(network, None, "conv1", code="nowhere.npy")
    (tmp_path / "text.npy").write_text("no numbers")
    with pytest.raises(RequestError, match=r"is no \.npy file of numbers"):
        invert(network, None, "conv1", code=str(tmp_path / "text.npy"))


def test_several_starts_fit_alike_and_differ_in_the_image():
    options = {"regularizer": None, "optimizer": "L-BFGS", "steps": 30}
    sheet = invert(reader(), digit(), "fc5", starts=3, **options)
    assert isinstance(sheet, Sheet)
    assert len(sheet) == 3
    assert all(-picture.score < 0.1 for picture in sheet)
    assert all(measured(picture)["other starts"] > 0.2 for picture in sheet)


def test_a_start_is_the_same_alone_and_among_others():
    alone = invert(linear(), images(1, (3, 4, 4))[0], "fc", steps=5, transforms="[jitter(1)]")
    among = invert(
        linear(), images(1, (3, 4, 4))[0], "fc", steps=5, starts=3, transforms="[jitter(1)]"
    )
    assert torch.allclose(alone.raw, among[0].raw, atol=1e-5)


def test_a_descent_that_diverges_is_begun_anew_more_slowly():
    picture = invert(linear(), images(1, (3, 4, 4))[0], "fc", lr=2.0, regularizer=None)
    assert torch.isfinite(picture.raw).all()
    assert -picture.score < 1e-3
    with pytest.raises(RequestError, match="diverges at lr=1000"):
        invert(linear(), images(1, (3, 4, 4))[0], "fc", lr=1000.0, steps=60)


def test_a_pattern_names_layers_in_their_order():
    sheet = invert(reader(), digit(), "conv*", steps=1)
    assert sheet.units == ("conv1", "conv2", "conv3")
    with pytest.raises(RequestError, match=r"'deep\*' matches no layer of reader"):
        invert(reader(), digit(), "deep*")


def test_what_cannot_be_inverted_is_refused():
    network = Network(seeded(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())), (1, 6, 6))
    with torch.no_grad():
        network.module[0].bias.fill_(-100)
    with pytest.raises(RequestError, match="1 is 0 everywhere on this image"):
        invert(network, images(1, (1, 6, 6))[0], "1")
    with pytest.raises(RequestError, match="give an image, or a code"):
        invert(reader(), None, "fc5")
    with pytest.raises(RequestError, match="starts=0: at least one"):
        invert(reader(), digit(), "fc5", starts=0)


def test_a_saved_inversion_is_made_again_bit_for_bit(tmp_path):
    network = load("mnist-mlp")
    image = digit()
    image.source = "digits:3"
    path = invert(network, image, "fc1", steps=5).save(tmp_path / "fc1.png")
    again = replay(path)
    assert again.identical, again.sentence


@pytest.mark.data
def test_googlenet_keeps_less_of_a_cat_the_deeper(data_root):
    network = load("googlenet-bvlc", weights=data_root / "weights" / "googlenet_bvlc.safetensors")
    cat = fit(data("photos")[1][0], (3, 64, 64))
    layers = ["conv1", "conv3", "inception4a", "inception5b"]
    sheet = invert(network, cat, layers, optimizer="L-BFGS", steps=40)
    lost = [measured(picture)["image distance"] for picture in sheet]
    assert lost[0] < 0.3 < lost[1] < lost[2]
    assert measured(sheet[0])["SSIM"] > 0.7 > 0.4 > measured(sheet[2])["SSIM"]


def test_it_is_a_technique_by_name():
    made = call("invert", network=linear(), image=images(1, (3, 4, 4))[0], layer="fc", steps=2)
    assert made.recipe["technique"] == "invert"
    assert made.recipe["arguments"]["lr"] == 0.004
