"""Localisation: the cut against every labelling there is, and a planted object."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import optogram as og
from optogram.techniques.localize import minimum_cut


def energy(labels, ratio, pixels, smoothness) -> float:
    """The formula of the docstring, pair by pair."""
    height, width = ratio.shape
    places = list(itertools.product(range(height), range(width)))
    pairs = [
        (p, q)
        for p, q in itertools.combinations(places, 2)
        if max(abs(p[0] - q[0]), abs(p[1] - q[1])) == 1
    ]
    apart = [((pixels[p] - pixels[q]) ** 2).sum() for p, q in pairs]
    cost = -sum(ratio[p] for p in places if labels[p])
    for (p, q), d in zip(pairs, apart, strict=True):
        if labels[p] != labels[q]:
            distance = np.hypot(p[0] - q[0], p[1] - q[1])
            cost += smoothness * np.exp(-d / (2 * np.mean(apart))) / distance
    return float(cost)


@pytest.mark.parametrize("seed", range(5))
def test_the_cut_has_the_least_energy_of_all(seed):
    draw = np.random.default_rng(seed)
    ratio, pixels, smoothness = draw.normal(size=(3, 4)), draw.random((3, 4, 3)), 1.5
    best = min(
        energy(np.array(bits).reshape(3, 4), ratio, pixels, smoothness)
        for bits in itertools.product([0, 1], repeat=12)
    )
    found = minimum_cut(ratio, pixels, smoothness)
    assert energy(found, ratio, pixels, smoothness) == pytest.approx(best, abs=0.1)
    assert found.any() or best == pytest.approx(0, abs=0.1)


def planted() -> tuple[og.Network, torch.Tensor]:
    """A red disc on green, and a unit that looks at a part of it."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 1))
    weights = 1e-3 * torch.rand(3, 40, 40)
    weights[:, 14:24, 12:22] = 1
    with torch.no_grad():
        net[1].weight[0] = weights.flatten()
    y, x = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    disc = (y - 18) ** 2 + (x - 16) ** 2 < 100
    image = torch.stack([disc * 0.8, ~disc * 0.7, torch.full_like(disc, False)]).float()
    return og.Network(net.eval(), (3, 40, 40)), (image + 0.1 * torch.rand(3, 40, 40)).clamp(0, 1)


def test_the_whole_object_is_found_though_saliency_covers_a_part():
    net, image = planted()
    found = og.localize(net, image, "output:0")
    disc = image[0] > image[1]
    overlap = float((found.values.bool() & disc).sum() / (found.values.bool() | disc).sum())
    assert overlap > 0.97
    rows, columns = disc.any(1).nonzero(), disc.any(0).nonzero()
    exact = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    assert all(abs(a - int(b)) <= 1 for a, b in zip(found.checks["box"], exact, strict=True))
    assert float((found.raw > 0.5).sum()) < 0.4 * float(disc.sum())


def test_only_the_largest_piece_is_kept():
    net, image = planted()
    image[0, 34:38, 34:38], image[1, 34:38, 34:38] = 0.85, 0.05
    assert not og.localize(net, image, "output:0").values[30:, 30:].any()


def test_the_seed_and_the_unit_decide_alone():
    net, image = planted()
    np.random.seed(5)  # noqa: NPY002
    first = og.localize(net, image, "output:0")
    np.random.seed(6)  # noqa: NPY002
    both = og.localize(net, torch.stack([image.flip(1), image]), "output:0")
    assert (both[1].values == first.values).all()


def test_too_few_pixels_are_refused_in_a_sentence():
    net, image = planted()
    with pytest.raises(og.RequestError, match="too few, or the same, for 900 Gaussians"):
        og.localize(net, image, "output:0", components=900)
    with pytest.raises(og.RequestError, match="0 < below < above < 1"):
        og.localize(net, image, "output:0", below=0.99)
