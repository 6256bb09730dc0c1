"""The up-down pass: its step against the formulas, and what it does to an exact likelihood."""

import itertools
import math

import pytest
import torch

from optogram.core.chance import generator
from optogram.zoo.dbn import machine_lesson, up_down, up_down_lesson
from optogram.zoo.greedy import Batch
from optogram.zoo.rbm import Rates
from optogram.zoo.stack import DeepBelief
from tests.zoo.coins import uniform


def states(count):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)))


def bars(side=3):
    """All images of some full rows or some full columns, 3 x 3."""
    lines = states(side)
    rows = lines[:, :, None].expand(-1, side, side)
    return torch.cat([rows, rows.transpose(1, 2)]).reshape(-1, side * side)


def log_likelihood(stack, data):
    """By enumeration: log sum over h1 of p(v | h1) p(h1), p(h1) being the top machine's."""
    lower, top = stack.boltzmanns()
    below = states(len(top.visible))
    free = -top.free_energy(below)
    prior = free - torch.logsumexp(free, 0)
    means = lower.down(below).clamp(1e-7, 1 - 1e-7)
    said = data @ means.log().T + (1 - data) @ (1 - means).log().T
    return float(torch.logsumexp(said + prior, 1).mean())


def test_a_step_is_the_formulas_of_the_paper():
    """Appendix B of Hinton et al. (2006), from the same coins, outer products one by one."""
    stack, twin = (DeepBelief((5, 4, 3), tied=False, classes=False, deviation=0.8) for _ in "ab")
    with torch.no_grad():
        for each in (stack, twin):
            each.get_parameter("down1").mul_(0.7)
    data = states(5)[[3, 12, 25]]
    up_down(stack, data, 0.1, 1, generator("step"))
    chance = generator("step")
    coins = [uniform(3, n, chance) for n in (4, 3, 4, 5)]
    lower, top = twin.boltzmanns()
    sigmoid = torch.sigmoid
    awake = (coins[0] < sigmoid(data @ lower.weight.T + lower.hidden)).float()
    chosen = sigmoid(awake @ top.weight.T + top.hidden)
    high = (coins[1] < chosen).float()
    model = (coins[2] < sigmoid(high @ top.weight + top.visible)).float()
    asleep = (coins[3] < sigmoid(model @ lower.generative + lower.visible)).float()
    moved = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    for n in range(3):
        missed = data[n] - sigmoid(awake[n] @ lower.generative + lower.visible)
        moved["down1"] += torch.outer(awake[n], missed) / 3
        moved["below1"] += missed / 3
        unheard = model[n] - sigmoid(asleep[n] @ lower.weight.T + lower.hidden)
        moved["h1.weight"] += torch.outer(unheard, asleep[n]) / 3
        moved["h1.bias"] += unheard / 3
        believed = sigmoid(model[n] @ top.weight.T + top.hidden)
        moved["h2.weight"] += torch.outer(chosen[n], awake[n]) / 3
        moved["h2.weight"] -= torch.outer(believed, model[n]) / 3
        moved["h2.bias"] += (chosen[n] - believed) / 3
        moved["below2"] += (awake[n] - model[n]) / 3
    for name, parameter in stack.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name) + 0.1 * moved[name])


def test_it_makes_the_data_likelier_than_the_layers_taught_one_by_one():
    stack, data = DeepBelief((9, 8, 6), tied=False, classes=False, seed=1), bars()
    labels = torch.zeros(len(data), dtype=torch.long)
    for lesson in (machine_lesson(1, 1, Rates(lr=0.1)), machine_lesson(2, 1, Rates(lr=0.1))):
        memory = {}
        for step in range(600):
            inputs = stack.up(data, 0, lesson.below).detach()
            chance = generator("greedy", lesson.name, step)
            lesson.learn(stack, Batch(inputs, labels, chance, memory, step / 600))
    with torch.no_grad():
        stack.get_parameter("down1").copy_(stack.h1.weight)
    before = log_likelihood(stack, data)
    lesson = up_down_lesson(2, 1, lr=0.1, sweeps=3)
    for step in range(1500):
        batch = Batch(data, labels, generator("up-down", step), {}, step / 1500)
        lesson.learn(stack, batch)
    after = log_likelihood(stack, data)
    assert after > before + 0.3
    assert after > -9 * math.log(2)


def test_an_untied_network_goes_down_by_weights_of_its_own():
    stack = DeepBelief((5, 4, 3), tied=False, classes=False, deviation=0.8)
    with torch.no_grad():
        stack.get_parameter("down1").mul_(-1)
    lower, top = stack.boltzmanns()
    values = torch.rand(2, 4, generator=generator("x"))
    expected = torch.sigmoid(-values @ stack.h1.weight + stack.below(1))
    torch.testing.assert_close(lower.down(values), expected)
    torch.testing.assert_close(stack.down(values, 1), expected)
    assert top.generative is None
    with pytest.raises(AssertionError):
        lower.free_energy(torch.zeros(1, 5))
