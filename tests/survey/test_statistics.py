"""Running numbers add up to those of NumPy on all data at once, in any cut."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optogram.survey import statistics
from optogram.survey.statistics import BINS, ERROR, Answers, Moments, bin_of, halves, value_of


def moments(values):
    wide = values.double()
    mean = wide.mean(0)
    spread = (wide - mean).square().sum(0)
    low, high = values.amin(0), values.amax(0)
    return Moments(len(values), mean, spread, low, high, (values > 0).sum(0))


def answers(values, numbers, labels, share=1.0, outputs=None):
    return Answers.of(values, numbers, labels, classes=3, pairs=True, share=share, outputs=outputs)


@pytest.fixture
def data():
    chance = torch.Generator().manual_seed(3)
    values = torch.randn(200, 5, generator=chance) * torch.tensor([1, 2, 0.1, 5, 1]) + 0.7
    values[:, 4] = values[:, 0] * 2 + 0.1 * values[:, 4]
    labels = torch.randint(-1, 3, (200,), generator=chance)
    return values, torch.arange(200), labels


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_moments_of_parts_add_up_to_those_of_the_whole(sizes, shift):
    values = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(1)) + shift
    held = Moments.empty(3)
    for part in values.split(sizes):
        held = held.merge(moments(part))
    wide = values.double().numpy()
    assert held.count == len(wide)
    np.testing.assert_allclose(held.mean, wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(held.variance, wide.var(0), rtol=1e-7, atol=1e-12)
    np.testing.assert_array_equal(held.minimum, wide.min(0))
    np.testing.assert_array_equal(held.maximum, wide.max(0))
    np.testing.assert_array_equal(held.active, (wide > 0).sum(0))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_answers_of_parts_add_up_in_any_cut(sizes):
    count = sum(sizes)
    chance = torch.Generator().manual_seed(5)
    values, labels = (
        torch.randn(count, 4, generator=chance),
        torch.randint(-1, 3, (count,), generator=chance),
    )
    numbers, outputs = torch.arange(count), torch.randn(count, 2, generator=chance)
    whole = answers(values, numbers, labels, outputs=outputs)
    parts = [
        answers(*four[:3], outputs=four[3])
        for four in zip(*(x.split(sizes) for x in (values, numbers, labels, outputs)), strict=True)
    ]
    left = parts[0]
    for part in parts[1:]:
        left = left.merge(part)
    right = parts[-1]
    for part in parts[-2::-1]:
        right = part.merge(right)
    for merged in (left, right):
        assert merged.images == whole.images
        assert merged.half_count == whole.half_count
        assert torch.equal(merged.bins, whole.bins)
        assert torch.equal(merged.class_count, whole.class_count)
        for field in ("class_sum", "rectified", "scatter", "half_mean", "half_spread", "across"):
            torch.testing.assert_close(
                getattr(merged, field), getattr(whole, field), rtol=1e-4, atol=1e-4
            )


def test_both_halves_together_give_numpys_correlation(data):
    values, numbers, labels = data
    held = answers(values, numbers, labels)
    count, products = held.spread()
    assert count == 200
    expected = np.cov(values.double().numpy().T, bias=True) * 200
    np.testing.assert_allclose(products, expected, rtol=1e-5, atol=1e-4)
    for half in (0, 1):
        part = values[halves(numbers) == half]
        count, products = held.spread(half)
        assert count == len(part)
        np.testing.assert_allclose(
            products, np.cov(part.double().numpy().T, bias=True) * count, rtol=1e-5, atol=1e-4
        )


def test_products_across_give_numpys_covariance_with_the_outputs(data):
    values, numbers, labels = data
    outputs = values[:, :2] - values[:, 2:4]
    held = answers(values, numbers, labels, outputs=outputs)
    both = np.cov(torch.cat([values, outputs], 1).double().numpy().T, bias=True)
    np.testing.assert_allclose(held.across / 200, both[:5, 5:], rtol=1e-5, atol=1e-6)


def test_class_sums_leave_out_images_of_no_class(data):
    values, numbers, labels = data
    held = answers(values, numbers, labels)
    for number in (0, 1, 2):
        expected = values[labels == number].double().sum(0)
        torch.testing.assert_close(held.class_sum[number], expected, rtol=1e-6, atol=1e-5)
    assert held.class_count.tolist() == [int((labels == c).sum()) for c in (0, 1, 2, -1)]
    torch.testing.assert_close(held.mean, values.double().mean(0), rtol=1e-6, atol=1e-6)
    expected = values.double().var(0, correction=0)
    torch.testing.assert_close(held.variance, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95, 1.0])
def test_a_quantile_is_within_two_percent_of_the_ordered_value(data, share):
    values, numbers, labels = data
    found = answers(values, numbers, labels).quantile(share)[0]
    expected = np.quantile(values.double().numpy(), share, axis=0, method="lower")
    np.testing.assert_allclose(found, expected, rtol=ERROR * 1.001)


@given(st.floats(1e-6, 1e6), st.sampled_from([-1, 1]))
def test_a_bin_stands_for_its_values_within_two_percent(size, sign):
    value = torch.tensor([[sign * size]])
    bin_ = bin_of(value)
    assert 0 <= int(bin_) < BINS
    assert float(value_of(bin_[0])) == pytest.approx(sign * size, rel=ERROR * 1.001, abs=1.1e-6)


def test_bins_rise_with_their_values():
    values = torch.tensor([[-1e9, -3.0, -1e-9, 0.0, 1e-9, 0.2, 3.0, 1e9]])
    bins = bin_of(values)[0].tolist()
    assert bins == sorted(bins)
    assert float(value_of(torch.tensor([bins[3]]))) == 0.0
    assert bins[0] == 0
    assert bins[-1] == BINS - 1


def test_sparseness_is_0_for_all_alike_and_1_for_one_image_alone():
    values = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 4.0], [1.0, -2.0]])
    held = answers(values, torch.arange(4), torch.full((4,), -1))
    expected = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(held.sparseness(), expected, rtol=0, atol=1e-6)


def test_sparseness_follows_the_formula():
    values = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.3
    held = answers(values, torch.arange(50), torch.full((50,), -1))
    rate = values.double().clamp(min=0).numpy()
    expected = (1 - rate.mean(0) ** 2 / (rate**2).mean(0)) / (1 - 1 / 50)
    np.testing.assert_allclose(held.sparseness(), expected, rtol=1e-5)


def test_halves_are_fair_and_do_not_depend_on_the_cut():
    numbers = torch.arange(10_000)
    half = halves(numbers)
    assert abs(int((half == 0).sum()) - 5000) < 50
    for period in (2, 3, 10):
        share = (half[::period] == 0).double().mean()
        assert abs(float(share) - 0.5) < 0.02
    assert torch.equal(halves(numbers[37:91]), half[37:91])


def test_a_sample_is_as_large_as_asked_and_its_halves_are_fair():
    half = halves(torch.arange(100_000), share=0.1)
    assert abs(int((half >= 0).sum()) - 10_000) < 100
    assert abs(int((half == 0).sum()) - 5_000) < 100


def test_statistics_hold_however_many_answers_are_looked_at_together(monkeypatch):
    chance = torch.Generator().manual_seed(4)
    values = torch.randn(700, 70, generator=chance) * 3 + 100
    values[:, 3] -= 200
    numbers, labels = torch.arange(700), torch.randint(-1, 3, (700,), generator=chance)
    outputs = values[:, :2] - 0.5 * values[:, 3:5]
    for chunk, split, block in ((1 << 16, 64, 256), (1000, 3, 32), (70, 64, 7)):
        for name, size in (("CHUNK", chunk), ("SPLIT", split), ("BLOCK", block)):
            monkeypatch.setattr(statistics, name, size)
        held = answers(values, numbers, labels, outputs=outputs)
        wide = values.double()
        assert torch.equal(held.bins.sum(1), torch.full((70,), 700))
        for unit in (0, 3, 69):
            assert torch.equal(
                held.bins[unit], torch.bincount(bin_of(values)[:, unit], minlength=BINS).int()
            )
        rate = wide.clamp(min=0)
        expected = torch.stack([rate.sum(0), rate.square().sum(0)])
        torch.testing.assert_close(held.rectified, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(held.variance, wide.var(0, correction=0), rtol=1e-5, atol=0)
        sums = torch.stack([wide[labels == number].sum(0) for number in (0, 1, 2, -1)])
        torch.testing.assert_close(held.class_sum, sums, rtol=1e-6, atol=1e-3)
        together = np.cov(torch.cat([wide, outputs.double()], 1).numpy().T, bias=True)
        np.testing.assert_allclose(held.across / 700, together[:70, 70:], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(held.spread()[1] / 700, together[:70, :70], rtol=1e-4, atol=1e-4)
