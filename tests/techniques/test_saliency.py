"""Which pixels a unit's value is most sensitive to."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.core import Direction, Network
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError
from optogram.techniques import saliency
from optogram.zoo.tiny import BRIGHT, tiny, variants
from tests.core.nets import images, named


@pytest.fixture
def linear() -> Network:
    module = named(flat=nn.Flatten(), fc=nn.Linear(3 * 4 * 5, 6))
    return Network(module, (3, 4, 5), labels=list("abcdef"))


def test_of_a_linear_model_it_is_the_largest_weight_of_the_channels_exactly(linear):
    weight = linear.module.fc.weight.detach().view(6, 3, 4, 5)
    x = images(1, (3, 4, 5))[0]
    found = saliency(linear, x, "output:c")
    assert isinstance(found, Attribution)
    assert torch.equal(found.values, weight[2].abs().amax(0))
    assert torch.equal(found.raw, weight[2])
    assert torch.equal(found.image, x)
    assert found.target == "output:2"
    assert found.score == pytest.approx(float(linear(x[None])[0, 2]))
    assert not found.signed
    assert found.unit_of_values == "logit per pixel"


def test_with_its_sign_it_is_the_weight_of_the_largest_channel(linear):
    weight = linear.module.fc.weight.detach().view(6, 3, 4, 5)[4]
    found = saliency(linear, images(1, (3, 4, 5))[0], "fc:4", signed=True)
    for i in range(4):
        for j in range(5):
            assert found.values[i, j] == max(weight[:, i, j].tolist(), key=abs)
    assert found.signed
    assert found.unit_of_values == "activation per pixel"


def test_it_is_in_units_of_the_image_before_normalisation(linear):
    inside = Network(linear.module, (3, 4, 5), mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 2.0))
    weight = linear.module.fc.weight.detach().view(6, 3, 4, 5)[1]
    expected = (weight / torch.tensor([0.5, 0.25, 2.0])[:, None, None]).abs().amax(0)
    torch.testing.assert_close(saliency(inside, images(1, (3, 4, 5))[0], "fc:1").values, expected)


def test_another_logit_makes_no_difference_to_a_logits_map_but_to_a_probabilitys():
    network = variants()["modules"]
    x = images(1, (3, 10, 10))[0]
    logit, probability = (
        saliency(network, x, "output:1", score=s).values for s in ("activation", "probability")
    )
    network.module.head.bias.data[3] += 100
    assert torch.equal(saliency(network, x, "output:1").values, logit)
    changed = saliency(network, x, "output:1", score="probability").values
    assert (changed - probability).abs().max() > 0.5 * probability.max()


def test_it_is_what_a_small_change_of_a_pixel_does():
    network = variants(torch.float64)["F.relu"]
    x = images(1, (3, 10, 10), dtype=torch.float64)[0]
    for score in ("activation", "probability"):
        found = saliency(network, x, "output:2", score=score)
        for channel, row, column in [(0, 0, 0), (1, 4, 7), (2, 9, 9), (0, 5, 5)]:
            moved = x.expand(2, -1, -1, -1).clone()
            moved[0, channel, row, column] += 1e-6
            moved[1, channel, row, column] -= 1e-6
            answers = network(moved)
            up, down = (answers.softmax(1) if score == "probability" else answers)[:, 2]
            assert float(found.raw[channel, row, column]) == pytest.approx(
                float(up - down) / 2e-6, rel=1e-3, abs=1e-8
            )


def test_three_bright_pixels_are_all_that_matters():
    found = saliency(tiny(), torch.full((1, 4, 4), 0.5), "output:three")
    expected = torch.zeros(4, 4)
    for row, column in BRIGHT:
        expected[row, column] = 1
    assert torch.equal(found.values, expected)
    assert found.score == 1.5


def test_a_planted_patch_holds_most_of_what_is_strongest():
    """A network taught that the mean of an 8x8 patch decides: its map must say where that is."""
    chance = torch.Generator().manual_seed(0)
    x = torch.rand(3000, 1, 28, 28, generator=chance)
    patch = slice(9, 17), slice(15, 23)
    classes = (x[:, 0, patch[0], patch[1]].mean((1, 2)) > 0.5).long()
    module = named(flat=nn.Flatten(), fc=nn.Linear(784, 24), relu=nn.ReLU(), out=nn.Linear(24, 2))
    optimizer = torch.optim.Adam(module.parameters(), 3e-3, weight_decay=1e-3)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(module(x - 0.5), classes).backward()
        optimizer.step()
    module.zero_grad()
    network = Network(module, (1, 28, 28), mean=[0.5], std=[1.0])
    held = []
    for row in range(10):
        values = saliency(network, x[row], f"output:{int(classes[row])}").values
        strongest = torch.zeros(784)
        strongest[values.flatten().topk(39).indices] = 1  # 5 %
        held.append(float(strongest.view(28, 28)[patch].sum()) / 39)
    assert min(held) >= 0.8


def test_a_hidden_unit_is_asked_before_its_relu():
    network = variants()["modules"]
    x = images(1, (3, 10, 10))[0]
    one, other = saliency(network, x, "relu1:2"), saliency(network, x, "conv1:2")
    assert torch.equal(one.values, other.values)
    assert one.score == other.score


def test_one_image_and_several_units_or_several_images_and_one_unit_are_a_sheet():
    network = variants()["modules"]
    x = images(3, (3, 10, 10))
    several = saliency(network, x[0], ["output:0", "output:1", "conv2:3@1,2"])
    assert isinstance(several, Sheet)
    assert [a.target for a in several] == ["output:0", "output:1", "conv2:3@1,2"]
    for found, unit in zip(several, ["output:0", "output:1", "conv2:3@1,2"], strict=True):
        torch.testing.assert_close(found.values, saliency(network, x[0], unit).values)
    rows = saliency(network, x, "output:1", batch=2)
    assert len(rows) == 3
    for found, image in zip(rows, x, strict=True):
        torch.testing.assert_close(found.values, saliency(network, image, "output:1").values)
        assert torch.equal(found.image, image)
    pairs = saliency(network, x, ["output:2", "output:0", "output:1"])
    torch.testing.assert_close(pairs[2].values, saliency(network, x[2], "output:1").values)
    alone = saliency(network, x[:1], "output:1")
    assert isinstance(alone, Sheet)
    assert len(alone) == 1
    with pytest.raises(RequestError, match="3 images and 2 units: give one of either, or as many"):
        saliency(network, x, ["output:2", "output:0"])


def test_a_direction_has_a_map_too():
    network = variants()["modules"]
    x = images(1, (3, 10, 10))[0]
    axis = torch.zeros(12)
    axis[5] = 1
    found = saliency(network, x, Direction("hidden", axis, "five"))
    assert torch.equal(found.values, saliency(network, x, "hidden:5").values)
    assert found.target == "hidden:<five>"


def test_zero_is_zero():
    found = saliency(tiny(), torch.zeros(1, 4, 4), "output:nothing")
    assert found.values.unique().tolist() == [0]


@pytest.mark.parametrize(
    ("image", "unit", "sentence"),
    [
        (torch.zeros(1, 4, 4), "output:thre", "no label 'thre'"),
        (torch.zeros(3, 4, 4), "output:0", "1 channel"),
        (torch.full((1, 4, 4), torch.nan), "output:0", "NaN or infinity"),
        (torch.zeros(1, 4, 4), [], "0 units"),
        (torch.zeros(1, 2, 2), "output:0", "does not take images of shape"),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_one_sentence(image, unit, sentence):
    with pytest.raises(RequestError, match=sentence) as refusal:
        saliency(tiny(), image, unit)
    assert "\n" not in str(refusal.value)
