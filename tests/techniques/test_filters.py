"""The exact answer to what a unit wants, where its value is linear in the image."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from optogram.core import Network
from optogram.pictures.errors import RequestError
from optogram.techniques import filters
from optogram.zoo.tiny import BRIGHT, tiny, variants
from tests.core.nets import Does, Tokens, named, seeded


def test_a_filter_is_the_weights_over_their_length():
    module = named(conv=nn.Conv2d(3, 7, (3, 5), stride=2, padding=1), relu=nn.ReLU())
    network = Network(module, (3, 16, 18))
    sheet = filters(network, "conv")
    assert len(sheet) == 7
    for unit, picture in enumerate(sheet):
        weight, bias = module.conv.weight[unit].detach(), float(module.conv.bias[unit].detach())
        assert picture.unit == f"conv:{unit}"
        assert picture.raw is not None
        torch.testing.assert_close(picture.raw, weight / weight.norm(), rtol=1e-5, atol=1e-6)
        assert float(picture.raw.norm()) == pytest.approx(1, abs=1e-5)
        assert picture.score == pytest.approx(float(weight.norm()) + bias, abs=1e-4)
        expected = 0.5 + 0.5 * weight / weight.abs().max()
        torch.testing.assert_close(picture.image, expected, rtol=1e-4, atol=1e-5)


def test_normalisation_and_batch_norm_are_part_of_the_filter():
    mean, std = (0.2, 0.7), (0.5, 0.1)
    module = named(conv=nn.Conv2d(2, 4, 3), norm=nn.BatchNorm2d(4))
    network = Network(module.double(), (2, 9, 9), mean=mean, std=std)
    sheet = filters(network, "norm")
    norm = module.norm
    with torch.no_grad():
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        folded = module.conv.weight * gain[:, None, None, None]
        bias = (module.conv.bias - norm.running_mean) * gain + norm.bias
        bias = bias - (folded * (torch.tensor(mean) / torch.tensor(std))[None, :, None, None]).sum(
            (1, 2, 3)
        )
        folded = folded / torch.tensor(std)[None, :, None, None]
    for unit, picture in enumerate(sheet):
        length = folded[unit].norm()
        torch.testing.assert_close(
            picture.raw, (folded[unit] / length).float(), rtol=1e-5, atol=1e-6
        )
        assert picture.score == pytest.approx(float(length + bias[unit]), rel=1e-5)


def test_a_dilated_filter_has_its_gaps():
    module = named(conv=nn.Conv2d(1, 2, 2, dilation=3))
    picture = filters(Network(module, (1, 9, 9)), "conv")[1]
    assert picture.raw.shape == (1, 4, 4)
    assert int((picture.raw != 0).sum()) == 4
    weight = module.conv.weight[1, 0].detach()
    torch.testing.assert_close(picture.raw[0, ::3, ::3], weight / weight.norm())


def test_the_score_is_what_the_unit_says_of_the_filter():
    module = named(
        conv=nn.Conv2d(2, 3, 3, padding=1),
        mean=nn.AvgPool2d(2),
        flat=nn.Flatten(),
        fc=nn.Linear(48, 5),
    )
    network = Network(module.double(), (2, 8, 8), mean=(0.5, 0.25), std=(0.5, 2.0))
    for layer in ("conv", "mean", "fc"):
        known = network.layer(layer)
        place = tuple(n // 2 for n in known.places)
        box = known.field.box(*place, 8, 8) if len(place) == 2 else (0, 0, 8, 8)
        for constraint in ("norm", "box"):
            for unit, picture in enumerate(filters(network, layer, constraint=constraint)):
                x = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
                made = picture.raw if constraint == "norm" else picture.image
                x[0, :, box[0] : box[2], box[1] : box[3]] = made
                at = f"@{','.join(map(str, place))}" if place else ""
                value = float(network.read(x, layer)[f"{layer}:{unit}{at}"])
                assert value == pytest.approx(picture.score, rel=1e-5)


def test_no_image_of_the_same_norm_does_better():
    network = Network(named(flat=nn.Flatten(), fc=nn.Linear(12, 3)), (1, 3, 4))
    chance = torch.Generator().manual_seed(0)
    rivals = torch.randn(2000, 1, 3, 4, generator=chance)
    rivals = rivals / rivals.flatten(1).norm(dim=1)[:, None, None, None]
    answers = network.read(rivals, "fc").layers["fc"]
    for unit, picture in enumerate(filters(network, "fc")):
        assert float(answers[:, unit].max()) < picture.score


def test_in_the_box_no_corner_does_better():
    network = Network(named(flat=nn.Flatten(), fc=nn.Linear(9, 4)), (1, 3, 3))
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).view(-1, 1, 3, 3)
    answers = network.read(corners, "fc").layers["fc"]
    for unit, picture in enumerate(filters(network, "fc", constraint="box")):
        best = int(answers[:, unit].argmax())
        assert torch.equal(picture.image, corners[best])
        assert picture.score == pytest.approx(float(answers[best, unit]), abs=1e-5)
        assert picture.raw is None


def test_the_tiny_networks_filters_are_known_by_hand():
    three, horizon, nothing = filters(tiny(), "conv")
    expected = torch.zeros(1, 4, 4)
    for row, column in BRIGHT:
        expected[0, row, column] = 1
    torch.testing.assert_close(three.raw, expected / 3**0.5)
    assert three.score == pytest.approx(3**0.5)
    assert horizon.raw[0].sum(1).tolist() == pytest.approx([2**0.5, 0, 0, -(2**0.5)])
    assert nothing.score == pytest.approx(-1)
    assert nothing.image.unique().tolist() == [0.5]  # grey, where there is nothing to show
    in_box = filters(tiny(), "conv", constraint="box")
    assert [p.score for p in in_box] == pytest.approx([3, 4, -1])
    assert torch.equal(in_box[0].image, expected)


def test_a_relu_has_the_filters_of_what_it_is_given():
    network = variants()["modules"]
    for one, other in zip(filters(network, "conv1"), filters(network, "relu1"), strict=True):
        assert torch.equal(one.raw, other.raw)
        assert one.score == other.score


def test_linear_layers_in_a_row_are_one():
    module = named(flat=nn.Flatten(), a=nn.Linear(12, 5), b=nn.Linear(5, 3))
    product = (module.b.weight @ module.a.weight).detach()
    for unit, picture in enumerate(filters(Network(module, (1, 3, 4)), "b")):
        row = product[unit] / product[unit].norm()
        torch.testing.assert_close(picture.raw.flatten(), row, rtol=1e-5, atol=1e-6)


def test_patches_of_tokens_have_filters():
    network = Network(seeded(Tokens()), (1, 6, 6))
    weight = network.module.patch.weight.detach()
    for unit, picture in enumerate(filters(network, "patch")):
        torch.testing.assert_close(
            picture.raw, weight[unit] / weight[unit].norm(), rtol=1e-5, atol=1e-6
        )


def test_batches_make_no_difference():
    network = variants()["modules"]
    one, other = filters(network, "conv1", batch=1), filters(network, "conv1", batch=4)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.raw, b.raw)
    assert [p.unit for p in other] == [f"conv1:{i}" for i in range(6)]


BENT = {
    "relu": nn.ReLU(),
    "maximum": nn.MaxPool2d(2),
    "softplus": nn.Softplus(),
    "square": Does(lambda m, x: x * x),
    "instance norm": nn.InstanceNorm2d(3),
    "a little": Does(lambda m, x: x + 1e-3 * x * x),
}


@pytest.mark.parametrize("name", BENT)
def test_a_layer_that_is_not_linear_is_refused(name):
    module = named(conv=nn.Conv2d(1, 3, 3), bent=BENT[name], fc=nn.Conv2d(3, 2, 2))
    network = Network(module, (1, 8, 8))
    with pytest.raises(RequestError, match="'fc' is not linear in the image"):
        filters(network, "fc")


def test_a_small_unit_that_bends_is_found_among_large_ones_that_do_not():
    def does(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x)
        return torch.cat([1000 * y[:, :1], 1e-3 * y[:, 1:].square()], 1)

    module = seeded(Does(does, conv=nn.Conv2d(1, 2, 3)))
    with pytest.raises(RequestError, match="is not linear"):
        filters(Network(module, (1, 8, 8)), "output")


def test_a_relu_that_is_shut_on_grey_is_found_out():
    """`output:horizon` of the tiny network is 0, without a gradient, on half of all images."""
    with pytest.raises(RequestError, match="'fc' is not linear in the image"):
        filters(tiny(), "fc")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"layer": "cnov"}, "no layer called 'cnov'"), ({"constraint": "ball"}, "constraint")],
)
def test_a_request_that_cannot_be_is_refused(options, sentence):
    with pytest.raises((RequestError, TypeError), match=sentence):
        filters(tiny(), **{"layer": "conv", **options})


def test_nothing_random_is_drawn_and_all_is_finite():
    network = variants()["F.relu"]
    before = torch.get_rng_state()
    for picture in filters(network, "conv1"):
        assert np.isfinite(picture.image.numpy()).all()
        assert picture.history.numel() == 0
    assert torch.equal(torch.get_rng_state(), before)
