"""Dead units are told apart, and no proof is ever contradicted by an image."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optogram.core import Network
from optogram.survey import from_arrays, make
from optogram.survey.bounds import bounds
from optogram.survey.dead import STATES, certified, highest, triage
from tests.survey.small import LAYERS, images, network


def test_bounds_of_a_linear_first_layer_are_those_in_closed_form():
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (1, 3, 4))
    low, high = bounds(net, ["1"])["1"]
    weight, bias = net.module[1].weight.double(), net.module[1].bias.double()
    torch.testing.assert_close(high, bias + weight.clamp(min=0).sum(1))
    torch.testing.assert_close(low, bias + weight.clamp(max=0).sum(1))


def test_bounds_of_a_normalised_convolution_are_reached_by_some_image():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.5, 2)
    nn.init.normal_(module[1].weight)
    net = Network(module, (3, 6, 6), mean=[0.4] * 3, std=[0.2, 0.3, 0.4])
    low, high = bounds(net, ["1"])["1"]
    reached = highest(net, "1", torch.arange(4))
    torch.testing.assert_close(reached.double(), high, rtol=1e-5, atol=1e-5)
    assert bool((low < high).all())


class Everything(nn.Module):
    """What bounds pass through: sums, joins, pools, clamps, in place and functional."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.b = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        x = self.relu(self.bn(self.a(x)))
        y = self.b(x)
        y += x
        y = F.max_pool2d(F.relu6(y), 2)
        z = torch.cat([y, F.avg_pool2d(torch.sigmoid(x) * 2 - 0.5, 2)], 1)
        z = torch.cat([z.mean((2, 3)), z.amax((2, 3))], 1)
        return self.last(F.hardtanh(z, -1.0, 1.0)) / 3


@settings(max_examples=6)
@given(st.integers(0, 99))
def test_no_image_exceeds_the_bounds(seed):
    torch.manual_seed(seed)
    module = Everything()
    module.bn.running_mean.normal_()
    module.bn.running_var.uniform_(0.5, 2)
    nn.init.normal_(module.bn.weight)
    net = Network(module, (2, 6, 6), mean=[0.5, 0.3], std=[0.2, 0.5])
    names = ["a", "bn", "relu", "b", "last", "output"]
    found = bounds(net, names)
    shown = torch.cat([torch.rand(60, 2, 6, 6), torch.rand(60, 2, 6, 6).round()])
    with torch.no_grad():
        said = net.read(shown, *names, watch=True).before.layers
    for name in names:
        low, high = found[name]
        values = said[name].transpose(0, 1).flatten(1).double()
        assert bool((values.amax(1) <= high + 1e-4).all()), name
        assert bool((values.amin(1) >= low - 1e-4).all()), name


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        x = x.flatten(1)
        return self.last(self.a(x) * self.b(x))


def test_no_bound_is_claimed_behind_an_operation_that_is_not_known():
    net = Network(Product(), (1, 2, 2))
    found = bounds(net, ["a", "last"])
    assert found["a"] is not None
    assert found["last"] is None
    assert not bool(certified(net, ["last"])["last"].any())


def planted():
    """fc1: unit 0 can never open, unit 1 opens for a white image alone, unit 2 opens easily."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU())
    nn.init.ones_(module[1].weight)
    module[1].bias.data = torch.tensor([-1e3, -8.5, 0.0, -9.0])
    nn.init.constant_(module[3].weight, -1.0)
    nn.init.zeros_(module[3].bias)
    module[3].bias.data[1] = -0.5
    return Network(module, (1, 3, 3))


def test_planted_dead_units_are_told_apart():
    net = planted()
    survey = make(net, from_arrays(torch.rand(50, 1, 3, 3) * 0.8), ["1", "3"])
    assert survey.dead == {
        "1:0": "certified-dead",
        "1:1": "reachable",
        "1:3": "data-dead",  # its bound is exactly 0, closer than float32 can tell from above 0
        "3:0": "data-dead",
        "3:1": "certified-dead",
    }
    assert survey["1:2"].state == "alive"
    assert survey["1:0"].active == 0.0


def test_units_without_a_relu_after_them_are_not_called_dead():
    net = planted()
    low = {"1": torch.full((4,), -1.0), "3": torch.full((2,), -1.0)}
    assert bool((triage(net, low)["1"] > 0).all())
    bare = Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), (1, 3, 3))
    assert triage(bare, {"1": torch.full((4,), -1.0)})["1"].tolist() == [0, 0, 0, 0]


@settings(max_examples=5)
@given(st.integers(0, 1000), st.sampled_from([0.0, -2.0, -6.0]))
def test_a_certificate_is_never_contradicted_by_ascent(seed, shift):
    net = network(seed)
    with torch.no_grad():
        for layer in (net.module.conv1, net.module.conv2, net.module.fc1):
            layer.bias += shift * torch.rand_like(layer.bias)
    for name in ("conv1", "conv2", "fc1"):
        proved = certified(net, [name])[name]
        reached = highest(net, name, torch.arange(len(proved)), steps=15)
        assert not bool((proved & (reached > 0)).any())


def test_ascent_never_reports_more_than_an_image_reaches():
    net = network()
    found = highest(net, "fc1", torch.arange(5))
    _, high = bounds(net, ["fc1"])["fc1"]
    grey = net.read(torch.full((1, 1, 10, 10), 0.5), "fc1").layers["fc1"][0]
    assert bool((found.double() <= high + 1e-4).all())
    assert bool((found >= grey - 1e-5).all())


def test_states_have_names():
    survey = make(network(), images(20), LAYERS)
    assert {survey[f"fc1:{unit}"].state for unit in range(5)} <= set(STATES)


def test_without_triage_no_state_is_claimed():
    survey = make(planted(), from_arrays(torch.rand(5, 1, 3, 3)), ["1"], triage=False)
    assert survey["1:0"].state is None
    assert survey.dead == {}


@pytest.mark.parametrize("bias", [-1e3, -50.0])
def test_a_certified_unit_stays_certified_under_in_place_relus(bias):
    net = network()
    with torch.no_grad():
        net.module.conv1.bias[2] = bias
    survey = make(net, images(10), ["conv1", "relu1"])
    assert survey["conv1:2"].state == "certified-dead"
    assert survey["relu1:2"].state == "certified-dead"
