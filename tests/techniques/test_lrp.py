"""Relevance: conserved, zennit's where its hooks reach, the same however a ReLU is written."""

import pytest
import torch
import torchvision
import zennit.composites
import zennit.rules
from torch import nn
from zennit.attribution import Gradient
from zennit.types import AvgPool, Convolution, Linear

import optogram as og
from tests.techniques.explained import raws, relative, spellings, stack

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def layers(bias: bool) -> list[nn.Module]:
    torch.manual_seed(2)
    return [
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, bias=bias), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(72, 16, bias=bias), nn.ReLU(), nn.Linear(16, 4, bias=bias),
    ]  # fmt: skip


def network(bias: bool = True) -> og.Network:
    return stack(*layers(bias), shape=(3, 16, 16), mean=MEAN, std=STD)


@pytest.mark.parametrize("rules", ["epsilon", "gamma", "epsilon-gamma-box"])
def test_without_biases_no_relevance_is_lost(rules):
    found = og.lrp(
        network(bias=False), torch.rand(3, 16, 16), "output:2", rules=rules, epsilon=1e-9
    )
    assert found.checks["conserved"] == pytest.approx(1, abs=1e-4)
    assert float(found.values.sum()) == pytest.approx(found.score, rel=1e-4)


def test_epsilon_without_biases_is_input_x_gradient():
    net, image = network(bias=False), torch.rand(3, 16, 16)
    found = og.lrp(net, image, "output:2", rules="epsilon", epsilon=1e-9)
    assert relative(found.raw, og.input_x_gradient(net, image, "output:2").raw) <= 1e-4


@pytest.mark.parametrize("rules", ["epsilon", "gamma", "epsilon-gamma-box"])
def test_it_is_zennits(rules):
    net, images = network(), torch.rand(2, 3, 16, 16)
    shown = net.normalized(images)
    low, high = (net.normalized(torch.full_like(images, end)) for end in (0.0, 1.0))
    small, gamma = 1e-12, 0.25
    kinds = {
        "epsilon": [(Linear, zennit.rules.Epsilon(small)), (AvgPool, zennit.rules.Norm(small))],
        "gamma": [(Linear, zennit.rules.Gamma(gamma, small)), (AvgPool, zennit.rules.Norm(small))],
        "epsilon-gamma-box": [
            (Convolution, zennit.rules.Gamma(gamma, small)),
            (AvgPool, zennit.rules.Norm(small)),
            (Linear, zennit.rules.Epsilon(small)),
        ],
    }
    first = [(Convolution, zennit.rules.ZBox(low, high, small))] if rules.endswith("box") else []
    composite = zennit.composites.SpecialFirstLayerMapComposite(kinds[rules], first)
    one_hot = torch.eye(4, dtype=torch.double)[[1, 3]]
    with Gradient(net.module, composite) as attributor:
        _, theirs = attributor(shown.clone(), lambda out: one_hot * out.detach())
    ours = og.lrp(net, images, ["output:1", "output:3"], rules=rules, epsilon=1e-12)
    assert relative(raws(ours), theirs) <= 1e-5


def test_batch_normalisation_melts_into_its_convolution():
    torch.manual_seed(5)
    norm = nn.BatchNorm2d(6)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    conv = nn.Conv2d(3, 6, 3)
    tail = [nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)]
    with_norm = stack(conv, norm, *tail, shape=(3, 8, 8))
    melted = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    without = stack(melted, *tail, shape=(3, 8, 8))
    image = torch.rand(3, 8, 8)
    for rules in ("epsilon", "epsilon-gamma-box"):
        a, b = (og.lrp(net, image, "output:1", rules=rules) for net in (with_norm, without))
        assert relative(a.raw, b.raw) <= 1e-5


def test_one_network_has_one_map_however_its_relus_are_written():
    image = torch.rand(3, 8, 8)
    maps = [og.lrp(net, image, "output:2") for net in spellings().values()]
    assert max(relative(other.raw, maps[0].raw) for other in maps[1:]) <= 1e-6
    plain = spellings()["function"]
    with torch.no_grad():
        assert maps[0].score == pytest.approx(float(plain(image[None])[0, 2]), rel=1e-6)


def test_a_residual_sum_shares_relevance_by_what_each_summand_was():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            x = x.flatten(1)
            y = self.left(x)
            y += 3 * x
            return y

    torch.manual_seed(1)
    net = og.Network(Residual().double().eval(), (1, 2, 2))
    image = torch.rand(1, 2, 2)
    weight = net.module.left.weight[2].detach() + 3 * torch.eye(4)[2]
    found = og.lrp(net, image, "output:2", rules="epsilon")
    assert relative(found.raw.flatten(), weight * image.flatten()) <= 1e-5


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "squeezenet1_1", "densenet121"])
def test_famous_networks_keep_most_of_their_relevance(name):
    torch.manual_seed(0)
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval()
    for parameter_name, parameter in module.named_parameters():
        if parameter_name.endswith("bias"):
            nn.init.zeros_(parameter)
    net = og.Network(module, (3, 64, 64))
    found = og.lrp(net, torch.rand(3, 64, 64), "output:5", rules="epsilon", epsilon=1e-9)
    assert found.checks["conserved"] == pytest.approx(1, abs=0.02)


def test_a_unit_inside_the_network_is_divided_from_where_it_is():
    found = og.lrp(network(bias=False), torch.rand(3, 16, 16), "3:2@1,1", epsilon=1e-9)
    assert found.checks["conserved"] == pytest.approx(1, abs=1e-4)
    values = found.values.clone()
    values[1:9, 1:9] = 0
    assert not values.any()


def test_what_has_no_rule_is_refused_by_name():
    class Gated(nn.Module):
        def forward(self, x):
            return (x * x.sigmoid()).flatten(1)

    net = og.Network(Gated(), (1, 2, 2))
    with pytest.raises(og.RequestError, match="no rule for 'sigmoid'"):
        og.lrp(net, torch.rand(1, 2, 2), "output:1")
    sizes = {"image_size": 16, "patch_size": 8, "num_layers": 1, "num_heads": 2}
    vit = torchvision.models.VisionTransformer(**sizes, hidden_dim=8, mlp_dim=8).eval()
    nn.init.normal_(vit.heads.head.weight)
    with pytest.raises(og.RequestError, match="lrp has no rule for 'multi_head_attention_forward'"):
        og.lrp(og.Network(vit, (3, 16, 16)), torch.rand(3, 16, 16), "output:1")
    with pytest.raises(og.RequestError, match="must be above 0"):
        og.lrp(net, torch.rand(1, 2, 2), "output:1", epsilon=0)
