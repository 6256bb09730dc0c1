"""A network made ready for many passes answers as before, and the network is untouched."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import optogram as og
from optogram.ascent import ascend, param
from optogram.core import objective as ask
from optogram.core import prepared as made_ready
from optogram.core.prepared import prepared, resolved
from optogram.pictures.errors import RequestError
from tests.core.nets import Does, images, named


def lived_in(module: nn.Module) -> nn.Module:
    """With batch norms that have seen something: no mean is 0 and no variance 1."""
    numbers = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=numbers)
            part.running_var.uniform_(0.5, 2, generator=numbers)
            with torch.no_grad():
                part.weight.uniform_(0.5, 1.5, generator=numbers)
                part.bias.normal_(0, 0.1, generator=numbers)
    return module.eval()


FOLDED = {"conv1": 0, "bn1": 1, "layer1.0": 3, "layer2.0.conv1": 5, "layer4.1": 20, "output": 20}


def a_resnet(size: int = 64) -> og.Network:
    torch.manual_seed(0)
    module = lived_in(torchvision.models.resnet18(num_classes=10))
    return og.Network(module, (3, size, size), mean=(0.485, 0.456, 0.406), std=(0.25,) * 3)


class Twice(nn.Module):
    """A convolution of which the norm is not the only reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.relu(self.norm(x)) + x


def left(network: og.Network) -> int:
    return sum(type(part) is nn.BatchNorm2d for part in network.module.modules())


@pytest.mark.parametrize("layer", FOLDED)
@pytest.mark.parametrize("size", [64, 128])
def test_a_folded_network_gives_the_same_values_before_and_after_the_relu_and_gradients(
    layer, size
):
    network = a_resnet(size)
    shown = images(2, (3, size, size))
    ready = prepared(network, (layer,), "float32")
    assert left(network) == 20
    assert left(ready.network) == 20 - FOLDED[layer]
    found = []
    for read in (lambda x: network.read(x, layer, watch=True).layers, None):
        asked = shown.clone().requires_grad_()
        heard = read(asked) if read else ready.read(asked, (layer,), watch=True)
        acts = og.Activations(network, asked, heard)
        before = acts.before.layers[layer]
        (slope,) = torch.autograd.grad(before.flatten(1).sum(1).square().sum(), asked)
        found.append((heard[layer].detach(), before.detach(), slope))
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= 1e-4 * one.norm()


@pytest.mark.parametrize("size", [3, 4, 5])
def test_a_norm_across_channels_is_torchs_and_so_is_its_gradient(size):
    module = named(
        conv=nn.Conv2d(3, 7, 3),
        norm=nn.LocalResponseNorm(size, 0.5, 0.75, 2.0),
        end=nn.Conv2d(7, 4, 1),
    )
    network = og.Network(module, (3, 12, 12))
    ready = prepared(network, ("output",), "float32")
    assert not any(isinstance(p, nn.LocalResponseNorm) for p in ready.network.module.modules())
    shown, found = images(2, (3, 12, 12)), []
    for ask_it in (module, lambda x: ready.read(x, ("output",))["output"]):
        asked = shown.clone().requires_grad_()
        answer = ask_it(asked)
        found.append((answer.detach(), torch.autograd.grad(answer.square().sum(), asked)[0]))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-5 * one.norm()


def test_a_norm_that_is_not_the_only_reader_is_left_alone():
    module = lived_in(Twice())
    network = og.Network(module, (3, 16, 16))
    ready = prepared(network, ("relu", "output"), "float32")
    assert left(ready.network) == 1
    shown = images(2, (3, 16, 16))
    heard = ready.read(shown, ("output",))["output"]
    assert torch.allclose(heard, module(shown), atol=1e-5)


def test_the_original_is_untouched_and_what_stays_is_shared():
    network = a_resnet()
    before = copy.deepcopy(network.module.state_dict())
    wanting = [p.requires_grad for p in network.module.parameters()]
    ready = prepared(network, ("layer2.0",), "bfloat16")
    for _ in ascend(network, ask.activation("layer2.0:1"), param.fourier(), steps=2):
        pass
    assert left(network) == 20
    assert all(
        torch.equal(value, before[name]) for name, value in network.module.state_dict().items()
    )
    assert [p.requires_grad for p in network.module.parameters()] == wanting
    assert network.dtype == torch.float32
    assert not any(p.requires_grad for p in ready.network.module.parameters())
    plain = prepared(network, ("layer2.0",), "float32").network.module
    assert plain.fc.weight.data_ptr() == network.module.fc.weight.data_ptr()


@pytest.mark.parametrize("counted", [True, False])
def test_a_change_of_weights_is_noticed(counted):
    network = a_resnet()
    shown = images(1, (3, 64, 64))
    before = prepared(network, ("layer1.0",), "float32").read(shown, ("layer1.0",))["layer1.0"]
    weight = network.module.layer1[0].conv2.weight
    with torch.no_grad():
        (weight if counted else weight.data).mul_(2.0)
    ready = prepared(network, ("layer1.0",), "float32")
    after = ready.read(shown, ("layer1.0",))["layer1.0"]
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(after, network.read(shown, "layer1.0").layers["layer1.0"], atol=1e-4)
    assert prepared(network, ("layer1.0",), "float32") is ready


def doubled(part, given, answer):
    return 2 * answer


def test_hooks_and_parts_that_come_later_are_noticed_and_so_in_surveys(monkeypatch):
    monkeypatch.setattr(made_ready, "MANY", 1)
    network, data = a_resnet(), torch.rand(2, 3, 64, 64)
    said = lambda: og.survey(network, data, ["layer1.1.conv2"], k=1, triage=False)  # noqa: E731
    first = said()["layer1.1.conv2:0"].values
    assert prepared(network, ("layer1.1.conv2",), "float32").network is not network
    hook = network.module.layer1[1].conv2.register_forward_hook(doubled)
    torch.testing.assert_close(said()["layer1.1.conv2:0"].values, 2 * first)
    hook.remove()
    torch.testing.assert_close(said()["layer1.1.conv2:0"].values, first)
    network.module.layer1[0].relu = nn.Tanh()
    other = said()["layer1.1.conv2:0"].values
    assert float((other - first).abs()) > 1e-3


def test_a_network_that_cannot_be_copied_is_used_as_it_is():
    module = lived_in(named(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), relu=nn.ReLU()))
    module.odd = (one for one in "a generator cannot be copied")
    network = og.Network(module, (3, 16, 16))
    assert prepared(network, ("relu",), "float32").network is network
    (*_, last) = ascend(network, ask.activation("relu:1"), param.pixels(start=0.5), steps=2)
    assert torch.isfinite(last.images).all()


def test_what_is_remembered_keeps_no_network_alive():
    networks = [a_resnet(), og.Network(named(conv=nn.Conv2d(3, 4, 3)), (3, 8, 8))]
    for network in networks:
        prepared(network, ("output",), "float32")
    gone = [weakref.ref(network) for network in networks]
    del network, networks
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_auto_is_for_photographs_in_float32_on_processors_that_have_it(monkeypatch):
    large, small = a_resnet(128), a_resnet(64)
    monkeypatch.setattr(made_ready, "_native", lambda device: True)
    assert resolved(large, ("layer1.0",), "auto") == "bfloat16"
    assert resolved(small, ("layer1.0",), "auto") == "float32"
    doubled = og.Network(copy.deepcopy(large.module).double(), (3, 128, 128))
    assert resolved(doubled, ("layer1.0",), "auto") == "float32"
    monkeypatch.setattr(made_ready, "_alike", lambda *_: False)
    assert resolved(large, ("layer1.0",), "auto") == "float32"
    assert resolved(large, ("layer1.0",), "bfloat16") == "bfloat16"
    monkeypatch.setattr(made_ready, "_native", lambda device: False)
    assert resolved(large, ("layer1.0",), "auto") == "float32"


def test_a_precision_that_cannot_be_is_refused():
    with pytest.raises(RequestError, match="precision='half'"):
        resolved(a_resnet(), ("layer1.0",), "half")
    doubled = og.Network(a_resnet().module.double(), (3, 64, 64))
    module = named(conv=nn.Conv2d(3, 4, 3), norm=Does(lambda _, x: F.local_response_norm(x, 3)))
    with pytest.raises(RequestError, match="does not work in bfloat16"):
        og.maximize(og.Network(module, (3, 8, 8)), "norm:1", steps=1, precision="bfloat16")
    with pytest.raises(RequestError, match="networks in float32"):
        og.maximize(doubled, "layer1.0:1", steps=1, precision="bfloat16")


def test_a_picture_made_in_bfloat16_excites_as_much_and_says_how_it_was_made(tmp_path):
    network = og.load("tiny-zfnet")
    wanted = ["output:3", "output:8", "conv4:5", "conv4:20"]
    made = {p: og.maximize(network, wanted, steps=24, precision=p) for p in ("float32", "bfloat16")}
    scores = {p: torch.tensor([picture.score for picture in sheet]) for p, sheet in made.items()}
    # In both cases the score is worked out in float32; 24 steps through moving views differ.
    assert (scores["bfloat16"] > 0.6 * scores["float32"]).all()
    for precision, sheet in made.items():
        assert sheet.recipe["arguments"]["precision"] == precision
        assert sheet[0].image.dtype == torch.float32
    again = og.replay(made["bfloat16"].save(tmp_path / "made.png"))
    assert again.identical


def test_the_recipe_says_what_auto_came_to():
    picture = og.maximize(og.load("tiny-zfnet"), "output:3", steps=1)
    assert picture.recipe["arguments"]["precision"] in ("float32", "bfloat16")
