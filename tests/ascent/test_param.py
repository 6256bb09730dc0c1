"""What may be painted: the start, the constraint, and which gradients are followed."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optogram.ascent import ascend, param
from optogram.core import Network, Objective, Streams, parse
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from optogram.zoo.tiny import tiny

STREAMS = Streams(3, ("conv:0", "conv:1"))
LIKE = torch.empty((), dtype=torch.float64)


def begun(made: param.Parameterization, shape: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    made.begin(shape, STREAMS, LIKE)
    return made.canvas().detach()


def pull(weights: Tensor) -> Objective:
    """An objective of the shown image with a gradient that is known: its product with weights."""
    return ask.objective(lambda acts: (acts.layers["output"] * weights).flatten(1).sum(1), "output")


@pytest.fixture
def identity() -> Network:
    """A network that answers with the image it is shown."""
    same = nn.Conv2d(1, 1, 1, bias=False).double()
    nn.init.ones_(same.weight)
    return Network(same, (1, 2, 3))


def test_a_start_is_a_value_noise_or_an_image():
    assert begun(param.pixels()).unique().tolist() == [0.01]
    assert begun(param.pixels(start=1)).unique().tolist() == [1]
    uniform = STREAMS.uniform("start", 6).view(2, 1, 2, 3)
    assert torch.equal(begun(param.pixels(start="uniform")), uniform)
    normal = 0.5 + 0.2 * STREAMS.normal("start", 6).view(2, 1, 2, 3)
    assert torch.equal(begun(param.pixels(start="normal", scale=0.2)), normal)
    image = torch.rand(1, 2, 3)
    assert torch.equal(begun(param.pixels(start=image)), image.double().expand(2, 1, 2, 3))


def test_a_start_does_not_change_the_image_it_was_made_of():
    image = torch.full((1, 2, 3), 0.5, dtype=torch.float64)
    made = param.pixels(start=image)
    begun(made)
    made.pixels.data.add_(1)
    assert image.unique().tolist() == [0.5]


def test_another_shape_may_be_painted():
    assert begun(param.pixels(shape=(3, 5, 7))).shape == (2, 3, 5, 7)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: param.sphere(0), "the norm is positive"),
        (lambda: param.sphere(-1.0), "the norm is positive"),
        (lambda: param.sphere(float("nan")), "the norm is positive"),
        (
            lambda: begun(param.pixels(start=torch.rand(1, 3, 3))),
            r"the start is \(1, 3, 3\); it is an image \(1, 2, 3\), or 2 of them",
        ),
    ],
)
def test_a_parameterization_that_cannot_be_is_refused(make, sentence):
    with pytest.raises(RequestError, match=sentence):
        make()


@pytest.mark.parametrize("text", ['pixels(start="white")', 'pixels(box="circle")'])
def test_an_unknown_word_is_refused(text):
    with pytest.raises(RequestError, match=r"should be|cannot read"):
        begun(parse(text))


def test_a_projected_box_follows_gradients_that_point_inwards_and_no_others():
    made = param.pixels(start=torch.tensor([[[0.0, 0.0, 0.5], [1.0, 1.0, 0.5]]]))
    begun(made)
    gradient = torch.tensor([[[1.0, -1.0, -2.0], [1.0, -1.0, 2.0]]]).double().expand(2, 1, 2, 3)
    (followed,) = made.guard([gradient])
    assert followed[0].tolist() == [[[1, 0, -2], [0, -1, 2]]]
    made.pixels.data.add_(torch.tensor([[[-5.0, 0.1, 9.0], [0.0, -0.1, 0.0]]]))
    made.settle()
    torch.testing.assert_close(
        made.canvas().detach()[1, 0], torch.tensor([[0, 0.1, 1], [1, 0.9, 0.5]]).double()
    )


def test_a_pixel_at_the_edge_of_the_box_leaves_it_again_at_once(identity):
    """What the projected box is for: the clip of the paper holds a pixel at the edge for ever."""
    start = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]])
    inwards = torch.tensor([[[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]]).double()
    for box, moves in (("project", True), ("clip", False)):
        steps = list(
            ascend(
                identity,
                pull(inwards),
                param.pixels(start=start, box=box),
                steps=3,
                optimizer="SGD",
                lr=0.1,
            )
        )
        moved = (steps[-1].images - start).abs()
        assert bool((moved > 0.29).all()) == moves
        assert bool((moved == 0).all()) != moves


def test_images_stay_in_the_box_whatever_the_step(identity):
    weights = torch.randn(1, 2, 3, dtype=torch.float64)
    for box in ("project", "sigmoid", "clip"):
        for step in ascend(
            identity, pull(weights), param.pixels(start="uniform", box=box), steps=8, lr=3.0
        ):
            assert step.images.min() >= 0
            assert step.images.max() <= 1
    far = [
        s.images for s in ascend(identity, pull(weights), param.pixels(box=None), steps=8, lr=3.0)
    ]
    assert far[-1].abs().max() > 2


def test_the_papers_clip_has_derivative_0_at_exactly_0_and_1():
    numbers = [-0.5, 0.0, 1e-12, 0.5, 1 - 1e-12, 1.0, 1.5]
    values = torch.tensor(numbers, dtype=torch.float64).view(1, 1, 7)
    made = param.pixels(start=values, box="clip")
    begun(made, (1, 1, 7))
    shown = made()
    assert torch.equal(shown[0].detach(), values.clamp(0, 1))
    (gradient,) = torch.autograd.grad(shown.sum(), made.pixels)
    assert gradient[0].flatten().tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert torch.equal(made.canvas()[0].detach(), values)


def test_under_the_papers_clip_regularisers_act_on_the_raw_image(identity):
    """One step of the MNIST study, u + lr * (1[0<u<1] g - weight * sgn(u)), by hand."""
    start = torch.tensor([[[-0.5, 0.0, 0.3], [0.8, 1.0, 1.7]]])
    weights = torch.tensor([[[1.0, 2.0, 3.0], [-4.0, -5.0, -6.0]]]).double()
    question = pull(weights) - 0.5 * ask.norm(1)
    made = param.pixels(start=start, box="clip")
    steps = list(ascend(identity, question, made, steps=1, optimizer="SGD", lr=0.1))
    u = start.double().numpy()
    expected = u + 0.1 * (((u > 0) & (u < 1)) * weights.numpy() - 0.5 * np.sign(u))
    np.testing.assert_allclose(made.canvas().detach()[0].numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(steps[1].images[0].numpy(), expected.clip(0, 1), atol=1e-7)
    # The term's value is the raw image's norm, too.
    np.testing.assert_allclose(float(steps[0].parts[1]), -0.5 * np.abs(u).sum(), atol=1e-6)


def test_a_sigmoid_starts_where_it_is_told_and_passes_its_derivative(identity):
    made = param.pixels(start=0.3, box="sigmoid")
    torch.testing.assert_close(begun(made), torch.full((2, 1, 2, 3), 0.3, dtype=torch.float64))
    made = param.pixels(start=0.3, box="sigmoid")
    weights = torch.randn(1, 2, 3, dtype=torch.float64)
    list(ascend(identity, pull(weights), made, steps=1, optimizer="SGD", lr=0.1))
    before = np.log(0.3 / 0.7)
    expected = before + 0.1 * 0.3 * 0.7 * weights.numpy()
    np.testing.assert_allclose(made.pixels.detach()[0].numpy(), expected, rtol=1e-9)
    black = begun(param.pixels(start=0.0, box="sigmoid"))
    assert 0 < float(black.max()) < 0.002  # at 0 itself a sigmoid would never move


def test_under_a_sigmoid_regularisers_see_the_squashed_image(identity):
    made = param.pixels(start=0.3, box="sigmoid")
    step = next(
        ascend(identity, ask.alpha_norm(2) - pull(torch.ones(1, 2, 3).double()), made, steps=1)
    )
    assert float(step.parts[0]) == pytest.approx(6 * 0.09)


@pytest.mark.parametrize("rho", [0.5, 9.2])
def test_a_sphere_keeps_the_norm(identity, rho):
    weights = torch.randn(1, 2, 3, dtype=torch.float64)
    owners = ("a", "b", "c")
    made = param.sphere(rho)
    for step in ascend(
        identity, pull(weights), made, steps=30, optimizer="SGD", lr=0.5 * rho, owners=owners
    ):
        lengths = step.images.flatten(1).norm(dim=1)
        assert (lengths - rho).abs().max() <= 1e-5 * rho
    cosines = torch.cosine_similarity(step.images.flatten(1), weights.flatten()[None])
    assert cosines.min() > 0.999


def test_a_sphere_starts_from_noise_in_the_unit_interval():
    made = begun(param.sphere(2.0))
    noise = STREAMS.uniform("start", 6).view(2, 1, 2, 3)
    torch.testing.assert_close(made, 2 * noise / noise.flatten(1).norm(dim=1)[:, None, None, None])


def test_what_is_shown_of_a_sphere_is_grey_at_0_and_in_range():
    made = param.sphere(1.0)
    shown = made.display(torch.tensor([[[[-2.0, 0.0, 1.0]]]]))
    assert shown.flatten().tolist() == [0, 0.5, 0.75]
    assert torch.isfinite(made.display(torch.zeros(1, 1, 2, 2))).all()
    assert not made.in_range
    assert param.pixels().in_range
    assert not param.pixels(box=None).in_range
    assert param.pixels(box=None).display(
        torch.tensor([[[[-2.0, 0.5, 3.0]]]])
    ).flatten().tolist() == [0, 0.5, 1]


def test_a_parameterization_prints_as_the_call_that_makes_it():
    assert param.pixels(start="uniform", box="clip").text == 'pixels(start="uniform", box="clip")'
    again = parse(param.sphere(9.2, start=0.5).text)
    assert (again.rho, again.start) == (9.2, 0.5)


def test_another_ascent_starts_afresh(identity):
    made = param.pixels(start="uniform")
    question = pull(torch.randn(1, 2, 3, dtype=torch.float64))
    one, other = ([s.images for s in ascend(identity, question, made, steps=3)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_dtype_is_the_networks():
    step = next(ascend(tiny(), ask.activation("conv:0"), param.pixels(start="uniform"), steps=1))
    assert step.images.dtype == torch.float32


def test_each_owner_may_have_a_start_of_its_own():
    images = torch.rand(2, 1, 2, 3)
    assert torch.equal(begun(param.pixels(start=images)), images.double())
    with pytest.raises(RequestError, match="or 2 of them"):
        begun(param.pixels(start=torch.rand(3, 1, 2, 3)))
