"""How consistently hiding a part changes a layer, against the formula and a known answer."""

import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.chance import generator
from optogram.techniques.correspondence import correspondence, correspondence_by_chance


def drawn(*shape):
    return torch.rand(shape, generator=generator("test", *shape))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return og.Network(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)), (1, 12, 14))


def test_it_is_the_papers_sum_of_hamming_distances(net):
    images, boxes = drawn(3, 1, 12, 14), torch.tensor([[0, 0, 4, 4], [3, 5, 7, 9], [8, 10, 12, 14]])
    found = correspondence(net, images, boxes, "2", value=0.2)
    signs = []
    for image, (top, left, bottom, right) in zip(images, boxes.tolist(), strict=True):
        copy = image.clone()
        copy[:, top:bottom, left:right] = 0.2
        change = net.read(image[None], "2").layers["2"] - net.read(copy[None], "2").layers["2"]
        signs.append(change.sign().flatten().tolist())
    total = sum(
        a != b
        for i in range(3)
        for j in range(3)
        if i != j
        for a, b in zip(signs[i], signs[j], strict=True)
    )
    assert found.total == total > 0
    assert found.mean == pytest.approx(total / (6 * len(signs[0])), abs=1e-6)
    assert torch.equal(found.distances, found.distances.T)


def test_the_same_part_of_the_same_image_corresponds_wholly(net):
    images = drawn(1, 1, 12, 14).expand(4, 1, 12, 14)
    boxes = torch.tensor([[2, 3, 6, 7]]).expand(4, 4)
    assert correspondence(net, images, boxes, "2").total == 0


def test_a_layer_that_sees_one_part_alone_corresponds_there_and_not_by_chance():
    """The layer holds the 4x4 pixels at the centre; bright there in all images, dark elsewhere."""

    class Centre(nn.Module):
        def forward(self, x):
            return x[:, 0, 4:8, 4:8].flatten(1)

    images = torch.zeros(5, 1, 12, 12)
    images[:, :, 4:8, 4:8] = 1
    net = og.Network(Centre(), (1, 12, 12))
    part = correspondence(net, images, torch.tensor([[4, 4, 8, 8]] * 5), "output", value=0.5)
    chance = correspondence_by_chance(net, images, (4, 4), "output", draws=6)
    assert part.mean == 0
    assert sum(one.mean for one in chance) / 6 > 0.1


def test_chance_follows_from_the_seed_alone(net):
    images = drawn(3, 1, 12, 14)
    once, again = (correspondence_by_chance(net, images, (4, 5), "2", draws=3) for _ in range(2))
    other = correspondence_by_chance(net, images, (4, 5), "2", draws=3, seed=1)
    assert [one.total for one in once] == [one.total for one in again]
    assert [one.total for one in once] != [one.total for one in other]


@pytest.mark.parametrize(
    ("count", "box", "message"),
    [
        (1, [0, 0, 2, 2], "at least two"),
        (2, [0, 0, 13, 2], "not inside"),
        (2, [3, 3, 3, 5], "not in"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(net, count, box, message):
    with pytest.raises(og.RequestError, match=message):
        correspondence(net, drawn(count, 1, 12, 14), torch.tensor([box] * count), "2")


def test_a_part_larger_than_the_image_is_refused(net):
    with pytest.raises(og.RequestError, match="12x14"):
        correspondence_by_chance(net, drawn(2, 1, 12, 14), (13, 2), "2")
