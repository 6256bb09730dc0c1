"""Convolutions with fewer products are the convolutions, and what changed is all that is added."""

import numpy as np
import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.chance import generator
from optogram.core.incremental import Occluders, answers, costs, engine, grid
from optogram.core.incremental.answers import prepared
from optogram.core.incremental.plan import groups
from optogram.core.incremental.winograd import TILES, Scratch, Tiles, transforms


def drawn(shape, *parts, dtype=torch.float32):
    return torch.randn(shape, generator=generator("tiles", *parts), dtype=dtype)


def in_tiles(tiles, maps, size, tile):
    """What `tiles` answer to maps (place, row, column, channel), with nonsense beyond them."""
    whole = [-(-n // side) * side + 2 for n, side in zip(size, tile, strict=True)]
    beyond = maps.new_full((len(maps), *whole, maps.shape[-1]), 7.0)
    beyond[:, : size[0] + 2, : size[1] + 2] = maps
    index = np.arange(len(maps) * whole[0] * whole[1], dtype=np.int32).reshape(-1, *whole)
    return tiles(beyond.flatten(0, 2), index, size, tile, Scratch())


@pytest.mark.parametrize("tile", [tuple(tile) for tile in TILES.tolist()])
def test_every_tile_gives_the_plain_convolution(tile):
    weight, bias = drawn((3, 5, 3, 3), "w", dtype=torch.double), drawn((3,), "b").double()
    maps = drawn((4, 9, 7, 5), "maps", dtype=torch.double)
    found = in_tiles(Tiles(weight, bias), maps, (7, 5), tile)
    expected = nn.functional.conv2d(maps.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-11


def test_rounding_stays_small_with_as_many_channels_as_networks_have():
    weight, maps = (
        drawn((64, 256, 3, 3), "w") * (2 / 2304) ** 0.5,
        drawn((4, 8, 8, 256), "m").relu(),
    )
    expected = nn.functional.conv2d(maps.double().permute(0, 3, 1, 2), weight.double())
    for tile in [(2, 2), (4, 4), (6, 6), (7, 7), (8, 8)]:
        found = in_tiles(Tiles(weight, None), maps, (6, 6), tile).permute(0, 3, 1, 2)
        assert float((found - expected).abs().max() / expected.abs().max()) < 6e-5


@pytest.mark.parametrize("side", range(2, 9))
def test_the_matrices_multiply_polynomials(side):
    after, kernel, before = transforms(side)
    pixels, weights = np.arange(side + 2.0) ** 2 - 3, np.array([2.0, -1.0, 5.0])
    found = after @ ((kernel @ weights) * (before @ pixels))
    expected = [weights @ pixels[i : i + 3] for i in range(side)]
    assert np.allclose(found, expected, atol=1e-9)


def test_weights_of_tiles_fit_into_half_of_the_memory_or_are_not_used(monkeypatch):
    monkeypatch.setattr(costs, "PRODUCT", 1.0)
    net, image = network((21, 19)), drawn((2, 21, 19), "image").abs().clamp(max=1)
    occluders = Occluders(grid(21, 19, (4, 3), 2).flatten(0, 1), torch.zeros(2, 21, 19))
    steps = prepared(net, image, occluders, ("output",))
    used = []
    for memory in (1e9, 30e3, 1.0):
        made = groups(steps, occluders.boxes, memory)
        held = engine._held(steps, made)
        assert held <= memory / 2
        used.append(held)
        assert groups(steps, occluders.boxes, memory) is made
    assert used[0] > used[1] > used[2] == 0


def network(size):
    module = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3),
        nn.Dropout(),
        nn.Flatten(),
        nn.LazyLinear(7),
        nn.ReLU(),
        nn.Linear(7, 4),
    ).eval()
    with torch.no_grad():
        module(torch.zeros(1, 2, *size))
    for name, weight in module.state_dict().items():
        if weight.dim() > 1:
            weight.copy_(drawn(weight.shape, name) * (2 / weight[0].numel()) ** 0.5)
    return og.Network(module, (2, *size))


@pytest.mark.parametrize("size", [(21, 19), (16, 23)])
@pytest.mark.parametrize("memory", [1.0, 1e-5])
def test_tiles_and_differences_answer_as_if_every_copy_were_shown(size, memory, monkeypatch):
    # As if products of matrices cost nothing beside plain convolutions, which are small here.
    monkeypatch.setattr(costs, "PRODUCT", 1.0)
    monkeypatch.setattr(engine, "_FEW", 0)
    net, image = network(size), drawn((2, *size), "image").abs().clamp(max=1)
    occluders = Occluders(grid(*size, (4, 3), 2).flatten(0, 1), torch.zeros(2, *size))
    steps = prepared(net, image, occluders, ("output",))
    made = groups(steps, occluders.boxes)
    assert len(steps.dense) == 1
    assert any(one.tiles for one in made)
    for which, acts in answers(net, image, occluders, ("output",), memory=memory):
        expected = net(occluders.apply(image, which))
        assert torch.allclose(acts.layers["output"], expected, atol=2e-5)
