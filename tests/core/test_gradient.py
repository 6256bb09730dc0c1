"""How an answer flows back to the image."""

import pytest
import torch
from torch import nn

from optogram.core import Activations, Network, backpropagate, rules, value_and_gradient
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from optogram.zoo.tiny import BRIGHT, tiny, variants
from tests.core.nets import Does, images, named


def test_the_gradient_of_three_pixels_is_three_pixels():
    expected = torch.zeros(1, 1, 4, 4)
    for row, column in BRIGHT:
        expected[0, 0, row, column] = 1
    x = torch.full((1, 1, 4, 4), 0.5)
    value, gradient = value_and_gradient(tiny(), x, ask.activation("output:three"))
    assert value.tolist() == [1.5]
    assert torch.equal(gradient, expected)


def test_the_gradient_is_of_the_image_before_normalisation():
    module = named(conv=nn.Conv2d(2, 1, 1, bias=False))
    module.conv.weight.data[0, :, 0, 0] = torch.tensor([3.0, -5.0])
    network = Network(module, (2, 1, 1), mean=(0.5, 0.1), std=(0.2, 4.0))
    gradient = backpropagate(network, torch.rand(1, 2, 1, 1), ask.activation("conv:0"))
    torch.testing.assert_close(gradient.flatten(), torch.tensor([3 / 0.2, -5 / 4]))


def test_images_do_not_influence_each_others_gradients():
    network = variants()["modules"]
    x = images(5, (3, 10, 10))
    question = ask.log_probability("output:2") - 0.1 * ask.total_variation()
    together = backpropagate(network, x, question)
    for row in range(5):
        alone = backpropagate(network, x[row : row + 1], question)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-7)


def test_parameters_and_images_get_no_grad():
    network = variants()["modules"]
    x = images(2, (3, 10, 10)).requires_grad_()
    backpropagate(network, x, ask.activation("output:0"))
    assert x.grad is None
    assert all(p.grad is None and p.requires_grad for p in network.module.parameters())


def test_frozen_networks_have_gradients_too():
    network = variants()["modules"]
    expected = backpropagate(network, images(2, (3, 10, 10)), ask.activation("output:0"))
    for parameter in network.module.parameters():
        parameter.requires_grad_(False)
    found = backpropagate(network, images(2, (3, 10, 10)), ask.activation("output:0"))
    assert torch.equal(found, expected)


def test_an_objective_about_the_image_alone_needs_no_layer():
    x = torch.rand(2, 1, 4, 4)
    gradient = backpropagate(tiny(), x, ask.alpha_norm(2))
    torch.testing.assert_close(gradient, 2 * x)


def test_images_in_double_precision_are_asked_in_the_networks():
    gradient = backpropagate(tiny(), torch.rand(1, 1, 4, 4).double(), ask.activation("conv:0"))
    assert gradient.dtype == torch.float32


@pytest.mark.parametrize(
    "cut",
    [
        Does(lambda m, x: x.argmax(1, keepdim=True).to(x.dtype)),
        Does(lambda m, x: x.detach()),
    ],
    ids=["argmax", "detach"],
)
def test_an_answer_that_no_gradient_passes_is_refused(cut):
    network = Network(named(conv=nn.Conv2d(1, 2, 3), cut=cut), (1, 6, 6))
    with pytest.raises(
        RequestError, match="does not depend on the image through anything that has"
    ):
        backpropagate(network, images(), ask.activation("output:0"))


def test_rounding_passes_a_gradient_of_zero():
    network = Network(named(conv=nn.Conv2d(1, 2, 3), cut=Does(lambda m, x: x.round())), (1, 6, 6))
    assert not backpropagate(network, images(), ask.activation("output:0")).any()


def test_a_gradient_that_is_not_finite_is_refused():
    root = Does(lambda m, x: x.sqrt())
    network = Network(named(root=root), (1, 2, 2))
    with pytest.raises(RequestError, match='activation\\("output:0"\\) holds NaN or infinity'):
        backpropagate(network, torch.zeros(1, 1, 2, 2), ask.activation("output:0"))


def test_the_rule_does_not_change_the_value():
    network = variants()["F.relu"]
    x = images(2, (3, 10, 10))
    values = [
        value_and_gradient(network, x, ask.activation("output:1"), rule)[0]
        for rule in (rules.plain, rules.guided, rules.deconvnet)
    ]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])
    assert not values[0].requires_grad


def test_activations_that_were_read_with_gradients_can_be_asked_twice():
    x = images(2, (3, 10, 10)).requires_grad_()
    heard = variants()["in-place modules"].read(x, "conv1", "output", watch=True)
    assert isinstance(heard, Activations)
    (one,) = torch.autograd.grad(heard["conv1:0"].sum(), x, retain_graph=True)
    (other,) = torch.autograd.grad(heard["output:0"].sum(), x)
    assert one.any()
    assert other.any()
