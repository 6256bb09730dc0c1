"""What is seen where something is hidden: a grey, a colour, a blurred copy, another image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.network import Network
from optogram.pictures.errors import RequestError

Image = Float[Tensor, "channel height width"]
Size = int | tuple[int, int]


def instead(
    network: Network, image: Image, value: float | int | str | Sequence[float] | Tensor, size: Size
) -> Image:
    """What is seen where something is hidden: an image of the image's shape.

    Raises RequestError for a word, a colour or an image that does not fit.
    """
    if isinstance(value, str) and value == "blur":
        side = size if isinstance(size, int) else min(size)
        return _blurred(image, max(side / 4, 0.5))
    if isinstance(value, str):
        value = _word(network, value)
    given = torch.as_tensor(value, dtype=torch.float32)
    if given.dim() < 3:
        given = given.reshape(-1, 1, 1)
    if given.shape[0] not in (1, image.shape[0]) or given.shape[1:] not in (
        (1, 1),
        image.shape[1:],
    ):
        raise RequestError(
            f"value of shape {tuple(given.shape)}: give a number, {image.shape[0]} number(s) or an "
            f"image of {tuple(image.shape)}"
        )
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise RequestError(f"value={value}: an image has values in [0, 1]")
    return given.expand_as(image).clone()


def _word(network: Network, word: str) -> float | Tensor:
    known = {"grey": 0.5, "gray": 0.5, "black": 0.0, "white": 1.0}
    if word == "mean":
        # The image that the network's normalisation turns into zeros.
        ends = [network.normalized(torch.full((1, network.shape[0], 1, 1), n)) for n in (0.0, 1.0)]
        identity = bool(ends[0].eq(0).all())
        mean = 0.5 if identity else (ends[0] / (ends[0] - ends[1])).flatten().float().cpu()
        return mean if identity else torch.as_tensor(mean).clamp(0, 1)
    if word not in known:
        raise RequestError(
            f"value={word!r}: a number in [0, 1], a colour, an image, or 'grey', 'black', 'white', "
            f"'mean', 'blur'"
        )
    return known[word]


def _blurred(image: Image, sigma: float) -> Image:
    """The image under a Gaussian of `sigma` pixels, its edges repeated."""
    reach = int(3 * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).view(1, 1, 1, -1).to(image)
    blurred = image[:, None]
    for _ in range(2):
        wide = torch.nn.functional.pad(blurred, (reach, reach, 0, 0), mode="replicate")
        blurred = torch.nn.functional.conv2d(wide, weights).transpose(2, 3)
    return blurred[:, 0].clamp(0, 1)
