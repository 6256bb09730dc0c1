"""A deep belief network of handwritten digits: each layer a machine that models the one below.

Hinton, Osindero & Teh (2006): the lowest machine learns the images, the next what its hidden units
say of them, and so on, with the machines below at rest. `digit` is learnt last, on top of layers
that never saw a label; `tuned` lets labels change all of it.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.boltzmann import flip
from optogram.core.chance import generator

from .greedy import Batch, Curriculum, Lesson, classified
from .rbm import Rates, contrast, gibbs, learn, log_likelihood, log_partition
from .stack import DeepBelief, Flat

SIZES = (784, 500, 500, 500, 10)
CALM = 0.9
"""The momentum after the first tenth of a lesson (Hinton, 2010)."""


def mnist_dbn(seed: int = 0) -> DeepBelief:
    """784-500-500-500-10 with sigmoids between, untrained: weights normal with deviation 0.01."""
    return DeepBelief(SIZES, seed=seed)


def machine_lesson(number: int, epochs: int, rates: Rates, batch: int = 100) -> Lesson:
    """Teach the machine below hidden layer `number`.

    The rate falls evenly to 0. The momentum is 0.9 after a tenth of the lesson; but persistent
    chains, which would not keep up with the machine then, leave it as it is.
    """
    later = rates.momentum if rates.persistent else CALM
    settings = {"rates": asdict(rates), "later_momentum": later, "falls_to": 0.0}
    learn = _taught_by(number, rates, later)
    return Lesson(f"h{number}", epochs, learn, number - 1, batch, settings=settings)


def _taught_by(number: int, rates: Rates, later: float) -> Callable[[DeepBelief, Batch], float]:
    def step(stack: DeepBelief, batch: Batch) -> float:
        momentum = rates.momentum if batch.done < 0.1 else later
        now = replace(rates, lr=rates.lr * (1 - batch.done), momentum=momentum)
        machine = stack.boltzmanns()[number - 1]
        return learn(machine, batch.inputs, now, batch.memory, batch.chance)

    return step


def up_down_lesson(
    depth: int, epochs: int, *, lr: float, sweeps: int = 1, batch: int = 100
) -> Lesson:
    """Teach all layers of an untied network together, without labels; see `up_down`."""
    settings = {"lr": lr, "sweeps": sweeps, "falls_to": 0.0, "layers": f"1 to {depth}"}

    def step(stack: DeepBelief, batch: Batch) -> float:
        return up_down(stack, batch.inputs, lr * (1 - batch.done), sweeps, batch.chance)

    return Lesson("up-down", epochs, step, 0, batch, settings=settings)


@torch.no_grad()
def up_down(
    stack: DeepBelief, data: Flat, lr: float, sweeps: int, chance: torch.Generator
) -> float:
    """One step of the up-down algorithm (Hinton, Osindero & Teh, 2006, appendix B), in place.

    Awake, units are drawn from the data upwards, and the way down learns to say what was below.
    The top machine takes a step of contrastive divergence from what arrives there. Asleep, units
    are drawn downwards from where its chain ends, and the way up learns to say what was above.

    Args:
        stack: an untied one, best taught layer by layer before.
        data: (batch, visible).
        lr: what multiplies every mean difference.
        sweeps: of the top machine's chain.
        chance: gives every random number of this step.

    Returns:
        The mean over the batch of the squared distance between the data and what the way down
        says of them from the units drawn awake.
    """
    *lower, top = stack.boltzmanns()
    awake = [data]
    for machine in lower:
        awake.append(machine.draw_up(awake[-1], chance))
    active = top.up(awake[-1])
    model = gibbs(top, flip(active, chance), Rates(k=sweeps, sampled=True), chance)
    asleep = [model]
    for machine in reversed(lower):
        asleep.insert(0, machine.draw_down(asleep[0], chance))
    said = [machine.down(above) for machine, above in zip(lower, awake[1:], strict=True)]
    heard = [machine.up(below) for machine, below in zip(lower, asleep, strict=False)]
    for number, machine in enumerate(lower):
        missed, unheard = awake[number] - said[number], asleep[number + 1] - heard[number]
        assert machine.generative is not None
        machine.generative.add_(awake[number + 1].T @ missed, alpha=lr / len(data))
        machine.visible.add_(missed.mean(0), alpha=lr)
        machine.weight.add_(unheard.T @ asleep[number], alpha=lr / len(data))
        machine.hidden.add_(unheard.mean(0), alpha=lr)
    move = contrast(awake[-1], active, model, top.up(model))
    top.weight.add_(move.weight, alpha=lr)
    top.visible.add_(move.visible, alpha=lr)
    top.hidden.add_(move.hidden, alpha=lr)
    seen = said[0] if lower else top.down(active)
    return float((data - seen).square().sum(1).mean())


@torch.no_grad()
def dream(
    stack: DeepBelief, *, chains: int = 64, sweeps: int = 1000, seed: int = 0
) -> Float[Tensor, "chain pixel"]:
    """Images drawn from the whole network: a chain between its top two layers, then the way down.

    Each is the means of the pixels given the lowest hidden layer.
    """
    *lower, top = stack.boltzmanns()
    chance = generator(seed, "dream")
    values = torch.rand(chains, len(top.visible), generator=chance).to(top.weight).round()
    for _ in range(sweeps):
        hidden = top.draw_up(values, chance)
        values = top.draw_down(hidden, chance)
    if not lower:
        return top.down(hidden)
    for machine in reversed(lower[1:]):
        values = machine.draw_down(values, chance)
    return lower[0].down(values)


def measured(stack: DeepBelief, images: Flat) -> dict[str, Any]:
    """How likely the lowest machine finds images, and how it redraws them.

    Where pixels are chances, the images are first made black and white.
    """
    lowest, plain = stack.boltzmanns()[0], images if stack.gaussian else (images >= 0.5).float()
    mean = None if stack.gaussian else plain.mean(0)
    partition, error = log_partition(lowest, steps=1000, mean=mean)
    return {
        "h1_log_partition": partition,
        "h1_log_partition_error": error,
        "h1_test_log_likelihood": log_likelihood(lowest, plain, partition),
        "test_reconstruction": reconstruction(stack, images),
    }


@torch.no_grad()
def reconstruction(stack: Any, images: Flat) -> dict[str, float]:
    """The mean squared distance between images and what each hidden layer's means keep of them."""
    return {
        f"h{n}": float((stack.down(stack.up(images, 0, n), n) - images).square().sum(1).mean())
        for n in range(1, stack.depth + 1)
    }


RATES = Rates(lr=0.05, persistent=True, momentum=0.5, decay=1e-4)
PROBE = Lesson(
    "digit",
    10,
    classified(lr=0.1),
    below=3,
    judged=True,
    settings={"lr": 0.1, "momentum": 0.9, "layers": "digit"},
)
RECIPE = Curriculum(
    name="mnist-dbn",
    build=mnist_dbn,
    data="mnist",
    shape=(1, 28, 28),
    lessons=(
        machine_lesson(1, 10, RATES),
        machine_lesson(2, 6, RATES),
        machine_lesson(3, 8, RATES),
        PROBE,
    ),
    measure=measured,
    notes=(
        "Pixels count as chances. No label was used but for `digit`, a linear probe. Persistent "
        "chains, since after CD-1 the chains of `sample` all ended in the same place."
    ),
)
