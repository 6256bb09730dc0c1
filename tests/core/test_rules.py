"""How a gradient passes back through a ReLU, however the ReLU is written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import captum.attr
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from optogram.core import Network, backpropagate, rules
from optogram.core import objective as ask
from optogram.core.rules import ActivationMode
from optogram.pictures.errors import RequestError
from optogram.zoo.tiny import SmallCnn, variants
from tests.core.nets import Does, Inception, images, named, seeded

RULES = [rules.plain, rules.deconvnet, rules.guided]


def guided_again(gradient: Tensor, input: Tensor, output: Tensor) -> Tensor:
    """Guided backpropagation as a user would write it: none of ours, so nothing is known of it."""
    return gradient * (gradient > 0) * (input > 0)


VARIANTS = sorted(variants())
X = images(3, (3, 10, 10), seed=4)
UNITS = ["output:0", "output:3", "hidden:7", "conv2:2", "conv1:1@4,5", "conv2:5@strongest"]


def by_hand(module: SmallCnn, x: Tensor, start: Callable[..., Tensor], rule: str) -> Tensor:
    """Forward with recorded switches, then unpool, rectify and filter, step by step."""

    def rectified(gradient: Tensor, given: Tensor) -> Tensor:
        if rule != "plain":
            gradient = gradient.clamp(min=0)
        return gradient if rule == "deconvnet" else gradient * (given > 0)

    conv1 = F.conv2d(x, module.conv1.weight, module.conv1.bias, padding=1)
    pooled, switches = F.max_pool2d(conv1.clamp(min=0), 2, return_indices=True)
    conv2 = F.conv2d(pooled, module.conv2.weight, module.conv2.bias, padding=1)
    summed = conv2 + pooled
    hidden = summed.clamp(min=0).flatten(1) @ module.hidden.weight.T + module.hidden.bias
    answers = {"conv1": conv1, "conv2": conv2, "hidden": hidden}
    answers["output"] = hidden.clamp(min=0) @ module.head.weight.T + module.head.bias
    layer, gradient = start(answers)
    if layer == "output":
        gradient = rectified(gradient @ module.head.weight, hidden)
        layer = "hidden"
    if layer == "hidden":
        gradient = rectified((gradient @ module.hidden.weight).view_as(summed), summed)
        shortcut = gradient
        layer = "conv2"
    elif layer == "conv2":
        shortcut = torch.zeros_like(gradient)
    if layer == "conv2":
        gradient = F.conv_transpose2d(gradient, module.conv2.weight, padding=1) + shortcut
        gradient = rectified(F.max_unpool2d(gradient, switches, 2), conv1)
    return F.conv_transpose2d(gradient, module.conv1.weight, padding=1)


def one_hot(unit: str) -> Callable[[dict[str, Tensor]], tuple[str, Tensor]]:
    layer, _, rest = unit.partition(":")
    index, _, place = rest.partition("@")

    def start(answers: dict[str, Tensor]) -> tuple[str, Tensor]:
        answer = answers[layer]
        gradient = torch.zeros_like(answer)
        if place == "strongest":
            flat = answer[:, int(index)].flatten(1).argmax(1)
            gradient[:, int(index)].flatten(1).scatter_(1, flat[:, None], 1.0)
            for row, at in enumerate(flat.tolist()):
                gradient[row, int(index)].view(-1)[at] = 1
        elif place:
            gradient[(slice(None), int(index), *map(int, place.split(",")))] = 1
        else:
            gradient[:, int(index)] = 1 / max(1, answer[0, 0].numel())
        return layer, gradient

    return start


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_way_to_write_a_relu_passes_back_what_explicit_steps_do(rule, unit):
    networks = variants()
    with torch.no_grad():
        expected = by_hand(networks["modules"].module, X, one_hot(unit), rule.__name__)
    assert expected.abs().max() > 1e-3
    if unit.startswith("conv1") and rule is not rules.plain:
        with pytest.raises(RequestError, match="met no ReLU"):
            backpropagate(networks["modules"], X, ask.activation(unit), rule)
        return
    for name, network in networks.items():
        found = backpropagate(network, X, ask.activation(unit), rule)
        if rule is rules.guided:
            again = backpropagate(network, X, ask.activation(unit), guided_again)
            torch.testing.assert_close(again, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(
            found, expected, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_to_write_a_relu_has_the_same_activations(name):
    network, expected = variants()[name], variants()["modules"]
    layers = ["conv1", "hidden", "head", "output"]
    heard, right = network.read(X, *layers, watch=True), expected.read(X, *layers)
    for layer in layers:
        torch.testing.assert_close(heard.layers[layer], right.layers[layer], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            heard.before.layers[layer], right.layers[layer], atol=1e-6, rtol=0
        )
    again = network.read(X, "output").layers["output"]
    torch.testing.assert_close(again, right.layers["output"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        (rules.plain, [0, 0, 0, 0, 2, -2]),
        (rules.deconvnet, [2, 0, 2, 0, 2, 0]),
        (rules.guided, [0, 0, 0, 0, 2, 0]),
    ],
)
def test_a_rule_is_a_plain_function(rule, passed):
    given = torch.tensor([-1.0, -1, 0, 0, 3, 3])
    arriving = torch.tensor([2.0, -2, 2, -2, 2, -2])
    copy = arriving.clone()
    assert rule(arriving, given, given.relu()).tolist() == passed
    assert torch.equal(arriving, copy)


def test_the_three_rules_differ():
    question = ask.activation("output:1")
    maps = [backpropagate(variants()["F.relu"], X, question, rule) for rule in RULES]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (maps[one] - maps[other]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["modules", "in-place modules"])
@pytest.mark.parametrize(
    ("rule", "oracle"),
    [(rules.guided, captum.attr.GuidedBackprop), (rules.deconvnet, captum.attr.Deconvolution)],
)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
def test_captum_agrees_where_every_relu_is_a_module(name, rule, oracle):
    """It needs a module a call, out of place; the weights are the same in all our variants."""
    network, plain = variants()[name], variants()["modules"].module.eval()
    for target in range(4):
        expected = oracle(plain).attribute(X.clone().requires_grad_(), target).detach()
        found = backpropagate(network, X, ask.activation(f"output:{target}"), rule)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@contextmanager
def every_relu_is(function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The brute force: swap F.relu, which all of torchvision's functional ReLUs go through."""
    real = F.relu
    F.relu = lambda x, inplace=False: function(x)  # type: ignore[assignment]
    try:
        yield
    finally:
        F.relu = real


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x > 0, x, torch.zeros_like(x))

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) & (gradient > 0), gradient, torch.zeros_like(gradient))


@pytest.fixture(scope="module")
def googlenet() -> Network:
    """torchvision's, 57 functional ReLUs and not one module; random weights; a small image."""
    torch.manual_seed(0)
    module = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False)
    return Network(module, (3, 64, 64))


def test_guided_backpropagation_reaches_the_functional_relus_of_googlenet(googlenet):
    x = images(1, (3, 64, 64))
    question = ask.activation("output:5")
    guided = backpropagate(googlenet, x, question, rules.guided)
    plain = backpropagate(googlenet, x, question)
    asked = x.clone().requires_grad_()
    with every_relu_is(Guided.apply):
        googlenet.module.eval()
        (expected,) = torch.autograd.grad(googlenet.module(asked)[0, 5], asked)
    assert (guided - plain).abs().max() > 0.1 * plain.abs().max()
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    asked = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(googlenet.module(asked)[0, 5], asked)
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_all_57_relus_of_googlenet_are_met(googlenet):
    mode = ActivationMode(rules.guided)
    with mode, torch.no_grad():
        googlenet.module.eval()(images(1, (3, 64, 64)))
    assert mode.relus == 57
    assert mode.others == set()


def test_overlapping_pools_keep_the_whole_signal():
    """Backward of a 3x3/2 maximum sums over its windows; `max_unpool2d` would keep one of them."""
    module = named(conv=nn.Conv2d(1, 1, 1, bias=False), relu=nn.ReLU(), pool=nn.MaxPool2d(3, 2))
    nn.init.ones_(module.conv.weight)
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 2, 2] = 1  # the maximum of four windows
    back = backpropagate(Network(module, (1, 7, 7)), x, ask.activation("pool:0"), rules.deconvnet)
    assert float(back[0, 0, 2, 2]) == pytest.approx(4 / 9)
    assert float(back.sum()) == pytest.approx(1)


def test_with_positive_weights_the_deconvnet_is_the_gradient():
    module = named(a=nn.Conv2d(1, 3, 3), r=nn.ReLU(), b=nn.Conv2d(3, 2, 3), s=nn.ReLU())
    for weight in module.parameters():
        weight.data.abs_()
    network = Network(module, (1, 7, 7))
    x = images(2, (1, 7, 7))
    maps = [backpropagate(network, x, ask.activation("s:1"), rule) for rule in RULES]
    torch.testing.assert_close(maps[1], maps[0])
    torch.testing.assert_close(maps[2], maps[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_is_a_factor_on_the_way_back(rule, affine):
    module = named(conv=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(3, eps=0.01, affine=affine),
                   relu=nn.ReLU(inplace=True), last=nn.Conv2d(3, 4, 2))  # fmt: skip
    norm = module.norm
    norm.running_mean.uniform_(-0.2, 0.2)
    norm.running_var.uniform_(0.3, 3)
    if affine:
        nn.init.uniform_(norm.weight, -2, 2)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
    x = images(3, (2, 7, 7))
    back = backpropagate(Network(module, (2, 7, 7)), x, ask.activation("last:1@2,2"), rule)
    above = torch.zeros(3, 4, 4, 4)
    above[:, 1, 2, 2] = 1
    arrived = F.conv_transpose2d(above, module.last.weight)
    given = module.eval().norm(module.conv(x))
    factor = (norm.weight if affine else 1) / (norm.running_var + 0.01).sqrt()
    passed = rule(arrived, given, given.relu()) * factor[:, None, None]
    torch.testing.assert_close(back, F.conv_transpose2d(passed, module.conv.weight))


@pytest.mark.parametrize(
    ("smooth", "called"),
    [
        (nn.GELU(), "GELU"),
        (nn.SiLU(), "SiLU"),
        (nn.SiLU(inplace=True), "SiLU"),
        (nn.LeakyReLU(0.1), "LeakyReLU"),
        (nn.LeakyReLU(0.1, inplace=True), "LeakyReLU"),
        (nn.ELU(), "ELU"),
        (nn.ELU(inplace=True), "ELU"),
        (nn.SELU(), "SELU"),
        (nn.CELU(), "CELU"),
        (nn.Mish(), "Mish"),
        (nn.Hardswish(), "Hardswish"),
        (nn.PReLU(), "PReLU"),
        (nn.RReLU(), "RReLU"),
        (nn.Softplus(), "Softplus"),
        (nn.Hardtanh(), "Hardtanh"),
        (nn.Tanh(), "tanh"),
        (nn.LogSigmoid(), "LogSigmoid"),
        (Does(lambda m, x: x.tanh_()), "tanh"),
    ],
    ids=str,
)
def test_a_rule_that_meets_another_activation_function_is_refused(smooth, called):
    module = named(conv=nn.Conv2d(1, 2, 3), act=smooth, conv2=nn.Conv2d(2, 2, 3), relu=nn.ReLU())
    network = Network(module, (1, 7, 7))
    x = images(2, (1, 7, 7))
    with pytest.raises(
        RequestError, match=f"uses {called}: take rule=plain, or a network of ReLUs"
    ):
        backpropagate(network, x, ask.activation("relu:0"), rules.guided)
    asked = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(module.eval()(asked).relu()[:, 0].mean((1, 2)).sum(), asked)
    found = backpropagate(network, x, ask.activation("relu:0", pre=False))
    torch.testing.assert_close(found, expected)


def test_a_rule_that_meets_no_relu_is_refused():
    network = Network(named(conv=nn.Conv2d(1, 2, 3), relu=nn.ReLU()), (1, 7, 7), name="mine")
    x = images(2, (1, 7, 7))
    with pytest.raises(RequestError, match="met no ReLU on the way through mine as far as 'conv'"):
        backpropagate(network, x, ask.activation("conv:0"), rules.guided)
    sigmoid = Network(named(conv=nn.Conv2d(1, 2, 3), act=nn.Sigmoid()), (1, 7, 7))
    with pytest.raises(RequestError, match="'deconvnet' met no ReLU"):
        backpropagate(sigmoid, x, ask.activation("output:0"), rules.deconvnet)


def test_a_refused_rule_leaves_nothing_switched_on():
    network = Network(named(conv=nn.Conv2d(1, 2, 3), relu=nn.ReLU()), (1, 7, 7))
    with pytest.raises(RequestError):
        network.read(images(2, (1, 7, 7)), "conv", rule=rules.guided)
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(F.relu(x).sum() * -1, x)
    assert gradient.tolist() == [0, -1]


CAPPED = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "F.relu6": Does(lambda m, x: F.relu6(x)),
    "nn.Hardtanh": nn.Hardtanh(0.0, 6.0),
    "F.hardtanh in place": Does(lambda m, x: F.hardtanh(x, 0.0, 6.0, True)),
    "F.hardtanh_": Does(lambda m, x: F.hardtanh_(x, 0.0, 6.0)),
    "in place, unused": Does(lambda m, x: (F.relu6(x, True), x)[1]),
}


@pytest.mark.parametrize("name", CAPPED)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_relu_with_a_ceiling_is_closed_above_it_too(name, rule):
    x = torch.tensor([-1.0, 0.5, 2.0, 7.0, 6.5, -3.0]).view(1, 1, 1, 6)
    module = named(
        scale=nn.Conv2d(1, 1, 1, bias=False), act=CAPPED[name], mix=nn.Conv2d(1, 1, 1, bias=False)
    )
    module.scale.weight.data.fill_(1)
    module.mix.weight.data.fill_(-1)
    network = Network(module, (1, 1, 6))
    weights = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0])
    question = ask.objective(lambda acts: (acts.layers["mix"] * weights).flatten(1).sum(1), "mix")
    arriving = -weights
    gates = {
        "plain": (x > 0) & (x < 6),
        "deconvnet": (arriving > 0) & (x < 6),
        "guided": (arriving > 0) & (x > 0) & (x < 6),
    }
    expected = arriving * gates[rule.__name__]
    assert torch.equal(backpropagate(network, x, question, rule), expected)
    if rule is rules.guided:
        assert torch.equal(backpropagate(network, x, question, guided_again), expected)
    heard = network.read(x, "mix").layers["mix"]
    assert torch.equal(heard, -x.clamp(0, 6))


def test_a_clamp_that_is_no_relu_is_left_alone():
    module = Does(
        lambda m, x: m.fc(x.clamp(min=-0.5).clamp(0.1, 2).clamp(max=3).flatten(1)),
        fc=nn.Linear(49, 2),
    )
    network = Network(module, (1, 7, 7))
    with pytest.raises(RequestError, match="met no ReLU"):
        backpropagate(network, images(1, (1, 7, 7)), ask.activation("output:0"), rules.guided)


def test_a_rule_of_ones_own_is_given_gradient_input_and_output():
    seen = []

    def mine(gradient: Tensor, input: Tensor, output: Tensor) -> Tensor:
        seen.append((gradient, input, output))
        return 2 * gradient

    network = variants()["one in-place module"]
    back = backpropagate(
        network, X, ask.activation("conv2:1") + ask.activation("relu#2:0", pre=False), mine
    )
    heard = network.read(X, "conv1", "conv2", "relu", "relu#2", watch=True)
    assert len(seen) == 2
    given, answered = heard.before.layers["relu#2"], heard.layers["relu#2"]
    assert torch.equal(seen[0][1], given)
    assert torch.equal(seen[0][2], answered)
    assert torch.equal(seen[1][1], heard.layers["conv1"])
    assert (back != 0).any()


def test_at_exactly_zero_a_relu_is_closed():
    module = named(
        conv=nn.Conv2d(1, 1, 1, bias=False), relu=nn.ReLU(), sum=nn.Conv2d(1, 1, 1, bias=False)
    )
    for weight in module.parameters():
        weight.data.fill_(1)
    x = torch.zeros(1, 1, 2, 2)
    for rule in (rules.plain, rules.guided):
        assert not backpropagate(Network(module, (1, 2, 2)), x, ask.activation("sum:0"), rule).any()
    deconvnet = backpropagate(
        Network(module, (1, 2, 2)), x, ask.activation("sum:0"), rules.deconvnet
    )
    assert torch.equal(deconvnet, torch.full_like(x, 0.25))


def test_what_a_relu_was_given_is_known_for_modules_functions_and_joins():
    module = Does(
        lambda m, x: m.fc(m.act(m.block(m.conv(x))).flatten(1)),
        conv=nn.Conv2d(3, 3, 1),
        block=Inception(),
        act=nn.ReLU(inplace=True),
        fc=nn.Linear(7 * 36, 2),
    )
    network = Network(seeded(module), (3, 6, 6))
    x = images(2, (3, 6, 6))
    with torch.no_grad():
        y = module.conv(x)
        pooled = F.max_pool2d(y, 3, stride=1, padding=1)
        given = torch.cat(
            [module.block.one(y), module.block.three(y), module.block.pool(pooled)], 1
        )
    assert given.min() < 0
    heard = network.read(x, "conv", "block", "act", "output", watch=True)
    assert torch.equal(heard.layers["block"], given.relu())
    assert torch.equal(heard.before.layers["block"], given)
    assert torch.equal(heard.before.layers["act"], given.relu())
    assert torch.equal(heard.before.layers["conv"], y)
    gradient = backpropagate(network, x, ask.activation("block:3"))
    expected = backpropagate(network, x, ask.activation("block.three:1"))
    torch.testing.assert_close(gradient, expected)
    assert network.layer("block").rectified


def test_a_join_in_which_not_every_part_is_a_relu_is_its_own_pre_activation():
    module = Does(lambda m, x: torch.cat([F.relu(m.a(x)), m.a(x)], 1), a=nn.Conv2d(1, 2, 3))
    network = Network(Does(lambda m, x: m.block(x), block=module), (1, 6, 6))
    heard = network.read(images(), "block", watch=True)
    assert torch.equal(heard.before.layers["block"], heard.layers["block"])
    assert not network.layer("block").rectified


def test_a_relu_of_a_relu_remembers_the_second():
    module = named(conv=nn.Conv2d(1, 2, 3), one=nn.ReLU(), two=nn.ReLU(inplace=True))
    network = Network(module, (1, 6, 6))
    x = images()
    conv = module.conv(x).detach()
    heard = network.read(x, "one", "two", watch=True)
    assert torch.equal(heard.before.layers["one"], conv)
    assert torch.equal(heard.before.layers["two"], conv.relu())
