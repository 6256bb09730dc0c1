"""A restricted Boltzmann machine: two layers of coin-like units that each say how the other falls.

It is what a belief network is stacked from. Techniques that draw from one ask its module for
`boltzmanns()`; how they are trained is the zoo's affair.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

Visible = Float[Tensor, "batch visible"]
Hidden = Float[Tensor, "batch hidden"]


@dataclass(frozen=True, eq=False)
class Boltzmann:
    """The energy of two layers, E(v, h) = -h.W.v - visible.v - hidden.h (Smolensky, 1986).

    Hidden units are 0 or 1. So are visible ones, or, where `gaussian`, real with variance 1 around
    their mean: -visible.v is then |v - visible|^2 / 2 (Freund & Haussler, 1991). The two biases are
    called by the layer they belong to. Random numbers come from a generator on the CPU, so that a
    chain does not depend on the device but for rounding. Two layers of a network that learnt its
    ways up and down apart have weights of their own for the way down, `generative`; they are then
    two directions and no machine, and have no energy.
    """

    weight: Float[Tensor, "hidden visible"]
    visible: Float[Tensor, " visible"]
    hidden: Float[Tensor, " hidden"]
    gaussian: bool = False
    generative: Float[Tensor, "hidden visible"] | None = None

    def up(self, visible: Visible) -> Hidden:
        """The chance of each hidden unit to be 1, given the visible ones."""
        return torch.sigmoid(nn.functional.linear(visible, self.weight, self.hidden))

    def down(self, hidden: Hidden) -> Visible:
        """The mean of each visible unit, given the hidden ones."""
        weight = self.weight if self.generative is None else self.generative
        inputs = hidden @ weight + self.visible
        return inputs if self.gaussian else torch.sigmoid(inputs)

    def draw_up(self, visible: Visible, chance: torch.Generator) -> Hidden:
        """Hidden units drawn given the visible ones."""
        return flip(self.up(visible), chance)

    def draw_down(self, hidden: Hidden, chance: torch.Generator) -> Visible:
        """Visible units drawn given the hidden ones."""
        mean = self.down(hidden)
        if not self.gaussian:
            return flip(mean, chance)
        noise = torch.randn(mean.shape, generator=chance, dtype=mean.dtype)
        return mean + noise.to(mean.device)

    def free_energy(self, visible: Visible) -> Float[Tensor, " batch"]:
        """-log of the sum over all hidden layers of exp(-E): lower is likelier."""
        assert self.generative is None
        inputs = nn.functional.linear(visible, self.weight, self.hidden)
        if self.gaussian:
            own = (visible - self.visible).square().sum(1) / 2
        else:
            own = -(visible @ self.visible)
        return own - nn.functional.softplus(inputs).sum(1)


@runtime_checkable
class BeliefNetwork(Protocol):
    """A module whose hidden layers are those of Boltzmann machines, the lowest first."""

    def boltzmanns(self) -> tuple[Boltzmann, ...]:
        """The machines between image and `h1`, `h1` and `h2`, and so on."""
        ...


def flip(
    probabilities: Float[Tensor, "*shape"], chance: torch.Generator
) -> Float[Tensor, "*shape"]:
    """Coins that show 1 with these probabilities, to within 1e-5, else 0.

    A coin costs 16 random bits, of which four are drawn at once: in a machine that learns, drawing
    a float for each takes a fifth of the time.
    """
    bits = torch.empty(-(-probabilities.numel() // 4), dtype=torch.int64)
    bits.random_(-(2**63), None, generator=chance)
    level = bits.view(torch.int16)[: probabilities.numel()].view(probabilities.shape)
    level = level.to(probabilities.device).to(probabilities.dtype)
    return torch.lt(level, probabilities * 2**16 - (2**15 + 0.5), out=level)
