"""Saliency: how much each pixel's change would change a unit's value (Simonyan et al., 2013)."""

from collections.abc import Sequence

from optogram.core.maps import BATCH, Image, Score, asked, gradients, pixel_maps
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet


@technique
def saliency(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score = "activation",
    signed: bool = False,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Show which pixels a unit's value is most sensitive to: the gradient at the image.

    The map is max over channels of |d value / d pixel| (section 3.1 of the paper), in units of the
    value per unit of pixel in [0, 1]. The value is the pre-activation, for classes the logit: a
    probability also falls when other classes rise. A large gradient says that a small change
    would matter here, neither that the pixel supports the unit nor that it was decisive.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation", or for a class its "probability" under the softmax.
        signed: show the channel of largest |gradient| with its sign instead of its size.
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units.

    Raises RequestError for unknown units, and for images that the network cannot take.
    """
    request = asked(network, image, unit, score)
    values, slopes = gradients(request, batch=batch)
    return pixel_maps(request, values, slopes, signed=signed, title="saliency")
