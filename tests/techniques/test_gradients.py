"""Saliency's relatives: input x gradient, SmoothGrad, VarGrad, integrated gradients."""

import captum.attr
import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.chance import Streams
from tests.techniques.explained import raws, relative, spellings, stack

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def network(**options) -> og.Network:
    torch.manual_seed(4)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4)]
    return stack(*layers, shape=(3, 8, 8), **options)


def noise(image: torch.Tensor, sigma: float, unit: str, sample: int, seed: int) -> torch.Tensor:
    drawn = Streams(seed, (unit,)).normal("noise", image.numel(), sample)
    return sigma * float(image.max() - image.min()) * drawn.view_as(image)


def test_input_x_gradient_is_captums_on_the_normalised_image():
    net = network(mean=MEAN, std=STD)
    images = torch.rand(2, 3, 8, 8)
    shown = net.normalized(images).requires_grad_()
    theirs = captum.attr.InputXGradient(net.module).attribute(shown, torch.tensor([1, 2]))
    ours = og.input_x_gradient(net, images, ["output:1", "output:2"])
    assert relative(raws(ours), theirs.detach()) <= 1e-5
    assert (ours[0].values - ours[0].raw.sum(0)).abs().max() <= 1e-6
    assert ours[0].unit_of_values == "logit"


@pytest.mark.parametrize(("baseline", "level"), [(0.0, 0.0), (0.5, 0.5)])
def test_input_x_gradient_counts_from_its_baseline(baseline, level):
    net, image = network(mean=MEAN, std=STD), torch.rand(3, 8, 8)
    slope = og.saliency(net, image, "output:1").raw
    found = og.input_x_gradient(net, image, "output:1", baseline=baseline)
    assert relative(found.raw, (image - level) * slope) <= 1e-5


def test_a_network_without_biases_owes_its_whole_score_to_the_pixels():
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 6, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3, bias=False)]
    net = stack(*layers, shape=(1, 6, 6))
    found = og.input_x_gradient(net, torch.rand(1, 6, 6), "output:2")
    assert float(found.values.sum()) == pytest.approx(found.score, rel=1e-5)


@pytest.mark.parametrize("kind", ["smoothgrad", "vargrad"])
def test_noise_maps_are_captums_where_captum_gets_the_same_noise(kind, monkeypatch):
    net, image = network(mean=MEAN, std=STD), torch.rand(3, 8, 8)
    drawn = torch.stack([noise(image, 0.15, "output:1", i, seed=7) for i in range(5)])
    monkeypatch.setattr(torch, "normal", lambda *_, **__: drawn / torch.tensor(STD)[:, None, None])
    theirs = captum.attr.NoiseTunnel(captum.attr.Saliency(net.module)).attribute(
        net.normalized(image[None]),
        nt_type=kind,
        nt_samples=5,
        stdevs=1.0,
        target=1,
        abs=False,
    )
    monkeypatch.undo()
    power = 1 if kind == "smoothgrad" else 2
    theirs = theirs / torch.tensor(STD).view(1, 3, 1, 1) ** power
    ours = getattr(og, kind)(net, image, "output:1", samples=5, seed=7)
    assert relative(ours.raw, theirs[0].detach()) <= 1e-5
    assert ours.unit_of_values == ("logit per pixel" if power == 1 else "(logit per pixel)²")


def test_smoothgrad_without_noise_is_the_gradient():
    net, image = network(), torch.rand(3, 8, 8)
    still = og.smoothgrad(net, image, "output:1", noise=0, samples=2)
    assert relative(still.raw, og.saliency(net, image, "output:1").raw) <= 1e-6
    assert float(og.vargrad(net, image, "output:1", noise=0, samples=3).values.max()) <= 1e-6


def test_the_noise_depends_on_seed_and_unit_alone():
    net, images = network(), torch.rand(3, 3, 8, 8)
    units = ["output:0", "output:1", "output:2"]
    before = torch.get_rng_state()
    together = og.smoothgrad(net, images, units, samples=3, seed=1)
    assert (torch.get_rng_state() == before).all()
    alone = og.smoothgrad(net, images[1], "output:1", samples=3, seed=1)
    other = og.smoothgrad(net, images[1], "output:1", samples=3, seed=2)
    assert relative(together[1].raw, alone.raw) <= 1e-6
    assert relative(other.raw, alone.raw) > 1e-3


@pytest.mark.parametrize("steps", [1, 20])
def test_integrated_gradients_are_captums(steps):
    net, images = network(mean=MEAN, std=STD), torch.rand(2, 3, 8, 8)
    theirs = captum.attr.IntegratedGradients(net.module).attribute(
        net.normalized(images), target=torch.tensor([0, 3]), n_steps=steps
    )
    ours = og.integrated_gradients(net, images, ["output:0", "output:3"], steps=steps)
    assert relative(raws(ours), theirs.detach()) <= 1e-5


def test_integrated_gradients_say_what_they_leave_over():
    net, image = network(), torch.rand(3, 8, 8)
    residuals = []
    for steps in (1, 300):
        found = og.integrated_gradients(net, image, "output:1", baseline=0.2, steps=steps)
        dark = og.saliency(net, torch.full_like(image, 0.2), "output:1").score
        left = float(found.values.sum()) - (found.score - dark)
        assert found.checks["completeness_residual"] == pytest.approx(left, abs=1e-5)
        residuals.append(abs(left))
    assert residuals[1] < 2e-3 < residuals[0]


def test_integrated_gradients_of_a_linear_network_are_exact():
    net = stack(nn.Flatten(), nn.Linear(16, 2), shape=(1, 4, 4))
    image = torch.rand(1, 4, 4)
    found = og.integrated_gradients(net, image, "output:1", baseline=0.0, steps=1)
    weight = net.module[1].weight[1].detach().view(1, 4, 4)
    assert relative(found.raw, weight * image) <= 1e-6


def test_the_chain_rule_example_of_the_lecture_against_finite_differences():
    """dh32/dx1 sums dh32/dh1i f'(a1i) w(1 to i) over all h1i; it is not one term (slip E16)."""
    torch.manual_seed(9)
    net = stack(
        nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), shape=(1, 2, 2)
    )
    with torch.no_grad():
        net.module[1].bias += 0.5
        net.module[3].bias += 1
    image = torch.rand(1, 2, 2)
    first, second = net.module[1], net.module[3]
    a1 = first(image.double().flatten())
    terms = (second.weight[2] * (a1 > 0) * first.weight[:, 0]).detach()
    found = og.saliency(net, image, "3:2").raw[0, 0, 0]
    step = torch.zeros(1, 2, 2)
    step[0, 0, 0] = 1e-3
    up, down = (og.saliency(net, image + s, "3:2").score for s in (step, -step))
    assert float(found) == pytest.approx(float(terms.sum()), rel=1e-5)
    assert float(found) == pytest.approx((up - down) / 2e-3, rel=1e-2)
    assert abs(float(terms[1]) - float(found)) > 0.01


def test_smoothgrad_works_however_a_relu_is_written():
    image = torch.rand(3, 8, 8)
    maps = [og.smoothgrad(net, image, "output:1", samples=3).raw for net in spellings().values()]
    assert max(relative(found, maps[0]) for found in maps[1:]) <= 1e-6


def test_bad_numbers_are_refused_in_a_sentence():
    net, image = network(), torch.rand(3, 8, 8)
    with pytest.raises(og.RequestError, match="at least 1 sample"):
        og.smoothgrad(net, image, "output:1", samples=0)
    with pytest.raises(og.RequestError, match="at least 1"):
        og.integrated_gradients(net, image, "output:1", steps=0)
    for wrong in ("gray", 2.0):
        with pytest.raises(og.RequestError, match=r"should be a grey level in \[0, 1\], 'mean'"):
            og.input_x_gradient(net, image, "output:1", baseline=wrong)


def test_a_layer_without_gradient_is_said_in_a_sentence():
    class Rounded(nn.Module):
        def forward(self, x):
            return x.flatten(1).argmax(1, keepdim=True).double()

    net = og.Network(Rounded(), (1, 3, 3))
    with pytest.raises(og.RequestError, match="through anything that has a gradient"):
        og.input_x_gradient(net, torch.rand(1, 3, 3), "output:0")


def test_a_map_of_nans_is_said_in_a_sentence():
    class Root(nn.Module):
        def forward(self, x):
            return (x - x).flatten(1).sqrt()

    net = og.Network(Root(), (1, 3, 3))
    with pytest.raises(og.RequestError, match="NaN or infinity on this image"):
        og.integrated_gradients(net, torch.rand(1, 3, 3), "output:0")
