"""Guided backpropagation and the deconvnet's rule, also where hooks are silently wrong."""

import gc
import warnings

import captum.attr
import pytest
import torch
import torchvision
from torch import nn

import optogram as og
from tests.techniques.explained import by_brute_force, raws, relative, spellings

TECHNIQUES = {"guided": og.guided_backprop, "deconvnet": og.deconvnet, "gradient": og.saliency}
WITH_MODULES = ["alexnet", "squeezenet1_1", "vgg11", "resnet18"]
WITH_FUNCTIONS = {
    "googlenet": (64, {"init_weights": False, "aux_logits": False}),
    "inception_v3": (80, {"init_weights": False, "aux_logits": False}),
    "densenet121": (64, {}),
}


def torchvision_model(name: str, **options: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torchvision.models.get_model(name, weights=None, **options).eval()


@pytest.mark.parametrize("name", WITH_MODULES)
def test_it_is_captum_on_networks_that_captum_can_hook(name):
    module = torchvision_model(name)
    size = 96 if name == "alexnet" else 64
    images = torch.rand(2, 3, size, size)
    network = og.Network(module, (3, size, size), name=name)
    ours = {
        rule: raws(TECHNIQUES[rule](network, images, ["output:3", "output:5"]))
        for rule in TECHNIQUES
    }
    for part in module.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False  # Captum's hooks cannot go back through in-place ReLUs
    oracles = {
        "guided": captum.attr.GuidedBackprop,
        "deconvnet": captum.attr.Deconvolution,
        "gradient": lambda m: captum.attr.Saliency(m),
    }
    for rule, oracle in oracles.items():
        options = {"abs": False} if rule == "gradient" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = oracle(module).attribute(
                images.clone().requires_grad_(), torch.tensor([3, 5]), **options
            )
        assert relative(ours[rule], theirs.detach()) <= 1e-5, rule


@pytest.mark.parametrize("name", WITH_FUNCTIONS)
def test_it_is_right_where_relus_are_functions(name):
    size, options = WITH_FUNCTIONS[name]
    torch.manual_seed(1)
    module = torchvision_model(name, **options)
    network = og.Network(module, (3, size, size), name=name)
    images = torch.rand(1, 3, size, size)
    maps = {rule: raws(TECHNIQUES[rule](network, images, "output:7")) for rule in TECHNIQUES}
    for rule, found in maps.items():
        assert relative(found, by_brute_force(module, images, 7, rule)) <= 1e-6, rule
    for rule in ("guided", "deconvnet"):
        assert relative(maps[rule], maps["gradient"]) > 0.1


@pytest.mark.parametrize("rule", TECHNIQUES)
def test_one_network_has_one_map_however_its_relus_are_written(rule):
    images = torch.rand(2, 3, 8, 8)
    maps = {
        name: raws(TECHNIQUES[rule](net, images, "output:2")) for name, net in spellings().items()
    }
    expected = by_brute_force(spellings()["reused module"].module, images.double(), 2, rule)
    for name, found in maps.items():
        assert relative(found, expected) <= 1e-6, name


def test_an_image_has_the_map_it_has_alone_in_every_batch():
    network = spellings()["function"]
    images = torch.rand(5, 3, 8, 8)
    together = og.guided_backprop(network, images, "output:1")
    in_pieces = og.guided_backprop(network, images, "output:1", batch=2)
    alone = [og.guided_backprop(network, image, "output:1") for image in images]
    for a, b, c in zip(together, in_pieces, alone, strict=True):
        assert (a.raw == b.raw).all()
        assert (a.raw - c.raw).abs().max() <= 1e-9
        assert a.score == pytest.approx(c.score)


def test_several_units_of_one_image_make_a_sheet_in_their_order():
    network = spellings()["function"]
    image = torch.rand(3, 8, 8)
    sheet = og.guided_backprop(network, image, ["output:4", "second:1@2,2", "output:0"])
    assert sheet.units == ("output:4", "second:1@2,2", "output:0")
    for item in sheet:
        alone = og.guided_backprop(network, image, item.target)
        assert (item.raw - alone.raw).abs().max() <= 1e-9


def test_the_values_are_the_largest_channel_in_raw_units():
    item = og.guided_backprop(spellings()["function"], torch.rand(3, 8, 8), "output:1")
    assert (item.values == item.raw.abs().amax(0)).all()
    assert item.unit_of_values == "logit per pixel"
    signed = og.guided_backprop(spellings()["function"], item.image, "output:1", signed=True)
    assert (signed.values.abs() == item.values).all()
    assert (signed.values < 0).any()


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.LeakyReLU(0.1), nn.Tanh()])
@pytest.mark.parametrize("technique", [og.guided_backprop, og.deconvnet])
def test_other_activation_functions_are_refused_in_a_sentence(technique, activation):
    network = og.Network(nn.Sequential(nn.Conv2d(1, 2, 3), activation, nn.Flatten()), (1, 5, 5))
    with pytest.raises(og.RequestError, match=r"uses (GELU|SiLU|LeakyReLU|tanh): take rule=plain"):
        technique(network, torch.rand(1, 5, 5), "output:1")


def test_bad_images_are_refused_in_a_sentence():
    network = og.Network(torchvision_model("alexnet"), (3, 96, 96), name="alexnet")
    with pytest.raises(
        og.RequestError,
        match=r"made for \(3, 96, 96\), does not take images of shape \(3, 20, 20\)",
    ):
        og.guided_backprop(network, torch.rand(3, 20, 20), "output:1")
    with pytest.raises(og.RequestError, match="NaN"):
        og.guided_backprop(network, torch.full((3, 96, 96), torch.nan), "output:1")
    with pytest.raises(og.RequestError, match="2 images and 3 units"):
        og.guided_backprop(network, torch.rand(2, 3, 96, 96), ["output:1"] * 3)


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_it_leaves_nothing_behind():
    network = spellings()["in-place module"]
    image = torch.rand(3, 8, 8)
    og.guided_backprop(network, image, "output:1")
    before = tensors_alive()
    for _ in range(200):
        og.guided_backprop(network, image, "output:1")
    assert tensors_alive() <= before
    assert all(p.grad is None for p in network.module.parameters())
    assert not any(part._forward_hooks or part._backward_hooks for part in network.module.modules())
