"""What is said against a map: ranks against SciPy, planted maps, the same badge for any seed."""

import math

import pytest
import scipy.stats
import torch
from torch import nn

import optogram as og
from optogram.core.network import Network
from optogram.core.randomize import forgetful, learned, stages
from optogram.core.trust import Trust, alike, floor_of, spearman, trust, trusts, verdict
from tests.techniques.explained import stack


def network() -> og.Network:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return stack(*layers, nn.Flatten(), nn.Linear(8 * 64, 6), shape=(1, 12, 12))


def technique_on_batches(technique):
    return lambda asked, images, targets: list(technique(asked, images, targets))


def a_map(values: torch.Tensor) -> og.Attribution:
    return og.Attribution(values, torch.zeros(1, *values.shape), "output:1", 0.0)


@pytest.mark.parametrize("levels", [3, 10_000])
def test_ranks_are_compared_as_scipy_does_ties_included(levels):
    first, second = (torch.randint(0, levels, (500,)).double() for _ in range(2))
    second += 0.3 * first
    expected = scipy.stats.spearmanr(first, second).statistic
    assert spearman(first, second) == pytest.approx(expected, abs=1e-12)


def test_a_constant_map_is_like_nothing():
    assert math.isnan(spearman(torch.ones(9), torch.rand(9)))
    assert math.isnan(spearman(torch.rand(2), torch.rand(2)))


def test_zeros_that_all_maps_share_do_not_count():
    """A black background leaves zeros in every map: over all pixels two strangers look alike."""
    first, second = torch.zeros(40, 40), torch.zeros(40, 40)
    first[10:20, 10:20], second[10:20, 10:20] = torch.rand(10, 10), torch.rand(10, 10)
    assert spearman(first, second) > 0.8
    assert abs(alike(a_map(first), a_map(second))) < 0.25


def test_the_sign_counts():
    values = torch.randn(20, 20)
    assert alike(a_map(values), a_map(-values)) == pytest.approx(-1)
    assert alike(a_map(values), a_map(values)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("correlations", "expected"),
    [
        ([-0.2, -0.3], "pass"),
        ([0.249], "pass"),
        ([0.25], "weak"),
        ([0.5], "weak"),
        ([0.501], "fail"),
        ([0.9, -0.9], "weak"),
        ([0.4, -0.4], "pass"),
        ([0.9, math.nan], "fail"),
        ([math.nan, math.nan], "unknown"),
        ([], "unknown"),
    ],
)
def test_verdicts_begin_where_they_should(correlations, expected):
    assert verdict(correlations) == expected


def test_the_top_layer_comes_first_and_nothing_above_the_unit_counts():
    groups = learned(network(), "output")
    assert [group[0] for group in groups] == ["6.weight", "3.weight", "2.weight", "0.weight"]
    assert groups[0] == ("6.weight", "6.bias")
    assert learned(network(), "4")[0] == ("3.weight", "3.bias", "2.weight", "2.bias")
    assert learned(network(), "0") == (("0.weight", "0.bias"),)


def test_what_is_inside_attention_is_counted_to_it():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.look = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 3)
            self.start = nn.Parameter(torch.zeros(1, 1, 4))

        def forward(self, x):
            x = x.flatten(2).transpose(1, 2) + self.start
            return self.head(self.look(x, x, x, need_weights=False)[0].mean(1))

    groups = learned(og.Network(Attending().eval(), (4, 2, 2)), "output")
    assert groups[0] == ("head.weight", "head.bias")
    assert set(groups[1]) == {
        "look.in_proj_weight", "look.in_proj_bias", "look.out_proj.weight", "look.out_proj.bias",
    }  # fmt: skip
    assert groups[2] == ("start",)


def test_the_network_stays_as_it_is_and_its_copy_keeps_its_sizes():
    net = network()
    before = {k: v.clone() for k, v in net.module.state_dict().items()}
    groups = learned(net, "output")
    blank = forgetful(net, groups[0] + groups[1], seed=1)
    assert all((net.module.state_dict()[k] == v).all() for k, v in before.items())
    after = blank.module.state_dict()
    changed = {k for k, v in before.items() if not (after[k] == v).all()}
    assert changed == {"6.weight", "6.bias"}  # a fresh batch norm is the same however shuffled
    assert float(after["6.weight"].square().mean()) == pytest.approx(
        float(before["6.weight"].square().mean()), rel=0.1
    )
    assert blank.fingerprint != net.fingerprint


def test_draws_come_in_pairs_of_opposite_sign():
    net = network()
    names = learned(net, "output")[0]
    first, second, third = (
        dict(forgetful(net, names, 3, d).module.named_parameters())["6.weight"] for d in range(3)
    )
    assert (first == -second).all()
    assert not (first == third).any()


def test_stages_go_from_the_top_layer_to_all():
    groups = tuple((str(i),) for i in range(58))
    assert stages(groups, 4) == (1, 20, 39, 58)
    assert stages(groups[:2], 4) == (1, 2)
    assert stages(groups[:1], 4) == (1,)


@pytest.mark.parametrize("seed", range(5))
def test_planted_maps_get_their_badges_for_every_seed(seed):
    """A picture of the image must fail; the gradient of a random network's class must pass."""
    net, image = network(), torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(5))

    def draws_the_image(asked: Network, shown: torch.Tensor, unit: og.Unit) -> og.Attribution:
        return og.Attribution(shown[0].float(), image, str(unit), 0.0)

    def gradient(asked: Network, shown: torch.Tensor, unit: og.Unit) -> og.Attribution:
        return og.saliency(asked, shown, unit)

    target = net.resolve("output:1")
    how = {"draws": 6, "steps": 4, "seed": seed}
    planted = trust(draws_the_image, net, draws_the_image(net, image, target), target, **how)
    assert planted.badge == "fail"
    assert planted.top == pytest.approx((1.0,) * 6)
    assert planted.other_units == pytest.approx((1.0,) * 5)
    honest = trust(gradient, net, gradient(net, image, target), target, **how)
    assert honest.badge == "pass"
    assert [share for share, _, _ in honest.cascade] == [0.25, 0.5, 0.75, 1.0]


def test_random_networks_are_made_once_for_all_ways_and_images(monkeypatch):
    net, images = network(), torch.rand(3, 1, 12, 12)
    targets = [net.resolve(f"output:{i}") for i in (1, 2, 1)]
    ways = [technique_on_batches(og.saliency), technique_on_batches(og.guided_backprop)]
    found = [list(way(net, images.double(), targets)) for way in ways]
    made = []
    monkeypatch.setattr(
        "optogram.core.trust.forgetful",
        lambda *about: made.append(about[1:]) or forgetful(*about),
    )
    together = trusts(ways, net, found, targets, draws=2, steps=3)
    assert len(made) == len(set(made)) == 2 + 2 * 2
    for way, maps, given in zip((og.saliency, og.guided_backprop), found, together, strict=True):
        for one, target, both in zip(maps, targets, given, strict=True):
            alone = trust(way, net, one, target, draws=2, steps=3)
            assert both.top == pytest.approx(alone.top, abs=1e-3)
            assert both.other_units == pytest.approx(alone.other_units, abs=1e-3)
            assert both.floor == pytest.approx(alone.floor, rel=1e-4)


def test_units_of_several_layers_have_each_their_own_top_layer():
    net, images = network(), torch.rand(2, 1, 12, 12)
    targets = [net.resolve("output:1"), net.resolve("2:3")]
    way = technique_on_batches(og.saliency)
    found = [list(way(net, images.double(), targets))]
    first, second = trusts([way], net, found, targets, draws=2)[0]
    assert [share for share, _, _ in first.cascade] == [0.25, 0.75, 1.0]
    assert [share for share, _, _ in second.cascade] == [0.5, 1.0]
    assert second.top == pytest.approx(
        trust(og.saliency, net, found[0][1], targets[1], draws=2).top
    )


def test_one_image_of_which_a_random_network_shows_nothing_leaves_the_others_their_maps():
    net, images = network(), torch.rand(2, 1, 12, 12).double()
    targets = [net.resolve("output:1")] * 2

    def squeamish(asked: Network, shown: torch.Tensor, units: list) -> list[og.Attribution]:
        if asked is not net and any((image == images[1]).all() for image in shown):
            raise og.RequestError("nothing to show")
        return list(og.saliency(asked, shown, units))

    first, second = trusts([squeamish], net, [list(squeamish(net, images, targets))], targets)[0]
    assert first.badge == "pass"
    assert second.badge == "unknown"
    assert len(second.other_units) == 4


def test_a_technique_that_refuses_random_networks_stays_unknown():
    net, image = network(), torch.rand(1, 12, 12)

    def refuses(asked: Network, shown: torch.Tensor, unit: og.Unit) -> og.Attribution:
        if asked is not net:
            raise og.RequestError("nothing to show")
        return og.saliency(asked, shown, unit)

    target = net.resolve("output:1")
    found = trust(refuses, net, refuses(net, image, target), target, draws=2)
    assert found.badge == "unknown"
    assert found.floor == 0
    assert len(found.other_units) == 2


def test_the_floor_is_what_nearly_all_of_an_empty_map_stays_under():
    values = torch.linspace(-1, 1, 201)[None]
    assert floor_of(a_map(values)) == pytest.approx(0.95, abs=0.011)


def test_a_map_that_vanishes_at_random_is_neither_believed_nor_refuted():
    """Deconvnet maps of SqueezeNet's classes do: nothing positive is left after some layers."""
    facts = Trust((math.nan,) * 2, ((1.0, math.nan, math.nan),), (0.1,), 0.0).facts()
    assert facts["randomised"] == "unknown, the map vanishes"
    assert facts["randomisation"]["badge"] == "unknown"


def test_the_facts_say_it_in_words():
    facts = Trust((0.9, 0.7), ((1.0, 0.1, 0.1),), (0.3, -0.1), 0.02).facts()
    assert facts["randomised"] == "fail, r 0.80, |r| 0.80"
    assert facts["other class"] == "pass, r 0.10, |r| 0.20"
    assert facts["floor"] == 0.02
    assert facts["randomisation"]["badge"] == "fail"
