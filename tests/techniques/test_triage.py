"""Triage: sets that the judge did not learn from are told apart, and each measure measures."""

import importlib

import pytest
import torch
from sklearn.metrics import roc_auc_score

import optogram as og
from optogram.pictures.errors import RequestError

room = importlib.import_module("optogram.techniques.triage")


@pytest.fixture(scope="module")
def mlp():
    return og.load("mnist-mlp")


@pytest.fixture(scope="module")
def digits(mlp):
    return og.data("digits", split="train", shape=mlp.shape)


@pytest.fixture(scope="module")
def judge(mlp, digits):
    return room._judge(mlp, digits, room._features(mlp), 40, 0)


def told(judge, sets):
    """Each kind's area under the curve against each other kind, and the share told right."""
    chances = [judge.chances(judge.measured(images)) for images in sets]
    found = {}
    for one in range(3):
        for other in range(3):
            if one != other:
                both = torch.cat([chances[one], chances[other]])
                share = both[:, one] / (both[:, one] + both[:, other]).clamp(min=1e-12)
                truth = [1] * len(chances[one]) + [0] * len(chances[other])
                found[one, other] = roc_auc_score(truth, share)
    return found


@pytest.mark.data
def test_sets_of_mnist_are_told_apart_by_a_judge_that_saw_none_of_them(mlp, judge, data_root):
    """Learned on scikit-learn's digits, asked about MNIST's; other seeds make the other sets."""
    test = og.data("mnist", split="test", shape=mlp.shape, root=data_root)
    found = told(judge, room.examples(mlp, test.take(torch.arange(0, 1500, 30))[0], seed=77))
    assert min(found.values()) > 0.95, found


def test_what_other_ways_made_is_told_too(mlp, judge, digits):
    """A judge of what `fool` and `evolve` make, in ways that it did not learn from."""
    real = og.data("digits", split="test", shape=mlp.shape).take(torch.arange(0, 300, 10))[0]
    wrong = [f"output:{(int(w) + 4) % 10}" for w in mlp(real).argmax(1)]
    forged = og.fool(mlp, wrong, start=real, goal=0.9, steps=30).images
    bred = og.evolve(mlp, "output", encoding="direct", generations=25, population=60).images
    climbed = og.fool(mlp, mlp.units("output"), start="noise", seed=5).images
    found = told(judge, (real, forged, torch.cat([bred, climbed])))
    assert min(found.values()) > 0.95, found
    verdicts = [p.verdict for p in og.triage(mlp, climbed, digits)]
    assert verdicts.count("fooling") >= 8


def test_the_verdict_comes_with_its_measures_and_its_areas_under_the_curve(mlp, digits):
    real = og.data("digits", split="test", shape=mlp.shape)[0][0]
    made = og.triage(mlp, real, digits)
    measures = dict(made.measures)
    assert made.verdict == "natural"
    assert set(room.MEASURES) | set(room.KINDS) <= set(measures)
    assert sum(measures[kind] for kind in room.KINDS) == pytest.approx(1)
    assert all(measures[f"AUC of {kind}"] > 0.9 for kind in room.KINDS)
    assert made.score == pytest.approx(float(mlp(real[None]).softmax(1).max()), abs=1e-5)
    assert made.unit == f"output:{int(mlp(real[None]).argmax())}"


def test_the_slope_of_a_spectrum_is_that_which_was_made():
    rows, columns = (torch.fft.fftfreq(64, d=1 / 64) for _ in range(2))
    far = (rows[:, None].square() + columns.square()).sqrt().clamp(min=1)
    noise = torch.fft.fft2(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    for slope in (0.0, -1.0, -2.0):
        image = torch.fft.ifft2(noise * far ** (slope / 2)).real[None, None]
        assert float(room._slope(image)) == pytest.approx(slope, abs=0.25)


def test_roughness_is_total_variation_a_pixel():
    image = torch.zeros(1, 1, 4, 4)
    image[..., 1, 2] = 1.0
    assert float(room._roughness(image)) == pytest.approx(4 / 16)


def test_an_images_measures_do_not_depend_on_its_company(judge, digits):
    images = digits.take(torch.arange(6))[0]
    together = judge.measured(images)
    torch.testing.assert_close(judge.measured(images[2:3]), together[2:3], rtol=1e-3, atol=1e-3)


def test_an_image_of_the_data_is_not_its_own_neighbour(mlp, judge, digits):
    bank = judge.bank
    again = bank.features[:5]
    near, _, _ = bank._nearest(again, bank.features, bank.winners[:5])
    assert float(near.min()) > 1e-4


def test_it_is_made_again_from_its_recipe(mlp, digits, tmp_path):
    from optogram.zoo.replay import image_for

    path = og.triage(mlp, image_for(mlp, "digits:3"), digits).save(tmp_path / "a.json")
    assert og.replay(path).identical


def test_what_cannot_be_is_refused_in_a_sentence(mlp, digits):
    image = digits[0][0]
    for arguments, words in (
        ({"samples": 3}, "at least 10"),
        ({"image": image + 1}, "outside"),
        ({"layer": "fc99"}, "fc99"),
    ):
        with pytest.raises(RequestError, match=words):
            og.triage(mlp, **{"image": image, "dataset": digits, **arguments})
