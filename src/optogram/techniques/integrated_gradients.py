"""Integrated gradients: the score's rise from a baseline, divided among the pixels in full."""

from collections.abc import Sequence

import numpy as np
import torch

from optogram.core import progress
from optogram.core.maps import (
    BATCH,
    Asked,
    Image,
    Images,
    Score,
    asked,
    baseline_of,
    gradients,
    share_maps,
)
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError


@technique
def integrated_gradients(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score = "activation",
    baseline: float | str = "mean",
    steps: int = 50,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Divide the score's rise from a baseline image among the pixels (Sundararajan et al., 2017).

    (x - baseline) * integral over a in [0, 1] of d value / d x at baseline + a (x - baseline),
    summed over channels. The map adds up to value(x) - value(baseline): what is left of that is
    `checks["completeness_residual"]`, in the score's units. The integral is by Gauss and Legendre's
    rule. The baseline decides what counts as absence; a pixel at the baseline gets exactly 0.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        baseline: a grey level in [0, 1], "mean" (the data's mean colour) or "blur".
        steps: points of the integral.
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W).

    Raises RequestError for unknown units, for images that the network cannot take, and for fewer
    than 1 step.
    """
    if steps < 1:
        raise RequestError(f"steps={steps}: an integral takes at least 1")
    request = asked(network, image, unit, score)
    start = baseline_of(network, request.images, baseline)
    slopes = torch.cat(
        [
            _mean_slope(part, base, steps)
            for part, base in zip(request.parts(batch), start.split(batch), strict=True)
        ]
    )
    shares = (request.images - start) * slopes
    values = request.values()
    rise = values - Asked(network, start, request.targets, score, True).values()
    residuals = shares.double().sum((1, 2, 3)) - rise
    checks = [{"completeness_residual": float(r)} for r in residuals]
    return share_maps(request, values, shares, "integrated gradients", checks)


def _mean_slope(request: Asked, start: Images, steps: int) -> Images:
    """The mean gradient along the straight line from the baseline to the image."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(request.images, dtype=torch.float64)
    for i, (place, weight) in enumerate(zip((places + 1) / 2, weights / 2, strict=True)):
        between = torch.lerp(start, request.images, float(place))
        _, slopes = gradients(Asked(request.network, between, request.targets, request.score, True))
        total += float(weight) * slopes
        progress.tell("integrated gradients", i + 1, steps)
    return total.to(request.images)
