"""The deconvnet against its own description: unpool, rectify, filter with transposed weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import optogram as og
from tests.techniques.explained import relative, stack


def small() -> og.Network:
    torch.manual_seed(5)
    layers = [
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.ReLU(),
    ]
    return stack(*layers, shape=(2, 10, 10))


def by_the_book(network: og.Network, image: torch.Tensor, channel: int, row: int, column: int):
    """Forward with switches, then down: the formulas of section 2.1, one by one."""
    first, _, _, second, _ = network.module
    a = F.relu(first(image[None].double()))
    pooled, switches = F.max_pool2d(a, 2, return_indices=True)
    top = second(pooled)
    start = torch.zeros_like(top)
    start[0, channel, row, column] = 1
    down = F.conv_transpose2d(start, second.weight, padding=1)
    unpooled = F.max_unpool2d(down, switches, 2, output_size=a.shape[-2:])
    return F.conv_transpose2d(F.relu(unpooled), first.weight)[0].detach(), top[0, channel].detach()


@pytest.mark.parametrize("layer", ["3", "4"])
def test_it_is_unpool_rectify_filter(layer):
    network, image = small(), torch.rand(2, 10, 10)
    expected, activations = by_the_book(network, image, 1, 2, 3)
    found = og.deconvnet(network, image, f"{layer}:1@2,3")
    assert relative(found.raw, expected) <= 1e-6
    assert found.score == pytest.approx(float(activations[2, 3]))


def test_the_strongest_place_is_projected_alone():
    network, image = small(), torch.rand(2, 10, 10)
    _, activations = by_the_book(network, image, 2, 0, 0)
    row, column = divmod(int(activations.argmax()), activations.shape[1])
    expected, _ = by_the_book(network, image, 2, row, column)
    found = og.deconvnet(network, image, "4:2@strongest")
    assert relative(found.raw, expected) <= 1e-6


def test_of_equally_strong_places_one_is_projected():
    network = stack(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3), shape=(1, 9, 9))
    for p in network.module.parameters():
        nn.init.ones_(p)
    found = og.deconvnet(network, torch.ones(1, 9, 9), "2:0@strongest").values
    assert int((found != 0).sum()) == 25
    assert float(found.max()) == 9


def test_nothing_lies_outside_the_receptive_field():
    torch.manual_seed(2)
    layers = [
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
    ]
    network = stack(*layers, shape=(1, 48, 48))
    rows, columns = network.layer("4").places
    for row, column in [(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1)]:
        values = og.deconvnet(network, torch.rand(1, 48, 48), f"4:3@{row},{column}").values
        top, left, bottom, right = network.layer("4").field.box(row, column, 48, 48)
        assert values[top:bottom, left:right].any()
        values = values.clone()
        values[top:bottom, left:right] = 0
        assert not values.any()


def test_with_positive_weights_it_is_the_gradient():
    torch.manual_seed(2)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5)]
    network = stack(*layers, shape=(3, 8, 8))
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.abs_()
    image = torch.rand(3, 8, 8)
    deconvnet, gradient = (
        og.deconvnet(network, image, "output:1"),
        og.saliency(network, image, "output:1"),
    )
    assert (deconvnet.raw == gradient.raw).all()


def test_average_pooling_spreads_evenly():
    network = stack(nn.ReLU(), nn.AvgPool2d(4), shape=(1, 8, 8))
    values = og.deconvnet(network, torch.rand(1, 8, 8), "1:0@0,1").values
    assert torch.allclose(values[:4, 4:], torch.full((4, 4), 1 / 16))
    assert int((values != 0).sum()) == 16


def test_overlapping_pools_lose_nothing():
    """max_unpool2d keeps one of the values that return to a place; the backward pass adds them."""
    network = stack(nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 3, bias=False), shape=(1, 9, 9))
    nn.init.ones_(network.module[2].weight)
    peak = torch.rand(1, 9, 9) * 0.1
    peak[0, 4, 4] = 1
    values = og.deconvnet(network, peak, "2:0@0,0").values
    assert float(values.sum()) == pytest.approx(9)
    assert float(values[4, 4]) == pytest.approx(4)


def test_filters_are_the_transposed_ones():
    """<C x, y> = <x, C' y> for every x and y: an adjoint, not an inverse."""
    torch.manual_seed(1)
    network = stack(nn.ReLU(), nn.Conv2d(2, 3, 3, stride=2, bias=False), shape=(2, 9, 9))
    x, place = torch.rand(2, 9, 9), "1:2@1,3"
    down = og.deconvnet(network, x, place)
    # The ReLU at the bottom rectifies what comes back; on both sides only that part counts.
    weight = network.module[1].weight[2].detach().float()
    assert (down.raw[:, 2:5, 6:9] - weight.clamp(min=0)).abs().max() <= 1e-7
    assert float((down.raw * x).sum()) == pytest.approx(
        float((weight.clamp(min=0) * x[:, 2:5, 6:9]).sum()), rel=1e-5
    )
