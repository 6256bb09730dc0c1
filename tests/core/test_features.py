"""Objectives of directions, ways, facets and caricatures, and gradients past dead ReLUs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.ascent import ascend, param
from optogram.core import Network, parse, rules
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from optogram.techniques import maximize
from tests.core.nets import images, named, seeded


def network(shape=(2, 8, 7), dtype=torch.float64) -> Network:
    module = named(conv=nn.Conv2d(2, 5, 3), relu=nn.ReLU(), late=nn.Conv2d(5, 4, 3))
    return Network(module.to(dtype), shape)


def heard(layer: str, x: torch.Tensor) -> torch.Tensor:
    return network().read(x, layer).layers[layer]


@pytest.mark.parametrize("power", [0.0, 1.0, 4.0])
def test_a_direction_is_the_dot_product_times_a_power_of_the_cosine(power):
    x, vector = images(3, (2, 8, 7), dtype=torch.float64), [1.0, -2.0, 0.5, 3.0]
    value = ask.direction("late", vector, power)(network().read(x, "late"))
    late, total = heard("late", x), torch.zeros(3, dtype=torch.float64)
    v = torch.tensor(vector, dtype=torch.float64)
    for row in range(late.shape[2]):
        for column in range(late.shape[3]):
            place = late[:, :, row, column]
            cosine = F.cosine_similarity(place, v[None]).clamp(min=0.1)
            total += (place @ v) * cosine**power
    torch.testing.assert_close(value, total / (late.shape[2] * late.shape[3]))
    said = ask.direction("late", vector, power)
    assert parse(said.text).text == said.text


def test_a_direction_along_an_axis_is_the_unit():
    x = images(2, (2, 8, 7), dtype=torch.float64)
    acts = network().read(x, "late")
    one = ask.direction("late", [0.0, 1.0, 0.0, 0.0])(acts)
    torch.testing.assert_close(one, ask.activation("late:1")(acts))


def test_a_way_between_two_units_begins_at_one_and_ends_at_the_other():
    x = images(3, (2, 8, 7), dtype=torch.float64)
    acts = network().read(x, "conv", "late")
    way = ask.between("conv:1", "late:2", [0.0, 0.25, 1.0])(acts)
    one, other = ask.activation("conv:1")(acts), ask.activation("late:2")(acts)
    expected = [one[0], 0.75 * one[1] + 0.25 * other[1], other[2]]
    torch.testing.assert_close(way, torch.stack(expected))
    with pytest.raises(RequestError, match="2 shares for 3 images"):
        ask.between("conv:1", "late:2", [0.0, 1.0])(acts)


def test_diversity_is_the_cosine_of_gram_matrices_within_a_group():
    x = images(6, (2, 8, 7), dtype=torch.float64)
    value = ask.diversity("late", 3)(network().read(x, "late"))
    late = heard("late", x).flatten(2)
    grams = [one @ one.T for one in late]
    for i in range(6):
        group = range(i // 3 * 3, i // 3 * 3 + 3)
        cosines = [
            float((grams[i] * grams[j]).sum() / grams[i].norm() / grams[j].norm())
            for j in group
            if j != i
        ]
        assert float(value[i]) == pytest.approx(sum(cosines) / 3)
    with pytest.raises(RequestError, match="no groups of 4"):
        ask.diversity("late", 4)(network().read(x, "late"))


def test_facets_differ_more_than_pictures_of_other_starts_and_excite_the_unit():
    """The unit adds up three others, any of which will do."""
    module = named(conv=nn.Conv2d(3, 3, 1), relu=nn.ReLU(), last=nn.Conv2d(3, 4, 1))
    with torch.no_grad():
        module.conv.weight.copy_(torch.eye(3)[:, :, None, None] * 8)
        module.conv.bias.fill_(-3.0)
        module.last.weight.copy_(torch.cat([torch.ones(1, 3), torch.eye(3)])[:, :, None, None])
        module.last.bias.zero_()
    asked = Network(module, (3, 32, 32))
    options = {"steps": 60, "transforms": "[]", "preset": "optogram", "facets": 3}

    def alike(sheet):
        acts = asked.read(sheet.images, "last")
        return float(ask.diversity("last", 3)(acts).mean())

    diverse = maximize(asked, "last:0", diversity=10.0, **options)
    same = maximize(asked, "last:0", diversity=0.0, **options)
    assert len(diverse) == 3
    assert [p.unit for p in diverse] == ["last:0"] * 3
    assert alike(diverse) < alike(same) - 0.005
    assert min(diverse.scores) >= 0.8 * min(same.scores)


def test_facets_do_not_depend_on_other_units():
    asked = Network(
        named(conv=nn.Conv2d(3, 6, 5), relu=nn.ReLU(), late=nn.Conv2d(6, 4, 5)).double(),
        (3, 32, 32),
    )
    together = maximize(asked, ["late:0", "late:2", "late:3"], facets=2, steps=5)
    alone = maximize(asked, "late:2", facets=2, steps=5)
    assert torch.equal(together.images[2:4], alone.images)
    assert not torch.equal(alone.images[0], alone.images[1])


def test_a_caricature_of_an_image_is_its_squared_length_where_it_is_itself():
    x = images(2, (2, 8, 7), dtype=torch.float64)
    value = ask.caricature("late", x[0])(network().read(x, "late"))
    late = heard("late", x)
    assert float(value[0]) == pytest.approx(float(late[0].square().sum(0).mean()))
    with pytest.raises(RequestError, match="of the same size"):
        ask.caricature("late", x[0][:, :6])(network().read(x, "late"))


class TestRedirected:
    GRADIENT = torch.tensor([[1.0, -1.0, 2.0, -3.0], [1.0, -1.0, 2.0, -3.0]])

    def test_where_something_passes_it_is_the_derivative(self):
        x = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, -1.0]])
        passed = rules.redirected(self.GRADIENT, x, x.relu())
        assert passed[0].tolist() == [1.0, -1.0, 0.0, 0.0]
        # All closed: what would raise them passes, what would lower them does not.
        assert passed[1].tolist() == [1.0, 0.0, 2.0, 0.0]

    def test_it_leads_out_of_a_dead_start_and_then_does_no_more(self):
        module = named(first=nn.Conv2d(1, 4, 3), relu=nn.ReLU(), last=nn.Conv2d(4, 1, 1))
        with torch.no_grad():
            module.first.weight.abs_()
            module.first.bias.fill_(-6.0)
            module.last.weight.fill_(1.0)
        asked = Network(module, (1, 8, 8))

        def end(redirect):
            made = param.pixels(start=0.1, box=None)
            *_, step = ascend(asked, ask.activation("last:0"), made, steps=60, lr=0.1,
                              optimizer="Adam", redirect=redirect)  # fmt: skip
            return float(step.scores)

        start = float(ask.activation("last:0")(asked.read(torch.full((1, 1, 8, 8), 0.1), "last")))
        assert end(0) == pytest.approx(start)
        assert end(16) > start

    def test_it_asks_nothing_of_a_network_without_relus(self):
        module = seeded(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU()))
        asked = Network(module, (1, 8, 8))
        steps = ascend(asked, ask.activation("1:0"), param.pixels(), steps=3, redirect=2)
        assert len(list(steps)) == 4


def test_what_cannot_be_asked_is_refused():
    for text in ('direction("late", [0.0, 0.0])', 'direction("late", [1.0], -1)',
                 'diversity("late", 1)'):  # fmt: skip
        with pytest.raises(RequestError):
            parse(text)
    with pytest.raises(RequestError, match="the vector has 2 numbers"):
        ask.direction("late", [1.0, 2.0])(network().read(images(1, (2, 8, 7)), "late"))


def test_several_looks_are_their_mean():
    asked = network(dtype=torch.float64)
    one = list(ascend(asked, ask.activation("late:1"), param.pixels(), steps=3, looks=1))
    many = list(ascend(asked, ask.activation("late:1"), param.pixels(), steps=3, looks=4))
    assert torch.allclose(one[-1].images, many[-1].images)  # nothing is drawn, so they agree
    moved = parse("[noise(0.2)]")
    spread = [
        torch.stack([
            next(ascend(asked, ask.activation("late:1"), param.pixels(), steps=0, looks=looks,
                        transforms=moved, seed=seed)).scores
            for seed in range(20)
        ]).std()
        for looks in (1, 16)
    ]  # fmt: skip
    assert spread[1] < 0.5 * spread[0]


def test_importance_adds_up_the_gradients():
    asked = network(dtype=torch.float64)
    steps = list(
        ascend(asked, ask.activation("late:1"), param.pixels(), steps=4, optimizer="SGD", lr=0.0)
    )
    x = steps[0].images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ask.activation("late:1")(asked.read(x, "late")).sum(), x)
    torch.testing.assert_close(steps[-1].importance, 4 * gradient.abs().mean(1))
