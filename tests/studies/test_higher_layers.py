"""The study of higher layers: its yardsticks on planted units, and a small run from end to end."""

import json
import math

import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.unit import Unit
from optogram.studies import higher_layers
from optogram.studies.higher_layers import parts, study
from optogram.studies.higher_layers.subject import Subject, numbers
from optogram.zoo.stack import DeepBelief


@pytest.fixture
def subject(monkeypatch):
    """Two units of each layer, and a few digits."""
    units = lambda self, layer, count=None: [Unit(layer, 3), Unit(layer, 250)]  # noqa: E731
    monkeypatch.setattr(Subject, "units", units)
    network = og.load("mnist-dbn")
    return Subject(network, og.data("digits", shape=network.shape), quick=True)


def planted():
    """Real pixels around grey, and a first-layer unit that looks for the first pixel."""
    stack = DeepBelief((16, 4, 4, 4), gaussian=True, classes=False)
    nn.init.zeros_(stack.h1.weight)
    with torch.no_grad():
        stack.h1.weight[0, 0] = 2.0
    records = {"data.mean_norm": torch.tensor(0.5), "data.centre": torch.tensor(0.5)}
    network = og.Network(stack, (1, 4, 4), mean=(0.5,), std=(0.1,), records=records)
    return Subject(network, og.data("digits", shape=(1, 4, 4)), quick=True)


def test_images_are_brought_to_the_norm_of_the_data_around_their_centre():
    subject = planted()
    images = torch.rand(5, 1, 4, 4)
    placed = subject.on_sphere(images)
    lengths = (placed - 0.5).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((5,), 0.5))
    torch.testing.assert_close(subject.away(placed), subject.away(images))
    torch.testing.assert_close(subject.away(images).norm(dim=1), torch.ones(5))


def test_along_great_circles_a_linear_unit_falls_as_the_cosine():
    subject = planted()
    optimum = torch.full((1, 4, 4), 0.5)
    optimum[0, 0, 0] = 1.0
    curves = parts.along(subject, Unit("h1", 0), optimum)
    assert curves.shape == (parts.DIRECTIONS, len(parts.ANGLES))
    expected = 2.0 * 0.5 / 0.1 * torch.deg2rad(parts.ANGLES).cos()
    torch.testing.assert_close(curves, expected.expand_as(curves), atol=1e-4, rtol=1e-4)


def test_a_grating_has_its_power_in_one_direction_and_noise_has_not():
    down, across = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    turned = math.pi / 6
    wave = torch.cos(1.8 * (down * math.cos(turned) + across * math.sin(turned)))
    window = torch.exp(-((down - 5.5) ** 2 + (across - 5.5) ** 2) / 12)
    noise = torch.randn(40, 12, 12, generator=torch.Generator().manual_seed(0))
    assert float(parts.share_in_band((wave * window)[None])) > 0.8
    assert float(parts.share_in_band(noise).median()) < 0.5


def test_participation_counts_pixels():
    filters = torch.zeros(2, 1, 4, 4)
    filters[0, 0, 1, 2] = -3
    filters[1] = 0.2
    torch.testing.assert_close(parts.participation(filters), torch.tensor([1.0, 16.0]))


def test_the_parts_of_a_network_find_what_is_claimed_of_it(subject):
    found = {name: part(subject) for name, part in parts.parts_of(subject).items()}
    assert set(found) == {"first-layer", "optima", "around", "techniques", "drawn"}
    optima = found["optima"].numbers
    assert optima["cosine_with_weights"] >= 0.999
    assert max(optima[layer]["norm_error"] for layer in ("h1", "h2", "h3")) <= 1e-5
    assert optima["h1"]["above_data"] == 1
    assert found["around"].numbers["h1"]["mean"][-1] < 0.9
    techniques = found["techniques"].numbers["h2"]
    assert set(techniques) == {"units", "maximised", "combined", "sampled", "closest image"}
    pairs = zip(techniques["maximised"]["values"], techniques["combined"]["values"], strict=True)
    assert all(best >= other - 1e-2 for best, other in pairs)
    assert all(claim.measured for each in found.values() for claim in each.claims)
    assert numbers(list(subject.best("h1").values())).shape == (2, 1, 28, 28)


def test_an_autoencoder_is_not_sampled(subject):
    network = og.load("mnist-sdae")
    other = Subject(network, subject.data, quick=True)
    assert "drawn" not in parts.parts_of(other)
    assert not other.belief


def test_a_run_is_stored_part_by_part_and_goes_on(tmp_path, monkeypatch):
    ran = []

    def part(subject):
        ran.append(subject.network.name)
        claim = parts.Claim("It runs.", "yes", "confirmed")
        return parts.Found({"one": 1}, (claim,))

    monkeypatch.setattr(study, "parts_of", lambda subject: {"only": part})
    monkeypatch.setattr(study, "_data", lambda network, root: og.data("digits", shape=(1, 28, 28)))
    report = higher_layers(tmp_path / "there", quick=True)
    assert ran == list(study.NETWORKS)
    assert "quick run" in report.read_text()
    kept = json.loads((tmp_path / "there" / "numbers.json").read_text())
    assert kept["numbers"]["mnist-dbn"] == {"only": {"one": 1}}
    assert len(kept["claims"]) == len(study.NETWORKS)
    assert higher_layers(tmp_path / "there", quick=True) == report
    assert len(ran) == len(study.NETWORKS)
