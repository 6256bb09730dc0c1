"""Units that a data set never opens: can anything open them?

A unit whose ReLU stays shut on every image is dead in the data, which says as much about the data
as about the unit. Two questions follow. Can an image be made that opens it? Gradient ascent on the
pre-activation, whose gradient does not vanish where the ReLU is shut, looks for one. Can no image
open it? Interval bounds may prove it. Between the two some units stay undecided.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from optogram.core import objective as ask
from optogram.core.gradient import value_and_gradient
from optogram.core.network import Network
from optogram.core.unit import Place, Unit
from optogram.pictures.errors import RequestError
from optogram.survey.bounds import bounds

State = Literal["alive", "data-dead", "reachable", "certified-dead"]
STATES: tuple[State, ...] = ("alive", "data-dead", "reachable", "certified-dead")

SLACK = 1e-5
"""By how much, relative to its range, a bound must lie below 0: more than float32 can round."""


def triage(
    network: Network, maxima: Mapping[str, Float[Tensor, " unit"]], *, steps: int = 40
) -> dict[str, Int64[Tensor, " unit"]]:
    """The state of each unit of some layers, as its place in `STATES`.

    Args:
        network: who is asked.
        maxima: for each layer the units' largest pre-activations in the data.
        steps: of gradient ascent, for units that are dead in the data.

    A unit is "alive" if its maximum is above 0 or no ReLU follows it; else "certified-dead" if no
    image with pixels in [0, 1] can open it, "reachable" if one was found that does, and "data-dead"
    if neither is known.
    """
    shut = {
        name: torch.where((maximum <= 0) & network.layer(name).switchable, 1, 0)
        for name, maximum in maxima.items()
    }
    asked = [name for name, state in shut.items() if bool(state.any())]
    proofs = certified(network, asked)
    for name in asked:
        proved = proofs[name] & (shut[name] == 1)
        shut[name][proved] = STATES.index("certified-dead")
        units = (shut[name] == 1).nonzero()[:, 0]
        opened = highest(network, name, units, steps=steps) > 0
        shut[name][units[opened]] = STATES.index("reachable")
    return shut


def certified(network: Network, layers: list[str]) -> dict[str, Tensor]:
    """Which units no image with pixels in [0, 1] can lift above 0, (unit,) truth values a layer.

    None are certified in a layer for which no bounds are known.
    """
    found = {}
    for name, known in bounds(network, layers).items() if layers else ():
        if known is None:
            found[name] = torch.zeros(network.layer(name).units, dtype=torch.bool)
        else:
            low, high = known
            found[name] = high < -SLACK * torch.maximum(low.abs(), high.abs())
    return found


def highest(
    network: Network, layer: str, units: Int64[Tensor, " some"], *, steps: int = 40, batch: int = 64
) -> Float[Tensor, " some"]:
    """The largest pre-activation that ascent finds for each unit, with pixels in [0, 1].

    Steps go by the gradient's sign, from grey, with a size that falls from 1/4 to 0; of all the
    images on the way the best counts. A channel is lifted where it is strongest and in the middle
    of its map, since the edge, where it may be strongest first, sees less. It is a lower bound of
    what an image can reach.
    """
    places = network.layer(layer).places
    tries: list[Place] = ["strongest", tuple(n // 2 for n in places)] if places else [None]
    best = torch.full((len(units),), -torch.inf)
    for first in range(0, len(units), batch):
        some = units[first : first + batch].tolist()
        for place in tries:
            reached = _lifted(network, [Unit(layer, unit, place) for unit in some], steps)
            best[first : first + batch] = torch.maximum(best[first : first + batch], reached)
    return best


def _lifted(network: Network, targets: list[Unit], steps: int) -> Float[Tensor, " some"]:
    question = ask.activation(targets)
    grey = torch.full((len(targets), *network.shape), 0.5, dtype=network.dtype)
    images = grey.to(network.device)
    best = torch.full((len(targets),), -torch.inf)
    for step in range(steps + 1):
        try:
            values, slopes = value_and_gradient(network, images, question)
        except RequestError:  # nothing leads there from the image: the value stays what it is
            break
        best = torch.maximum(best, values.float().cpu())
        images = (images + 0.25 * (1 - step / steps) * slopes.sign()).clamp(0, 1)
    return best
