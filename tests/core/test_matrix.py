"""The convolution as a matrix: against torch, against loops, and what its transpose is not."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from optogram import RequestError, convolution_matrix


def test_three_by_three_over_four_by_four_is_the_four_by_sixteen_matrix_of_the_seed():
    w = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    expected = torch.zeros(4, 16)
    for answer, (top, left) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        for row in range(3):
            for column in range(3):
                expected[answer, (top + row) * 4 + left + column] = w[0, 0, row, column]
    assert torch.equal(convolution_matrix(w, (4, 4)), expected)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_it_is_conv2d_and_its_transpose_conv_transpose2d(
    kernel, stride, padding, dilation, groups, seed
):
    chance = torch.Generator().manual_seed(seed)
    asked = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    w = torch.randn(4, 4 // groups, *kernel, generator=chance, dtype=torch.float64)
    x = torch.randn(1, 4, 8, 9, generator=chance, dtype=torch.float64)
    c = convolution_matrix(w, (8, 9), **asked)
    answer = F.conv2d(x, w, **asked)
    torch.testing.assert_close(c @ x.flatten(), answer.flatten())
    y = torch.randn(answer.shape, generator=chance, dtype=torch.float64)
    rest = [
        (n + 2 * p - d * (k - 1) - 1) % s
        for n, p, d, k, s in zip((8, 9), padding, dilation, kernel, stride, strict=True)
    ]
    # torch wants less output padding than stride or dilation, which the remainder always is
    down = F.conv_transpose2d(y, w, output_padding=rest, **asked)
    torch.testing.assert_close(c.T @ y.flatten(), down.flatten())
    torch.testing.assert_close((c @ x.flatten()) @ y.flatten(), x.flatten() @ down.flatten())


def test_the_transpose_is_no_inverse():
    w = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = convolution_matrix(w, (4, 4))
    assert int(torch.linalg.matrix_rank(c.T @ c)) == 4
    assert not torch.allclose(c.T @ c, torch.eye(16, dtype=torch.float64))


def test_a_filter_that_does_not_fit_is_refused():
    with pytest.raises(RequestError, match="has no answer"):
        convolution_matrix(torch.ones(1, 1, 5, 5), (4, 4))
