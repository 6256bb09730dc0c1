"""Whitened patches of photographs, and stacks of real pixels without classes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import optogram as og
from optogram.core.chance import generator
from optogram.survey.sources import from_arrays
from optogram.zoo import patches as own
from optogram.zoo.dbn import machine_lesson
from optogram.zoo.greedy import Curriculum
from optogram.zoo.rbm import Rates
from optogram.zoo.sdae import layer_lesson
from optogram.zoo.stack import Autoencoder, DeepBelief
from optogram.zoo.training import recipe_named, train


def rings(image, edges):
    """The mean power of an image between frequencies, in cycles a pixel."""
    power = np.abs(np.fft.fft2(image)) ** 2
    down, across = (np.fft.fftfreq(n) for n in image.shape)
    frequency = np.hypot(down[:, None], across)
    pairs = pairwise(edges)
    return [power[(frequency >= a) & (frequency < b)].mean() for a, b in pairs]


def test_whitening_makes_the_spectrum_of_a_scene_flat_up_to_where_it_fades():
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(128, 128)))
    down = np.fft.fftfreq(128)
    frequency = np.hypot(down[:, None], down)
    frequency[0, 0] = 1
    scene = np.fft.ifft2(noise / frequency).real + 7
    flat = own.whitened(scene)
    assert flat.mean() == pytest.approx(0, abs=1e-9)
    assert flat.std() == pytest.approx(1)
    before, after = rings(scene, (0.02, 0.05, 0.1, 0.2)), rings(flat, (0.02, 0.05, 0.1, 0.2))
    assert before[0] > 5 * before[2]
    assert after[0] == pytest.approx(after[2], rel=0.3)
    assert rings(flat, (0.45, 0.5))[0] < 0.5 * after[2]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(own, "PATCHES", {"train": 200, "test": 100})


def test_patches_are_the_same_each_time_grey_in_the_mean_and_can_be_had_by_name(few):
    first, again = own.patches(), og.data("patches")
    assert first.digest == again.digest
    assert first.digest != own.patches("test").digest
    assert len(first) == 200
    assert set(first.labels.tolist()) == set(range(len(own.PHOTOS)))
    images = torch.cat([shown for _, shown, _ in first.batches(100)])
    assert images.shape == (200, 1, 12, 12)
    assert float(images.mean()) == pytest.approx(0.5, abs=0.02)
    assert 0.05 < float(images.std()) < 0.2


def test_no_pixel_to_test_on_is_one_to_train_on(few, monkeypatch):
    """Photographs whose pixels tell their row: all rows to test on lie below all others."""
    monkeypatch.setattr(own, "_grey", lambda name: np.repeat(np.arange(200.0)[:, None], 90, 1))
    monkeypatch.setattr(own, "whitened", lambda photo: photo / 25 - 4)
    rows = {}
    for split in ("train", "test"):
        shown = torch.cat([images for _, images, _ in own.patches(split).batches(100)])
        rows[split] = (shown - 0.5) / 0.1
    assert float(rows["train"].max()) < float(rows["test"].min())


SIZES = (16, 6, 4)


def noise(count, seed):
    draw = np.random.default_rng(seed)
    return from_arrays(draw.integers(0, 256, (count, 4, 4)).astype(np.uint8), name=f"noise{seed}")


@pytest.mark.parametrize("kind", ["dbn", "sdae"])
def test_a_stack_of_real_pixels_without_classes_is_taught_as_it_will_be_shown(tmp_path, kind):
    lessons = {
        "dbn": (machine_lesson(1, 2, Rates(lr=0.01), 20), machine_lesson(2, 1, Rates(), 20)),
        "sdae": (layer_lesson(1, 2, lr=0.01, noise="gaussian", amount=0.3, batch=20),),
    }[kind]
    builds = {
        "dbn": lambda seed: DeepBelief(SIZES, gaussian=True, classes=False, deviation=0.2),
        "sdae": lambda seed: Autoencoder(SIZES, gaussian=True, classes=False, deviation=0.2),
    }
    measure = {"dbn": own.likelihood, "sdae": own.restoration}[kind]
    recipe = Curriculum(
        f"noise-{kind}", builds[kind], "noise", (1, 4, 4), lessons, measure, mean=0.5, std=0.25
    )
    sets = noise(100, 0), noise(40, 1)
    *told, trained = train(recipe, data=sets, out=tmp_path / "n.safetensors")
    assert {event.lesson for event in told} == {lesson.name for lesson in lessons}
    assert "test_accuracy" not in trained.report["shipped"]
    assert "curves" in trained.report
    module = builds[kind](0)
    module.load_state_dict({k: v.float() for k, v in load_file(trained.weights).items()})
    kept, images = load_file(trained.records), torch.cat([i for _, i, _ in sets[0].batches(50)])
    heard = module.h1(((images - 0.5) / 0.25).flatten(1))
    torch.testing.assert_close(kept["h1.maximum"], heard.detach().amax(0))
    norm = float((images - 0.5).flatten(1).norm(dim=1).mean())
    assert float(kept["data.mean_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(kept["data.centre"]) == 0.5


def test_without_classes_the_highest_hidden_layer_answers():
    stack = DeepBelief(SIZES, gaussian=True, classes=False, deviation=0.5)
    values = torch.randn(3, 16, generator=generator("x"))
    assert stack.depth == 2
    torch.testing.assert_close(stack(values.view(3, 1, 4, 4)), stack.up(values, 0, 2))
    assert stack.boltzmanns()[0].gaussian
    assert not stack.boltzmanns()[1].gaussian


def test_maximize_stays_on_the_sphere_around_grey():
    """A unit of real pixels: its optimum is its weights, from grey, at the data's norm from it."""
    stack = DeepBelief(SIZES, gaussian=True, classes=False, deviation=0.5)
    records = {"data.mean_norm": torch.tensor(1.5), "data.centre": torch.tensor(0.5)}
    network = og.Network(stack, (1, 4, 4), mean=(0.5,), std=(0.2,), records=records)
    starts = og.maximize(network, "h1:2", preset="erhan2009", facets=9, diversity=0.0)
    assert len(starts) == 9
    for picture in starts:
        away = (picture.raw - 0.5).flatten()
        assert float(away.norm()) == pytest.approx(1.5, rel=1e-5)
        assert float(torch.cosine_similarity(away, stack.h1.weight[2].detach(), dim=0)) > 0.999
        assert float(picture.image.min()) >= 0
        assert float(picture.image.max()) <= 1


def test_the_recipes_have_names():
    for name in ("patches-dbn", "patches-sdae", "mnist-dbn-tuned", "mnist-sdae-tuned"):
        assert recipe_named(name).name == name
