"""RISE and Score-CAM: expectations by hand, formulas written out again."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import optogram as og
from optogram.techniques.rise import masks
from tests.techniques.explained import relative, stack


def linear(weights: torch.Tensor) -> og.Network:
    net = stack(nn.Flatten(), nn.Linear(weights.numel(), 1, bias=False), shape=(1, *weights.shape))
    with torch.no_grad():
        net.module[1].weight[0] = weights.flatten()
    return net


def test_rise_is_its_formula():
    torch.manual_seed(0)
    net, image = linear(torch.randn(12, 12)), torch.rand(1, 12, 12)
    found = og.rise(
        net, image, "output:0", score="activation", samples=20, cells=3, batch=7, seed=4
    )
    drawn = masks("output:0", 0, 20, (12, 12), 3, 0.5, 4)
    scores = torch.cat([net(mask[None] * image) for mask in drawn])[:, 0].detach()
    expected = ((scores - scores.mean()).view(-1, 1, 1) * drawn[:, 0]).sum(0) / (20 * 0.5)
    assert relative(found.values, expected) <= 1e-5
    assert found.score == pytest.approx(float(net(image[None])))


def test_the_part_that_counts_stands_out():
    weights = torch.zeros(20, 20)
    weights[4:10, 12:18] = 1
    found = og.rise(
        linear(weights), torch.ones(1, 20, 20), "output:0", score="activation", samples=400
    )
    inside = found.values[4:10, 12:18].mean()
    assert float(inside) > 5 * float(found.values[weights == 0].abs().mean())
    top = found.values.flatten().topk(36).indices
    assert int((weights.flatten()[top] > 0).sum()) >= 24


def test_masks_show_the_share_they_should_whatever_the_batch():
    many = masks("u", 0, 300, (17, 23), 5, 0.3, 1)
    assert many.shape == (300, 1, 17, 23)
    assert float(many.mean()) == pytest.approx(0.3, abs=0.02)
    assert 0 <= float(many.min()) < float(many.max()) <= 1
    assert (masks("u", 120, 9, (17, 23), 5, 0.3, 1) == many[120:129]).all()


def test_rise_explains_a_class_by_its_probability_unless_asked_otherwise():
    net = stack(nn.Flatten(), nn.Linear(16, 3), shape=(1, 4, 4))
    image = torch.rand(1, 4, 4)
    by_default = og.rise(net, image, "output:1", samples=5)
    assert by_default.unit_of_values == "probability"
    assert by_default.score == pytest.approx(float(net(image[None]).softmax(1)[0, 1]))
    assert og.rise(net, image, "1:1", samples=5).unit_of_values == "activation"


def test_rise_of_an_image_does_not_depend_on_the_others():
    net = stack(nn.Flatten(), nn.Linear(64, 3), shape=(1, 8, 8))
    images = torch.rand(2, 1, 8, 8)
    both = og.rise(net, images, ["output:0", "output:1"], samples=6)
    assert torch.allclose(both[1].values, og.rise(net, images[1], "output:1", samples=6).values)


def test_score_cam_is_its_formula():
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(125, 4)]
    net, image = stack(*layers, shape=(1, 12, 12)), torch.rand(1, 12, 12)
    maps = net.module[:3](image[None].double()).detach()
    blank = float(net(torch.zeros(1, 1, 12, 12))[0, 2].detach())
    gains = []
    for channel in maps[0]:
        mask = F.interpolate(channel[None, None], (12, 12), mode="bilinear")
        mask = ((mask - mask.min()) / (mask.max() - mask.min())).nan_to_num()
        gains.append(float(net((mask * image).float())[0, 2].detach()) - blank)
    weights = torch.tensor(gains, dtype=torch.double).softmax(0)
    expected = (weights.view(-1, 1, 1) * maps[0]).sum(0)
    found = og.score_cam(net, image, "output:2", channels=None, baseline=0.0)
    assert relative(found.raw[0], expected) <= 1e-4
    assert found.unit_of_values == "logit at 2"


def test_score_cam_asks_the_strongest_channels_only():
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(500, 4)]
    net, image = stack(*layers, shape=(1, 12, 12)), torch.rand(1, 12, 12)
    maps = net.module[:2](image[None].double())[0].detach()
    strongest = int(maps.flatten(1).amax(1).argmax())
    found = og.score_cam(net, image, "output:2", channels=1)
    assert relative(found.raw[0], maps[strongest]) <= 1e-5


def test_odd_numbers_are_refused_in_a_sentence():
    net = stack(nn.Flatten(), nn.Linear(16, 3), shape=(1, 4, 4))
    for wrong in ({"samples": 0}, {"cells": 0}, {"keep": 1.0}):
        with pytest.raises(og.RequestError, match="at least 1 mask and 1 cell"):
            og.rise(net, torch.rand(1, 4, 4), "output:1", **wrong)
    with pytest.raises(og.RequestError, match="at least 1, or None for all"):
        og.score_cam(net, torch.rand(1, 4, 4), "output:1", channels=0)
