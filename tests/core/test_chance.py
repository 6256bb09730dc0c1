"""Random numbers that depend on what is drawn for, and on nothing else."""

import hashlib
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optogram.core import Streams
from optogram.core.chance import generator, pick

MASK = 2**64 - 1


def splitmix(seed: int, owner: str, purpose: str, step: int, number: int) -> float:
    """The definition with Python's own integers: SplitMix64 over a counter, 53 bits of it."""

    def hashed(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix((mix(hashed(owner) ^ hashed(f"{seed}/{purpose}")) + step * golden) & MASK)
    return (mix((key + (number + 1) * golden) & MASK) >> 11) * 2.0**-53


@given(st.integers(-3, 2**40), st.text(max_size=5), st.text(max_size=5), st.integers(0, 10**6))
def test_a_number_is_the_one_the_definition_gives(seed, owner, purpose, step):
    drawn = Streams(seed, (owner,)).uniform(purpose, 3, step)
    assert drawn.tolist() == [[splitmix(seed, owner, purpose, step, n) for n in range(3)]]


@given(st.permutations(["fc:1", "fc:2", "conv:7", "output:3"]), st.integers(1, 4))
def test_a_stream_does_not_know_its_company(owners, count):
    alone = {o: Streams(3, (o,)).uniform("jitter", 5, step=9)[0] for o in owners}
    together = Streams(3, tuple(owners[:count])).uniform("jitter", 5, step=9)
    assert all(torch.equal(row, alone[o]) for o, row in zip(owners, together, strict=False))
    normal = Streams(3, tuple(owners)).normal("start", 5)
    for owner, row in zip(owners, normal, strict=True):
        assert torch.equal(row, Streams(3, (owner,)).normal("start", 5)[0])


def test_some_owners_can_be_picked():
    streams = Streams(0, ("a", "b", "c"))
    assert torch.equal(pick(streams, [2, 0]).uniform("x", 4), streams.uniform("x", 4)[[2, 0]])


def test_what_was_drawn_before_makes_no_difference():
    streams = Streams(0, ("a", "b"))
    fresh = streams.normal("start", 6, step=4)
    for step in range(3):
        streams.uniform("jitter", 5, step)
    assert torch.equal(streams.normal("start", 6, step=4), fresh)


@pytest.mark.parametrize(
    "other",
    [
        Streams(1, ("a",)).uniform("start", 8, 2),
        Streams(0, ("b",)).uniform("start", 8, 2),
        Streams(0, ("a",)).uniform("jitter", 8, 2),
        Streams(0, ("a",)).uniform("start", 8, 3),
    ],
    ids=["seed", "owner", "purpose", "step"],
)
def test_each_part_of_the_key_counts(other):
    assert not (Streams(0, ("a",)).uniform("start", 8, 2) == other).any()


def test_numbers_look_uniform():
    drawn = Streams(0, tuple(map(str, range(100)))).uniform("x", 1000, step=7)
    assert drawn.dtype == torch.float64
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn.flatten(), 50, 0, 1)
    chi_square = float(((counts - 2000).square() / 2000).sum())
    assert 20 < chi_square < 95  # 49 degrees of freedom: within about 1e-4 on either side
    assert (
        abs(float(torch.corrcoef(torch.stack([drawn[:, :-1], drawn[:, 1:]]).flatten(1))[0, 1]))
        < 0.01
    )
    assert abs(float(torch.corrcoef(torch.stack([drawn[:-1], drawn[1:]]).flatten(1))[0, 1])) < 0.01


def test_numbers_look_uniform_from_step_to_step():
    streams = Streams(0, ("unit",))
    drawn = torch.cat([streams.uniform("x", 1, step) for step in range(20000)]).flatten()
    assert abs(float(drawn.mean()) - 0.5) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([drawn[:-1], drawn[1:]]))[0, 1])) < 0.03


@pytest.mark.parametrize("count", [1, 7, 100_000])
def test_normal_numbers_look_normal(count):
    drawn = Streams(0, tuple(map(str, range(1 + 100_000 // count)))).normal("x", count)
    assert drawn.shape[1] == count
    drawn = drawn.flatten()
    assert abs(float(drawn.mean())) < 0.02
    assert abs(float(drawn.std()) - 1) < 0.02
    for below, share in ((-2.0, 0.02275), (-1.0, 0.15866), (0.0, 0.5), (1.5, 0.93319)):
        assert abs(float((drawn < below).double().mean()) - share) < 0.008
    assert torch.isfinite(drawn).all()


def test_whole_numbers_cover_both_ends_evenly():
    drawn = Streams(0, tuple(map(str, range(2000)))).integers("jitter", -2, 3, 4)
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2, 3]
    assert (counts - 8000 / 6).abs().max() < 150


def test_no_global_generator_is_touched():
    numbers, state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    Streams(0, ("a",)).normal("x", 5)
    Streams(0, ("a",)).integers("x", 0, 9, 5)
    torch.rand(3, generator=generator("a", 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002


def test_a_generator_follows_from_its_parts():
    assert torch.equal(
        torch.rand(5, generator=generator("a", 1)), torch.rand(5, generator=generator("a", 1))
    )
    assert not torch.equal(
        torch.rand(5, generator=generator("a", 1)), torch.rand(5, generator=generator("a", 2))
    )


def test_large_steps_and_seeds_overflow_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Streams(2**70, ("a",)).uniform("x", 2, step=2**50)
