"""Linear combination: a unit's filter is made of the filters below it, as if nothing bent them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike, Unit
from optogram.pictures import Picture
from optogram.pictures.errors import RequestError


@technique
def combine_filters(network: Network, unit: Targetlike, *, strongest: int | None = 100) -> Picture:
    """Show a unit as the weighted sum of the filters below it (Lee et al., 2008).

    The filter of a first-layer unit is its weights; that of unit i of a higher layer is the sum
    over k of w_ik * filter_k, over those units k of the layer below whose |w_ik| are largest. What
    lies between the layers, sigmoid or ReLU, is left out, so this is no answer of the network: it
    is what people had before they maximised, and what Erhan et al. (2009) measure against.

    Args:
        network: its layers up to the unit's must be `Linear` ones, each fed by the one before.
        unit: an address, as `h2:7`.
        strongest: how many units of each layer below are kept for each unit above (the paper keeps
            100, by eye); None keeps all, which is the product of the weight matrices.

    Returns:
        A Picture. `raw` is the filter at the mean norm of the data's images where the network knows
        it, else at norm 1; `image` shows it around grey. `score` is the unit's value on `raw`.

    Raises RequestError for units with something other than `Linear` layers below them.
    """
    target, combined = combination(network, unit, strongest)
    norm = float(network.records.get("data.mean_norm", 1.0))
    raw = combined * (norm / combined.norm().clamp(min=1e-30))
    heard = network.read(raw[None].to(network.device), target.layer).layers[target.layer]
    assert isinstance(target.index, int)
    return Picture(
        image=0.5 + 0.5 * raw / raw.abs().max().clamp(min=1e-30),
        unit=str(target),
        score=float(heard[0, target.index]),
        history=torch.zeros(0),
        best_in_data=network.best_in_data(target),
        raw=raw,
    )


def combination(
    network: Network, unit: Targetlike, strongest: int | None = None
) -> tuple[Unit, Float[Tensor, "channel height width"]]:
    """The unit, and its filter as the weights make it, on the CPU and for images in [0, 1]."""
    target = network.resolve(unit)
    if not isinstance(target, Unit) or not isinstance(target.index, int):
        raise RequestError(f"{target} is no single unit; give one by its number, as 'h2:7'")
    if strongest is not None and strongest < 1:
        raise RequestError(f"strongest={strongest} keeps no filter; give 1 or more, or None")
    weights = _weights(network, target)
    weights[-1] = weights[-1][target.index][None]
    filters = weights[0]
    for rows in weights[1:]:
        filters = (rows if strongest is None else _only(rows, strongest)) @ filters
    return target, filters.reshape(network.shape) * _contrast(network)


def _weights(network: Network, target: Unit) -> list[Float[Tensor, "unit below"]]:
    """The weight matrices from the image up to the unit's layer."""
    modules = dict(network.module.named_modules())
    weights: list[Tensor] = []
    inputs = network.shape[0] * network.shape[1] * network.shape[2]
    for layer in network.layers:
        module = modules.get(layer.name)
        if isinstance(module, nn.Linear):
            if module.in_features != inputs:
                break
            weights.append(module.weight.detach().float().cpu())
            inputs = module.out_features
            if layer.name == target.layer:
                return weights
        elif not isinstance(module, PASSING):
            break
    raise RequestError(
        f"the filters of {target} cannot be combined: up to its layer {network.name} should have "
        "Linear layers alone, each fed by the one before; use maximize"
    )


PASSING = (nn.Flatten, nn.Sigmoid, nn.Tanh, nn.ReLU, nn.Dropout, nn.Identity, nn.Sequential)


def _only(rows: Float[Tensor, "unit below"], count: int) -> Float[Tensor, "unit below"]:
    """Each row with all but its `count` largest entries, by size, set to 0."""
    kept = rows.abs().topk(min(count, rows.shape[1]), dim=1).indices
    return torch.zeros_like(rows).scatter(1, kept, rows.gather(1, kept))


def _contrast(network: Network) -> Float[Tensor, "channel height width"]:
    """How far an image's step from 0 to 1 moves what the module is given."""
    ends = torch.stack([torch.zeros(network.shape), torch.ones(network.shape)])
    black, white = network.normalized(ends).float().cpu()
    return white - black
