"""Sampling a unit: what a belief network dreams of while the unit is held at 1."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core import progress
from optogram.core.boltzmann import BeliefNetwork, Boltzmann, Hidden, Visible, flip
from optogram.core.chance import generator
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike, Unit
from optogram.pictures import Picture
from optogram.pictures.errors import RequestError


@technique
@torch.no_grad()
def sample(
    network: Network,
    unit: Targetlike,
    *,
    chains: int = 100,
    sweeps: int = 200,
    burn_in: int = 100,
    every: int = 10,
    seed: int = 0,
) -> Picture:
    """Show the mean image of a belief network whose unit is held at 1 (Erhan et al., 2009).

    Blocks of the unit's layer and of the one below are drawn from each other in turn, the unit set
    back to 1 each time; what the layer below says is then drawn down, layer by layer, to the image.
    For the lowest hidden layer that is E[image | unit = 1] of its Boltzmann machine, up to chance.

    Args:
        network: a belief network, such as `mnist-dbn`; an autoencoder has no distribution.
        unit: an address in one of its hidden layers, as `h2:7`.
        chains: how many run side by side, each from fair coins.
        sweeps: how many times each chain goes down and up after `burn_in` sweeps that are not kept.
        every: of those sweeps, one in so many is drawn down to an image. The paper ran one chain
            and kept every hundredth; many chains need fewer sweeps for as many images.
        seed: with the unit's address it decides every random number.

    Returns:
        A Picture, the mean of chains * sweeps / every images, each the means of its pixels given
        the layer above. `history` is, at each sweep, what the layer below puts into the unit, in
        the mean over the chains: where it still drifts, `burn_in` is too short.

    Raises RequestError for a network that is no belief network, and for units of other layers.
    """
    machines, target = _machines(network, unit)
    if min(chains, sweeps, every) < 1 or burn_in < 0 or every > sweeps:
        raise RequestError(
            f"chains={chains}, sweeps={sweeps}, burn_in={burn_in} and every={every} keep no image: "
            "give at least 1 chain, 1 sweep and an `every` from 1 to `sweeps`"
        )
    chance = generator(seed, "sample", target)
    assert isinstance(target.index, int)
    history, total, kept = [], torch.zeros(len(machines[0].visible), dtype=torch.float64), 0
    for number, (hidden, below) in enumerate(_dream(machines[-1], target.index, chains, chance)):
        history.append(_input(machines[-1], target.index, below))
        if number >= burn_in and (number - burn_in + 1) % every == 0:
            images = _drawn_down(hidden, below, machines, chance)
            total, kept = total + images.double().mean(0).cpu(), kept + 1
            progress.tell("sample", kept, sweeps // every)
        if number + 1 == burn_in + sweeps:
            break
    return _picture(network, target, (total / kept).float(), torch.tensor(history))


def _machines(network: Network, asked: Targetlike) -> tuple[Sequence[Boltzmann], Unit]:
    """The machines from the image up to the unit's layer."""
    if not isinstance(network.module, BeliefNetwork):
        raise RequestError(
            f"{network.name} is no belief network, so it has no distribution to sample a unit from:"
            " use maximize or combine_filters"
        )
    target = network.resolve(asked)
    machines = network.module.boltzmanns()
    there = [f"h{number}" for number, _ in enumerate(machines, start=1)]
    if target.layer not in there or not isinstance(target, Unit) or target.index is None:
        raise RequestError(
            f"{target} is no single unit of a Boltzmann machine; those of {network.name} are in "
            f"{', '.join(there)}"
        )
    return machines[: there.index(target.layer) + 1], target


def _dream(
    machine: Boltzmann, unit: int, chains: int, chance: torch.Generator
) -> Iterator[tuple[Hidden, Visible]]:
    """Endless sweeps: a hidden layer whose unit is 1, and the layer below drawn from it."""
    hidden = flip(torch.full((chains, len(machine.hidden)), 0.5), chance).to(machine.weight)
    while True:
        hidden[:, unit] = 1
        below = machine.draw_down(hidden, chance)
        yield hidden, below
        hidden = machine.draw_up(below, chance)


def _input(machine: Boltzmann, unit: int, below: Visible) -> float:
    """What goes into the unit from the layer below, in the mean over the chains."""
    return float((below @ machine.weight[unit]).mean() + machine.hidden[unit])


def _drawn_down(
    hidden: Hidden, below: Visible, machines: Sequence[Boltzmann], chance: torch.Generator
) -> Float[Tensor, "chain pixel"]:
    """Images that follow from the two topmost layers; the last step takes means, not draws."""
    if len(machines) == 1:
        return machines[0].down(hidden)
    for machine in reversed(machines[1:-1]):
        below = machine.draw_down(below, chance)
    return machines[0].down(below)


def _picture(
    network: Network,
    target: Unit,
    mean: Float[Tensor, " pixel"],
    history: Float[Tensor, " sweep"],
) -> Picture:
    ends = torch.stack([torch.zeros(network.shape), torch.ones(network.shape)])
    black, white = network.normalized(ends).cpu()
    raw = (mean.reshape(network.shape) - black) / (white - black)
    heard = network.read(raw[None].to(network.device), target.layer).layers[target.layer]
    assert isinstance(target.index, int)
    return Picture(
        image=raw.clamp(0, 1),
        unit=str(target),
        score=float(heard[0, target.index]),
        history=history,
        best_in_data=network.best_in_data(target),
        raw=raw,
    )
