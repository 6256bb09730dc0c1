import itertools

import pytest
import torch

import optogram as og
from optogram.core.network import Network
from optogram.zoo.stack import Autoencoder, DeepBelief

ENOUGH = {"chains": 1000, "sweeps": 200, "every": 10}


def states(count):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)))


def believing(*sizes, gaussian=False, **settings):
    """A belief network with random weights and biases, large enough to make units matter."""
    module = DeepBelief(sizes, gaussian=gaussian)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            chance = torch.Generator().manual_seed(number)
            parameter.copy_(0.8 * torch.randn(parameter.shape, generator=chance))
    return Network(module, (1, 3, sizes[0] // 3), name="believing", **settings)


def joint(machine):
    """p(v, h) of every pair of states, from the energy as it is defined."""
    v, h = states(len(machine.visible)), states(len(machine.hidden))
    negative = (v @ machine.visible)[:, None] + (h @ machine.hidden)[None]
    negative = negative + v @ machine.weight.T @ h.T
    return (negative - torch.logsumexp(negative.flatten(), 0)).exp()


@pytest.mark.parametrize("unit", [0, 7])
def test_the_mean_image_of_a_first_layer_unit_is_the_enumerated_one(unit):
    network = believing(12, 12, 2)
    chances, v, h = joint(network.module.boltzmanns()[0]), states(12), states(12)
    given = chances[:, h[:, unit] == 1].sum(1)
    expected = given @ v / given.sum()
    anyway = chances.sum(1) @ v
    picture = og.sample(network, f"h1:{unit}", **ENOUGH)
    found = picture.raw.flatten()
    assert float((found - expected).abs().max()) <= 0.02
    assert float((expected - anyway).abs().max()) > 0.1  # so that no other answer would pass


def test_the_mean_image_of_a_higher_unit_is_drawn_down_through_every_layer():
    network = believing(6, 5, 7, 4, 2)
    lowest, middle, top = network.module.boltzmanns()
    h2 = joint(top)[:, states(4)[:, 2] == 1].sum(1)
    h2 = h2 / h2.sum()

    def transitions(machine):
        """p(lower | upper) for every pair of states, of independent units."""
        mean = machine.down(states(len(machine.hidden)))
        lower = states(len(machine.visible))
        each = torch.where(lower[:, None] == 1, mean[None], 1 - mean[None])
        return each.prod(2)

    h1 = transitions(middle) @ h2
    expected = lowest.down(states(5)).T @ h1
    found = og.sample(network, "h3:2", **ENOUGH).raw.flatten()
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_gaussian_pixels_are_shown_as_the_network_is_shown_them():
    """Means of |v - b|^2 / 2 - h.c - h.W.v, whose hidden layers have a closed form of their own."""
    network = believing(6, 4, 2, gaussian=True, mean=(0.5,), std=(0.25,))
    (machine,), h = network.module.boltzmanns(), states(4)
    inputs = h @ machine.weight
    log = h @ machine.hidden + inputs @ machine.visible + inputs.square().sum(1) / 2
    given = torch.softmax(log.masked_fill(h[:, 1] == 0, -torch.inf), 0)
    expected = given @ (machine.visible + inputs)
    picture = og.sample(network, "h1:1", **ENOUGH)
    assert torch.allclose((picture.raw.flatten() - 0.5) / 0.25, expected, atol=0.1)
    asked = network.read(picture.raw[None], "h1").layers["h1"][0, 1]
    assert picture.score == pytest.approx(float(asked))
    assert torch.equal(picture.image, picture.raw.clamp(0, 1))


def test_the_history_is_what_the_layer_below_says_of_the_unit():
    """Its mean is E[w.v + c | unit = 1]."""
    network = believing(12, 12, 2)
    machine, v = network.module.boltzmanns()[0], states(12)
    given = joint(machine)[:, states(12)[:, 3] == 1].sum(1)
    expected = float((given / given.sum()) @ (v @ machine.weight[3]) + machine.hidden[3])
    history = og.sample(network, "h1:3", chains=1000, sweeps=100, burn_in=20, every=100).history
    assert len(history) == 120
    assert float(history[20:].mean()) == pytest.approx(expected, abs=0.05)


def test_the_same_seed_makes_the_same_picture_and_another_another():
    network = believing(12, 12, 2)
    few = {"chains": 5, "sweeps": 4, "burn_in": 0, "every": 2}
    before = torch.get_rng_state()
    one, same = og.sample(network, "h1:3", **few), og.sample(network, "h1:3", **few)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.image, same.image)
    assert not torch.equal(one.image, og.sample(network, "h1:3", seed=1, **few).image)


def test_an_autoencoder_is_told_in_a_sentence_that_it_has_no_distribution():
    network = Network(Autoencoder((12, 5, 2)), (1, 3, 4), name="coder")
    with pytest.raises(og.RequestError, match=r"coder is no belief network, .* use maximize"):
        og.sample(network, "h1:0")


@pytest.mark.parametrize(
    ("unit", "options", "says"),
    [
        ("digit:1", {}, "those of believing are in h1"),
        ("h1", {}, "no single unit"),
        ("h1:9", {}, "no unit"),
        ("h1:0", {"chains": 0}, "keep no image"),
        ("h1:0", {"every": 0}, "keep no image"),
        ("h1:0", {"every": 300}, "keep no image"),
    ],
)
def test_what_cannot_be_sampled_is_refused(unit, options, says):
    with pytest.raises(og.RequestError, match=says):
        og.sample(believing(6, 5, 2), unit, **options)
