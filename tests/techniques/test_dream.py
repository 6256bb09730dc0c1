"""DeepDream: the notebook's steps and octaves, guides, films, and images of any size."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn

from optogram import data, load
from optogram.ascent import ascend, param
from optogram.core import Activations, Network, backpropagate
from optogram.core import objective as ask
from optogram.core.film import filming
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError
from optogram.techniques import dream
from optogram.techniques.dream import closer, guided, resized
from optogram.zoo import replay
from tests.core.nets import images, named
from tests.techniques.trained import reader


def seeing(dtype: torch.dtype = torch.float32) -> Network:
    module = named(
        conv=nn.Conv2d(3, 6, 5, padding=2), relu=nn.ReLU(inplace=True), pool=nn.MaxPool2d(2),
        late=nn.Conv2d(6, 8, 3, padding=1), act=nn.ReLU(),
    )  # fmt: skip
    return Network(module.to(dtype), (3, 32, 32), mean=(0.4, 0.5, 0.6))


def photo(height: int = 61, width: int = 77, seed: int = 0) -> torch.Tensor:
    """Soft noise."""
    return resized(images(1, (3, 9, 9), seed=seed), height, width)[0]


def test_a_step_that_is_not_clipped_moves_the_mean_pixel_by_the_rate():
    image = photo()
    picture = dream(seeing(), image, "late", steps=1, octaves=1, jitter=0, clip=False)
    assert float((picture.raw - image).abs().mean()) == pytest.approx(1.5 / 255, rel=1e-4)


def test_one_octave_without_jitter_is_normalised_ascent_bit_for_bit():
    network, image = seeing(), photo()
    picture = dream(network, image, "act", steps=5, octaves=1, jitter=0)
    *_, plain = ascend(
        network,
        ask.energy("act"),
        param.pixels(start=image),
        shape=tuple(image.shape),
        steps=5,
        optimizer="SGD",
        lr=1.5 / 255,
        relative="mean",
    )
    assert torch.equal(picture.image, plain.images[0])
    x = image[None]
    for _ in range(5):
        slope = backpropagate(network, x, ask.energy("act"))
        x = (x + 1.5 / 255 / slope.abs().mean() * slope).clamp(0, 1)
    assert torch.allclose(picture.image, x[0], atol=1e-5)


def notebook(network: Network, image: np.ndarray, layer: str, steps: int, octaves: int):
    """The notebook's deepdream() with no jitter, in numpy and scipy."""
    bases = [image]
    for _ in range(octaves - 1):
        bases.append(scipy.ndimage.zoom(bases[-1], (1, 1 / 1.4, 1 / 1.4), order=1, mode="nearest"))
    detail = np.zeros_like(bases[-1])
    for octave, base in enumerate(bases[::-1]):
        if octave:
            share = (1, *(n / m for n, m in zip(base.shape[1:], detail.shape[1:], strict=True)))
            detail = scipy.ndimage.zoom(detail, share, order=1, mode="nearest")
        source = base + detail
        for _ in range(steps):
            shown = torch.from_numpy(source)[None].requires_grad_()
            answer = network.read(shown, layer).layers[layer]
            (slope,) = torch.autograd.grad(answer, shown, answer.detach())
            slope = slope[0].numpy()
            source = np.clip(source + 1.5 / 255 / np.abs(slope).mean() * slope, 0, 1)
        detail = source - base
    return source


def test_octaves_are_those_of_the_notebook():
    network, image = seeing(torch.float64), photo(61, 78).double()
    picture = dream(network, image.float(), "act", steps=3, octaves=3, jitter=0)
    theirs = notebook(network, image.float().double().numpy(), "act", 3, 3)
    assert picture.image.shape == image.shape
    assert np.abs(picture.image.numpy() - theirs).max() < 1e-4


@pytest.mark.parametrize("size", [(33, 47), (64, 31), (24, 24)])
def test_any_size_is_kept(size):
    picture = dream(seeing(), photo(*size), "late", steps=1)
    assert picture.image.shape[1:] == size
    assert dream(seeing(), photo(*size), "late", steps=1, size=40).image.shape[1:] != size
    assert max(dream(seeing(), photo(*size), "late", steps=1, size=40).image.shape) == 40


def test_a_trained_layers_energy_doubles_at_least():
    digit = 0.2 + 0.5 * data("digits", split="test", shape=(1, 28, 28))[3][0]
    picture = dream(reader(), digit, "relu3", steps=40, jitter=0)
    before = float(ask.energy("relu3")(reader().read(digit[None], "relu3")))
    after = float(ask.energy("relu3")(reader().read(picture.image[None], "relu3")))
    assert after >= 2 * before
    assert picture.score == pytest.approx(after, rel=1e-4)
    assert dict(picture.measures)["times the image's"] == pytest.approx(after / before, rel=1e-4)


def test_units_mixtures_and_objectives_rise():
    network, image = seeing(), photo()
    for layer in (
        "late:3",
        ["act", "conv:2"],
        "energy('act') + 2 * activation('conv:2')",
        ask.energy("act") - 0.5 * ask.energy("conv"),
    ):
        picture = dream(network, image, layer, steps=3, octaves=1, jitter=0)
        assert picture.history[-1] > picture.history[0], layer
    mixed = dream(network, image, ["act", "conv"], steps=1, octaves=1, jitter=0)
    assert float(mixed.history[0]) == pytest.approx(2, rel=1e-4)


def test_a_guide_moves_each_place_towards_the_place_it_is_most_like():
    network, guide = seeing(torch.float64), images(1, (3, 12, 12), seed=7).double()
    answer = network.read(guide, "act").layers["act"]
    x = images(1, (8, 5, 6), seed=2).double().requires_grad_()
    value = guided("act", answer)(Activations(network, guide, {"act": x}))
    (slope,) = torch.autograd.grad(value.sum(), x)
    y, rows = answer[0].flatten(1), x.detach()[0].flatten(1)
    for place in range(30):
        best = int((rows[:, place] @ y).argmax())
        assert torch.equal(slope[0].flatten(1)[:, place], y[:, best])


def test_a_guide_that_is_the_image_itself_picks_each_place_itself():
    features = images(1, (8, 4, 5), seed=3).double() - 0.5
    features = features / features.norm(dim=1, keepdim=True)
    x = features.clone().requires_grad_()
    network = seeing(torch.float64)
    value = guided("act", features)(Activations(network, images(1, (3, 8, 10)), {"act": x}))
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert torch.equal(slope, features)


def test_a_guide_changes_the_dream_and_is_for_layers():
    network, image, guide = seeing(), photo(), photo(40, 50, seed=8)
    plain = dream(network, image, "act", steps=2, octaves=1)
    led = dream(network, image, "act", guide=guide, steps=2, octaves=1)
    assert not torch.equal(plain.image, led.image)
    with pytest.raises(RequestError, match="a guide is for a whole layer, as in 'act'"):
        dream(network, image, "act:1", guide=guide)
    with pytest.raises(RequestError, match="a guide speaks of layers"):
        dream(network, image, "energy('act')", guide=guide)


def test_strength_is_the_share_that_is_added():
    network, image = seeing(), photo()
    half, whole = (
        dream(network, image, "act", steps=2, clip=False, strength=s).raw for s in (0.5, 1.0)
    )
    assert torch.allclose(half - image, (whole - image) / 2, atol=1e-6)
    assert torch.equal(dream(network, image, "act", steps=2, strength=0.0).image, image)


def test_pieces_dream_as_the_whole_does_and_leave_no_seam():
    network, image = seeing(), photo(150, 170)
    whole = dream(network, image, "act", steps=4, octaves=2, tile=None)
    pieces = dream(network, image, "act", steps=4, octaves=2, tile=32)
    assert (whole.image - pieces.image).abs().max() < 1e-3
    assert pieces.score == pytest.approx(whole.score, rel=1e-4)


def seam(change: torch.Tensor, tile: int, stride: int = 2) -> torch.Tensor:
    """How steep a change is across the borders of tiles, over how steep it is elsewhere.

    For rows and for columns. What a pool of that stride makes of a border is the same every
    `stride` pixels, so those are what it is compared with.
    """
    ratios = []
    for axis in (1, 2):
        steps = change.double().diff(dim=axis).abs().mean([0, 3 - axis])
        place = torch.arange(1, len(steps) + 1)
        border = place % tile == 0
        ratios.append(steps[border].mean() / steps[(place % stride == 0) & ~border].mean())
    return torch.stack(ratios)


def test_no_seam_is_measured_between_pieces_and_one_is_where_they_are_dreamt_apart():
    """Beside the whole dream, which has no borders: its ratios are the chance of this image."""
    network, image = seeing(), photo(128, 192, seed=1)
    settings = {"steps": 4, "octaves": 1, "jitter": 0, "clip": False}
    whole = seam(dream(network, image, "act", **settings).raw - image, 32)
    pieces = seam(dream(network, image, "act", tile=32, **settings).raw - image, 32)
    apart = torch.zeros_like(image)
    for top in range(0, 128, 32):
        for left in range(0, 192, 32):
            place = slice(None), slice(top, top + 32), slice(left, left + 32)
            apart[place] = dream(network, image[place], "act", **settings).raw
    assert float(pieces.max()) < 1.2
    assert float((pieces - whole).abs().max()) < 0.01
    assert float((seam(apart - image, 32) - whole).abs().max()) > 0.04


LARGE = """
import optogram as og
from optogram.techniques.dream import resized
import torch

chance = torch.Generator().manual_seed(0)
photo = resized(torch.rand(1, 3, 60, 80, generator=chance), 1536, 2048)[0]
network = og.load("googlenet-bvlc", weights="random")
picture = og.dream(network, photo, "inception4c", steps=1, octaves=1)
assert picture.image.shape == (3, 1536, 2048)
with open("/proc/self/status") as status:
    (line,) = [line for line in status if line.startswith("VmHWM")]
print(int(line.split()[1]) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the most memory")
def test_a_large_dream_in_tiles_is_held_in_four_gigabytes():
    """In a process of its own: its code, its libraries and all that it ever held at once."""
    ran = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 4


def test_a_film_is_dreamt_frame_by_frame_ever_closer():
    network, image = seeing(), photo()
    options = {"steps": 2, "octaves": 1, "jitter": 0}
    shown = []
    with filming(shown.append):
        sheet = dream(network, image, "act", frames=3, zoom=0.1, **options)
    assert isinstance(sheet, Sheet)
    assert len(sheet) == 3
    assert len(shown) == 3
    assert torch.equal(shown[1][0], sheet[1].image)
    first = dream(network, image, "act", **options)
    assert torch.equal(first.image, sheet[0].image)
    second = dream(network, closer(first.image, 0.1), "act", **options)
    assert torch.allclose(second.image, sheet[1].image, atol=1e-5)


@pytest.mark.parametrize("size", [(20, 31), (33, 8)])
def test_a_frame_is_cut_as_the_notebook_cuts_it(size):
    image = images(1, (3, *size), seed=6)[0].double()
    s, (h, w) = 0.05, size
    theirs = scipy.ndimage.affine_transform(
        image.numpy(), [1, 1 - s, 1 - s], [0, h * s / 2, w * s / 2], order=1
    )
    assert np.abs(closer(image, s).numpy() - theirs).max() < 1e-9


def test_a_dream_can_be_saved_and_made_again(tmp_path):
    network = load("mnist-mlp")
    digit = data("digits", split="test", shape=(1, 28, 28))[3][0]
    digit.source = "digits:3"
    path = dream(network, digit, "fc2", steps=3).save(tmp_path / "dream.png")
    again = replay(path)
    assert again.identical, again.sentence
    assert again.result.recipe["arguments"]["octaves"] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layer": "nowhere"}, "no layer called 'nowhere'"),
        ({"layer": []}, "no layer was asked for"),
        ({"steps": -1}, "none may be negative"),
        ({"lr": 0.0}, "none may be negative"),
        ({"octaves": 0}, "at least 1, and above 1"),
        ({"scale": 1.0}, "at least 1, and above 1"),
        ({"frames": 0}, "at least 1, and from 0 to below 1"),
        ({"size": 0}, "at least one pixel"),
    ],
)
def test_what_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(RequestError, match=sentence):
        dream(**{"network": seeing(), "image": photo(), "layer": "act", **options})


@pytest.mark.data
def test_googlenet_dreams_of_more_than_it_saw(data_root):
    network = load("googlenet-bvlc", weights=data_root / "weights" / "googlenet_bvlc.safetensors")
    cat = data("photos")[1][0]
    picture = dream(network, cat, "inception4c", size=150, octaves=2, steps=5)
    assert isinstance(picture, Picture)
    assert dict(picture.measures)["times the image's"] > 2
