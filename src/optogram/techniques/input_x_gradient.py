"""Input times gradient: what each pixel would have added if the network were linear here."""

from collections.abc import Sequence

from optogram.core.maps import BATCH, Image, Score, asked, baseline_of, gradients, share_maps
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet


@technique
def input_x_gradient(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score = "activation",
    baseline: float | str = "mean",
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Show pixel times gradient, the share of the score a linear network would owe to each pixel.

    (x - baseline) * d value / d x, summed over channels, in the score's own units (Shrikumar et
    al., 2016). For a network without biases whose only bends are ReLUs, and baseline 0 after the
    normalisation ("mean"), the map adds up to the score. A pixel at the baseline gets exactly 0
    whatever the network does with it: on black backgrounds that alone makes maps look alike.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        baseline: a grey level in [0, 1], "mean" (the data's mean colour) or "blur".
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W).

    Raises RequestError for unknown units, and for images that the network cannot take.
    """
    request = asked(network, image, unit, score)
    values, slopes = gradients(request, batch=batch)
    shares = (request.images - baseline_of(network, request.images, baseline)) * slopes
    return share_maps(request, values, shares, "input x gradient")
