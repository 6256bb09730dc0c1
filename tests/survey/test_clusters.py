"""Planted groups are found, agreement is scikit-learn's, and chance is not taken for structure."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from torch import nn

from optogram.core import Direction, Network
from optogram.survey import make
from optogram.survey.clusters import clusters, correlation, grouped, rand_index
from optogram.survey.statistics import Answers
from optogram.techniques import maximize

GROUPS = [[0, 3, 5], [1, 4], [2], [6]]


def answers(values):
    count = len(values)
    labels = torch.full((count,), -1)
    return Answers.of(values, torch.arange(count), labels, classes=0, pairs=True)


def planted(noise, count=400):
    chance = torch.Generator().manual_seed(7)
    values = torch.zeros(count, 7)
    for group in GROUPS:
        values[:, group] = torch.randn(count, 1, generator=chance)
    return values + noise * torch.randn(count, 7, generator=chance)


def test_planted_groups_are_found_and_agree_on_the_other_half():
    found = clusters("fc", answers(planted(0.2)), 0.5)
    assert found.members == ((0, 3, 5), (1, 4))
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 0, 3]
    assert found.agreement == 1.0
    assert all(0.9 < value < 1 for value in found.cohesion)


def test_groups_of_noise_do_not_agree():
    values = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    found = clusters("fc", answers(values), 0.1)
    assert len(found.members) > 3
    assert abs(found.agreement) < 0.3


def test_too_few_images_say_nothing_about_agreement():
    assert clusters("fc", answers(planted(0.2, 4)), 0.5).agreement is None


def test_correlation_is_numpys_and_that_of_a_constant_unit_is_0():
    values = planted(0.5)
    values[:, 6] = 3.0
    found = correlation(answers(values)).numpy()
    expected = np.corrcoef(values[:, :6].double().numpy().T)
    np.testing.assert_allclose(found[:6, :6], expected, atol=1e-6)
    assert found[6].tolist() == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_groups_are_those_of_scikit_learns_average_linkage(threshold):
    together = correlation(answers(planted(0.8)))
    model = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - threshold
    )
    expected = model.fit_predict(1 - together.numpy())
    assert adjusted_rand_score(grouped(together, threshold), expected) == 1.0


labels = st.lists(st.integers(0, 3), min_size=2, max_size=12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12))
def test_agreement_is_scikit_learns_adjusted_rand_index(pairs):
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    assert rand_index(one, other) == pytest.approx(adjusted_rand_score(one, other))


def test_a_cluster_is_a_direction_of_its_members():
    found = clusters("fc", answers(planted(0.2)), 0.5)
    direction = found.direction(1)
    assert isinstance(direction, Direction)
    assert direction.vector.nonzero()[:, 0].tolist() == [1, 4]
    torch.testing.assert_close(direction.vector[1], 0.5 / found.spread[1])


def test_a_single_unit_is_a_group_of_its_own():
    found = clusters("fc", answers(torch.rand(20, 1)), 0.5)
    assert found.labels.tolist() == [0]
    assert found.members == ()


def test_the_picture_of_a_cluster_excites_all_its_members_more_than_most_images_do():
    """Units that look at neighbouring pixels go together; one picture of their direction."""
    weights = torch.zeros(6, 1, 8, 8)
    for unit, (row, column) in enumerate([(1, 1), (1, 2), (2, 1), (5, 5), (5, 6), (6, 5)]):
        weights[unit, 0, row : row + 2, column : column + 2] = 1.0
    linear = nn.Linear(64, 6)
    linear.weight.data, linear.bias.data = weights.flatten(1), -torch.ones(6)
    module = nn.Sequential(OrderedDict(flat=nn.Flatten(), fc=linear, relu=nn.ReLU()))
    network = Network(module.eval(), (1, 8, 8))
    chance = torch.Generator().manual_seed(3)
    coarse = torch.rand(300, 1, 2, 2, generator=chance)
    shown = torch.nn.functional.interpolate(coarse, scale_factor=4) * 0.8
    survey = make(network, (shown + 0.2 * torch.rand(shown.shape, generator=chance)), ["fc"])
    found = survey.clusters("fc")
    assert sorted(map(sorted, found.members)) == [[0, 1, 2], [3, 4, 5]]
    assert found.agreement == pytest.approx(1.0)
    for number, members in enumerate(found.members):
        picture = maximize(network, found.direction(number), regularizer=None)
        reached = network.read(picture.image[None], "fc").layers["fc"][0]
        for unit in members:
            assert reached[unit] > survey[f"fc:{unit}"].quantiles[0.95]
