"""Guided Grad-CAM: guided backpropagation's fine lines where Grad-CAM finds the class."""

from collections.abc import Sequence

import torch

from optogram.core import rules
from optogram.core.cam import deepest_maps, heard
from optogram.core.maps import BATCH, Image, Score, asked, gradients, pixel_maps, resized
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet


@technique
def guided_grad_cam(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    layer: str | None = None,
    score: Score = "activation",
    signed: bool = False,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Draw guided backpropagation where Grad-CAM finds the class (Selvaraju et al., 2017).

    The product of both maps, the coarse one stretched over the image. The place comes from Grad-CAM
    and depends on the class; the lines come from guided backpropagation and hardly do (Adebayo et
    al., 2018): believe where, not what.

    Args:
        network: who is asked; its activation functions must be ReLUs (with a ceiling or without).
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        layer: Grad-CAM's layer; by default the last that the unit looks at in more than one place.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        signed: show the channel of largest size with its sign instead of its size.
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W).

    Raises RequestError as `grad_cam` and `guided_backprop` do.
    """
    request = asked(network, image, unit, score)
    name = layer if layer is not None else deepest_maps(request)
    values, lines = gradients(request, rules.guided, batch)
    places = []
    for part in request.parts(batch):
        answer = heard(part, name)
        coarse = (answer.gradients.mean((2, 3), keepdim=True) * answer.maps).sum(1, keepdim=True)
        places.append(resized(coarse.clamp(min=0), (part.images.shape[2], part.images.shape[3])))
    product = lines * torch.cat(places)
    return pixel_maps(request, values, product, signed=signed, title="guided Grad-CAM")
