"""A batch is read right however it lies in memory: maps, tokens, neurons, chunks of any size."""

import pytest
import torch

from optogram.survey import reduce
from optogram.survey.reduce import heard


def check(said, answer, axis):
    lines = (
        answer.movedim(axis, 1).flatten(2).double()
        if answer.dim() > 2
        else answer.double()[..., None]
    )
    assert torch.equal(said.strongest, lines.amax(2).float())
    assert torch.equal(said.lines.double(), lines)
    held = said.moments
    flat = lines.transpose(0, 1).flatten(1)
    assert held.count == flat.shape[1]
    torch.testing.assert_close(held.mean, flat.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(held.variance, flat.var(1, correction=0), rtol=1e-5, atol=1e-7)
    assert torch.equal(held.minimum, flat.amin(1).float())
    assert torch.equal(held.maximum, flat.amax(1).float())
    assert torch.equal(held.active, (flat > 0).sum(1))


@pytest.mark.parametrize("chunk", [1 << 17, 100, 7])
@pytest.mark.parametrize("shape", [(3, 5, 6, 4), (1, 1, 9, 1), (2, 8, 1, 1)])
@pytest.mark.parametrize("last", [False, True])
def test_maps_are_read_in_either_layout_and_any_chunk(shape, last, chunk, monkeypatch):
    monkeypatch.setattr(reduce, "CHUNK", chunk)
    answer = torch.randn(shape) - 0.2
    if last:
        answer = answer.contiguous(memory_format=torch.channels_last)
    check(heard(answer, 1), answer, 1)


def test_tokens_have_their_units_last():
    answer = torch.randn(4, 7, 5)
    check(heard(answer, 2), answer, 2)


def test_neurons_have_one_place():
    answer = torch.randn(4, 5)
    check(heard(answer, 1), answer, 1)
    assert heard(answer, 1).find(torch.tensor([2, 0]), torch.tensor([1, 4])).tolist() == [0, 0]


def test_a_single_number_an_image_is_one_unit():
    said = heard(torch.tensor([1.0, 3.0]), 0)
    assert said.strongest.tolist() == [[1.0], [3.0]]


def test_a_spread_about_a_large_mean_is_not_lost():
    answer = torch.randn(2, 3, 40, 40) - 1000
    variance = heard(answer, 1).moments.variance
    torch.testing.assert_close(
        variance, answer.double().var((0, 2, 3), correction=0), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("last", [False, True])
def test_the_first_of_equal_places_is_found(last):
    answer = torch.zeros(2, 3, 4, 5)
    answer[1, 2, 1, 3] = answer[1, 2, 3, 0] = 2.0
    if last:
        answer = answer.contiguous(memory_format=torch.channels_last)
    said = heard(answer, 1)
    rows, units = torch.tensor([1, 0, 1]), torch.tensor([2, 1, 0])
    assert said.find(rows, units).tolist() == [8, 0, 0]
    assert torch.equal(said.look(rows, units), answer.flatten(2)[rows, units])


@pytest.mark.parametrize("with_moments", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 20, 17), (3, 5, 6, 4)])
def test_a_reader_says_how_far_he_reads_before_he_does(shape, with_moments, monkeypatch):
    monkeypatch.setattr(reduce, "CHUNK", 300)
    answer = torch.full(shape, torch.nan).contiguous(memory_format=torch.channels_last)
    real = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    lines, filled = answer.permute(0, 2, 3, 1).flatten(0, 2), [0]

    def reach(place):  # what is not announced is still no number
        lines[filled[0] : place] = real.permute(0, 2, 3, 1).flatten(0, 2)[filled[0] : place]
        filled.append(place)
        filled.pop(0)

    said = heard(answer, 1, with_moments=with_moments, reach=reach)
    assert filled == [len(lines)]
    assert torch.equal(said.strongest, real.flatten(2).amax(2))
    if with_moments:
        assert torch.equal(said.moments.minimum, real.transpose(0, 1).flatten(1).amin(1))
