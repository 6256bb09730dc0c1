"""Going on with a network while an answer is in the cache changes no bit and hides nothing."""

import gc
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.core import Network, onward
from optogram.core.onward import Onward
from optogram.core.visit import visit

LAST = torch.channels_last


def trained(norm):
    """A batch norm that changes what it is given, and every channel in another way."""
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        if tensor is not None:
            nn.init.normal_(tensor)
    if norm.running_var is not None:
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


class Net(nn.Module):
    """A convolution, a batch norm, and what a test does with both."""

    def __init__(self, go, **options):
        super().__init__()
        self.conv = nn.Conv2d(3, 20, 3)
        self.norm = trained(nn.BatchNorm2d(20, **options))
        self.go = go

    def forward(self, x):
        return self.go(self, self.conv(x)).mul(1)  # so that no ReLU is what answers


def gated(x):
    return x * torch.sigmoid(x)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that scripts are going out of use
    scripted = torch.jit.script(gated)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2


def overwritten(net, x):
    normed = net.norm(x)
    x.relu_()
    return torch.cat([normed, x], 1)


def overwritten_first(net, x):
    x.add_(1)
    return net.norm(x).relu_()


def both(net, x):
    normed = net.norm(x)
    return F.relu(normed) + normed


def with_itself(net, x):
    return x + net.norm(x)


def viewed(net, x):
    normed = net.norm(x)
    flat = normed.flatten(2)
    normed.relu_()
    return flat


def outside(net, x):
    return torch.from_numpy(net.norm(x).numpy() * 2)


WAYS = {
    "a ReLU in place": lambda net, x: F.relu(net.norm(x), inplace=True),
    "a method in place": lambda net, x: net.norm(x).relu_(),
    "a capped ReLU": lambda net, x: F.relu6(net.norm(x), inplace=True),
    "a smooth function": lambda net, x: F.silu(net.norm(x), inplace=True),
    "a ReLU that copies": lambda net, x: F.relu(net.norm(x)),
    "no norm": lambda net, x: F.relu(x, inplace=True),
    "no more": lambda net, x: net.norm(x),
    "nothing": lambda net, x: x,
    "two norms": lambda net, x: net.norm(net.norm(x)).relu_(),
    "a sum in place": lambda net, x: net.norm(x).add_(1).relu_(),
    "a list": lambda net, x: torch.cat([x, net.norm(x)], 1),
    "a script": lambda net, x: scripted(net.norm(x)),
    "a function of one's own": lambda net, x: Doubled.apply(net.norm(x)),
    "a batch norm of the batch": lambda net, x: F.batch_norm(x, None, None, training=True).relu_(),
    **{f.__name__: f for f in (overwritten, overwritten_first, both, with_itself, viewed, outside)},
}


@pytest.fixture(autouse=True)
def all_large(monkeypatch):
    monkeypatch.setattr(onward, "LARGE", 1)


def asked(module, images, step=None, mode=None):
    """The layer's answer as heard and the output; `step` places at a time, half of them unasked."""
    network = Network(module, tuple(images.shape[1:]))
    said, mode = {}, mode or Onward()

    def hear(name, answer):
        said[name] = answer.clone()
        if name == "conv" and step is not None:
            for last in range(step, answer.numel() // answer.shape[1] // 2, step):
                mode.reach(last)

    visit(network, images.contiguous(memory_format=LAST), ["conv", "output"], hear, mode)
    return said


@pytest.mark.parametrize("step", [None, 1, 7, 50])
@pytest.mark.parametrize("way", WAYS)
def test_a_pass_is_the_same_to_the_last_bit_whatever_the_network_does_next(way, step):
    torch.manual_seed(0)
    module, images = Net(WAYS[way]).eval(), torch.rand(3, 3, 9, 8)
    with torch.no_grad():
        shown = images.contiguous(memory_format=LAST)
        answer, output = module.conv(shown), module(shown)
    for _ in range(2):  # the second pass in memory that is used again
        said = asked(module, images, step)
        assert torch.equal(said["conv"], answer)
        assert torch.equal(said["output"], output)
        assert said["output"].stride() == output.stride()


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_batch_norms_without_weights_and_without_means_are_what_they_are(options):
    torch.manual_seed(0)
    module = Net(WAYS["a ReLU in place"], **options).eval()
    images = torch.rand(2, 3, 9, 8)
    with torch.no_grad():
        expected = module(images.contiguous(memory_format=LAST))
    assert torch.equal(asked(module, images)["output"], expected)


def test_norm_and_relu_follow_piece_by_piece_as_the_answer_is_read(monkeypatch):
    done, norm = [], torch.native_batch_norm

    def counted(given, *rest, **more):
        done.append(given.shape[2])
        return norm(given, *rest, **more)

    monkeypatch.setattr(torch, "native_batch_norm", counted)
    asked(Net(WAYS["a ReLU in place"]).eval(), torch.rand(1, 3, 9, 8), step=10)
    assert done == [10, 10, 22]  # 42 places; what was not asked for comes at the end


def test_an_answer_that_lies_otherwise_or_is_small_is_heard_at_once(monkeypatch):
    order = []

    def go(net, x):
        order.append("went on")
        return x

    def hear(name, answer):
        order.append(name)

    network = Network(Net(go).eval(), (3, 9, 8))
    assert network.layers  # found by a pass of their own
    del order[:]
    visit(network, torch.rand(1, 3, 9, 8), ["conv", "output"], hear, Onward())
    assert order == ["conv", "went on", "output"]
    del order[:]
    visit(network, torch.rand(1, 3, 9, 8), ["conv"], hear, Onward())
    assert order == ["conv"]
    del order[:]
    shown = torch.rand(1, 3, 9, 8).contiguous(memory_format=LAST)
    visit(network, shown, ["conv"], hear, Onward())
    assert order == ["conv"]  # the pass ends with it
    del order[:]
    visit(network, shown, ["conv", "output"], hear, Onward())
    assert order == ["went on", "conv", "output"]
    monkeypatch.setattr(onward, "LARGE", 1 << 22)
    del order[:]
    visit(network, shown, ["conv", "output"], hear, Onward())
    assert order == ["conv", "went on", "output"]


def test_after_an_error_nothing_waits_and_the_next_pass_is_right():
    torch.manual_seed(0)
    module, images, mode = Net(WAYS["no more"]).eval(), torch.rand(2, 3, 9, 8), Onward()

    def hear(name, answer):
        raise KeyError(name)

    network = Network(module, (3, 9, 8))
    shown = images.contiguous(memory_format=LAST)
    with pytest.raises(KeyError):
        visit(network, shown, ["conv", "norm", "output"], hear, mode)
    said = asked(module, images, mode=mode)
    with torch.no_grad():
        assert torch.equal(said["output"], module(shown))
    assert not any(part._forward_hooks for part in module.modules())


def test_memory_is_taken_again_only_when_no_tensor_lies_in_it():
    shown = torch.rand(2, 3, 9, 8).contiguous(memory_format=LAST)
    buffers = onward._Buffers()
    first = buffers.like(shown)
    address = first.data_ptr()
    assert first.shape == shown.shape
    assert first.stride() == shown.stride()
    assert address % onward.ALIGNMENT == 0
    part = first[:, 1]
    del first
    gc.collect()
    other = buffers.like(shown)
    assert other.data_ptr() != address  # a view of it is still there
    del part
    assert buffers.like(shown[:1]).data_ptr() == address
