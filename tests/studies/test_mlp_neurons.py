"""The MNIST study: its yardsticks, its recipes, its shelf, and what it finds on planted units."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from optogram import Network, data, load, maximize
from optogram.core import objective as ask
from optogram.core.unit import Unit
from optogram.studies import mlp_neurons as run
from optogram.studies.drawing import Bar, Line, Tile, brightened, grid
from optogram.studies.found import Claim, Figure, Found
from optogram.studies.mlp_neurons import company, everyone, hidden, outputs, recipes, study
from optogram.studies.mlp_neurons.adversaries import RECIPES
from optogram.studies.mlp_neurons.bench import Bench
from optogram.studies.mlp_neurons.recipes import (
    chances,
    climb,
    entropy,
    fool,
    likeness,
    own_and_next,
    pairwise,
    paper,
    probabilities,
    variation,
    working,
)
from optogram.studies.shelf import Shelf


@pytest.fixture(scope="module")
def network():
    return load("mnist-mlp")


@pytest.fixture
def bench(network, tmp_path):
    train, test = (data("digits", split=split, shape=(1, 28, 28)) for split in ("train", "test"))
    return Bench(network, train, test, Shelf(tmp_path, {"test": 1}), {}, quick=True)


def kept(bench, part, found):
    bench.shelf.keep(part, found, 0.0)
    return found


# The thresholds of METHODS D14, on the weights that are shipped.


def test_ten_of_ten_outputs_are_surer_than_99_percent_under_the_default_preset(network):
    sheet = maximize(network, network.units("output"))
    assert (chances(network, network.units("output"), sheet.images) > 0.99).all()


def test_the_variation_of_the_result_falls_as_its_weight_rises_and_the_target_is_kept(network):
    weights = (0.016, 0.064, 0.128, 0.256)
    units = list(network.units("output")) * len(weights)
    tv = [weight for weight in weights for _ in range(10)]
    images = climb(network, units, working(steps=100), tv=tv)
    found = variation(images).view(len(weights), 10).mean(1)
    assert (found.diff() < 0).all()
    assert (chances(network, units, images) > 0.99).all()


def test_the_documents_rule_gets_noisier_as_the_weight_rises(network):
    units = list(network.units("output")) * 2
    tv = [0.016] * 10 + [0.256] * 10
    images = climb(network, units, paper(0.3, 100), question=ask.probability, tv=tv)
    low, high = variation(images).view(2, 10).mean(1)
    assert high > 5 * low


def test_the_working_recipe_moves_every_digit_to_every_class_and_the_documents_none(bench):
    images, labels = bench.digits(3)
    starts = images.repeat_interleave(9, 0)
    targets = [Unit("output", d) for label in labels.tolist() for d in range(10) if d != label]
    recipe, question = RECIPES["working"]
    made, steps = fool(bench.network, starts, targets, recipe, question)
    assert (steps >= 0).float().mean() >= 0.99
    assert (chances(bench.network, targets, made) > 0.99).all()
    assert made.min() >= 0
    assert made.max() <= 1
    seed, question = RECIPES["document"]
    _, steps = fool(bench.network, starts, targets, replace(seed, steps=20), question)
    assert (steps >= 0).float().mean() < 0.5


def test_the_entropy_of_the_outputs_falls_with_depth(network):
    found = []
    for layer in ("fc1", "fc3", "fc5", "fc7"):
        count = network.layer(layer).units
        units = [Unit(layer, i * count // 24) for i in range(24)]
        found.append(entropy(probabilities(network, climb(network, units, paper(0.1, 30)))).mean())
    assert sorted(found, reverse=True) == found


@pytest.mark.data
def test_regularised_outputs_look_like_their_class_and_unregularised_ones_do_not(
    network, data_root, tmp_path
):
    shape = (1, 28, 28)
    sets = [data("mnist", root=data_root, split=s, shape=shape) for s in ("train", "test")]
    means = Bench(network, *sets, Shelf(tmp_path, {}), {}).class_means
    units = network.units("output")
    noise = climb(network, units, paper(1.0, 50), question=ask.probability)
    smooth = maximize(network, units).images
    assert likeness(noise, means).mean() <= 0.25
    assert likeness(smooth, means).mean() >= 0.6


# Planted units, found by the parts of the study.


@pytest.fixture
def planted(bench):
    """Two units that are shut for good, one that only the black corner opens, and twins."""
    module = load("mnist-mlp").module
    with torch.no_grad():
        module.fc1.bias[5] = module.fc2.bias[5] = -1000
        module.fc1.weight[7] = 0
        module.fc1.weight[7, 0] = 1
        module.fc1.bias[7] = -0.5
        module.fc5.weight[11] = module.fc5.weight[10]
        module.fc5.bias[11] = module.fc5.bias[10]
    return replace(bench, network=Network(module, (1, 28, 28)))


def test_planted_units_are_told_apart_and_twins_share_a_cluster(planted):
    kept(planted, "survey", everyone.survey(planted))
    found = company.dead(planted).numbers
    assert found["units"]["fc1:5"]["state"] == "certified-dead"
    assert found["units"]["fc2:5"]["state"] == "certified-dead"
    assert found["units"]["fc1:7"]["state"] == "reachable"
    assert found["units"]["fc1:7"]["found"] == pytest.approx(0.5, abs=1e-5)
    assert found["certificates_contradicted"] == []
    for unit, each in found["units"].items():
        assert (each["state"] == "reachable") == (each["found"] > 0), unit
    labels = planted.shelf.arrays("survey")["fc5.cluster"]
    assert labels[10] == labels[11]
    assert (labels == labels[10]).sum() < len(labels) / 2


def test_the_claim_about_dead_units_is_opposite_where_they_can_be_opened():
    counts = {"fc1": {"alive": 9, "data-dead": 0, "reachable": 1, "certified-dead": 0}}
    _, claim = company._dead_claims(counts)
    assert claim.verdict == "opposite"
    counts["fc1"] |= {"reachable": 0, "certified-dead": 1}
    _, claim = company._dead_claims(counts)
    assert claim.verdict == "confirmed"


# The document's rule, written a second time with NumPy as its appendix has it.


def seeds_tv(img):
    pad = np.pad(img, 1)
    return (
        np.sign(img - pad[:-2, 1:-1])
        + np.sign(img - pad[2:, 1:-1])
        + np.sign(img - pad[1:-1, :-2])
        + np.sign(img - pad[1:-1, 2:])
    )


def test_the_documents_rule_is_that_of_its_appendix(network):
    unit, tv, l1, lr = Unit("fc7", 3), 0.05, 0.01, 0.2
    wide = Network(load("mnist-mlp").module.double(), (1, 28, 28))
    u = np.full((28, 28), 0.01)
    for _ in range(5):
        image = torch.from_numpy(np.clip(u, 0, 1))[None, None].requires_grad_()
        wide.module[: 2 * 7](image)[0, 3].backward()
        slope = image.grad[0, 0].numpy() * ((u > 0) & (u < 1))
        u = u + lr * (slope - tv * seeds_tv(u) - l1 * np.sign(u))
    made = climb(wide, [unit], paper(lr, 5), tv=tv, l1=l1)
    assert np.abs(made[0, 0].numpy() - np.clip(u, 0, 1)).max() < 1e-6


def test_a_grid_of_weights_climbs_as_each_weight_alone(network):
    units, tv = [Unit("fc7", 3)] * 4, [0.0, 0.02, 0.05, 0.1]
    wide = Network(load("mnist-mlp").module.double(), (1, 28, 28))
    together = climb(wide, units, paper(0.1, 10), tv=tv)
    alone = [climb(wide, units[:1], paper(0.1, 10), tv=weight) for weight in tv]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_sent_through_the_clip_a_regulariser_leaves_pixels_outside_alone(network):
    start = torch.full((1, 1, 28, 28), -0.2)
    start[..., 14, 14] = 0.5
    unit = [Unit("fc7", 3)]
    free = climb(network, unit, paper(0.5, 3), start=start, tv=0.2)
    stuck = climb(network, unit, paper(0.5, 3), start=start, tv=0.2, masked=True)
    assert stuck.count_nonzero() <= 1
    assert free.count_nonzero() > 1


# Yardsticks.


def test_participation_counts_equal_pixels_and_variance_is_about_their_centre():
    images = torch.zeros(3, 1, 28, 28)
    images[0, 0, 3, 4] = 0.7
    images[1, 0, 10, 10:14] = 0.5
    images[2, 0, 5, 5] = images[2, 0, 5, 9] = 1.0
    assert everyone.participation(images).tolist() == pytest.approx([1, 4, 2])
    assert everyone.spatial_variance(images).tolist() == pytest.approx([0, 1.25, 4], abs=1e-4)


def test_spatial_variance_is_the_same_along_both_axes():
    image = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    image[..., :10, :] = 0
    turned = image.transpose(-1, -2)
    assert everyone.spatial_variance(image) == pytest.approx(
        float(everyone.spatial_variance(turned)), rel=1e-5
    )


def test_entropy_is_0_for_one_output_and_log_10_for_all_alike():
    shares = torch.stack([torch.eye(10)[3], torch.full((10,), 0.1)])
    assert entropy(shares).tolist() == pytest.approx([0, np.log(10)], abs=1e-6)


def test_likeness_is_numpys_correlation():
    one, two = torch.rand(2, 1, 1, 28, 28, generator=torch.Generator().manual_seed(1)).unbind()
    expected = np.corrcoef(one.flatten(), two.flatten())[0, 1]
    assert float(likeness(one, 0.2 + 3 * two)) == pytest.approx(expected, abs=1e-6)
    assert pairwise(torch.cat([one, two])) == pytest.approx(expected, abs=1e-6)


def test_the_next_unit_is_the_strongest_but_the_target(network):
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    units = [Unit("fc7", 4), Unit("fc7", 9)]
    own, rival, which = own_and_next(network, units, images)
    values = network.read(images, "fc7").layers["fc7"]
    for row, unit in enumerate((4, 9)):
        rest = [(float(v), i) for i, v in enumerate(values[row]) if i != unit]
        assert float(own[row]) == float(values[row, unit])
        assert (float(rival[row]), int(which[row])) == max(rest)


# The shelf: what was stored counts only if it is whole and of the same settings.


def some_part():
    drawing = Image.new("RGB", (4, 4))
    claim = Claim("says", "measured", "confirmed")
    figure = Figure("fig", "caption", drawing)
    return Found({"x": 1.5}, (claim,), (figure,), {"t": torch.arange(3)})


def test_a_kept_part_is_had_back(tmp_path):
    shelf = Shelf(tmp_path, {"seed": 0})
    assert not shelf.has("a")
    shelf.keep("a", some_part(), 1.0)
    account = shelf.account("a")
    assert account["numbers"] == {"x": 1.5}
    assert account["claims"][0]["verdict"] == "confirmed"
    assert shelf.arrays("a")["t"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("harm", ["settings", "json", "tensors", "figure"])
def test_a_part_that_is_broken_or_made_otherwise_is_not_had(tmp_path, harm):
    shelf = Shelf(tmp_path, {"seed": 0})
    shelf.keep("a", some_part(), 1.0)
    assert shelf.has("a")
    if harm == "settings":
        shelf = Shelf(tmp_path, {"seed": 1})
    elif harm == "json":
        (tmp_path / "parts" / "a.json").write_text('{"key": ')
    elif harm == "tensors":
        (tmp_path / "parts" / "a.safetensors").write_bytes(b"\x10")
    else:
        (tmp_path / "figures" / "fig.png").unlink()
    assert not shelf.has("a")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from optogram.survey import from_arrays
from optogram.studies.mlp_neurons import study
from optogram.studies.found import Found
folder = Path(sys.argv[1])

def part(name):
    def make(bench):
        with (folder / "log").open("a") as log:
            log.write(name)
        if name == "b" and not (folder / "again").exists():
            (folder / "again").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Found({})
    return make

study.PARTS.clear()
study.PARTS.update({name: part(name) for name in "abc"})
black = from_arrays(np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.int64), name="black")
study._data = lambda network, root: (black, black)
study.write = lambda bench, accounts, settings: folder / "index.html"
study.mlp_neurons(folder)
"""


def test_a_killed_study_goes_on_without_repeating_what_was_finished(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert subprocess.run(command, timeout=120).returncode == 0
    assert (tmp_path / "log").read_text() == "abbc"


# Figures.


def test_a_grid_shows_every_pixel_as_a_square():
    image = torch.zeros(1, 28, 28)
    image[0, 0, 1] = 1.0
    drawing = np.asarray(grid([[Tile(image)]], side=112).convert("L"))
    square = drawing[16:20, 20:24]
    assert (square == 255).all()
    assert (drawing[16:20, 16:20] == 0).all()


def test_the_red_box_is_as_opaque_as_the_error():
    image = torch.zeros(1, 28, 28)
    reds = []
    for error in (0.0, 0.3, 1.0):
        drawing = np.asarray(grid([[Tile(image, (Line("", error=error),))]]))
        reds.append(int(drawing[16 + 112 + 8, 20, 1]))
    assert reds[0] > reds[1] > reds[2]


def test_a_bar_is_as_long_as_its_share():
    drawing = np.asarray(grid([[Tile(torch.zeros(1, 28, 28), (Bar(0.25, (0, 0, 255)),))]]))
    row = drawing[16 + 112 + 4 + 4]
    assert (row == (0, 0, 255)).all(1).sum() == pytest.approx(28, abs=2)


def test_a_brightened_picture_says_how_bright_it_was():
    tile = brightened(torch.full((1, 28, 28), 0.25))
    assert float(tile.image.max()) == 1.0
    assert tile.under[-1].text == "to 0.25"


# From end to end.


def hurry(monkeypatch):
    """Two steps for every ascent: what is found does not matter here."""
    climbing = recipes.ascend
    short = partial(maximize, steps=2)
    monkeypatch.setattr(recipes, "ascend", lambda *a, steps, **k: climbing(*a, steps=2, **k))
    for part in (everyone, company, hidden):
        monkeypatch.setattr(part, "maximize", short)
    monkeypatch.setattr(company, "highest", partial(company.highest, steps=2))
    monkeypatch.setattr(company, "triage", partial(company.triage, steps=2))


@pytest.mark.slow
def test_a_quick_study_of_the_embedded_digits_reports_every_claim_and_repeats_nothing(
    tmp_path, monkeypatch
):
    sets = tuple(data("digits", split=split, shape=(1, 28, 28)) for split in ("train", "test"))
    monkeypatch.setattr(study, "_data", lambda network, root: sets)
    monkeypatch.setattr(everyone, "SAMPLE", 4)
    hurry(monkeypatch)
    monkeypatch.setattr(outputs, "RATES", (1.0, 100.0))
    page = run(tmp_path, quick=True).read_text()
    found = json.loads((tmp_path / "numbers.json").read_text())
    assert len(found["claims"]) > 40
    assert {claim["verdict"] for claim in found["claims"]} <= {
        "confirmed",
        "not confirmed",
        "opposite",
    }
    assert "the digits that came with scikit-learn stand in" in page
    assert "This was a quick run" in page
    assert page.count("<img") >= len(list((tmp_path / "figures").iterdir()))
    assert "fc7:24" in (tmp_path / "units.html").read_text()

    def again(bench):
        raise AssertionError("a finished part was made again")

    monkeypatch.setattr(study, "PARTS", dict.fromkeys(study.PARTS, again))
    assert run(tmp_path, quick=True).read_text() == page
