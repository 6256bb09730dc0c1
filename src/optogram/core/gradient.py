"""How an answer flows back to the image: the gradient of an objective, under a rule for ReLUs."""

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.network import Network
from optogram.core.objective import Objective
from optogram.core.rules import Rule, plain
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]


def backpropagate(
    network: Network, images: Images, objective: Objective, rule: Rule = plain
) -> Images:
    """The gradient of an objective's value with respect to each image, before normalisation.

    Images do not influence each other's gradients; parameters' `.grad` is not touched. With a rule
    other than `plain` it is not a gradient but what the rule lets through (deconvnet, guided).

    Raises RequestError where the objective does not depend on the image through anything that has
    a gradient, where a gated rule has nothing to act on, and where the gradient is not finite.
    """
    return value_and_gradient(network, images, objective, rule)[1]


def value_and_gradient(
    network: Network, images: Images, objective: Objective, rule: Rule = plain
) -> tuple[Float[Tensor, " batch"], Images]:
    """The objective's value (batch,) and what `backpropagate` returns, from one pass."""
    with torch.enable_grad():
        asked = images.detach().to(network.device, network.dtype).requires_grad_()
        values = objective(
            network.read(asked, *(objective.layers or ("output",)), rule=rule, watch=True)
        )
        (gradient,) = slope(values, asked, what=str(objective))
    if not bool(torch.isfinite(gradient).all()):
        raise RequestError(f"the gradient of {objective} holds NaN or infinity on this image")
    return values.detach(), gradient


def slope(values: Float[Tensor, " batch"], *inputs: Tensor, what: str) -> tuple[Tensor, ...]:
    """d(sum of values) / d(inputs); an input that plays no part has gradient 0.

    Raises RequestError where no input plays a part.
    """
    found = (
        torch.autograd.grad(values.sum(), inputs, allow_unused=True) if values.requires_grad else ()
    )
    if not any(g is not None for g in found):
        raise RequestError(
            f"{what} does not depend on the image through anything that has a gradient: an argmax, "
            f"a rounding or detached layer lies between"
        )
    return tuple(
        torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)
    )
