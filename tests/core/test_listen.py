"""Reading leaves no trace, stops where it can, and hears what the layer itself said."""

import gc
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.ascent import ascend, param
from optogram.core import Network, backpropagate, rules
from optogram.core import objective as ask
from optogram.core.listen import called, split_call
from optogram.pictures.errors import RequestError
from optogram.zoo.tiny import SmallCnn, variants
from tests.core.nets import Counted, Does, images, left_as_found, named, seeded


def messy() -> nn.Module:
    """Modes, gradients and hooks as a model may have them in the middle of a user's work."""
    module = SmallCnn({"relu": nn.ReLU(inplace=True)})
    module.norm = nn.BatchNorm2d(3)
    module.drop = nn.Dropout(0.5)
    plain = module.forward
    module.forward = lambda x: module.drop(plain(module.norm(x)))  # type: ignore[method-assign]
    seeded(module)
    module.train()
    module.conv2.eval()
    module.hidden.weight.grad = torch.ones_like(module.hidden.weight)
    module.conv1.weight.requires_grad_(False)
    module.conv1.register_forward_hook(lambda *_: None)
    module.head.register_full_backward_hook(lambda *_: None)
    return module


def test_reading_and_backpropagating_leave_the_module_as_it_was_found():
    module = messy()
    network = Network(module, (3, 10, 10))
    x = images(2, (3, 10, 10))
    with left_as_found(module):
        print_of_it = str(network)
        network.read(x, "conv1", "hidden", "output", watch=True)
        for rule in (rules.plain, rules.guided, rules.deconvnet):
            backpropagate(network, x, ask.activation("output:1"), rule)
        for _ in ascend(network, ask.activation("hidden:3"), param.pixels(), steps=2):
            pass
    assert "relu#3" in print_of_it


def test_dropout_and_batch_norm_are_in_eval_mode_while_a_question_is_asked():
    module = messy()
    network = Network(module, (3, 10, 10))
    x = images(2, (3, 10, 10))
    one, other = network(x), network(x)
    assert torch.equal(one, other)
    module.eval()
    with torch.no_grad():
        assert torch.equal(one, module(x))


class Fails(nn.Module):
    """Breaks at its n-th call."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = [at]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left[0] -= 1
        if self.left[0] == 0:
            raise ZeroDivisionError("in the middle")
        return x


def test_an_exception_in_the_middle_leaves_the_module_as_it_was_found():
    module = messy()
    module.add_module("breaks", Fails(10**9))
    plain = module.forward
    module.forward = lambda x: plain(module.breaks(x))  # type: ignore[method-assign]
    network = Network(module, (3, 10, 10))
    network.layers  # noqa: B018 - worked out while all is well
    x = images(2, (3, 10, 10))
    asked: list[Callable[[], object]] = [
        lambda: network.read(x, "conv1", "output"),
        lambda: network(x),
        lambda: backpropagate(network, x, ask.activation("hidden:0"), rules.guided),
        lambda: list(ascend(network, ask.activation("hidden:0"), param.pixels(), steps=3)),
        lambda: Network(module, (3, 10, 10)).layers,
    ]
    for question in asked:
        module.breaks.left[0] = 1
        with left_as_found(module), pytest.raises(ZeroDivisionError):
            question()
        assert torch.is_grad_enabled()


def test_an_exception_in_a_hooked_layer_leaves_no_hook_behind():
    module = named(conv=nn.Conv2d(1, 2, 3), breaks=Fails(10**9), last=nn.ReLU())
    network = Network(module, (1, 6, 6))
    network.layers  # noqa: B018
    for layers in (("breaks",), ("conv", "last")):
        module.breaks.left[0] = 1
        with left_as_found(module), pytest.raises(ZeroDivisionError):
            network.read(images(), *layers)


def test_an_ascent_that_is_abandoned_half_way_leaves_nothing_behind():
    module = messy()
    network = Network(module, (3, 10, 10))
    with left_as_found(module):
        climb = ascend(network, ask.activation("hidden:3"), param.pixels(), steps=50)
        next(climb)
        next(climb)
        with left_as_found(module):  # and between two steps as well
            pass
        assert torch.is_grad_enabled()
        climb.close()
    with left_as_found(module):
        climb = ascend(network, ask.activation("hidden:3"), param.pixels(), steps=50)
        next(climb)
        del climb
        gc.collect()
    assert torch.is_grad_enabled()


def test_grad_mode_is_as_before_within_no_grad_too():
    network = variants()["modules"]
    x = images(2, (3, 10, 10))
    with torch.no_grad():
        gradient = backpropagate(network, x, ask.activation("output:0"))
        steps = list(ascend(network, ask.activation("output:0"), param.pixels(), steps=2))
        assert not torch.is_grad_enabled()
    assert gradient.abs().max() > 0
    assert float(steps[-1].scores) > float(steps[0].scores)
    assert not gradient.requires_grad


@pytest.mark.parametrize("names", [("conv",), ("conv", "relu"), ("relu", "conv")])
def test_a_layer_is_read_before_the_relu_that_would_overwrite_it(names):
    module = named(
        conv=nn.Conv2d(1, 2, 3), relu=nn.ReLU(inplace=True), flat=nn.Flatten(), fc=nn.Linear(32, 2)
    )
    network = Network(module, (1, 6, 6))
    x = images()
    conv = module.conv(x).detach()
    assert conv.min() < 0
    for watch in (False, True):
        heard = network.read(x, *names, watch=watch)
        assert torch.equal(heard.layers["conv"], conv)
        if "relu" in names:
            assert torch.equal(heard.layers["relu"], conv.relu())
    heard = network.read(x, *names, "output", watch=True)  # to the end, past the ReLU
    assert torch.equal(heard.layers["conv"], conv)
    assert torch.equal(heard.before.layers["conv"], conv)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda y: y.add_(1),
        lambda y: y.view(-1).zero_(),
        lambda y: y[:, :1].mul_(3),
        lambda y: y.t().relu_() if y.dim() == 2 else y.transpose(1, 2).neg_(),
        lambda y: torch.sigmoid(y, out=y) if not y.requires_grad else y.sigmoid_(),
    ],
    ids=["add_", "through a view", "a part", "transposed", "out="],
)
def test_no_later_operation_overwrites_what_was_heard(spoil):
    def does(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x)
        z = m.relu(y)
        spoil(y)
        spoil(z)
        return m.fc((y + z).flatten(1))

    module = Does(does, conv=nn.Conv2d(1, 2, 3), relu=nn.ReLU(), fc=nn.Linear(32, 2))
    network = Network(seeded(module), (1, 6, 6))
    x = images()
    conv = module.conv(x).detach()
    for watch in (False, True, True):
        heard = network.read(x, "conv", "relu", "fc", watch=watch)
        assert torch.equal(heard.layers["conv"], conv)
        assert torch.equal(heard.layers["relu"], conv.relu())
        if watch:
            assert torch.equal(heard.before.layers["relu"], conv)
    with torch.no_grad():
        torch.testing.assert_close(heard.layers["fc"], module(x))


def test_what_a_relu_was_given_is_remembered_although_it_is_overwritten_later():
    """The shortcut of a pre-activation block: x += block(relu(x))."""

    def does(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x)
        y += m.second(m.relu(y))
        return m.fc(y.flatten(1))

    module = seeded(
        Does(
            does,
            conv=nn.Conv2d(1, 2, 3),
            relu=nn.ReLU(),
            second=nn.Conv2d(2, 2, 1),
            fc=nn.Linear(32, 2),
        )
    )
    network = Network(module, (1, 6, 6))
    x = images()
    conv = module.conv(x).detach()
    heard = network.read(x, "relu", "output", watch=True)
    assert torch.equal(heard.before.layers["relu"], conv)
    gradient = backpropagate(network, x, ask.activation("relu:1") + 0 * ask.activation("output:0"))
    expected = backpropagate(network, x, ask.activation("conv:1"))
    torch.testing.assert_close(gradient, expected)
    # And a rule can pass through it, as the derivative can.
    asked = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(module(asked)[:, 1].sum(), asked)
    found = backpropagate(network, x, ask.activation("output:1"), lambda g, i, o: g * (o > 0))
    torch.testing.assert_close(found, plain)


def test_gradients_flow_through_what_was_heard_although_it_is_overwritten():
    network = variants()["one in-place module"]
    expected = variants()["modules"]
    x = images(2, (3, 10, 10))
    for question in (
        ask.activation("conv1:2") + ask.activation("output:1"),
        ask.energy("conv1") - ask.energy("hidden") + ask.log_probability("output:0"),
    ):
        torch.testing.assert_close(
            backpropagate(network, x, question), backpropagate(expected, x, question)
        )


def counting() -> tuple[nn.Module, list[Counted]]:
    counters = [Counted() for _ in range(3)]
    module = named(
        a=counters[0], conv=nn.Conv2d(1, 2, 3), b=counters[1], relu=nn.ReLU(), c=counters[2]
    )
    return module, counters


@pytest.mark.parametrize(
    ("layers", "calls"),
    [
        (("a",), [1, 0, 0]),
        (("conv",), [1, 0, 0]),
        (("b", "a"), [1, 1, 0]),
        (("relu", "conv"), [1, 1, 0]),
        (("conv", "output"), [1, 1, 1]),
        ((), [1, 1, 1]),
    ],
)
def test_the_pass_stops_at_the_deepest_layer_asked_for(layers, calls):
    module, counters = counting()
    network = Network(module, (1, 6, 6))
    network.layers  # noqa: B018 - one pass of its own, once
    for rule in (False, True):
        for counter in counters:
            counter.calls = 0
        network.read(images(), *layers, watch=rule)
        assert [counter.calls for counter in counters] == calls


def test_the_layers_are_worked_out_in_one_pass_and_once():
    module, counters = counting()
    network = Network(module, (1, 6, 6))
    assert [c.calls for c in counters] == [0, 0, 0]
    str(network)
    network.resolve("conv:1")
    network.layer("relu")
    assert [c.calls for c in counters] == [1, 1, 1]


def test_the_second_call_of_a_module_is_heard_and_not_the_first():
    shared = nn.Linear(9, 9)
    module = seeded(Does(lambda m, x: m.fc(m.fc(m.fc(x.flatten(1)))), fc=shared))
    network = Network(module, (1, 3, 3))
    x = images(2, (1, 3, 3))
    flat = x.flatten(1)
    heard = network.read(x, "fc#2", "fc")
    torch.testing.assert_close(heard.layers["fc"], shared(flat).detach())
    torch.testing.assert_close(heard.layers["fc#2"], shared(shared(flat)).detach())
    with pytest.raises(RequestError, match="no layer called 'fc#4'"):
        network.read(x, "fc#4")


@pytest.mark.parametrize(
    ("name", "parts"), [("a", ("a", 1)), ("a#2", ("a", 2)), ("a#b", ("a#b", 1))]
)
def test_a_call_has_its_number_behind_the_name(name, parts):
    assert split_call(name) == parts
    assert called(*parts) == name


def test_an_image_too_small_for_the_whole_network_is_read_at_an_early_layer():
    module = named(
        conv=nn.Conv2d(1, 2, 3), pool=nn.MaxPool2d(4), conv2=nn.Conv2d(2, 2, 3), flat=nn.Flatten(),
        fc=nn.Linear(2 * 5 * 5, 2),
    )  # fmt: skip
    network = Network(module, (1, 30, 30))
    small = images(2, (1, 7, 5))
    torch.testing.assert_close(
        network.read(small, "conv").layers["conv"], module.conv(small).detach()
    )
    gradient = backpropagate(network, small, ask.activation("conv:0"))
    assert gradient.shape == small.shape
    with pytest.raises(RequestError, match="does not take images of shape"):
        network(small)


def test_the_images_given_are_not_written_into():
    module = named(relu=nn.ReLU(inplace=True), conv=nn.Conv2d(1, 2, 3))
    x = images() - 0.5
    copy = x.clone()
    for network in (Network(module, (1, 6, 6)), Network(module, (1, 6, 6), mean=[0.0], std=[1.0])):
        network(x)
        network.read(x, "relu", watch=True)
        backpropagate(network, x, ask.activation("conv:0"), rules.guided)
        list(ascend(network, ask.activation("conv:0"), param.pixels(start=x[0], box=None), steps=1))
        assert torch.equal(x, copy)
        assert not x.requires_grad


@pytest.mark.parametrize("of", ["a reading", "the list of layers"])
def test_another_threads_passes_are_not_heard(of):
    """A pass of another thread between ours and the layer must be neither heard nor counted."""
    inside, done = threading.Event(), threading.Event()
    main = threading.get_ident()

    class Waits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if threading.get_ident() == main and not done.is_set():
                inside.set()
                assert done.wait(20)
            return x

    module = named(
        wait=Waits(), conv=nn.Conv2d(1, 2, 3), relu=nn.ReLU(inplace=True), fc=nn.Conv2d(2, 1, 1)
    )
    network = Network(module, (1, 6, 6))
    x, other = images(2, seed=1), images(5, seed=2)
    expected = [module.conv(x).detach(), module.conv(other).detach()]
    if of == "a reading":
        done.set()  # nobody waits while the layers are worked out
        network.layers  # noqa: B018
        done.clear()
    heard_there: list[torch.Tensor] = []

    def visitor() -> None:
        assert inside.wait(20)
        try:
            with torch.no_grad():
                module(other)
            if of == "a reading":
                heard_there.append(network.read(other, "conv").layers["conv"])
        finally:
            done.set()

    thread = threading.Thread(target=visitor)
    thread.start()
    if of == "a reading":
        assert torch.equal(network.read(x, "conv", "fc").layers["conv"], expected[0])
    assert [layer.name for layer in network.layers] == ["wait", "conv", "relu", "fc", "output"]
    thread.join(20)
    assert of != "a reading" or torch.equal(heard_there[0], expected[1])


def test_two_threads_that_ask_one_model_restore_its_mode_once():
    module = messy()
    network = Network(module, (3, 10, 10))
    network.layers  # noqa: B018
    x = images(2, (3, 10, 10))
    expected = network(x)
    answers: list[torch.Tensor] = []
    with left_as_found(module):
        threads = [
            threading.Thread(target=lambda: answers.extend(network(x) for _ in range(10)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 40
    assert all(torch.equal(answer, expected) for answer in answers)


def test_a_rule_of_one_thread_does_not_reach_another():
    network = variants()["F.relu"]
    x = images(2, (3, 10, 10))
    question = ask.activation("output:1")
    expected = {
        rule: backpropagate(network, x, question, rule) for rule in (rules.plain, rules.guided)
    }
    wrong: list[str] = []

    def work(rule: rules.Rule) -> None:
        for _ in range(8):
            if not torch.equal(backpropagate(network, x, question, rule), expected[rule]):
                wrong.append(rule.__name__)

    threads = [threading.Thread(target=work, args=(rule,)) for rule in expected for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_activations_are_freed_with_the_result():
    network = variants()["modules"]
    heard = network.read(images(2, (3, 10, 10)), "conv1", "relu1", watch=True)
    gone = weakref.ref(heard.layers["conv1"])
    del heard
    gc.collect()
    assert gone() is None


def test_a_pass_that_never_reaches_a_layer_says_so():
    skip = [False]

    def does(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x if skip[0] else F.relu(m.conv(x))

    network = Network(Does(does, conv=nn.Conv2d(1, 2, 3)), (1, 6, 6))
    network.layers  # noqa: B018
    skip[0] = True
    with pytest.raises(RequestError, match="the pass never reached conv: was it traced or skipped"):
        network.read(images(), "conv")
