"""Layer-wise relevance propagation: the score is divided among the inputs, layer by layer."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from optogram.core.activations import PerImage
from optogram.core.maps import BATCH, Asked, Image, Images, asked, share_maps
from optogram.core.network import Network
from optogram.core.relevance import Composite, RelevanceMode, start_at_pixels
from optogram.core.rules import before
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError

Rules = Literal["epsilon", "gamma", "epsilon-gamma-box"]


@technique
def lrp(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    rules: Rules = "epsilon-gamma-box",
    gamma: float = 0.25,
    epsilon: float = 1e-6,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Divide a unit's value among the pixels, layer by layer (Bach et al., 2015).

    Every layer hands the relevance of its outputs down in proportion to each input's contribution:
    R_i = sum over outputs j of x_i w_ij / (z_j + stabiliser) R_j. Activation functions pass it on,
    max pooling gives it to the maximum, sums and averages share it out, batch normalisation melts
    into its convolution. The map adds up to the score but for what biases and stabilisers took:
    `checks["conserved"]` is the map's sum over the score.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        rules: "epsilon" everywhere (without biases, for ReLUs, this is input x gradient);
            "gamma" in convolutions and linear layers; or the usual mixture: z-box in the first
            layer, gamma in convolutions, epsilon in linear layers.
        gamma: how much more positive contributions count than they are.
        epsilon: the stabiliser, as a share of the root mean square of what it stabilises.
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W).

    Raises RequestError for networks with operations for which there is no rule (products of two
    parts that depend on the image, as in attention), by name, and for bad images and options.
    """
    if gamma < 0 or epsilon <= 0:
        raise RequestError(f"gamma={gamma} must not be negative, epsilon={epsilon} must be above 0")
    composite = {
        "epsilon": Composite(epsilon),
        "gamma": Composite(epsilon, gamma, gamma),
        "epsilon-gamma-box": Composite(epsilon, gamma, 0.0, box=True),
    }[rules]
    request = asked(network, image, unit)
    parts = [_relevance(part, composite) for part in request.parts(batch)]
    values, shares = (torch.cat(some) for some in zip(*parts, strict=True))
    kept = (shares.double().sum((1, 2, 3)) / values.double()).tolist()
    checks = [{"conserved": share} for share in kept]
    return share_maps(request, values, shares, "relevance", checks)


def _relevance(request: Asked, composite: Composite) -> tuple[PerImage, Images]:
    images = start_at_pixels(request.images.detach().clone().requires_grad_())
    names = request.layers
    known = request.network.layers  # the dry run must not happen under the mode
    assert known
    with torch.enable_grad():
        with RelevanceMode(composite):
            acts = request.network.read(images, *names, watch=True)
        heads: list[Tensor] = [before(acts.layers[name]) for name in names]
        free = [head.detach().requires_grad_() for head in heads]
        loose = type(acts)(acts.network, images.detach(), dict(zip(names, free, strict=True)))
        values = request.question(loose)
        slopes = torch.autograd.grad(values.sum(), free)
        # A unit's value is linear in its layer's answer, so this divides it without remainder.
        seeds = [slope * head.detach() for slope, head in zip(slopes, heads, strict=True)]
        (shares,) = torch.autograd.grad(heads, images, seeds)
    return values.detach(), shares
