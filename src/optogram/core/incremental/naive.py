"""The plain way to ask about an occluded image: show the network every occluded copy, whole."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.activations import Activations
from optogram.core.incremental.occluders import Occluders
from optogram.core.network import Network
from optogram.core.progress import tell

Answers = Iterator[tuple[Tensor, Activations]]


def naive(
    network: Network,
    image: Float[Tensor, "channel height width"],
    occluders: Occluders,
    layers: tuple[str, ...],
    memory: float = 1.0,
) -> Answers:
    """(Numbers of the occluders, activations of the layers), in batches.

    `memory` in GB bounds the batch, estimated from what the widest layers hold.
    """
    size = _batch(network, image, memory)
    image = image.to(network.device)
    for which in torch.arange(len(occluders)).split(size):
        with torch.no_grad():
            found = network.read(occluders.apply(image, which), *layers)
        yield which, found
        tell("occlusion", int(which[-1]) + 1, len(occluders))


def _batch(network: Network, image: Tensor, memory: float) -> int:
    # Eight suits the caches at 224x224 (STACK.md, part 2); small images want more at once.
    numbers = max(16 * image.numel(), 1)
    return int(max(1, min(256, 8 * 16 * 150528 // numbers, memory * 1e9 / (16 * numbers))))
