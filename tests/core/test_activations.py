"""What a network said about a batch, asked about its units."""

import pytest
import torch
from torch import nn

from optogram.core import Activations, Direction, Network, Unit
from optogram.core.activations import Plan
from optogram.pictures.errors import RequestError
from optogram.zoo.tiny import variants
from tests.core.nets import Tokens, images, named, seeded


@pytest.fixture(scope="module")
def network() -> Network:
    return variants(torch.float64)["modules"]


@pytest.fixture(scope="module")
def heard(network) -> Activations:
    return network.read(
        images(6, (3, 10, 10), dtype=torch.float64), "conv1", "relu1", "hidden", watch=True
    )


def test_a_unit_is_its_mean_over_places_and_its_map_every_place(heard):
    conv = heard.layers["conv1"]
    assert conv.shape == (6, 6, 10, 10)
    assert torch.equal(heard.map("conv1:4"), conv[:, 4])
    torch.testing.assert_close(heard["conv1:4"], conv[:, 4].mean((1, 2)))
    assert torch.equal(heard["conv1:4@3,7"], conv[:, 4, 3, 7])
    assert torch.equal(heard["conv1:4@strongest"], conv[:, 4].amax((1, 2)))
    assert torch.equal(heard.map("conv1:4@3,7"), conv[:, 4])


def test_a_bare_layer_is_the_mean_over_its_units(heard):
    conv = heard.layers["conv1"]
    torch.testing.assert_close(heard.map("conv1"), conv.mean(1))
    torch.testing.assert_close(heard["conv1"], conv.mean((1, 2, 3)))
    torch.testing.assert_close(heard["hidden"], heard.layers["hidden"].mean(1))


def test_a_neuron_is_itself(heard):
    assert torch.equal(heard["hidden:3"], heard.layers["hidden"][:, 3])
    assert torch.equal(heard.map(Unit("hidden", 3)), heard.layers["hidden"][:, 3])


def test_a_direction_is_the_dot_product_at_every_place(heard):
    vector = torch.tensor([1.0, -2, 0, 0, 3, 0.5])
    direction = Direction("conv1", vector, place=(2, 3))
    expected = torch.einsum("buhw,u->bhw", heard.layers["conv1"], vector.double())
    torch.testing.assert_close(heard.map(direction), expected)
    torch.testing.assert_close(heard[direction], expected[:, 2, 3])
    torch.testing.assert_close(heard[Direction("conv1", vector)], expected.mean((1, 2)))
    strongest = Direction("conv1", vector, place="strongest")
    torch.testing.assert_close(heard[strongest], expected.amax((1, 2)))


def test_an_axis_is_a_direction_too(heard):
    axis = torch.zeros(6)
    axis[4] = 1
    torch.testing.assert_close(heard[Direction("conv1", axis)], heard["conv1:4"])


def test_before_is_what_the_relu_was_given(heard):
    assert torch.equal(heard.before.layers["relu1"], heard.layers["conv1"])
    assert torch.equal(heard.before.layers["conv1"], heard.layers["conv1"])
    assert torch.equal(heard.before.map("relu1:2"), heard.map("conv1:2"))
    assert heard.map("relu1:2").min() == 0


def test_each_image_is_asked_about_its_own_unit(heard, network):
    wanted = [
        "conv1:4@3,7", "hidden:0", "conv1:1", "conv1:4@strongest", "conv1",
        Direction("hidden", torch.ones(12)),
    ]  # fmt: skip
    resolved = [network.resolve(unit) for unit in wanted]
    found = heard.each(resolved)
    expected = torch.stack([heard[unit][row] for row, unit in enumerate(wanted)])
    torch.testing.assert_close(found, expected)
    for unit in ("conv1:3", "conv1:3@1,2", "conv1:3@strongest", "hidden:5"):
        same = [network.resolve(unit)] * 6
        torch.testing.assert_close(heard.each(same), heard[unit])
    with pytest.raises(RequestError, match="1 units for 6 images: give one each"):
        heard.each(resolved[:1])


def test_units_of_one_layer_are_found_in_one_operation(network):
    plan = network.plan([f"hidden:{i}" for i in range(5)])
    assert isinstance(plan, Plan)
    assert plan.single
    assert network.plan([f"hidden:{i}" for i in range(5)]) is plan
    mixed = network.plan(["hidden:1", "conv1:0", "hidden"])
    assert not mixed.single
    assert len(mixed.groups) == 2
    assert [row for row, _ in mixed.singular] == [2]


def test_gradients_of_each_images_unit_are_those_of_the_unit(network):
    x = images(4, (3, 10, 10), dtype=torch.float64).requires_grad_()
    wanted = [network.resolve(u) for u in ("hidden:1", "hidden:3", "hidden:1", "hidden:0")]
    (found,) = torch.autograd.grad(network.read(x, "hidden").each(wanted).sum(), x)
    for row, unit in enumerate(wanted):
        (alone,) = torch.autograd.grad(network.read(x, "hidden")[unit][row], x)
        torch.testing.assert_close(found[row], alone[row])
    assert torch.autograd.gradcheck(
        lambda h: Activations(network, x.detach(), {"hidden": h}).each(wanted),
        torch.rand(4, 12, dtype=torch.float64, requires_grad=True),
    )


def test_the_strongest_place_alone_receives_the_gradient_where_several_are_equal(network):
    flat = torch.zeros(6, 6, 10, 10, dtype=torch.float64, requires_grad=True)
    acts = Activations(network, images(6, (3, 10, 10)), {"conv1": flat})
    (gradient,) = torch.autograd.grad(acts["conv1:2@strongest"].sum(), flat)
    assert (gradient != 0).sum() == 6
    assert gradient.sum() == 6


def test_a_token_has_one_number_as_its_place():
    network = Network(seeded(Tokens()), (1, 6, 6))
    heard = network.read(images(), "mlp", "act", watch=True)
    mlp = heard.layers["mlp"]
    assert torch.equal(heard.map("mlp:7"), mlp[..., 7])
    assert torch.equal(heard["mlp:7@4"], mlp[:, 4, 7])
    torch.testing.assert_close(heard["mlp:7"], mlp[..., 7].mean(1))
    assert torch.equal(heard.before.map("act:7"), mlp[..., 7])


def test_an_answer_of_one_number_an_image_has_one_unit():
    network = Network(named(flat=nn.Flatten(0), sum=nn.Identity()), (1, 1, 1))
    heard = network.read(torch.tensor([0.25, 0.5]).view(2, 1, 1, 1), "output")
    assert network.layer("output").units == 1
    assert heard["output:0"].tolist() == [0.25, 0.5]
    assert heard["output"].tolist() == [0.25, 0.5]


def test_the_images_are_at_hand(heard):
    assert heard.image.shape == (6, 3, 10, 10)
