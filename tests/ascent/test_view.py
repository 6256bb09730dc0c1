"""What an image is looked through: moves against scipy, one resampling for many, boxes inside."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given
from hypothesis import strategies as st

from optogram.ascent import transform, view
from optogram.ascent.transform import blurred, drawn
from optogram.core import Streams, parse
from optogram.pictures.errors import RequestError

A, B = Streams(0, ("a",)), Streams(0, ("a", "b", "c"))


def picture(height: int = 17, width: int = 22, channels: int = 2, count: int = 1) -> torch.Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, height, width, generator=chance, dtype=torch.float64)


def by_scipy(x: torch.Tensor, turn: np.ndarray, move: np.ndarray, fill: float) -> np.ndarray:
    """What each pixel looks at, linearly interpolated, with grey beyond the edges."""
    middle = (np.array(x.shape[-2:]) - 1) / 2
    offset = middle + move - turn @ middle
    return np.stack(
        [
            scipy.ndimage.affine_transform(
                c, turn, offset, order=1, mode="grid-constant", cval=fill
            )
            for c in x[0].numpy()
        ]
    )


@pytest.mark.parametrize("degrees", [-30.0, 0.0, 7.0, 90.0])
def test_a_turn_is_scipys_and_goes_anticlockwise(degrees):
    x = picture()
    seen = drawn([transform.edge(0.3), transform.rotate([degrees])], A, 0)(x)
    angle = math.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert np.allclose(seen[0], by_scipy(x, turn, np.zeros(2), 0.3), atol=1e-9)
    square = picture(15, 15)
    theirs = TF.rotate(square.float(), degrees, TF.InterpolationMode.BILINEAR, fill=[0.0])
    ours = drawn([transform.edge(0.0), transform.rotate([degrees])], A, 0)(square)
    assert torch.allclose(ours.float()[..., 4:11, 4:11], theirs[..., 4:11, 4:11], atol=1e-4)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.6])
def test_a_zoom_is_scipys(factor):
    x = picture()
    seen = drawn([transform.edge(0.0), transform.scale([factor])], A, 0)(x)
    assert np.allclose(seen[0], by_scipy(x, np.eye(2) / factor, np.zeros(2), 0.0), atol=1e-9)


def test_a_chain_of_moves_is_their_matrices_multiplied():
    x, step = picture(), 3
    chain = [transform.edge(0.5), transform.jitter(2), transform.scale([0.8, 1.2])]
    chain += [transform.rotate([-20, 20]), transform.jitter(3)]
    views = [t.view(s, step, (17, 22)) for t, s in transform._own_streams(chain, A)]
    turn, move = np.eye(2), np.zeros(2)
    for one in views:
        move = turn @ one.move[0].numpy() + move
        turn = turn @ one.turn[0].numpy()
    assert np.allclose(drawn(chain, A, step)(x)[0], by_scipy(x, turn, move, 0.5), atol=1e-9)
    assert not torch.equal(views[1].move, views[4].move)  # two jitters are two draws


def test_a_chain_of_moves_is_one_resampling(monkeypatch):
    calls = []
    sample = view.F.grid_sample
    monkeypatch.setattr(view.F, "grid_sample", lambda *a, **k: calls.append(1) or sample(*a, **k))
    chain = [transform.jitter(2), transform.scale([0.9, 1.1]), transform.rotate([-5, 5])]
    drawn([*chain, transform.blur(1.0), *chain], A, 0)(picture())
    assert len(calls) == 2


def test_a_jitter_beside_other_moves_shifts_down_and_right():
    x = picture()
    jitter = transform.jitter(4)
    down, right = jitter.shifts(A, 5)[0].tolist()
    seen = drawn([jitter, transform.edge(0.25)], A, 5)(x)
    assert (down, right) != (0, 0)
    padded = torch.nn.functional.pad(x, [4, 4, 4, 4], value=0.25)
    expected = padded[..., 4 - down : 21 - down, 4 - right : 26 - right]
    assert torch.allclose(seen, expected, atol=1e-12)


def test_padding_adds_a_frame_and_an_edge_adds_none():
    x = picture()
    both = drawn([transform.pad(3, 0.2), transform.scale([1.0])], A, 0)(x)
    assert torch.allclose(both, torch.nn.functional.pad(x, [3] * 4, value=0.2), atol=1e-12)
    assert torch.allclose(transform.edge(0.2).at(A, 0)(x), x, atol=1e-12)
    mirrored = transform.pad(2, "mirror").at(A, 0)(x)
    symmetric = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="symmetric")
    assert np.allclose(mirrored[0], symmetric, atol=1e-9)


@given(st.floats(0.06, 1), st.floats(0.06, 1), st.integers(0, 300), st.integers(0, 99))
def test_every_box_lies_inside_the_image_and_its_size_inside_its_bounds(size, to, step, seed):
    crop = transform.crop(size, to, steps=256)
    centres, sizes = crop.boxes(Streams(seed, ("a", "b")), step)
    assert (sizes >= 0.05).all()
    assert (sizes <= 1).all()
    assert (centres - sizes[:, None] / 2 >= -1e-12).all()
    assert (centres + sizes[:, None] / 2 <= 1 + 1e-12).all()


def test_boxes_are_as_large_as_they_should_be_on_average():
    """Horama draws sizes from [b1, 2 b1 - b0] where it means [b0, b1]."""
    many = Streams(0, tuple(map(str, range(2000))))
    crop = transform.crop(0.5, 0.05, steps=256, spread=0.01, least=0.01)
    for step, mean in [(0, 0.5), (255, 0.05), (400, 0.05)]:
        assert abs(float(crop.boxes(many, step)[1].mean()) - mean) < 0.002
    assert abs(float(crop.boxes(many, 255)[0].std()) - 0.15) < 0.01


def test_a_crop_shows_its_box_at_full_size():
    x = picture(20, 20)
    crop = transform.crop(0.5, spread=0.0, wander=0.0)
    centres, sizes = crop.boxes(A, 0)
    assert (centres.tolist(), sizes.tolist()) == ([[0.5, 0.5]], [0.5])
    ours = crop.at(A, 0)(x)
    theirs = torch.nn.functional.interpolate(x[..., 5:15, 5:15], (20, 20), mode="bilinear")
    assert torch.allclose(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1], atol=1e-9)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_a_blur_is_scipys(sigma):
    x = picture(25, 31)
    theirs = scipy.ndimage.gaussian_filter(
        x[0].numpy(), sigma, mode="mirror", radius=math.ceil(4 * sigma), axes=(1, 2)
    )
    assert np.allclose(blurred(x, sigma)[0], theirs, atol=1e-12)
    assert torch.equal(transform.blur(0.0)(x), x)


def test_noise_and_colour_are_as_strong_as_they_say():
    x = torch.full((3, 3, 64, 64), 0.5, dtype=torch.float64)
    noise = transform.noise(0.08, 0.04).at(B, 1)(x) - x
    assert abs(float(noise.std()) - math.hypot(0.08, 0.04 / math.sqrt(3))) < 2e-3
    cast = transform.colour(0.2, 0.1).at(B, 1)
    assert float((cast(x) - x).abs().max()) <= 0.1
    assert cast(x).flatten(2).std(2).max() == 0  # one cast a channel
    slope = (cast(x + 0.1) - cast(x)) / 0.1
    assert (slope - 1).abs().max() <= 0.2 + 1e-9
    assert slope.std() > 0.01


CHAINS = [
    "[edge(0.5), jitter(3), scale([0.9, 1.1]), rotate([-5, 0, 5], between=False)]",
    "[crop(0.6, 0.3, steps=10), noise(0.1), colour(), blur(0.7)]",
    '[pad(2, "mirror"), jitter(1)]',
]


@pytest.mark.parametrize("text", CHAINS)
def test_each_image_is_looked_at_by_its_own_stream(text):
    chain, x = parse(text), picture(count=3)
    for step in (0, 6):
        together = drawn(chain, B, step)(x)
        for row, owner in enumerate("abc"):
            alone = drawn(chain, Streams(0, (owner,)), step)(x[row : row + 1])
            assert torch.equal(together[row : row + 1], alone)
    assert not torch.equal(drawn(chain, B, 0)(x), drawn(chain, B, 6)(x))


@pytest.mark.parametrize("text", CHAINS)
def test_what_is_seen_has_the_gradient_of_what_is_seen(text):
    x = picture(5, 6, 1).requires_grad_()
    look = drawn(parse(text), A, 2)
    assert torch.autograd.gradcheck(look, x)


@pytest.mark.parametrize("text", CHAINS)
def test_transforms_print_as_they_are_written(text):
    for made, again in zip(parse(text), parse(text), strict=True):
        assert parse(made.text).text == made.text
        assert made == again


@pytest.mark.parametrize(
    "text", ["scale([0])", "rotate([])", "pad(-1)", "crop(1.2)", "crop(0.5, steps=0)", "blur(-1)"]
)
def test_what_cannot_be_is_refused(text):
    with pytest.raises(RequestError):
        parse(text)
