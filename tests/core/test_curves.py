"""Deletion, insertion, infidelity and max-sensitivity, by closed forms and by Captum."""

import captum.metrics
import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.curves import area, curves, order_of
from optogram.core.faithful import foretold, infidelity, max_sensitivity, squares
from tests.techniques.explained import counted, stack

MEAN, STD = (0.5,), (0.25,)


class Weighed(nn.Module):
    """A linear unit whose weight is known for every pixel."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        return (x * self.weights).flatten(1).sum(1, keepdim=True)


def weighed() -> tuple[og.Network, torch.Tensor]:
    weights = torch.arange(64.0).view(1, 8, 8) / 64
    return og.Network(Weighed(weights).eval(), (1, 8, 8)), torch.ones(1, 8, 8)


def test_the_best_order_of_a_linear_unit_has_the_areas_of_its_closed_form():
    net, image = weighed()
    found = og.input_x_gradient(net, image, "output:0", baseline=0.0)
    (followed,) = curves(net, [found], net.resolve("output:0"), steps=64)
    left = torch.arange(64.0).cumsum(0).flip(0) / 64  # what is left after each of the largest went
    assert torch.allclose(followed.deletion["map"][:-1], left, rtol=1e-5)
    areas = followed.areas()["deletion"]
    assert areas["map"] < areas["random"]
    assert areas["map"] < areas["centre"]
    total = 64 * 63 / 2 / 64
    assert areas["random"] == pytest.approx(total / 2, rel=0.15)
    assert "beats both" in followed.facts()["deletion"]


def test_insertion_ends_with_the_image_and_deletion_without_it():
    net = stack(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3), shape=(1, 8, 8))
    image = torch.rand(1, 8, 8)
    found = og.saliency(net, image, "output:1")
    (followed,) = curves(net, [found], net.resolve("output:1"), steps=5)
    full = og.saliency(net, image, "output:1", score="probability").score
    gone = og.saliency(net, torch.zeros(1, 8, 8), "output:1", score="probability").score
    for name in ("map", "random", "centre"):
        assert float(followed.insertion[name][-1]) == pytest.approx(full, rel=1e-5)
        assert float(followed.deletion[name][0]) == pytest.approx(full, rel=1e-5)
        assert float(followed.deletion[name][-1]) == pytest.approx(gone, rel=1e-5)


def test_rivals_and_ends_are_shown_once_for_all_maps():
    net, image = weighed()
    target = net.resolve("output:0")
    maps = [og.saliency(net, image, target), og.input_x_gradient(net, image, target, baseline=0.0)]
    shown = counted(net)
    followed = curves(net, maps, target, steps=8)
    assert sum(shown) == (2 + 2) * 2 * 7 + 3
    for found, both in zip(maps, followed, strict=True):
        (alone,) = curves(net, [found], target, steps=8)
        assert alone.areas() == both.areas()


def test_ties_come_in_random_order_and_nan_last():
    values = torch.tensor([[3.0, torch.nan, 1.0], [1.0, 1.0, 5.0]])
    order = order_of(values, "unit", 0).tolist()
    assert order[:2] == [5, 0]
    assert order[-1] == 1
    many = torch.zeros(10, 10)
    assert order_of(many, "unit", 0).tolist() != list(range(100))
    assert (order_of(many, "unit", 0) == order_of(many, "unit", 0)).all()
    assert (order_of(many, "unit", 0) != order_of(many, "unit", 1)).any()


def test_area_is_by_trapezia():
    assert area(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(0.25)


def bent() -> og.Network:
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 3)]
    return stack(*layers, shape=(1, 10, 10), mean=MEAN, std=STD)


@pytest.mark.parametrize("technique", [og.saliency, og.input_x_gradient])
def test_infidelity_is_captums_with_the_best_scale(technique):
    net, image = bent(), torch.rand(1, 10, 10)
    target = net.resolve("output:1")
    found = technique(net, image, target)
    shifts = squares(net, image, "owner", 20, 0)
    told = foretold(found, shifts, torch.full_like(image, MEAN[0]))
    costs = torch.tensor(
        [found.score - technique(net, (image - s).clamp(0, 1), target).score for s in shifts]
    )
    scale = float((told * costs).mean() / told.square().mean())
    pending = iter(shifts)

    def perturb(x):
        shift = next(pending)[None]
        share = shift / STD[0]
        if technique is og.input_x_gradient:
            share = (shift / (image - MEAN[0])).nan_to_num()
        return share.double(), x - shift.double() / STD[0]

    map_in_their_units = found.raw * (STD[0] if technique is og.saliency else 1) * scale
    theirs = [
        captum.metrics.infidelity(
            net.module,
            perturb,
            net.normalized(image[None]),
            map_in_their_units[None].double(),
            target=1,
            n_perturb_samples=1,
        )
        for _ in shifts
    ]
    expected = float(torch.cat(theirs).mean() / costs.square().mean())
    assert infidelity(net, found, target, shifts) == pytest.approx(expected, rel=1e-3)


def test_a_linear_network_is_foretold_exactly_and_a_false_map_is_not():
    net, image = weighed()
    target = net.resolve("output:0")
    shifts = squares(net, image, "owner", 30, 0)
    assert infidelity(net, og.saliency(net, image, target, signed=True), target, shifts) < 1e-9
    upside_down = og.saliency(net, image, target)
    false = og.Attribution(
        upside_down.values, image, "output:0", 0.0, raw=upside_down.raw.flip(1),
        unit_of_values="logit per pixel",
    )  # fmt: skip
    assert 0.05 < infidelity(net, false, target, shifts) <= 1
    assert infidelity(net, og.Attribution(image[0], image, "output:0", 0.0), target, shifts) is None


def test_max_sensitivity_is_captums_for_the_same_neighbours():
    net, image = bent(), torch.rand(1, 10, 10) * 0.8 + 0.1
    found = og.saliency(net, image, "output:1")
    neighbours = []

    def explain(shown):
        neighbours.extend(shown)
        return og.saliency(net, shown, "output:1")

    ours = max_sensitivity(explain, found, samples=3)
    pending = iter(neighbours)

    def gradient(x, **_):
        shown = x[0] if isinstance(x, tuple) else x
        return og.saliency(net, shown[0].float(), "output:1").raw[None].double()

    theirs = [
        captum.metrics.sensitivity_max(
            gradient, image[None].double(), lambda x: next(pending)[None].double(),
            n_perturb_samples=1,
        )
        for _ in neighbours
    ]  # fmt: skip
    assert ours == pytest.approx(float(torch.cat(theirs).max()), rel=1e-4)
    assert all(float((n - image).abs().max()) <= 0.02 for n in neighbours)
