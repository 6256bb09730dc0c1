"""A stacked autoencoder that learns to restore what was spoilt, one layer after the other.

Vincent et al. (2008): a layer's input is corrupted, the layer encodes it, and the way down must
restore the input as it was. What it learns to encode is what can be told in spite of the noise.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.chance import generator
from optogram.pictures.errors import RequestError

from .dbn import PROBE, SIZES, reconstruction
from .greedy import Batch, Curriculum, Lesson, descend
from .stack import Autoencoder, Flat, Stack

NOISES = ("masking", "salt_and_pepper", "gaussian")


def mnist_sdae(seed: int = 0) -> Autoencoder:
    """784-500-500-500-10 with sigmoids between and tied weights, untrained."""
    return Autoencoder(SIZES, seed=seed, deviation=0.05)


def corrupted(values: Flat, noise: str, amount: float, chance: torch.Generator) -> Flat:
    """Spoilt values: `amount` is the share that is spoilt, for "gaussian" the noise's deviation.

    "masking" sets values to 0, "salt_and_pepper" to 0 or 1 as a fair coin says.

    Raises RequestError for another noise.
    """
    if noise not in NOISES:
        raise RequestError(f"no noise called {noise!r}; there is {', '.join(NOISES)}")
    if noise == "gaussian":
        drawn = torch.randn(values.shape, generator=chance, dtype=values.dtype)
        return values + amount * drawn.to(values.device)
    uniform = torch.rand(values.shape, generator=chance, dtype=values.dtype).to(values.device)
    spoilt = uniform < amount
    # Of those below `amount`, half are below its half: a coin for each without another draw.
    put = (uniform < amount / 2).to(values.dtype) if noise == "salt_and_pepper" else 0.0
    return torch.where(spoilt, torch.as_tensor(put, dtype=values.dtype), values)


def restoration_loss(
    stack: Stack, spoilt: Flat, clean: Flat, start: int, stop: int
) -> Float[Tensor, ""]:
    """How badly the layers from `start` up to `stop` and back restore: a sum over values.

    Cross-entropy where values are chances, half the squared distance where they are real numbers;
    the mean over the batch.
    """
    restored = stack.up(spoilt, start, stop)
    restored = stack.down(restored, stop, start + 1)
    logits = restored @ stack.weight_down(start + 1) + stack.below(start + 1)
    if start == 0 and stack.gaussian:
        return (logits - clean).square().sum(1).mean() / 2
    loss = nn.functional.binary_cross_entropy_with_logits(logits, clean, reduction="sum")
    return loss / len(clean)


def restored(
    start: int, stop: int, *, lr: float, noise: str, amount: float, momentum: float = 0.9
) -> Callable[[Stack, Batch], float]:
    """Learn to restore what hidden layer `start` says by the layers up to `stop` and back.

    One layer (`stop = start + 1`) is the greedy step; from 0 to the top it is the global one.
    """

    def learn(stack: Stack, batch: Batch) -> float:
        spoilt = corrupted(batch.inputs, noise, amount, batch.chance)
        loss = restoration_loss(stack, spoilt, batch.inputs, start, stop)
        layers = range(start + 1, stop + 1)
        names = [f"{name}.{part}" for name in map("h{}".format, layers) for part in PARTS]
        names += [f"below{number}" for number in layers]
        free = isinstance(stack, Autoencoder) and not stack.tied
        names += [f"down{number}" for number in layers] if free else []
        descend(stack, names, loss, batch.memory, lr=lr, momentum=momentum)
        return loss.item()

    return learn


PARTS = ("weight", "bias")


def layer_lesson(
    number: int, epochs: int, *, lr: float, noise: str, amount: float, batch: int = 100
) -> Lesson:
    """Teach hidden layer `number` to restore the one below."""
    settings = {"lr": lr, "momentum": 0.9, "noise": noise, "amount": amount}
    learn = restored(number - 1, number, lr=lr, noise=noise, amount=amount)
    return Lesson(f"h{number}", epochs, learn, number - 1, batch, settings=settings)


def global_lesson(
    depth: int, epochs: int, *, lr: float, noise: str, amount: float, batch: int = 100
) -> Lesson:
    """Teach all layers together to restore the image."""
    settings = {"lr": lr, "momentum": 0.9, "noise": noise, "amount": amount}
    learn = restored(0, depth, lr=lr, noise=noise, amount=amount)
    return Lesson("all", epochs, learn, 0, batch, settings=settings)


def measured(stack: Autoencoder, images: Flat) -> dict[str, Any]:
    """How well clean images, and images with a fifth of salt and pepper, are restored."""
    spoilt = corrupted(images, "salt_and_pepper", 0.2, generator("measured"))
    with torch.no_grad():
        loss = float(restoration_loss(stack, spoilt, images, 0, 1))
    return {"h1_test_restoration": loss, "test_reconstruction": reconstruction(stack, images)}


NOISE: dict[str, Any] = {"noise": "salt_and_pepper", "lr": 0.01}
RECIPE = Curriculum(
    name="mnist-sdae",
    build=mnist_sdae,
    data="mnist",
    shape=(1, 28, 28),
    lessons=(
        layer_lesson(1, 10, amount=0.4, **NOISE),
        layer_lesson(2, 6, amount=0.3, **NOISE),
        layer_lesson(3, 6, amount=0.3, **NOISE),
        PROBE,
    ),
    measure=measured,
    notes=(
        "Weights of both ways are tied. No label was used but for `digit`, a linear probe. The "
        "layers were not taught together afterwards."
    ),
)
