import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.neural_network import BernoulliRBM

from optogram.core.boltzmann import Boltzmann
from optogram.core.chance import generator
from optogram.zoo.rbm import (
    Rates,
    contrast,
    learn,
    log_likelihood,
    log_partition,
    machine,
    pseudo_likelihood,
)
from tests.zoo.coins import uniform


def random_machine(visible=6, hidden=5, scale=1.0, seed=0, gaussian=False):
    draw = np.random.default_rng(seed).normal
    tensors = [
        torch.from_numpy(scale * draw(size=size))
        for size in ((hidden, visible), (visible,), (hidden,))
    ]
    return Boltzmann(*tensors, gaussian=gaussian)


def states(count):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


def energies(rbm):
    """E(v, h) of every pair, written out as in the definition."""
    v, h = states(len(rbm.visible)), states(len(rbm.hidden))
    return -(v @ rbm.visible)[:, None] - (h @ rbm.hidden)[None] - v @ rbm.weight.T @ h.T


def enumerated(rbm):
    """log Z, and p(v, h) of every pair."""
    log = torch.logsumexp(-energies(rbm).flatten(), 0)
    return float(log), (-energies(rbm) - log).exp()


def test_the_conditionals_are_those_of_the_enumerated_joint():
    rbm = random_machine()
    _, joint = enumerated(rbm)
    v, h = states(6), states(5)
    up = joint @ h / joint.sum(1, keepdim=True)
    down = joint.T @ v / joint.sum(0)[:, None]
    torch.testing.assert_close(rbm.up(v), up)
    torch.testing.assert_close(rbm.down(h), down)


def test_the_free_energy_is_minus_the_log_of_the_sum_over_hidden_layers():
    rbm = random_machine()
    torch.testing.assert_close(rbm.free_energy(states(6)), -torch.logsumexp(-energies(rbm), 1))


def test_the_free_energy_is_the_one_scikit_learn_computes():
    rbm = random_machine()
    other = BernoulliRBM(n_components=5)
    other.components_ = rbm.weight.numpy()
    other.intercept_hidden_, other.intercept_visible_ = rbm.hidden.numpy(), rbm.visible.numpy()
    expected = other._free_energy(states(6).numpy())
    np.testing.assert_allclose(rbm.free_energy(states(6)).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("gaussian", [False, True])
def test_the_gradient_of_the_free_energy_agrees_with_finite_differences(gaussian):
    rbm = random_machine(gaussian=gaussian)
    v = torch.rand(3, 6, dtype=torch.float64, generator=generator("v")).requires_grad_()
    (gradient,) = torch.autograd.grad(rbm.free_energy(v).sum(), v)
    for unit in range(6):
        nudge = torch.zeros(6, dtype=torch.float64)
        nudge[unit] = 1e-5
        difference = rbm.free_energy(v + nudge) - rbm.free_energy(v - nudge)
        torch.testing.assert_close(gradient[:, unit], difference / 2e-5, atol=1e-8, rtol=1e-6)


def test_a_gaussian_machine_has_the_free_energy_of_its_mixture():
    """Summed over hidden layers by hand, from the energy |v - b|^2 / 2 - h.c - h.W.v."""
    rbm = random_machine(gaussian=True)
    v, h = torch.randn(4, 6, dtype=torch.float64, generator=generator("v")), states(5)
    own = (v - rbm.visible).square().sum(1, keepdim=True) / 2
    energy = own - h @ rbm.hidden - v @ rbm.weight.T @ h.T
    torch.testing.assert_close(rbm.free_energy(v), -torch.logsumexp(-energy, 1))


def test_gibbs_draws_visible_units_around_their_mean_with_variance_one():
    rbm = random_machine(gaussian=True)
    hidden = states(5)[13].expand(40_000, 5)
    drawn = rbm.draw_down(hidden, generator("draw"))
    torch.testing.assert_close(drawn.mean(0), rbm.down(hidden)[0], atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.ones(6).double(), atol=0.03, rtol=0)


def test_one_step_of_contrastive_divergence_is_its_closed_form():
    """With the same uniform numbers, the sums written out unit by unit."""
    rbm, twin = random_machine(4, 3, 0.3), random_machine(4, 3, 0.3)
    data = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0]]).double()
    learn(rbm, data, Rates(lr=0.1, sampled=True), {}, generator("step"))
    chance = generator("step")
    coins = [uniform(3, n, chance) for n in (3, 4)]
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    w, b, c = twin.weight, twin.visible, twin.hidden
    active = [
        [sigmoid(c[j] + sum(w[j, i] * v[i] for i in range(4))) for j in range(3)] for v in data
    ]
    drawn = [[float(coins[0][n, j] < active[n][j]) for j in range(3)] for n in range(3)]
    model = [
        [
            float(coins[1][n, i] < sigmoid(b[i] + sum(w[j, i] * drawn[n][j] for j in range(3))))
            for i in range(4)
        ]
        for n in range(3)
    ]
    believed = [
        [sigmoid(c[j] + sum(w[j, i] * v[i] for i in range(4))) for j in range(3)] for v in model
    ]
    for j, i in itertools.product(range(3), range(4)):
        change = sum(active[n][j] * data[n, i] - believed[n][j] * model[n][i] for n in range(3))
        assert float(rbm.weight[j, i] - w[j, i]) == pytest.approx(
            float(0.1 * change / 3), abs=1e-12
        )
    for i in range(4):
        change = sum(data[n, i] - model[n][i] for n in range(3))
        assert float(rbm.visible[i] - b[i]) == pytest.approx(float(0.1 * change / 3), abs=1e-12)
    for j in range(3):
        change = sum(active[n][j] - believed[n][j] for n in range(3))
        assert float(rbm.hidden[j] - c[j]) == pytest.approx(float(0.1 * change / 3), abs=1e-12)


def test_the_contrast_with_the_model_itself_is_the_gradient_of_the_likelihood():
    """What CD approximates: its negative part over the exact model, against autograd of log p."""
    rbm = random_machine()
    for tensor in (rbm.weight, rbm.visible, rbm.hidden):
        tensor.requires_grad_()
    data = states(6)[[3, 17, 42, 63]]
    log = torch.logsumexp(-energies(rbm).flatten(), 0)
    (-rbm.free_energy(data).mean() - log).backward()
    with torch.no_grad():
        chances = enumerated(rbm)[1].sum(1)
        active, believed, v = rbm.up(data), rbm.up(states(6)), states(6)
        weight = active.T @ data / 4 - (believed * chances[:, None]).T @ v
        every = torch.multinomial(chances, 400_000, True, generator=generator("model"))
        move = contrast(data, active, v[every], believed[every])
    torch.testing.assert_close(rbm.weight.grad, weight)
    torch.testing.assert_close(rbm.weight.grad, move.weight, atol=0.005, rtol=0)
    torch.testing.assert_close(rbm.visible.grad, move.visible, atol=0.005, rtol=0)
    torch.testing.assert_close(rbm.hidden.grad, move.hidden, atol=0.005, rtol=0)


@pytest.mark.parametrize("mean", [None, 0.3])
def test_annealing_finds_the_enumerated_partition_function(mean):
    rbm = random_machine(12, 12, 0.7)
    exact, _ = enumerated(rbm)
    base = None if mean is None else torch.full((12,), mean)
    found, error = log_partition(rbm, chains=500, steps=1000, mean=base)
    assert found == pytest.approx(exact, abs=math.log(1.01) + 3 * error)
    assert abs(found - exact) < 0.01 * abs(exact)
    assert 0 < error < 0.05


def test_annealing_finds_the_partition_function_of_a_gaussian_machine():
    rbm = random_machine(6, 5, 0.5, gaussian=True)
    h = states(5)
    inputs = h @ rbm.weight
    # The integral over v of exp(-|v - b|^2 / 2 + v.s) is (2 pi)^(d/2) exp(b.s + |s|^2 / 2).
    log = h @ rbm.hidden + inputs @ rbm.visible + inputs.square().sum(1) / 2
    exact = float(torch.logsumexp(log, 0)) + 3 * math.log(2 * math.pi)
    found, error = log_partition(rbm, chains=500, steps=1000)
    assert found == pytest.approx(exact, abs=math.log(1.01) + 3 * error)


def test_the_likelihood_of_all_states_sums_to_one():
    rbm = random_machine()
    exact, joint = enumerated(rbm)
    each = [log_likelihood(rbm, v[None], exact) for v in states(6)]
    assert sum(map(math.exp, each)) == pytest.approx(1)
    assert each[5] == pytest.approx(float(joint.sum(1)[5].log()))


def test_the_pseudo_likelihood_is_in_the_mean_the_sum_of_conditionals():
    rbm = random_machine()
    chances = enumerated(rbm)[1].sum(1)
    v = states(6)[21]
    exact = 0.0
    for unit in range(6):
        other = v.clone()
        other[unit] = 1 - other[unit]
        both = chances[[int("".join(str(int(x)) for x in s), 2) for s in (v, other)]]
        exact += float((both[0] / both.sum()).log())
    found = pseudo_likelihood(rbm, v.expand(60_000, 6), generator("flip"))
    assert float(found.mean()) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(
    "rates", [Rates(lr=0.3), Rates(lr=0.3, k=3, sampled=True), Rates(lr=0.1, persistent=True)]
)
def test_learning_makes_bars_likelier(rates):
    """Rows or columns of a 3 x 3 square, each on or off: known to need hidden units."""
    bars = torch.stack(
        [s[:3, None].expand(3, 3).flatten() for s in states(3)]
        + [s[None, :3].expand(3, 3).flatten() for s in states(3)]
    )
    rbm = machine(9, 8)
    rbm = Boltzmann(rbm.weight.double(), rbm.visible.double(), rbm.hidden.double())
    before = log_likelihood(rbm, bars, enumerated(rbm)[0])
    memory, chance = {}, generator("learn")
    for _ in range(1500):
        learn(rbm, bars.repeat(8, 1), rates, memory, chance)
    after = log_likelihood(rbm, bars, enumerated(rbm)[0])
    assert before == pytest.approx(-9 * math.log(2), abs=0.05)
    assert after > -4.2  # 14 different pictures: no model does better than about -2.6


def test_a_machine_learns_to_be_as_sparse_as_it_is_told():
    data = (torch.rand(50, 20, generator=generator("data")) < 0.5).float()
    activity = {}
    for pull in (0.0, 0.5):
        rbm, memory, chance = machine(20, 10), {}, generator("learn")
        for _ in range(400):
            learn(rbm, data, Rates(sparsity=0.1, pull=pull), memory, chance)
        activity[pull] = float(rbm.up(data).mean())
    assert activity[0.0] > 0.3
    assert activity[0.5] == pytest.approx(0.1, abs=0.05)


def test_weights_decay_and_momentum_add_as_written():
    """Without data to tell from the model (all biases and data 0), only the decay moves weights."""
    rbm = machine(4, 3)
    rbm.visible.fill_(-1e4)
    first, memory = rbm.weight.clone(), {}
    rates = Rates(lr=0.5, momentum=0.9, decay=0.1)
    for _ in range(2):
        learn(rbm, torch.zeros(2, 4), rates, memory, generator("step"))
    once = 0.95 * first
    torch.testing.assert_close(rbm.weight, once + 0.9 * (once - first) - 0.05 * once)


def test_persistent_chains_go_on_from_where_they_were():
    rbm, memory = random_machine(8, 8, 0.5), {}
    data = states(8)[:10]
    learn(rbm, data, Rates(lr=0.0, persistent=True), memory, generator("one"))
    first = memory["chains"].clone()
    chance = generator("two")
    learn(rbm, 1 - data, Rates(lr=0.0, persistent=True), memory, chance)
    again = generator("two")
    expected = rbm.draw_up(rbm.draw_down(first, again), again)
    assert torch.equal(memory["chains"], expected)


def test_learning_draws_only_from_its_own_generator_and_is_the_same_again(draws_nothing):
    results = []
    for _ in range(2):
        rbm, memory, chance = machine(12, 7, seed=3), {}, generator("x")
        with draws_nothing():
            for _ in range(3):
                learn(rbm, states(12)[::100].float(), Rates(k=2), memory, chance)
        results.append(rbm.weight)
    assert torch.equal(*results)


@pytest.mark.gpu
def test_learning_on_cuda_is_learning_on_the_cpu():
    found = []
    for device in ("cpu", "cuda"):
        rbm, memory, chance = machine(12, 7), {}, generator("x")
        there = Boltzmann(rbm.weight.to(device), rbm.visible.to(device), rbm.hidden.to(device))
        for _ in range(5):
            learn(there, states(12)[::100].float().to(device), Rates(), memory, chance)
        found.append(there.weight.cpu())
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_half_precision_learns_much_the_same():
    """From the same coins: a step differs by bfloat16's eight bits and by coins near their edge."""
    found = {}
    data = (torch.rand(40, 30, generator=generator("data")) < 0.3).float()
    for half in (False, True):
        rbm, memory = machine(30, 20), {}
        for step in range(3):
            rates = Rates(lr=0.1, persistent=True, half=half)
            learn(rbm, data, rates, memory, generator("step", step))
        assert rbm.weight.dtype == torch.float32
        found[half] = rbm.weight - machine(30, 20).weight
    alike = torch.cosine_similarity(found[True].flatten(), found[False].flatten(), dim=0)
    assert float(alike) > 0.98
    assert not torch.equal(found[True], found[False])


def test_persistent_learning_multiplies_data_and_chains_as_if_apart():
    rbm, twin = random_machine(8, 5, 0.5), random_machine(8, 5, 0.5)
    data, memory = states(8)[:10], {}
    for _ in range(2):
        learn(rbm, data, Rates(lr=0.1, persistent=True), memory, generator("step"))
    chains, velocity = twin.draw_up(data, chance := generator("step")), torch.zeros_like(rbm.weight)
    for number in range(2):
        chance = generator("step") if number else chance
        model = twin.draw_down(chains, chance)
        believed, active = twin.up(model), twin.up(data)
        chains = (uniform(10, 5, chance) < believed).double()
        velocity = 0.5 * velocity + 0.1 * (active.T @ data - believed.T @ model) / 10
        twin.weight.add_(velocity)
        twin.visible.add_(0.1 * (data.mean(0) - model.mean(0)))
        twin.hidden.add_(0.1 * (active.mean(0) - believed.mean(0)))
    assert torch.equal(memory["chains"], chains)
    torch.testing.assert_close(rbm.weight, twin.weight)
