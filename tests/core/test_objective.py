"""What is asked of an image: every formula written a second time, with its gradient."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from optogram.core import Activations, Direction, Network, Objective, backpropagate
from optogram.core import objective as ask
from optogram.core.gradient import value_and_gradient
from optogram.pictures.errors import RequestError

BOUNDARIES = ("none", "zero", "circular")


class Small(nn.Module):
    """A convolution, its ReLU, and a linear layer whose answer is the network's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(2, 4, 3), nn.ReLU()
        self.fc = nn.Linear(4 * 2 * 3, 5)
        chance = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for weight in self.parameters():
                weight.normal_(generator=chance)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv(x)).flatten(1))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(Small().double(), (2, 4, 5), labels=["a", "b", "c", "d", "e"])


def images(count: int = 3, seed: int = 0) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, 4, 5, generator=chance, dtype=torch.float64)


def asked(network: Network, question: Objective, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient of an objective about the image alone, one per image."""
    x = x.clone().requires_grad_()
    values = question(Activations(network, x, {}))
    (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach().numpy(), gradient.numpy()


def differences(x: np.ndarray, boundary: str):
    """All pairs (place, place below or to the right) of one channel; None is the frame of zeros."""
    height, width = x.shape
    for axis, length in ((0, height), (1, width)):
        for i in range(height):
            for j in range(width):
                there = (i + 1, j) if axis == 0 else (i, j + 1)
                if there[axis] < length:
                    yield (i, j), there
                elif boundary == "circular":
                    yield (i, j), (0, j) if axis == 0 else (i, 0)
                elif boundary == "zero":
                    yield (i, j), None
                if boundary == "zero" and (i, j)[axis] == 0:
                    yield None, (i, j)


def huber(d: float, delta: float) -> tuple[float, float]:
    if delta == 0 or abs(d) > delta:
        return abs(d) - delta / 2, float(np.sign(d))
    return d * d / (2 * delta), d / delta


def total_variation(x: np.ndarray, delta: float, boundary: str) -> tuple[float, np.ndarray]:
    value, gradient = 0.0, np.zeros_like(x)
    for channel, back in zip(x, gradient, strict=True):
        for here, there in differences(channel, boundary):
            a = 0.0 if here is None else channel[here]
            b = 0.0 if there is None else channel[there]
            height, slope = huber(b - a, delta)
            value += height
            if there is not None:
                back[there] += slope
            if here is not None:
                back[here] -= slope
    return value, gradient


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("delta", [0.02, 0.3, 0, 5.0])
def test_total_variation_and_its_gradient_are_the_formulas(network, delta, boundary):
    x = images()
    x[0, 0] = 0.5  # flat: the sign of 0 is 0
    x[1, :, 1] = x[1, :, 2]
    question = ask.total_variation(delta, boundary)
    values, gradients = asked(network, question, x)
    for image, value, gradient in zip(x.numpy(), values, gradients, strict=True):
        expected_value, expected_gradient = total_variation(image, delta, boundary)
        np.testing.assert_allclose(value, expected_value, rtol=1e-12)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-12)


def test_the_default_is_hubers_with_a_hundredth_of_the_range_on_either_side(network):
    x = images()
    one, other = ask.total_variation(), ask.total_variation(delta=0.02, boundary="none")
    assert np.array_equal(asked(network, one, x)[0], asked(network, other, x)[0])


def isotropic(x: np.ndarray, beta: float, boundary: str) -> float:
    """Mahendran & Vedaldi, eq. 4, with the differences of the last row and column 0."""
    if boundary == "zero":
        x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    _, height, width = x.shape
    total = 0.0
    for channel in x:
        for i in range(height):
            for j in range(width):
                if boundary == "circular":
                    right, below = channel[i, (j + 1) % width], channel[(i + 1) % height, j]
                else:
                    right = channel[i, j + 1] if j + 1 < width else channel[i, j]
                    below = channel[i + 1, j] if i + 1 < height else channel[i, j]
                square = (right - channel[i, j]) ** 2 + (below - channel[i, j]) ** 2
                total += (max(square, 1e-5) if beta < 2 else square) ** (beta / 2)
    return total


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("beta", [1, 1.5, 2, 3.0])
def test_isotropic_total_variation_is_the_formula(network, beta, boundary):
    x = images()
    question = ask.total_variation(boundary=boundary, beta=beta)
    expected = [isotropic(image, beta, boundary) for image in x.numpy()]
    np.testing.assert_allclose(asked(network, question, x)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("beta", [1, 1.5, 2, 3])
def test_a_flat_image_has_no_slope_of_total_variation(network, beta):
    gradient = asked(
        network, ask.total_variation(beta=beta), torch.full((1, 2, 4, 5), 0.5).double()
    )[1]
    assert np.array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 6.0])
def test_a_norm_and_its_gradient_are_the_formulas(network, p):
    x = images() - 0.5
    values, gradients = asked(network, ask.norm(p), x)
    for image, value, gradient in zip(x.numpy(), values, gradients, strict=True):
        length = (np.abs(image) ** p).sum() ** (1 / p)
        np.testing.assert_allclose(value, length, rtol=1e-12)
        slope = np.sign(image) * (np.abs(image) / length) ** (p - 1)
        np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-14)


def test_the_infinite_norm_is_the_largest_value(network):
    x = images() - 0.5
    values, gradients = asked(network, ask.norm(math.inf), x)
    for image, value, gradient in zip(x.numpy(), values, gradients, strict=True):
        assert value == np.abs(image).max()
        expected = np.where(np.abs(image) == value, np.sign(image), 0)
        np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
def test_the_norm_of_a_black_image_is_0_and_its_gradient_finite(network, p):
    values, gradients = asked(network, ask.norm(p), torch.zeros(1, 2, 4, 5).double())
    assert values.tolist() == [0]
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize(("alpha", "about"), [(6, 0), (2, 0), (1, 0), (3, 0.5), (2.5, 0.25)])
def test_an_alpha_norm_and_its_gradient_are_the_formulas(network, alpha, about):
    x = images()
    values, gradients = asked(network, ask.alpha_norm(alpha, about), x)
    far = np.abs(x.numpy() - about)
    np.testing.assert_allclose(values, (far**alpha).sum((1, 2, 3)), rtol=1e-12)
    slope = alpha * np.sign(x.numpy() - about) * far ** (alpha - 1)
    np.testing.assert_allclose(gradients, slope, rtol=1e-10, atol=1e-14)


SMOOTH = [
    ask.total_variation(0.3),
    ask.total_variation(0.3, "zero"),
    ask.total_variation(0.3, "circular"),
    ask.total_variation(beta=2),
    ask.total_variation(beta=3, boundary="circular"),
    ask.total_variation(beta=1.5, boundary="zero"),
    ask.total_variation(0),
    ask.norm(1),
    ask.norm(2),
    ask.norm(3),
    ask.alpha_norm(6),
    ask.alpha_norm(3, about=0.5),
]


@pytest.mark.parametrize("question", SMOOTH, ids=str)
def test_what_is_said_about_an_image_has_the_gradient_of_finite_differences(network, question):
    x = (images(2, seed=5) * 0.9 + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: question(Activations(network, x, {})), x, eps=1e-7)


def logits(network: Network, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `conv` and `fc` answer, and d fc / d image (image, unit, *image): loops, no torch."""
    weights = {name: w.detach().numpy() for name, w in network.module.named_parameters()}
    count, channels, height, width = x.shape
    filters = weights["conv.weight"]
    conv = np.zeros((count, 4, height - 2, width - 2))
    slope = np.zeros((count, 4, height - 2, width - 2, channels, height, width))
    for i in range(height - 2):
        for j in range(width - 2):
            seen = x[:, None, :, i : i + 3, j : j + 3]
            conv[:, :, i, j] = (seen * filters).sum((2, 3, 4)) + weights["conv.bias"]
            slope[:, :, i, j, :, i : i + 3, j : j + 3] = filters
    on = (conv > 0).astype(float)
    hidden = (conv * on).reshape(count, -1)
    answer = hidden @ weights["fc.weight"].T + weights["fc.bias"]
    through = (slope * on[..., None, None, None]).reshape(count, hidden.shape[1], *x.shape[1:])
    return conv, answer, np.einsum("uh,nhcij->nucij", weights["fc.weight"], through)


def test_an_activation_is_a_logit_and_its_gradient_a_product_of_weights(network):
    x = images()
    values, gradients = value_and_gradient(network, x, ask.activation("output:c"))
    _, answer, slope = logits(network, x.numpy())
    np.testing.assert_allclose(values, answer[:, 2], rtol=1e-10)
    np.testing.assert_allclose(gradients, slope[:, 2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("logarithm", [False, True])
def test_a_probability_has_the_jacobian_of_the_softmax(network, logarithm):
    x = images()
    question = ask.log_probability if logarithm else ask.probability
    values, gradients = value_and_gradient(network, x, question("output:1"))
    _, answer, slope = logits(network, x.numpy())
    shares = np.exp(answer - answer.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    expected = slope[:, 1] - np.einsum("nu,nucij->ncij", shares, slope)
    if logarithm:
        np.testing.assert_allclose(values, np.log(shares[:, 1]), rtol=1e-9)
    else:
        np.testing.assert_allclose(values, shares[:, 1], rtol=1e-9)
        expected = shares[:, 1, None, None, None] * expected
    np.testing.assert_allclose(gradients, expected, rtol=1e-8, atol=1e-14)


def test_the_logarithm_of_a_probability_does_not_saturate(network):
    """Logits times 1000: the probability of a loser is 0 with gradient 0, its logarithm is not."""
    far = Small().double()
    with torch.no_grad():
        far.fc.weight.mul_(1000)
    far_network = Network(far, (2, 4, 5))
    x = images(1)
    loser = int(far_network(x).argmin())
    value, gradient = value_and_gradient(far_network, x, ask.log_probability(f"output:{loser}"))
    assert -1e7 < float(value) < -700
    assert gradient.abs().max() > 1
    assert (
        value_and_gradient(far_network, x, ask.probability(f"output:{loser}"))[1].abs().max() == 0
    )


def test_probabilities_of_maps_are_shares_of_each_place(network):
    x = images()
    value = ask.probability("conv:2")(network.read(x, "conv"))
    conv = logits(network, x.numpy())[0]
    shares = np.exp(conv) / np.exp(conv).sum(1, keepdims=True)
    np.testing.assert_allclose(value, shares[:, 2].mean((1, 2)), rtol=1e-10)


@pytest.mark.parametrize("unit", ["output:0", "output:4"])
def test_the_others_are_the_mean_without_the_unit(network, unit):
    x = images()
    values, gradients = value_and_gradient(network, x, ask.others(unit))
    _, answer, slope = logits(network, x.numpy())
    rest = [k for k in range(5) if k != int(unit[-1])]
    np.testing.assert_allclose(values, answer[:, rest].mean(1), rtol=1e-10)
    np.testing.assert_allclose(gradients, slope[:, rest].mean(1), rtol=1e-9, atol=1e-12)


def test_the_others_of_a_map_are_the_mean_over_their_places(network):
    x = images()
    conv = logits(network, x.numpy())[0]
    values = ask.others(["conv:0", "conv:1", "conv:3"])(network.read(x, "conv"))
    expected = [conv[i, [k for k in range(4) if k != u]].mean() for i, u in enumerate((0, 1, 3))]
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    before = ask.others("relu:0")(network.read(x, "relu", watch=True))
    np.testing.assert_allclose(before, conv[:, 1:].mean((1, 2, 3)), rtol=1e-10)
    after = ask.others("relu:0", pre=False)(network.read(x, "relu", watch=True))
    np.testing.assert_allclose(after, conv.clip(0)[:, 1:].mean((1, 2, 3)), rtol=1e-10)


@pytest.mark.parametrize("layer", ["conv", "relu", "output"])
def test_energy_is_half_the_squared_length(network, layer):
    x = images()
    conv, answer, slope = logits(network, x.numpy())
    told = {"conv": conv, "relu": conv.clip(0), "output": answer}[layer]
    values, gradients = value_and_gradient(network, x, ask.energy(layer))
    np.testing.assert_allclose(values, 0.5 * (told**2).reshape(3, -1).sum(1), rtol=1e-10)
    if layer == "output":
        expected = np.einsum("nu,nucij->ncij", answer, slope)
        np.testing.assert_allclose(gradients, expected, rtol=1e-9, atol=1e-10)


def test_the_value_before_the_relu_is_asked_for_unless_the_one_after_is(network):
    x = images()
    conv = logits(network, x.numpy())[0]
    heard = network.read(x, "relu", watch=True)
    np.testing.assert_allclose(ask.activation("relu:1")(heard), conv[:, 1].mean((1, 2)), rtol=1e-10)
    after = ask.activation("relu:1", pre=False)(heard)
    np.testing.assert_allclose(after, conv[:, 1].clip(0).mean((1, 2)), rtol=1e-10)


def test_a_place_and_the_strongest_place_are_what_they_say(network):
    x = images()
    conv = logits(network, x.numpy())[0]
    heard = network.read(x, "conv")
    np.testing.assert_allclose(ask.activation("conv:3@1,2")(heard), conv[:, 3, 1, 2], rtol=1e-10)
    strongest = ask.activation("conv:3@strongest")(heard)
    np.testing.assert_allclose(strongest, conv[:, 3].max((1, 2)), rtol=1e-10)
    np.testing.assert_allclose(ask.activation("conv")(heard), conv.mean((1, 2, 3)), rtol=1e-10)


def test_image_i_is_asked_about_unit_i(network):
    x = images(6)
    conv, answer, slope = logits(network, x.numpy())
    direction = Direction("fc", torch.tensor([1.0, 0, -2.0, 0, 0]))
    wanted = ["output:4", "conv:3@1,2", "conv:0", "conv:3@strongest", direction, "conv:3@1,2"]
    values, gradients = value_and_gradient(network, x, ask.activation(wanted))
    expected = [
        answer[0, 4],
        conv[1, 3, 1, 2],
        conv[2, 0].mean(),
        conv[3, 3].max(),
        answer[4, 0] - 2 * answer[4, 2],
        conv[5, 3, 1, 2],
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    np.testing.assert_allclose(gradients[0], slope[0, 4], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradients[4], slope[4, 0] - 2 * slope[4, 2], rtol=1e-9, atol=1e-12)
    kernel = network.module.conv.weight[3].detach().numpy()
    for i in (1, 5):
        np.testing.assert_allclose(gradients[i, :, 1:4, 2:5], kernel, rtol=1e-12)
        assert float(gradients[i].abs().sum()) == pytest.approx(np.abs(kernel).sum())


@pytest.mark.parametrize(
    "question",
    [
        ask.activation("fc:2") - 0.3 * ask.total_variation(0.5),
        ask.log_probability("output:1") + ask.probability("output:3"),
        ask.others("fc:0") * 2,
        0.1 * ask.energy("fc"),
        ask.activation(["fc:0", "conv:1"]) / 3,
    ],
    ids=str,
)
def test_what_the_network_says_has_the_gradient_of_finite_differences(network, question):
    x = images(2, seed=8)
    gradient = backpropagate(network, x, question)
    step = 1e-6
    for place in [(0, 0, 0), (1, 2, 3), (0, 3, 4), (1, 1, 1)]:
        move = torch.zeros_like(x)
        move[(slice(None), *place)] = step
        up, down = (
            question(network.read(x + s * move, *question.layers, watch=True)) for s in (1, -1)
        )
        slope = (up - down) / (2 * step)
        torch.testing.assert_close(gradient[(slice(None), *place)], slope, rtol=1e-5, atol=1e-7)


def test_no_operation_changes_its_operands(network):
    x = images()
    a, b = ask.norm(1), 0.5 * ask.total_variation()
    said = str(a), str(b)
    values = asked(network, a, x)[0].copy(), asked(network, b, x)[0].copy()
    for made in (a + b, a - b, a * 3, 3 * a, a / 4, -a, (a + b) * 2, (a - b) / 2 - a):
        asked(network, made, x)
    assert (str(a), str(b)) == said
    assert np.array_equal(asked(network, a, x)[0], values[0])
    assert np.array_equal(asked(network, b, x)[0], values[1])
    assert [t.weight for t in a.terms] == [1]
    with pytest.raises(AttributeError):
        a.text = "something else"  # type: ignore[misc]


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 5))
def test_sums_products_and_quotients_mean_what_they_say(one, two, three):
    a, b = ask.norm(1), ask.alpha_norm(2)
    network = Network(Small().double(), (2, 4, 5))
    x = images(1)
    (va,), (vb,) = asked(network, a, x)[0], asked(network, b, x)[0]
    (found,) = asked(network, (one * a - b * two) / three + -a, x)[0]
    assert found == pytest.approx((one * va - vb * two) / three - va, abs=1e-9)
    assert sum(float(p) for p in ((one * a - b) / three).parts(Activations(network, x, {}))) == (
        pytest.approx((one * va - vb) / three, abs=1e-9)
    )


def test_an_objective_of_ones_own_says_which_layers_it_hears(network):
    longest = ask.objective(
        lambda acts: acts.layers["conv"].flatten(1).norm(dim=1), "conv", text="long()"
    )
    question = 2 * longest - ask.activation("fc:1")
    assert question.layers == ("conv", "fc")
    assert str(question) == '2 * long() - activation("fc:1")'
    x = images()
    conv, answer, _ = logits(network, x.numpy())
    expected = 2 * np.sqrt((conv**2).sum((1, 2, 3))) - answer[:, 1]
    np.testing.assert_allclose(question(network.read(x, *question.layers)), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ask.total_variation(-1), "must be positive"),
        (lambda: ask.total_variation(beta=0), "must be positive"),
        (lambda: ask.norm(0.5), "a norm has p >= 1"),
        (lambda: ask.alpha_norm(0), "alpha >= 1"),
        (lambda: ask.norm(1) * math.inf, "scaled by a finite number"),
        (lambda: ask.norm(1) * math.nan, "scaled by a finite number"),
        (lambda: ask.others(["a:1", "b:1"]), "units of one layer"),
        (lambda: ask.others("a:1@3,4"), "over all their places"),
    ],
)
def test_a_question_without_meaning_is_refused(make, sentence):
    with pytest.raises(RequestError, match=sentence):
        make()


def test_a_layer_of_one_unit_has_no_others():
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), (1, 2, 2))
    with pytest.raises(RequestError, match="there are no others"):
        ask.others("output:0")(network.read(torch.rand(1, 1, 2, 2), "output"))


def test_there_are_as_many_units_as_images(network):
    with pytest.raises(RequestError, match="2 units for 3 images: give one each"):
        ask.activation(["fc:0", "fc:1"])(network.read(images(3), "fc"))
