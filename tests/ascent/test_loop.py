"""The loop that every picture made for a unit comes from."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.ascent import Step, ascend, param, transform
from optogram.ascent.loop import _ELEMENTWISE, SCHEDULES
from optogram.core import Network, Streams, backpropagate
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from optogram.zoo.tiny import BRIGHT, tiny, variants

NETWORK = variants(torch.float64)["one in-place module"]


def last(steps) -> Step:
    for step in steps:  # noqa: B007
        pass
    return step


def test_the_start_is_yielded_first_and_then_the_state_after_each_step():
    steps = list(ascend(NETWORK, ask.activation("hidden:3"), param.pixels(), steps=4))
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    assert steps[0].images.unique().tolist() == [0.01]
    assert steps[-1].gradients is None
    assert all(step.gradients is not None for step in steps[:-1])
    assert all(step.images.shape == (1, 3, 10, 10) for step in steps)


def test_no_steps_yield_the_start():
    (only,) = ascend(NETWORK, ask.activation("hidden:3"), param.pixels(), steps=0)
    assert only.index == 0
    assert only.gradients is None


def test_every_ascent_ends_higher_than_it_began():
    for name in _ELEMENTWISE:
        steps = list(
            ascend(
                NETWORK,
                ask.activation("output:1"),
                param.pixels(start=0.5),
                steps=25,
                optimizer=name,
                lr=0.01,
            )
        )
        assert torch.isfinite(steps[-1].images).all(), name
        assert float(steps[-1].scores) > float(steps[0].scores), name


def test_scores_and_parts_are_the_objective_at_the_images_yielded():
    question = (
        ask.activation("output:1") - 0.3 * ask.total_variation() + 0.1 * ask.others("output:1")
    )
    for step in ascend(
        NETWORK, question, param.pixels(start="uniform"), steps=5, owners=("a", "b")
    ):
        heard = NETWORK.read(step.images, *question.layers, watch=True)
        torch.testing.assert_close(step.scores, question(heard))
        torch.testing.assert_close(torch.stack(step.parts), torch.stack(question.parts(heard)))
        torch.testing.assert_close(torch.stack(step.parts).sum(0), step.scores)


def test_what_was_yielded_does_not_change_with_the_next_step():
    steps, copies = [], []
    for step in ascend(NETWORK, ask.activation("output:1"), param.pixels(), steps=4):
        steps.append(step)
        copies.append((step.images.clone(), step.scores.clone()))
        step.images.requires_grad_  # noqa: B018 - a plain tensor, gradients off
        assert not step.images.requires_grad
        assert not step.scores.requires_grad
    for step, (images, scores) in zip(steps, copies, strict=True):
        assert torch.equal(step.images, images)
        assert torch.equal(step.scores, scores)


def test_changing_what_was_yielded_does_not_change_the_ascent():
    question = ask.activation("output:1")
    expected = last(ascend(NETWORK, question, param.pixels(), steps=4))
    for step in ascend(NETWORK, question, param.pixels(), steps=4):
        if step.index < 4:
            step.images.zero_()
    assert torch.equal(step.images, expected.images)


def gradient(question, x: torch.Tensor) -> torch.Tensor:
    asked = x.clone().requires_grad_()
    logits = NETWORK.module.eval()(asked)
    (found,) = torch.autograd.grad(question(logits, asked).sum(), asked)
    return found


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_gradient_ascent_is_the_textbooks(schedule):
    question = ask.activation("output:2") - 0.05 * ask.alpha_norm(2)
    steps = list(
        ascend(
            NETWORK,
            question,
            param.pixels(start=0.3),
            steps=6,
            optimizer="SGD",
            lr=0.07,
            schedule=schedule,
        )
    )
    x = torch.full((1, 3, 10, 10), 0.3, dtype=torch.float64)
    for index, step in enumerate(steps):
        torch.testing.assert_close(step.images, x)
        done = index / 6
        rate = {"constant": 1, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[
            schedule
        ]
        g = gradient(lambda y, x: y[:, 2] - 0.05 * x.square().flatten(1).sum(1), x)
        x = (x + 0.07 * rate * g).clamp(0, 1)


def test_adam_is_kingma_and_bas():
    steps = list(
        ascend(
            NETWORK, ask.activation("output:2"), param.pixels(start=0.5, box=None), steps=5, lr=0.03
        )
    )
    x = torch.full((1, 3, 10, 10), 0.5, dtype=torch.float64)
    m = v = torch.zeros_like(x)
    for t, step in enumerate(steps, start=1):
        torch.testing.assert_close(step.images, x)
        g = gradient(lambda y, _: y[:, 2], x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x + 0.03 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def test_the_length_of_the_gradient_is_of_what_the_network_says():
    question = ask.activation("output:2") - 5 * ask.norm(1)
    for step in ascend(NETWORK, question, param.pixels(start=0.5), steps=2):
        if step.gradients is not None:
            back = backpropagate(NETWORK, step.images, ask.activation("output:2"))
            torch.testing.assert_close(step.gradients, back.flatten(1).norm(dim=1))


def test_a_relative_ascent_divides_by_the_size_of_the_smoothed_gradient():
    question = ask.activation("output:2") - 0.2 * ask.norm(1)
    start = torch.full((1, 3, 10, 10), 0.5, dtype=torch.float64)
    g = gradient(lambda y, _: y[:, 2], start)
    kernel = torch.full((3, 1, 3, 3), 1 / 9, dtype=torch.float64)
    size = F.conv2d(g, kernel, padding=1, groups=3).abs().sum() / (g != 0).sum()
    expected = start + 0.01 * (g / size - 0.2)
    made = param.pixels(start=0.5, box=None)
    found = last(ascend(NETWORK, question, made, steps=1, optimizer="SGD", lr=0.01, relative=True))
    torch.testing.assert_close(found.images, expected)


def test_in_a_relative_ascent_the_units_scale_makes_no_difference():
    paths = []
    for scale in (1.0, 1000.0, 1e-6):
        question = scale * ask.activation("output:2") - 0.1 * ask.total_variation()
        made = param.pixels(start=0.5)
        paths.append(
            last(ascend(NETWORK, question, made, steps=8, relative=True, optimizer="SGD")).images
        )
    torch.testing.assert_close(paths[1], paths[0])
    torch.testing.assert_close(paths[2], paths[0])


def test_a_unit_without_a_gradient_does_not_become_nan_by_division():
    found = last(
        ascend(tiny(), ask.activation("conv:2"), param.pixels(start=0.5), steps=3, relative=True)
    )
    assert torch.isfinite(found.images).all()
    assert found.images.unique().tolist() == [0.5]


OWNERS = tuple(f"hidden:{i}" for i in range(12))


def climb(rows: list[int], **options) -> list[Step]:
    wanted = [OWNERS[i] for i in rows]
    question = ask.activation(wanted) - 0.01 * ask.total_variation() - 0.1 * ask.others(wanted)
    return list(
        ascend(
            NETWORK,
            question,
            options.pop("param", None) or param.pixels(start="normal"),
            steps=6,
            transforms=[transform.jitter(2)],
            owners=wanted,
            seed=4,
            **options,
        )
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "SGD", "relative": True},
        {"optimizer": "NAdam", "schedule": "cosine"},
        {"optimizer": "RMSprop", "param": "sphere"},
        {"optimizer": "Adadelta", "param": "sigmoid"},
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [[3], [7, 3], list(range(12)), [3, 3, 3, 3, 3]], ids=str)
def test_an_image_is_the_same_alone_and_in_any_batch(rows, options):
    made = {"sphere": param.sphere(3.0), "sigmoid": param.pixels(start="uniform", box="sigmoid")}
    options = {**options, "param": made.get(options.get("param", ""))}
    alone, together = climb([3], **options), climb(rows, **options)
    row = rows.index(3)
    for one, many in zip(alone, together, strict=True):
        torch.testing.assert_close(many.images[row], one.images[0], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(many.scores[row], one.scores[0], rtol=1e-11, atol=1e-12)


def test_an_ascent_can_be_repeated_and_depends_on_its_seed():
    runs = [
        last(
            ascend(
                NETWORK,
                ask.activation("output:1"),
                param.pixels(start="uniform"),
                steps=3,
                seed=seed,
            )
        ).images
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_no_global_random_number_is_drawn():
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    last(ascend(NETWORK, ask.activation("output:1"), param.pixels(start="normal"), steps=2,
                transforms=[transform.jitter(2)]))  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002


def test_a_step_averages_over_as_many_draws_as_looks():
    """The score is linear in what is seen, so it is the mean of the scores of each draw."""
    seen = []

    def kept(images):
        seen.append(images.detach().clone())
        return images

    canvas = param.pixels(start=torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(1)))
    question = ask.activation("hidden:3")
    (start, _) = ascend(
        NETWORK, question, canvas, steps=1, looks=5, transforms=[transform.jitter(4), kept]
    )
    assert len(seen) == 2 * 5
    assert any(not torch.equal(seen[0], other) for other in seen[1:5])
    each = [float(question(NETWORK.read(view, "hidden"))) for view in seen[:5]]
    assert float(start.scores) == pytest.approx(sum(each) / 5)


def test_the_network_looks_through_the_transforms_and_regularisers_do_not():
    seen = []

    def darker(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images * 0.5

    question = ask.activation("output:1") - ask.norm(1)
    made = param.pixels(start=0.5, box=None)
    steps = list(
        ascend(NETWORK, question, made, steps=1, transforms=[darker], optimizer="SGD", lr=0.1)
    )
    assert len(seen) == 2
    half = steps[0].images * 0.5
    torch.testing.assert_close(steps[0].parts[0], NETWORK(half)[:, 1])
    assert float(steps[0].parts[1]) == pytest.approx(-150)
    g = 0.5 * gradient(lambda y, _: y[:, 1], half) - 1
    torch.testing.assert_close(steps[1].images, steps[0].images + 0.1 * g)


def test_jitter_moves_the_image_before_the_network_and_its_gradient_back():
    weights = torch.randn(1, 1, 4, 5, dtype=torch.float64)
    fc = nn.Linear(20, 1).double()
    fc.weight.data.copy_(weights.flatten()[None])
    network = Network(nn.Sequential(nn.Flatten(), fc), (1, 4, 5))
    made = param.pixels(start=0.5, box=None)
    steps = list(
        ascend(network, ask.activation("output:0"), made, steps=3, optimizer="SGD", lr=1.0,
               transforms=[transform.jitter(2)], owners=("me",), seed=9)
    )  # fmt: skip
    x = steps[0].images
    for step in range(3):
        down, right = Streams(9, ("me",)).integers("jitter", -2, 2, 2, step)[0].tolist()
        x = x + weights.roll((-down, -right), (2, 3))
        torch.testing.assert_close(steps[step + 1].images, x)


def test_an_objective_about_the_image_alone_asks_no_network():
    steps = list(ascend(tiny(), -1 * ask.alpha_norm(2), param.pixels(start=1.0), steps=20, lr=0.1))
    assert float(steps[-1].images.max()) < 0.1


def test_three_bright_pixels_are_found():
    found = last(ascend(tiny(), ask.activation("conv:0"), param.pixels(start=0.5), steps=40))
    expected = torch.full((1, 1, 4, 4), 0.5)
    for row, column in BRIGHT:
        expected[0, 0, row, column] = 1
    assert torch.equal(found.images, expected)
    assert found.scores.tolist() == [3]


def valley(x):
    """Rosenbrock's function, with its minimum at 1."""
    return (100 * (x[..., 1:] - x[..., :-1].square()).square() + (1 - x[..., :-1]).square()).sum(-1)


def down_the_valley(x, steps, **options):
    network = Network(nn.Flatten(), (1, 1, 6)).to("cpu")
    network.dtype = torch.float64
    question = ask.objective(lambda acts: -valley(acts.image.flatten(1)))
    made = param.pixels(start=x, box=None)
    owners = [str(n) for n in range(len(x))] if x.dim() == 4 else ["image"]
    return last(
        ascend(network, question, made, steps=steps, shape=(1, 1, 6), owners=owners, **options)
    )


def test_l_bfgs_takes_the_steps_of_torchs_where_there_is_one_image():
    x = torch.full((6,), 0.3, dtype=torch.float64, requires_grad=True)
    start = x.detach().clone().view(1, 1, 6)
    theirs = torch.optim.LBFGS(
        [x], lr=0.5, max_iter=25, history_size=10, tolerance_grad=0, tolerance_change=0
    )

    def closure():
        theirs.zero_grad()
        value = valley(x)
        value.backward()
        return value

    theirs.step(closure)
    ours = down_the_valley(start, 25, optimizer="L-BFGS", lr=0.5)
    assert torch.allclose(ours.images.flatten(), x.detach(), rtol=1e-8)


def test_l_bfgs_moves_each_image_as_it_moves_it_alone():
    starts = torch.linspace(0.1, 0.8, 18, dtype=torch.float64).view(3, 1, 1, 6)
    together = down_the_valley(starts, 12, optimizer="lbfgs", lr=0.5)
    for start, image in zip(starts, together.images, strict=True):
        alone = down_the_valley(start, 12, optimizer="L-BFGS", lr=0.5)
        assert torch.allclose(alone.images[0], image, rtol=1e-9)


def test_momentum_adds_up_and_begins_anew_where_the_factor_changes():
    question = ask.objective(lambda acts: 3 * acts.image.sum((1, 2, 3)))
    options = {"optimizer": "SGD", "lr": 0.01, "momentum": 0.5, "schedule": [1.0, 0.1]}
    made = param.pixels(start=0.5, box=None)
    images = [s.images.mean() for s in ascend(NETWORK, question, made, steps=4, **options)]
    changes = [float(after - before) for before, after in pairwise(images)]
    assert changes == pytest.approx([0.03, 0.045, 0.003, 0.0045], rel=1e-9)


def test_a_step_relative_to_the_mean_changes_the_mean_pixel_by_the_rate():
    made = param.pixels(start="uniform", box=None)
    options = {"optimizer": "SGD", "lr": 1.5 / 255, "relative": "mean"}
    before, after = ascend(NETWORK, ask.energy("hidden"), made, steps=1, **options)
    change = (after.images - before.images).abs().mean()
    assert float(change) == pytest.approx(1.5 / 255, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"optimizer": "Rprop"},
            "no optimiser called 'Rprop' that treats each pixel by itself; there is SGD",
        ),
        ({"momentum": 0.9, "optimizer": "Adam"}, "momentum=0.9: from 0 to below 1, and of SGD"),
        ({"schedule": []}, "at least one factor"),
        ({"schedule": [1.0, -0.5]}, "none below 0"),
        ({"tile": 0}, "tile=0 should be 'auto', None or pixels a side"),
        ({"optimizer": "Muon"}, "no optimiser called 'Muon'"),
        (
            {"schedule": "exponential"},
            "no schedule called 'exponential'; there is constant, linear, cosine",
        ),
        ({"steps": -1}, "neither may be negative"),
        ({"lr": -0.1}, "neither may be negative"),
        ({"lr": math.inf}, "neither may be negative"),
        ({"lr": math.nan}, "neither may be negative"),
    ],
)
def test_an_ascent_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(RequestError, match=sentence):
        next(ascend(NETWORK, ask.activation("output:1"), param.pixels(), **options))


def test_an_objective_without_a_gradient_is_refused():
    constant = ask.objective(lambda acts: acts.image.detach().flatten(1).sum(1), text="constant()")
    with pytest.raises(RequestError, match=r"constant\(\) does not depend on the image"):
        next(ascend(NETWORK, constant, param.pixels(), steps=2))


@pytest.mark.parametrize("name", ["sgd", "Adam", "ADAM", "rmsprop"])
def test_optimisers_are_known_in_any_spelling(name):
    assert (
        last(
            ascend(NETWORK, ask.activation("output:1"), param.pixels(), steps=1, optimizer=name)
        ).index
        == 1
    )


def test_a_learning_rate_of_0_moves_nothing():
    for name in _ELEMENTWISE:
        steps = list(
            ascend(
                NETWORK,
                ask.activation("output:1"),
                param.pixels(start=0.3),
                steps=3,
                lr=0.0,
                optimizer=name,
            )
        )
        torch.testing.assert_close(steps[-1].images, steps[0].images, msg=name)
