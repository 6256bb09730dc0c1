"""What a network says about images, in words: its most probable outputs."""

from jaxtyping import Float
from torch import Tensor

from optogram.core.network import Network
from optogram.core.unit import OUTPUT
from optogram.pictures.errors import RequestError


def answers(
    network: Network, images: Float[Tensor, "batch channel height width"], count: int = 3
) -> list[tuple[tuple[str, float], ...]]:
    """The most probable outputs for each image, where the network answers with a vector of them."""
    if len(network.layer(OUTPUT).shape) != 1:
        return [()] * len(images)
    try:
        said = network(images)
    except RequestError:  # images of a size that only the layers below can take
        return [()] * len(images)
    best = said.detach().softmax(1).topk(min(count, network.layer(OUTPUT).units), 1)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [tuple((network.label(i), p) for i, p in zip(*row, strict=True)) for row in rows]
