"""Images in pieces: the gradient of the whole, whatever the objective, the edges and the stride."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.ascent import ascend, param, transform
from optogram.ascent.tiles import USUAL, tile_for
from optogram.core import Network
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from tests.core.nets import images, named


class Mirrored(nn.Module):
    """Padding with what lies within, as the normalised VGG pads, and pools that round up."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3)
        self.pool, self.relu = nn.MaxPool2d(2, ceil_mode=True), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.one(F.pad(x, (1, 1, 1, 1), mode="reflect"))))
        return self.relu(self.two(F.pad(x, (1, 1, 1, 1), mode="reflect")))


def branched() -> nn.Module:
    """A large first stride, normalisation across channels, and pools of overlapping windows."""
    return named(
        conv=nn.Conv2d(3, 8, 7, stride=2, padding=3), relu=nn.ReLU(),
        pool=nn.MaxPool2d(3, stride=2, ceil_mode=True), norm=nn.LocalResponseNorm(3),
        late=nn.Conv2d(8, 6, 3, padding=1), act=nn.ReLU(),
        halved=nn.AvgPool2d(2), last=nn.Conv2d(6, 4, 3, padding=1),
    )  # fmt: skip


QUESTIONS = {
    "energy": ask.energy("late"),
    "before and after": ask.activation("act:2") + 2 * ask.activation("act:3", pre=False),
    "two strides": ask.activation("last:1") - 0.5 * ask.energy("relu"),
    "the strongest": ask.activation("last:1@strongest"),
    "one place": ask.activation("late:4@3,7"),
    "image too": ask.energy("act") - 0.1 * ask.total_variation(),
}


def climbed(network: Network, question: ask.Objective, size: tuple[int, int], **options):
    start = images(1, (3, *size), seed=4).double()[0]
    steps = ascend(
        network,
        question,
        param.pixels(start=start),
        shape=(3, *size),
        steps=2,
        optimizer="SGD",
        lr=0.01,
        relative="mean",
        **options,
    )
    return list(steps)


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("size", [(64, 96), (77, 61)])
@pytest.mark.parametrize("tile", [16, 37])
def test_pieces_give_the_gradient_of_the_whole(name, size, tile):
    network = Network(branched().double(), (3, 64, 96))
    whole = climbed(network, QUESTIONS[name], size)
    pieces = climbed(network, QUESTIONS[name], size, tile=tile)
    for one, other in zip(whole, pieces, strict=True):
        assert torch.allclose(one.images, other.images, atol=1e-10)
        assert torch.allclose(one.scores, other.scores, rtol=1e-10)


@pytest.mark.parametrize("size", [(40, 40), (41, 59)])
def test_pieces_of_an_image_whose_edges_are_mirrored(size):
    network = Network(Mirrored().double(), (3, 40, 40))
    question = ask.energy("two") + ask.activation("one:3")
    whole, pieces = (climbed(network, question, size, tile=tile)[-1] for tile in (None, 12))
    assert torch.allclose(whole.images, pieces.images, atol=1e-10)


def test_pieces_are_looked_at_through_transforms_of_the_whole():
    network = Network(branched().double(), (3, 64, 96))
    moved = {"transforms": [transform.jitter(5)], "looks": 2}
    whole, pieces = (
        climbed(network, ask.energy("late"), (64, 96), tile=tile, **moved)[-1]
        for tile in (None, 24)
    )
    assert torch.allclose(whole.images, pieces.images, atol=1e-10)


def test_only_large_images_are_cut_up_and_only_where_that_is_exact():
    network = Network(
        named(conv=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()), (3, 8, 8)
    )
    assert tile_for(network, ["conv"], (3, 1000, 1000), "auto") is None
    assert tile_for(network, ["conv"], (3, 2000, 1000), "auto") == USUAL
    assert tile_for(network, ["conv", "flat"], (3, 2000, 1000), "auto") is None
    assert tile_for(network, ["conv"], (3, 40, 30), 64) is None
    assert tile_for(network, ["conv"], (3, 80, 30), 64) == 64
    with pytest.raises(RequestError, match="'flat' of Sequential sees the whole image at once"):
        tile_for(network, ["flat"], (3, 2000, 1000), 64)
    with pytest.raises(RequestError, match="should be 'auto', None or pixels a side"):
        tile_for(network, ["conv"], (3, 2000, 1000), "small")
