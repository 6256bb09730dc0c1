"""SmoothGrad and VarGrad: the gradient under noise, its mean and how much it varies."""

from collections.abc import Sequence
from dataclasses import replace

from optogram.core.maps import BATCH, Image, Score, asked, pixel_maps
from optogram.core.network import Network
from optogram.core.noisy import noisy_gradients
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet


@technique
def smoothgrad(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score = "activation",
    noise: float = 0.15,
    samples: int = 25,
    signed: bool = False,
    batch: int = BATCH,
    seed: int = 0,
) -> Attribution | Sheet:
    """Show the mean gradient over noisy copies of the image (Smilkov et al., 2017).

    The gradient of a ReLU network jumps from pixel to pixel; its mean over copies x + N(0, sigma)
    shows what the jumps have in common. It is the gradient of a blurred network, not of the one
    that is asked, and the noise level decides how much of either is seen.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        noise: sigma, as a share of the image's range (max - min); the paper has 0.1 to 0.2.
        samples: how many noisy copies; the paper has 50 and sees little gain beyond.
        signed: show the channel of largest size with its sign instead of its size.
        batch: how many images are computed together.
        seed: with the unit's address it decides the noise.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W).

    Raises RequestError for unknown units, for images that the network cannot take, and for fewer
    than 1 sample.
    """
    request = asked(network, image, unit, score)
    values, mean, _ = noisy_gradients(request, noise, samples, seed, batch)
    return pixel_maps(request, values, mean, signed=signed, title="SmoothGrad")


@technique
def vargrad(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    score: Score = "activation",
    noise: float = 0.15,
    samples: int = 25,
    batch: int = BATCH,
    seed: int = 0,
) -> Attribution | Sheet:
    """Show how much the gradient varies over noisy copies of the image (Adebayo et al., 2018b).

    The (population) variance of the gradient at x + N(0, sigma), the largest over channels. Large
    where the network bends, which is often where the class is decided, but it is a size without a
    sign: it cannot say for or against.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        noise: sigma, as a share of the image's range (max - min).
        samples: how many noisy copies.
        batch: how many images are computed together.
        seed: with the unit's address it decides the noise.

    Returns:
        An Attribution, or a Sheet where there are several images or units; `raw` is (C, H, W).

    Raises RequestError for unknown units, for images that the network cannot take, and for fewer
    than 1 sample.
    """
    request = asked(network, image, unit, score)
    values, _, variance = noisy_gradients(request, noise, samples, seed, batch)
    result = pixel_maps(request, values, variance, signed=False, title="VarGrad")
    if isinstance(result, Sheet):
        return replace(result, items=tuple(_squared(item) for item in result))
    return _squared(result)


def _squared(result: Attribution) -> Attribution:
    """A variance is measured in the square of the gradient's unit."""
    return replace(result, unit_of_values=f"({result.unit_of_values})²")
