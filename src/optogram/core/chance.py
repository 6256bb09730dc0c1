"""Random numbers that depend on what is drawn for, and on nothing else.

A number comes from (seed, unit, purpose, step): not from a global generator, nor from the batch a
unit happens to share, nor from how often something was drawn before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Uint64 = np.ndarray


@dataclass(frozen=True)
class Streams:
    """One stream of random numbers for each of several owners, usually units.

    Each draw is a pure function of (seed, owner, purpose, step), so any sub-set of owners in any
    order draws the same numbers. The generator is SplitMix64 over a counter (Steele et al., 2014).
    """

    seed: int
    owners: tuple[str, ...]

    def uniform(self, purpose: str, count: int, step: int = 0) -> Float[Tensor, "owner count"]:
        """Numbers in [0, 1), float64, `count` for each owner."""
        counters = np.arange(count, dtype=np.uint64)[None, :]
        bits = _mix(self._keys(purpose, step)[:, None] + (counters + np.uint64(1)) * _GOLDEN)
        return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def normal(self, purpose: str, count: int, step: int = 0) -> Float[Tensor, "owner count"]:
        """Standard normal numbers, float64, by the Box-Muller transform of `uniform`."""
        half = (count + 1) // 2
        radius, angle = self.uniform(purpose, 2 * half, step).chunk(2, dim=1)
        radius = (-2 * torch.log1p(-radius)).sqrt()
        angle = 2 * torch.pi * angle
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]

    def integers(self, purpose: str, low: int, high: int, count: int, step: int = 0) -> Tensor:
        """Whole numbers from `low` to `high`, both included, (owner, count)."""
        return (self.uniform(purpose, count, step) * (high - low + 1)).floor().long() + low

    def _keys(self, purpose: str, step: int) -> Uint64:
        salt = _hash(f"{self.seed}/{purpose}")
        owners = np.array([_hash(owner) for owner in self.owners], dtype=np.uint64)
        # An array wraps around in silence, where a scalar warns.
        return _mix(_mix(owners ^ np.uint64(salt)) + np.array([step], dtype=np.uint64) * _GOLDEN)


def generator(*parts: object) -> torch.Generator:
    """A torch generator on the CPU whose state follows from the parts alone."""
    return torch.Generator().manual_seed(_hash("/".join(map(str, parts))) >> 1)


def pick(streams: Streams, which: Sequence[int]) -> Streams:
    """The streams of some owners."""
    return Streams(streams.seed, tuple(streams.owners[i] for i in which))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: Uint64) -> Uint64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
