"""Convolutions with fewer products are the convolutions, and what changed is all that is added."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.chance import generator
from optogram.core.incremental import Occluders, answers, costs, engine, grid, winograd
from optogram.core.incremental.answers import prepared
from optogram.core.incremental.plan import groups
from optogram.core.incremental.winograd import TILES, Scratch, Tiles, transforms, workspace


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


def test_memory_is_lent_once_and_used_again_by_the_next_call():
    class Owner:
        pass

    owner, like = Owner(), torch.zeros(1)
    with workspace(owner) as scratch:
        first, second = scratch.lend(like, 10, 100), scratch.lend(like, 1000)
        first.fill_(1)
        second.fill_(2)
        assert (first == 1).all()
        with workspace(owner) as other:
            assert other is not scratch
    places = {first.data_ptr(), second.data_ptr()}
    with workspace(owner) as scratch:
        again = [scratch.lend(like, 1000), scratch.lend(like, 900)]
        assert {one.data_ptr() for one in again} == places
        assert scratch.lend(like.double(), 1000).dtype == torch.double
    held = weakref.ref(scratch)
    del owner, scratch
    gc.collect()
    assert held() is None


def test_no_more_memory_rests_than_the_bounds_say(monkeypatch):
    scratch, like = Scratch(), torch.zeros(1)
    for count in (100, 200, 300):
        scratch.lend(like, count)
    scratch(0, like, 50)
    scratch.rest()
    assert sum(len(one) for one in scratch._spare) == 600
    scratch.bound(limit=100, most=2000)
    assert sum(len(one) for one in scratch._spare) == 500  # of four bytes
    assert not scratch._kept
    scratch.lend(like, 400)  # none fits: with those that rest it would be too much
    assert sum(one.nbytes for one in [*scratch._spare, *scratch._lent]) <= 2000
    monkeypatch.setattr(winograd, "RESTING", 1000)
    scratch.rest()
    assert sum(one.nbytes for one in scratch._spare) <= 1000
    scratch(0, like, 300)  # more than may rest, whatever `memory` allowed during the call
    scratch.rest()
    assert not scratch._kept


def test_two_occlusions_of_one_network_in_turn_do_not_mix():
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    net = og.Network(module, (3, 64, 64))
    images = [torch.rand(3, 64, 64, generator=generator("turns", i)) for i in range(2)]
    hidden = grid(64, 64, 8, 2).flatten(0, 1)
    steps = prepared(net, images[0], Occluders(hidden, images[0]), ("output",))
    assert any(one.tiles for one in groups(steps, hidden))

    def begun(image):
        occluders = Occluders(hidden, torch.zeros_like(image))
        work = answers(net, image, occluders, ("output",))
        return ((which, acts.layers["output"]) for which, acts in work)

    def sorted_rows(found):
        which, rows = (torch.cat(some) for some in zip(*found, strict=True))
        return rows[which.argsort()]

    alone = [sorted_rows(list(begun(image))) for image in images]
    both, found = [begun(image) for image in images], [[], []]
    while any(both):
        for number, work in enumerate(both):
            some = next(work, None) if work else None
            if some is None:
                both[number] = None
            else:
                found[number].append(some)
    for one, other in zip(alone, found, strict=True):
        assert len(other) > 1
        assert torch.equal(one, sorted_rows(other))
