"""Class activation maps: where in a deep layer the evidence for a class lies."""

from collections.abc import Sequence

from optogram.core.cam import Coarse, Heard, cam
from optogram.core.maps import BATCH, Image, Score, asked
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet


@technique
def grad_cam(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    layer: str | None = None,
    score: Score = "activation",
    signed: bool = False,
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Show where a deep layer speaks for a class: its maps, weighed by mean gradients.

    sum over k of w_k A_k, with A_k the layer's map of channel k and w_k the mean over its places of
    d value / d A_k; below 0 is cut off (Selvaraju et al., 2017). The map is as coarse as the layer
    (`raw`) and stretched over the image, so its edges are those of the interpolation. Where the
    places are averaged and a linear layer follows, it is exact up to a constant; elsewhere the mean
    gradient stands for places where it is not true.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        layer: whose maps; tokens of a vision transformer are laid out as a grid. By default the
            last that the unit looks at in more than one place.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        signed: keep what speaks against the class instead of cutting it off.
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is the coarse map
        with its sign, (1, rows, columns).

    Raises RequestError for unknown units, for images that the network cannot take, and for layers
    without places or that the unit does not depend on.
    """
    request = asked(network, image, unit, score)
    return cam(request, layer, _grad_cam, "Grad-CAM", signed=signed, batch=batch)


@technique
def grad_cam_plus_plus(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    layer: str | None = None,
    score: Score = "activation",
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Show where a deep layer speaks for a class, several objects alike (Chattopadhay, 2018).

    As `grad_cam`, with w_k = sum over places of a_kp max(g_kp, 0), where g is the gradient and
    a = g^2 / (2 g^2 + g^3 sum A_k): the paper's second and third derivatives of exp(score), which
    for a network of ReLUs are powers of g. The weights are never negative.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        layer: whose maps; by default the last layer that the unit looks at in more than one place.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is the coarse map
        with its sign, (1, rows, columns).

    Raises RequestError as `grad_cam` does.
    """
    request = asked(network, image, unit, score)
    return cam(request, layer, _grad_cam_plus_plus, "Grad-CAM++", batch=batch)


@technique
def layer_cam(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    layer: str | None = None,
    score: Score = "activation",
    batch: int = BATCH,
) -> Attribution | Sheet:
    """Show where any layer speaks for a class, place by place (Jiang et al., 2021).

    sum over k of max(g_k, 0) A_k at each place: every place is weighed by its own gradient, so that
    earlier, finer layers can be shown too.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        layer: whose maps; by default the last layer that the unit looks at in more than one place.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        batch: how many images are computed together.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is the coarse map
        with its sign, (1, rows, columns).

    Raises RequestError as `grad_cam` does.
    """
    return cam(asked(network, image, unit, score), layer, _layer_cam, "LayerCAM", batch=batch)


def _grad_cam(heard: Heard) -> Coarse:
    weights = heard.gradients.mean((2, 3), keepdim=True)
    return (weights * heard.maps).sum(1)


def _grad_cam_plus_plus(heard: Heard) -> Coarse:
    squares, cubes = heard.gradients**2, heard.gradients**3
    below = 2 * squares + cubes * heard.maps.sum((2, 3), keepdim=True)
    # Where the gradient is 0 so are both; the place then counts nothing.
    shares = squares / below.where(below != 0, below.new_ones(()))
    weights = (shares * heard.gradients.clamp(min=0)).sum((2, 3), keepdim=True)
    return (weights * heard.maps).sum(1)


def _layer_cam(heard: Heard) -> Coarse:
    return (heard.gradients.clamp(min=0) * heard.maps).sum(1)
