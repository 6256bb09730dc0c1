"""Guided backpropagation: the gradient of which only what is open and positive goes on down."""

from collections.abc import Sequence

from optogram.core import rules
from optogram.core.maps import BATCH, Image, Score, asked, gradients, pixel_maps
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet


@technique
def guided_backprop(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score = "activation",
    signed: bool = False,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Draw the pattern in the image that excites a unit, in fine lines (Springenberg et al., 2014).

    At every ReLU the gradient goes on where the ReLU was open and the gradient is positive:
    R_below = R_above * [input > 0] * [R_above > 0]. The result is no gradient. It draws edges that
    the layers below see, and changes little when the class or the upper weights change (Adebayo et
    al., 2018; Nie et al., 2018): do not read it as the reasons for a decision. It is what the rule
    gives on every network of ReLUs, whether they are modules, functions, in place, or shared.

    Args:
        network: who is asked; its activation functions must be ReLUs (with a ceiling or without).
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        signed: show the channel of largest size with its sign instead of its size.
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W).

    Raises RequestError for unknown units, for images that the network cannot take and for networks
    with other activation functions (GELU, SiLU, ...), for which the rule has no meaning.
    """
    request = asked(network, image, unit, score)
    values, slopes = gradients(request, rules.guided, batch)
    return pixel_maps(request, values, slopes, signed=signed, title="guided backpropagation")
