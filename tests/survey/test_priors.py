"""Priors are those of the formulas, for one channel, three or five."""

import numpy as np
import pytest
import torch

import optogram as og
from optogram.pictures import RequestError
from optogram.survey import from_arrays, priors


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_priors_are_numpys_however_the_images_are_batched(channels):
    shown = torch.rand(23, channels, 6, 8, generator=torch.Generator().manual_seed(channels))
    held = priors(from_arrays(shown), batch=7)
    wide = shown.double().numpy()
    pixels = wide.transpose(1, 0, 2, 3).reshape(channels, -1)
    norms = np.sqrt((wide.reshape(23, -1) ** 2).sum(1))
    spectrum = np.abs(np.fft.rfft2(wide, norm="ortho")).mean(0)
    assert held.images == 23
    assert held.mean_norm == pytest.approx(norms.mean())
    np.testing.assert_allclose(held.mean_image, wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(held.mean_colour, pixels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(
        held.covariance.numpy(), np.cov(pixels, bias=True).reshape(channels, channels), atol=1e-7
    )
    np.testing.assert_allclose(held.spectrum, spectrum, rtol=1e-5)


def test_a_colour_matrix_times_its_transpose_is_the_covariance():
    chance = torch.Generator().manual_seed(0)
    mixed = torch.einsum(
        "ij,bjhw->bihw", torch.tensor([[0.5, 0.1, 0.1], [0.4, 0.2, 0.0], [0.4, 0.0, 0.2]]),
        torch.rand(9, 3, 5, 5, generator=chance),
    )  # fmt: skip
    held = priors(from_arrays(mixed))
    matrix = held.colour_matrix
    torch.testing.assert_close(matrix @ matrix.T, held.covariance, rtol=1e-4, atol=1e-6)
    lengths = matrix.norm(dim=0)
    assert lengths.tolist() == sorted(lengths.tolist(), reverse=True)


def test_grey_images_in_colour_still_have_a_colour_matrix():
    grey = torch.rand(6, 1, 4, 4).repeat(1, 3, 1, 1)
    assert bool(torch.isfinite(priors(from_arrays(grey)).colour_matrix).all())


def test_images_are_fitted_to_a_shape():
    held = priors(from_arrays(torch.rand(3, 1, 8, 8)), shape=(1, 4, 4))
    assert held.mean_image.shape == (1, 4, 4)


def test_a_set_without_a_readable_image_is_refused():
    data = from_arrays(torch.rand(2, 1, 4, 4))

    def read(numbers):
        raise RequestError("broken")

    object.__setattr__(data, "read", read)
    with pytest.raises(RequestError, match="no image that can be read"):
        priors(data)


@pytest.mark.data
def test_the_mean_norm_of_mnist_is_that_of_the_literature(data_root):
    held = priors(og.data("mnist", split="test", root=data_root), batch=1000)
    assert held.mean_norm == pytest.approx(9.2, abs=0.2)
    assert held.covariance.shape == (1, 1)
