"""How a restricted Boltzmann machine learns, and how likely it finds what it has learnt.

`learn` takes one step of contrastive divergence (Hinton, 2002) or of its persistent form (Tieleman,
2008). `log_partition`, `log_likelihood` and `pseudo_likelihood` say how far it has come.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.boltzmann import Boltzmann, Hidden, Visible, flip
from optogram.core.chance import generator

LAST = 0.9
"""What the running mean of a hidden unit's activity keeps of the steps before."""
RECONSTRUCTED = 10
"""Every how many steps images are reconstructed, where that costs a product of its own."""


@dataclass(frozen=True)
class Rates:
    """How a machine learns.

    `k` Gibbs sweeps lead from the data to what is unlearnt; `persistent` ones go on from where the
    last step ended, with as many chains as the first batch had images. `decay` pulls weights to 0.
    `sparsity` is how often a hidden unit should be 1, and `pull` how strongly it is made to (Lee et
    al., 2008, as a cross-entropy). `sampled` draws the visible units of a sweep instead of taking
    their means, which is less noisy (Hinton, 2010); persistent chains are always drawn. `half`
    rounds what is multiplied to bfloat16, which some processors do twice as fast; parameters and
    sums stay as they are.
    """

    lr: float = 0.1
    k: int = 1
    persistent: bool = False
    momentum: float = 0.5
    decay: float = 0.0
    sparsity: float | None = None
    pull: float = 0.0
    sampled: bool = False
    half: bool = False


@dataclass(frozen=True, eq=False)
class Halved(Boltzmann):
    """A machine that rounds what it multiplies to bfloat16; its weights once, when it is made."""

    rounded: Float[Tensor, "hidden visible"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounded", self.weight.bfloat16())

    def up(self, visible: Visible) -> Hidden:
        """The chance of each hidden unit to be 1, given the visible ones."""
        return (visible.bfloat16() @ self.rounded.T + self.hidden).sigmoid_()

    def down(self, hidden: Hidden) -> Visible:
        """The mean of each visible unit, given the hidden ones."""
        inputs = hidden.bfloat16() @ self.rounded + self.visible
        return inputs if self.gaussian else inputs.sigmoid_()


@dataclass(frozen=True, eq=False)
class Push:
    """Where a step would move a machine, were it of size 1: a direction for each parameter."""

    weight: Float[Tensor, "hidden visible"]
    visible: Float[Tensor, " visible"]
    hidden: Float[Tensor, " hidden"]


def machine(
    visible: int, hidden: int, *, gaussian: bool = False, seed: int = 0, name: str = "rbm"
) -> Boltzmann:
    """An untrained machine: weights normal with deviation 0.01, biases 0 (Hinton, 2010)."""
    weight = torch.randn(hidden, visible, generator=generator(seed, name, "weight")) * 0.01
    return Boltzmann(weight, torch.zeros(visible), torch.zeros(hidden), gaussian)


@torch.no_grad()
def learn(
    rbm: Boltzmann, data: Visible, rates: Rates, memory: dict[str, Tensor], chance: torch.Generator
) -> float:
    """Change a machine's tensors, in place, by one step on a batch.

    Args:
        rbm: the machine.
        data: (batch, visible); values between 0 and 1 count as probabilities.
        rates: how it learns.
        memory: empty at first; what learning remembers from step to step, by name.
        chance: gives every random number of this step.

    Returns:
        The mean squared distance between data and their reconstruction: a sign of life, and not
        what is minimised. Where it costs a product of its own it is that of every tenth step.
    """
    if rates.half:
        rbm = Halved(rbm.weight, rbm.visible, rbm.hidden, rbm.gaussian)
    chains = memory.get("chains") if rates.persistent else None
    if chains is None:
        active = rbm.up(data)
        model = gibbs(rbm, flip(active, chance), rates, chance)
        believed = rbm.up(model)
    else:  # what is not waited for is multiplied together
        model = gibbs(rbm, chains, rates, chance)
        active, believed = rbm.up(torch.cat([data, model])).split([len(data), len(model)])
    if rates.persistent:
        memory["chains"] = flip(believed, chance)
    error = _reconstruction(rbm, data, active, model, rates, memory)
    hidden, visible = _sides(data, active, model, believed)
    weight = _moving("weight", rbm.weight, rates, memory)
    if rates.half:
        weight.add_(hidden.T.bfloat16() @ visible.bfloat16(), alpha=rates.lr)
    else:
        weight.addmm_(hidden.T, visible, alpha=rates.lr)
    biases = _moving("visible", rbm.visible, rates, memory)
    biases.add_(data.mean(0) - model.mean(0), alpha=rates.lr)
    thresholds = _moving("hidden", rbm.hidden, rates, memory)
    thresholds.add_(hidden.sum(0), alpha=rates.lr)
    if rates.sparsity is not None:
        pull = _calm(active.mean(0), rates.sparsity, memory) * rates.pull
        thresholds.add_(pull, alpha=rates.lr)
        weight.addr_(pull, data.mean(0), alpha=rates.lr)
    if rates.momentum:
        rbm.weight.add_(weight)
        rbm.visible.add_(biases)
        rbm.hidden.add_(thresholds)
    return error


def gibbs(rbm: Boltzmann, start: Hidden, rates: Rates, chance: torch.Generator) -> Visible:
    """The visible layer after `k` sweeps, each down and, but for the last, up again."""
    drawn = rates.sampled or rates.persistent
    visible = rbm.draw_down(start, chance) if drawn else rbm.down(start)
    for _ in range(rates.k - 1):
        hidden = rbm.draw_up(visible, chance)
        visible = rbm.draw_down(hidden, chance) if drawn else rbm.down(hidden)
    return visible


def contrast(
    data: Visible,
    active: Hidden,
    model: Float[Tensor, "chain visible"],
    believed: Float[Tensor, "chain hidden"],
) -> Push:
    """What data and model say differently: <v h> of the one minus that of the other, in means."""
    hidden, visible = _sides(data, active, model, believed)
    return Push(hidden.T @ visible, data.mean(0) - model.mean(0), hidden.sum(0))


@torch.no_grad()
def pseudo_likelihood(
    rbm: Boltzmann, data: Visible, chance: torch.Generator
) -> Float[Tensor, " batch"]:
    """An estimate of the sum over visible units of log p(unit | all others), Bernoulli only.

    One unit an image is drawn, flipped and weighed against what it was (as scikit-learn and the
    Deep Learning Tutorials do), so only the mean over many images says much. Data must be 0 or 1.
    """
    which = torch.randint(data.shape[1], (len(data),), generator=chance).to(data.device)
    rows = torch.arange(len(data), device=data.device)
    flipped = data.clone()
    flipped[rows, which] = 1 - flipped[rows, which]
    gain = rbm.free_energy(flipped) - rbm.free_energy(data)
    return data.shape[1] * nn.functional.logsigmoid(gain)


@torch.no_grad()
def log_partition(
    rbm: Boltzmann,
    *,
    chains: int = 100,
    steps: int = 1000,
    mean: Float[Tensor, " visible"] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """The log of the sum of exp(-E) over all states, by annealed importance sampling (Neal, 2001).

    As in Salakhutdinov & Murray (2008): from a machine without weights, whose visible units have
    the means given (or are fair coins), `steps` ever colder ones lead to this one.

    Returns:
        The estimate, and its standard error (of the log, to first order) from how the chains
        differ. Too few steps give too low an estimate with too small an error.
    """
    chance = generator(seed, "ais")
    base = torch.zeros_like(rbm.visible)
    if mean is not None:
        base = torch.logit(mean.to(base).clamp(0.01, 0.99))
    base = rbm.visible if rbm.gaussian else base
    visible = Boltzmann(
        torch.zeros_like(rbm.weight), base, torch.zeros_like(rbm.hidden), rbm.gaussian
    ).draw_down(torch.zeros(chains, len(rbm.hidden)).to(rbm.weight), chance)
    gained = torch.zeros(chains, dtype=torch.float64, device=visible.device)
    cooler = _between(rbm, base, 0.0)
    for number in range(1, steps + 1):
        warmer, cooler = cooler, _between(rbm, base, number / steps)
        gained += (warmer.free_energy(visible) - cooler.free_energy(visible)).double()
        visible = cooler.draw_down(cooler.draw_up(visible, chance), chance)
    known = len(rbm.hidden) * math.log(2)
    if rbm.gaussian:
        known += len(base) * math.log(2 * math.pi) / 2
    else:
        known += float(nn.functional.softplus(base.double()).sum())
    shares = torch.exp(gained - gained.max())
    error = float(shares.std() / shares.mean()) / math.sqrt(chains)
    return known + float(torch.logsumexp(gained, 0)) - math.log(chains), error


@torch.no_grad()
def log_likelihood(rbm: Boltzmann, data: Visible, partition: float) -> float:
    """The mean log-likelihood of data, in nats, under a machine whose log-partition is known."""
    return float(-rbm.free_energy(data).double().mean()) - partition


def _between(rbm: Boltzmann, base: Float[Tensor, " visible"], share: float) -> Boltzmann:
    visible = (1 - share) * base + share * rbm.visible
    return Boltzmann(share * rbm.weight, visible, share * rbm.hidden, rbm.gaussian)


def _sides(
    data: Visible,
    active: Hidden,
    model: Float[Tensor, "chain visible"],
    believed: Float[Tensor, "chain hidden"],
) -> tuple[Float[Tensor, "row hidden"], Float[Tensor, "row visible"]]:
    """The two matrices whose product is the contrast of the weights."""
    return torch.cat([active / len(data), believed / -len(model)]), torch.cat([data, model])


def _reconstruction(
    rbm: Boltzmann,
    data: Visible,
    active: Hidden,
    model: Visible,
    rates: Rates,
    memory: dict[str, Tensor],
) -> float:
    if rates.k == 1 and not rates.persistent:
        return float((data - model).square().sum(1).mean())
    steps = memory.setdefault("steps", torch.zeros((), dtype=torch.int64))
    if steps % RECONSTRUCTED == 0:
        error = (data - rbm.down(active)).square().sum(1).mean()
        memory["reconstruction"] = error.cpu()
    steps += 1
    return float(memory["reconstruction"])


def _moving(name: str, parameter: Tensor, rates: Rates, memory: dict[str, Tensor]) -> Tensor:
    """What a step is added to: the velocity, made ready for it, or without momentum the parameter.

    One product then adds to what is there, and no other matrix as large is made.
    """
    decay = rates.lr * rates.decay if name == "weight" else 0.0
    if not rates.momentum:
        return parameter.mul_(1 - decay) if decay else parameter
    velocity = memory.setdefault(f"{name}.velocity", torch.zeros_like(parameter))
    velocity.mul_(rates.momentum)
    return velocity.sub_(parameter, alpha=decay) if decay else velocity


def _calm(
    active: Float[Tensor, " hidden"], sparsity: float, memory: dict[str, Tensor]
) -> Float[Tensor, " hidden"]:
    """How much seldomer than wanted each hidden unit has been 1 of late."""
    before = memory.get("activity", active)
    memory["activity"] = LAST * before + (1 - LAST) * active
    return sparsity - memory["activity"]
