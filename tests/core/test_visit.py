"""Hearing layers as they answer says the same as reading them afterwards, and leaves no trace."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.core import Network
from optogram.core.visit import visit
from optogram.pictures import RequestError


class Blocks(nn.Module):
    """In-place, functional and reused ReLUs, a residual sum and a concatenation."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        x = self.relu(self.a(x))
        x = self.relu(self.b(x) + x)
        return self.last(torch.cat([x.mean((2, 3)), F.relu(x).amax((2, 3))], 1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Network(Blocks(), (3, 6, 6), mean=[0.5] * 3, std=[0.2] * 3)


def test_what_is_heard_is_the_pre_activation_that_read_returns(net):
    names = ["a", "relu", "b", "relu#2", "last", "output"]
    images = torch.rand(3, 3, 6, 6)
    heard = {}
    visit(net, images, names, lambda name, answer: heard.__setitem__(name, answer.clone()))
    with torch.no_grad():
        expected = net.read(images, *names, watch=True).before.layers
    assert list(heard) == names
    for name in names:
        torch.testing.assert_close(heard[name], expected[name], rtol=0, atol=0)
    assert bool((heard["relu"] < 0).any())


def test_the_pass_stops_at_the_deepest_layer_asked_for(net):
    ran = []
    assert len(net.layers) == 6  # found by a pass of their own
    net.module.last.register_forward_hook(lambda *_: ran.append("last"))
    visit(net, torch.rand(1, 3, 6, 6), ["a", "b"], lambda name, answer: None)
    assert ran == []


def test_the_module_is_left_as_found_also_after_an_error(net):
    net.module.train()

    def hear(name, answer):
        raise KeyError(name)

    with pytest.raises(KeyError):
        visit(net, torch.rand(1, 3, 6, 6), ["a"], hear)
    assert net.module.a.training
    assert not any(part._forward_hooks for part in net.module.modules())


def test_another_threads_pass_is_not_heard(net):
    heard = []

    def hear(name, answer):
        other = threading.Thread(target=lambda: net.module(torch.zeros(1, 3, 6, 6)))
        other.start()
        other.join()
        heard.append(name)

    visit(net, torch.rand(1, 3, 6, 6), ["a", "b"], hear)
    assert heard == ["a", "b"]


def test_a_layer_that_is_never_reached_is_named(net):
    with pytest.raises(RequestError, match="no layer called"):
        visit(net, torch.rand(1, 3, 6, 6), ["relu#3"], lambda name, answer: None)
