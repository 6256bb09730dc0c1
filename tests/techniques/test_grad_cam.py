"""Class activation maps against Captum, closed forms, and on tokens."""

import warnings

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import optogram as og
from optogram.core.maps import grid
from tests.techniques.explained import raws, relative, stack


def pooled(**options) -> og.Network:
    """Maps, global average pooling, a linear layer: where Grad-CAM is exact."""
    torch.manual_seed(6)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return stack(*layers, shape=(3, 9, 9), **options)


def deep() -> og.Network:
    torch.manual_seed(8)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()]
    return stack(*layers, nn.Flatten(), nn.Linear(128, 5), shape=(3, 14, 14))


def by_hand(net: og.Network, image: torch.Tensor, unit: int, layer: int):
    """A layer's maps and the gradient at them, cut out of a Sequential."""
    maps = net.module[: layer + 1](image[None].double()).detach().requires_grad_()
    net.module[layer + 1 :](maps)[0, unit].backward()
    net.module.zero_grad()
    return maps.detach()[0], maps.grad[0]


def test_where_places_are_averaged_the_map_adds_up_to_the_logit():
    net, image = pooled(), torch.rand(3, 9, 9)
    found = og.grad_cam(net, image, "output:2", signed=True)
    bias = float(net.module[4].bias[2].detach())
    assert found.unit_of_values == "logit at 1"
    assert float(found.raw.sum()) + bias == pytest.approx(found.score, rel=1e-5)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "resnet18"])
def test_it_is_captums_grad_cam_and_guided_grad_cam(name):
    layer = {"resnet18": "layer3", "squeezenet1_1": "features.7"}.get(name, "features.3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torchvision.models.get_model(name, weights=None).eval()
    images = torch.rand(2, 3, 72, 72)
    net = og.Network(module, (3, 72, 72))
    units, numbers = ["output:3", "output:5"], torch.tensor([3, 5])
    ours = og.grad_cam(net, images, units, layer=layer)
    guided = og.guided_grad_cam(net, images, units, layer=layer)
    for part in module.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.LayerGradCam(module, module.get_submodule(layer))
        coarse = theirs.attribute(images, numbers).detach()
        both = captum.attr.GuidedGradCam(module, module.get_submodule(layer)).attribute(
            images.clone().requires_grad_(), numbers, interpolate_mode="bilinear"
        )
    assert relative(raws(ours), coarse) <= 1e-5
    stretched = F.interpolate(coarse.clamp(min=0), (72, 72), mode="bilinear")[:, 0]
    assert relative(ours.values, stretched) <= 1e-5
    assert relative(raws(guided), both.detach()) <= 1e-5


def test_grad_cam_plus_plus_is_its_formula():
    net, image = deep(), torch.rand(3, 14, 14)
    a, g = by_hand(net, image, 1, 4)
    expected = torch.zeros(a.shape[1:], dtype=torch.double)
    for k in range(len(a)):
        alpha = torch.zeros_like(a[k])
        for place in [(i, j) for i in range(a.shape[1]) for j in range(a.shape[2])]:
            if g[k][place] != 0:
                below = 2 * g[k][place] ** 2 + float(a[k].sum()) * g[k][place] ** 3
                alpha[place] = g[k][place] ** 2 / below
        expected += float((alpha * g[k].clamp(min=0)).sum()) * a[k]
    found = og.grad_cam_plus_plus(net, image, "output:1", layer="4")
    assert relative(found.raw[0], expected) <= 1e-5


def test_layer_cam_is_its_formula():
    net, image = deep(), torch.rand(3, 14, 14)
    a, g = by_hand(net, image, 1, 1)
    found = og.layer_cam(net, image, "output:1", layer="1")
    assert relative(found.raw[0], (g.clamp(min=0) * a).sum(0)) <= 1e-5
    assert found.values.shape == (14, 14)


def test_a_layer_that_an_in_place_relu_overwrites_is_heard_and_has_a_gradient():
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 49, 3)]
    torch.manual_seed(0)
    net = stack(*layers, shape=(3, 9, 9))
    image = torch.rand(3, 9, 9)
    found = og.layer_cam(net, image, "output:1", layer="0")
    net.module[1].inplace = False
    a, g = by_hand(net, image, 1, 0)
    assert float(a.min()) < 0
    assert relative(found.raw[0], (g.clamp(min=0) * a).sum(0)) <= 1e-5


def test_the_last_block_of_a_residual_network_is_found():
    torch.manual_seed(0)
    net = og.Network(torchvision.models.resnet18(weights=None).eval(), (3, 64, 64))
    found = og.grad_cam(net, torch.rand(3, 64, 64), "output:3")
    assert found.unit_of_values == "logit at layer4"
    assert found.raw.shape == (1, 2, 2)


def test_in_a_vision_transformer_the_last_tokens_that_are_looked_at_are_found():
    """The last block's answer reaches the class through its class token alone: no place does."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2}
    module = torchvision.models.VisionTransformer(**sizes, hidden_dim=16, mlp_dim=32).eval()
    nn.init.normal_(module.heads.head.weight)
    net = og.Network(module, (3, 32, 32))
    found = og.grad_cam(net, torch.rand(3, 32, 32), "output:3")
    assert found.unit_of_values == "logit at encoder.layers.encoder_layer_1.ln_1"
    assert found.raw.shape == (1, 4, 4)
    assert float(found.raw.abs().max()) > 0


class Tokens(nn.Module):
    """A toy transformer's skin: patches become tokens behind some that are no patches."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, stride=2)
        self.body = nn.Identity()
        self.head = nn.Linear(4, 3)
        self.first = nn.Parameter(torch.ones(1, prefix, 4))

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.body(torch.cat([self.first.expand(len(x), -1, -1), tokens], 1))
        return self.head(tokens.relu().mean(1))


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 16)])
def test_tokens_are_laid_out_as_the_patches_were(prefix, height, width):
    torch.manual_seed(1)
    net = og.Network(Tokens(prefix).eval(), (1, height, width))
    image = torch.rand(1, height, width)
    acts = net.read(image[None], "patches", "body")
    laid = grid(net, "body", acts.layers["body"], (height, width))
    assert (laid == acts.layers["patches"]).all()
    found = og.layer_cam(net, image, "output:1", layer="body")
    assert found.raw.shape == (1, height // 2, width // 2)


def test_layers_that_make_no_map_are_refused_in_a_sentence():
    net, image = deep(), torch.rand(3, 14, 14)
    with pytest.raises(og.RequestError, match="'5' of Sequential has no places"):
        og.grad_cam(net, image, "output:1", layer="5")
    with pytest.raises(og.RequestError, match="'3' does not come before '1'"):
        og.grad_cam(net, image, "1:2", layer="3")
    flat = stack(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2), shape=(1, 4, 4))
    with pytest.raises(og.RequestError, match="no layer with places before output"):
        og.grad_cam(flat, torch.rand(1, 4, 4), "output:1")


def test_units_inside_the_network_have_maps_too():
    net, image = deep(), torch.rand(3, 14, 14)
    found = og.grad_cam(net, image, "3:2@1,1")
    assert found.unit_of_values == "activation at 2"
    maps = net.module[:3](image[None].double()).detach()[0]
    weights = torch.zeros_like(maps)
    weights[:, 1:4, 1:4] = net.module[3].weight[2].detach()
    expected = (weights.mean((1, 2))[:, None, None] * maps).sum(0)
    assert relative(found.raw[0], expected) <= 1e-5
