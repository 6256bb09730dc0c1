"""What may be painted: Fourier against torch.fft, phases that keep their magnitudes, statistics."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from optogram.ascent import ascend, param
from optogram.ascent.spectral import Fourier, Phases
from optogram.ascent.statistics import IMAGENET, frequencies, measured, root, suited
from optogram.core import Network, Streams, parse
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from tests.core.nets import named

LIKE = torch.empty((), dtype=torch.float64)
NEARLY = ["phases()", "cppn(layers=3, width=5)"]  # the same in any company but for rounding
SIZES = [(3, 8, 10), (1, 7, 9), (2, 6, 5), (3, 5, 6)]
TEXTS = ["fourier()", "phases()", "pyramid()", "cppn(layers=3, width=5)"]


def photographs(count: int = 12, channels: int = 3, size: int = 16) -> torch.Tensor:
    """Images with a 1/f spectrum and channels that go together."""
    chance = torch.Generator().manual_seed(0)
    noise = torch.randn(count, channels, size, size, generator=chance, dtype=torch.float64)
    smooth = torch.fft.rfft2(noise) / frequencies(size, size).clamp(min=1 / size)
    images = torch.fft.irfft2(smooth, s=(size, size))
    images = images / images.std() * 0.1
    return (images + images.mean(1, keepdim=True) + 0.5).clamp(0, 1)


def begun(made: param.Parameterization, shape, owners=("a", "b")):
    made.begin(shape, Streams(3, tuple(owners)), LIKE)
    return made


@pytest.mark.parametrize("size", SIZES)
def test_fourier_is_numpys_transform_back_with_its_weights(size):
    made = begun(param.fourier(deviation=1.0), size)
    assert isinstance(made, Fourier)
    channels, height, width = size
    z = made.coefficients.detach().numpy()
    for i in range(2):
        for c in range(channels):
            weights = np.empty((height, width // 2 + 1))
            for u, v in itertools.product(range(height), range(width // 2 + 1)):
                f = math.hypot(min(u, height - u) / height, v / width)
                weights[u, v] = 1 / max(f, 1 / max(height, width)) / 4
            back = np.fft.irfft2((z[i, c] @ [1, 1j]) * weights, s=(height, width), norm="ortho")
            assert np.allclose(back, made.paint().detach()[i, c], atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", ["fourier", "pyramid"])
def test_an_image_painted_and_looked_at_is_that_image(size, text):
    image = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image = 0.01 + 0.98 * image
    made = begun(getattr(param, text)(start=image), size)
    assert torch.allclose(made(), image.expand(2, *size), atol=1e-5)


def test_the_start_is_almost_grey_and_of_each_owner_its_own():
    for text in TEXTS:
        canvas = begun(parse(text), (3, 12, 12))().detach()
        assert canvas.min() >= 0
        assert canvas.max() <= 1
        if text != "cppn(layers=3, width=5)":  # it starts at grey itself
            assert not torch.equal(canvas[0], canvas[1])
        if text != "phases()":  # whose contrast is the data's from the start
            assert (canvas - 0.5).abs().max() < 0.06


def test_colours_mixed_and_taken_apart_are_the_same():
    for statistics in (IMAGENET, measured(photographs()), suited("apart", 2)):
        undo = torch.linalg.inv(statistics.mixing)
        eye = torch.eye(statistics.channels, dtype=torch.float64)
        assert torch.allclose(statistics.mixing @ undo, eye, atol=1e-10)
        assert math.isclose(float(statistics.mixing.norm(dim=0).max()), 1.0)


def test_a_root_has_the_covariance_and_its_widest_axis_first():
    chance = torch.Generator().manual_seed(2)
    half = torch.randn(4, 4, generator=chance, dtype=torch.float64)
    matrix = root(half @ half.T)
    assert torch.allclose(matrix @ matrix.T, half @ half.T)
    lengths = matrix.norm(dim=0)
    assert (lengths[:-1] >= lengths[1:]).all()
    assert (matrix.T @ matrix - torch.diag(lengths.square())).abs().max() < 1e-9
    assert all(column[column.abs().argmax()] > 0 for column in matrix.T)


def test_measured_colours_are_numpys_covariance():
    images = photographs()
    matrix = torch.tensor(measured(images).colours, dtype=torch.float64)
    theirs = np.cov(images.transpose(0, 1).flatten(1).numpy(), bias=True)
    assert np.allclose(matrix @ matrix.T, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_measured_profiles_fall_as_the_data_do(channels):
    statistics = measured(photographs(30, channels, 32))
    rows = torch.tensor(statistics.profile, dtype=torch.float64)
    slope = np.polyfit(rows[1:-2, 0].log(), rows[1:-2, 1].log(), 1)[0]
    assert abs(slope + 1) < 0.15
    assert parse(statistics.text) == statistics


def test_grey_images_of_one_value_can_be_measured():
    statistics = measured([torch.full((2, 8, 8), 0.3)] * 3)
    assert torch.isfinite(statistics.mixing).all()


def test_images_that_cannot_be_measured_are_refused():
    with pytest.raises(RequestError, match="no images"):
        measured([])
    with pytest.raises(RequestError, match="differ in size"):
        measured([torch.zeros(1, 4, 4), torch.zeros(1, 5, 4)])


@pytest.mark.data
def test_photographs_of_imagenet_reproduce_the_published_colours(data_root):
    from optogram.pictures import image
    from optogram.survey.datasets import fit as fitted

    files = sorted((data_root / "imagenet_samples").glob("*.jpg"))[::4]
    photos = [fitted(image(str(f), channels=3), (3, 32, 32)) for f in files]
    ours = torch.tensor(measured(photos).colours, dtype=torch.float64)
    theirs = torch.tensor(IMAGENET.colours, dtype=torch.float64)
    assert (torch.cosine_similarity(ours, theirs, dim=0).abs() > 0.98).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("statistics", ["auto", "apart", "measured"])
def test_phases_keep_the_magnitudes_of_the_data_at_every_step(size, statistics):
    channels, height, width = size
    if statistics == "measured":
        statistics = measured(photographs(8, channels))
    made = param.phases(statistics=statistics)
    assert isinstance(made, Phases)
    network = Network(named(conv=torch.nn.Conv2d(channels, 2, 3)).double(), size)
    wanted = suited(statistics, channels).spectrum(height, width)
    moved = []
    steps = ascend(network, ask.activation("conv:0"), made, optimizer="NAdam", lr=1.0, steps=5)
    for _ in steps:
        found = torch.fft.rfft2(made.paint().detach(), norm="ortho").abs()[0]
        ratio = (found / wanted).flatten()[1:]
        ratio = ratio[torch.isfinite(ratio)]
        assert ((ratio / ratio.median() - 1).abs() < 1e-4).all()
        assert found[:, 0, 0].abs().max() < 1e-9
        moved.append(made.phases.detach().clone())
    assert not torch.allclose(moved[0], moved[-1])
    assert [name for name, _ in made.named_parameters()] == ["phases"]


def test_phases_of_an_image_are_those_it_has():
    image = photographs(1)[0].clamp(0.05, 0.95)
    made = begun(param.phases(start=image), (3, 16, 16))
    paint = torch.linalg.solve(IMAGENET.mixing, image.logit().flatten(1)).view(image.shape)
    ours, theirs = torch.fft.rfft2(made.paint()[0].detach()), torch.fft.rfft2(paint)
    turn = (ours[:, 1:, 1:-1] / theirs[:, 1:, 1:-1]).angle()
    assert turn.abs().max() < 1e-6


def test_a_pyramid_is_the_sum_of_its_enlarged_levels():
    made = begun(param.pyramid(levels=3, deviation=1.0, statistics="apart"), (2, 9, 8))
    layers = [layer.detach() for layer in made.layers]
    assert [tuple(layer.shape[1:]) for layer in layers] == [(2, 9, 8), (2, 4, 4), (2, 2, 2)]
    whole = sum(F.interpolate(x, (9, 8), mode="bilinear") for x in layers)
    assert torch.allclose(made().detach(), whole.sigmoid(), atol=1e-9)


def test_a_formula_paints_every_owner_by_its_own_network():
    made = begun(parse("cppn(layers=2, width=4)"), (3, 6, 7))
    with torch.no_grad():
        made.last.normal_()
    x = made.places
    for i in range(2):
        y = x
        for weight, bias in zip(made.weights, made.biases, strict=True):
            a = torch.atan(weight[i] @ y + bias[i])
            y = torch.cat([a / 0.67, a**2 / 0.6])
        assert torch.allclose(made.paint()[i], (made.last[i] @ y).view(3, 6, 7))
    assert abs(float(x.std(1, correction=0)[0]) - 1) < 0.3


@pytest.mark.parametrize("text", TEXTS)
def test_a_picture_does_not_depend_on_its_company(text):
    module = named(
        conv=torch.nn.Conv2d(3, 8, 3), relu=torch.nn.ReLU(), last=torch.nn.Conv2d(8, 4, 3)
    )
    network = Network(module.double(), (3, 32, 32))
    chain = parse("[edge(0.5), jitter(2), scale([0.9, 1.1]), rotate([-5, 5]), noise(0.01)]")

    def made(units):
        *_, step = ascend(
            network, ask.activation([f"last:{u}" for u in units]), parse(text), steps=4,
            optimizer="Adam", transforms=chain, owners=[str(u) for u in units],
        )  # fmt: skip
        return dict(zip(units, step.images, strict=True))

    together = made([0, 1, 2, 3])
    for units in ([2], [3, 1], [1, 2, 0]):
        for unit, image in made(units).items():
            near = torch.allclose(image, together[unit], atol=1e-9)
            assert near if text in NEARLY else torch.equal(image, together[unit])


def test_frequencies_reach_an_activation_in_fewer_steps_than_pixels():
    from tests.core.nets import seeded

    smooth = torch.ones(1, 1, 7, 7) / 49
    module = seeded(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 7), torch.nn.ReLU()))
    module[0].weight.data, module[0].bias.data = smooth, torch.zeros(1)
    network = Network(module, (1, 32, 32))

    def reached(made, start):
        for step in ascend(network, ask.activation("0:0@13,13"), made, steps=60, optimizer="Adam"):
            if float(step.scores) > 0.8:
                return step.index
        return 61

    assert reached(param.fourier(), None) < reached(param.pixels(start=0.5, box="sigmoid"), None)


@pytest.mark.parametrize("text", ["fourier([3, 8, 8], decay=0.5)", "phases(statistics=\"apart\")",
                                  "pyramid(levels=2)", "cppn()"])  # fmt: skip
def test_parameterizations_print_as_the_calls_that_make_them(text):
    assert parse(parse(text).text).text == parse(text).text


@pytest.mark.parametrize(
    "text",
    ["fourier([3, 1])", "pyramid(levels=0)", "cppn(width=0)", "statistics([[1, 2]])",
     "statistics([[1, 1], [1, 1]])", "statistics([[1]], [[0.1, 1]])"],
)  # fmt: skip
def test_what_cannot_be_painted_is_refused(text):
    with pytest.raises(RequestError):
        parse(text)


def test_statistics_of_other_channels_are_refused():
    with pytest.raises(RequestError, match="3 channel"):
        begun(param.fourier(statistics=IMAGENET), (1, 8, 8))
    with pytest.raises(RequestError, match="'auto', 'apart'"):
        begun(param.fourier(statistics="best"), (1, 8, 8))
    made = param.cppn()
    made.start = torch.zeros(1, 8, 8)
    with pytest.raises(RequestError, match="cannot start from an image"):
        begun(made, (1, 8, 8))
