"""Deconvnet: an activation is projected back down to the pixels (Zeiler & Fergus, 2014)."""

from collections.abc import Sequence

from optogram.core import rules
from optogram.core.maps import BATCH, Image, Score, asked, gradients, pixel_maps
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet


@technique
def deconvnet(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score = "activation",
    signed: bool = False,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Project one activation back to the pixels: unpool, rectify, filter (Zeiler & Fergus, 2014).

    From the unit, all others zeroed, every layer is gone through backwards: max pooling puts each
    value where the maximum came from (its switch), a ReLU rectifies what comes back whatever went
    forward, a convolution applies its transposed filters. `layer:17@strongest` is the paper's
    start: the channel's strongest place alone; `layer:17@3,5` another; without a place all of them
    count, each with its share of the mean. The start is 1: times `score` it is the
    paper's projection.

    Switches and transposed filters are what autograd's backward pass does, also for overlapping
    pools (where `max_unpool2d` would drop what falls on one place twice); average pooling has no
    switches and spreads evenly. Bias terms play no part. Contrast normalisation is gone through by
    its derivative; the paper leaves it out.

    Args:
        network: who is asked; its activation functions must be ReLUs (with a ceiling or without).
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        signed: show the channel of largest size with its sign instead of its size.
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W) and 0
        outside the unit's receptive field.

    Raises RequestError for unknown units, for images that the network cannot take and for networks
    with other activation functions (GELU, SiLU, ...), for which the rule has no meaning.
    """
    request = asked(network, image, unit, score)
    values, slopes = gradients(request, rules.deconvnet, batch)
    return pixel_maps(request, values, slopes, signed=signed, title="deconvnet")
