"""What a network answers under each of many occluders, by the cheapest exact way there is."""

import logging
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.activations import Activations
from optogram.core.incremental import engine as incremental
from optogram.core.incremental.capture import Call, NotCaptured, capture
from optogram.core.incremental.naive import Answers, naive
from optogram.core.incremental.occluders import Occluders
from optogram.core.incremental.plan import Steps, groups, narrowed, said, sort
from optogram.core.network import Network
from optogram.core.progress import tell
from optogram.pictures.errors import RequestError

Way = Literal["auto", "incremental", "naive"]
Image = Float[Tensor, "channel height width"]
log = logging.getLogger("optogram")


def answers(
    network: Network,
    image: Image,
    occluders: Occluders,
    layers: tuple[str, ...],
    *,
    units: tuple[int, ...] = (),
    engine: Way = "auto",
    memory: float = 1.0,
) -> Answers:
    """(numbers of the occluders, activations of the layers) in batches; every occluder comes once.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1].
        occluders: what is hidden.
        layers: whose answers; the pass ends at the deepest.
        units: where one layer is asked, the numbers of the only units that will be looked at; what
            the others answer may then be NaN.
        engine: "incremental" computes only what an occluder can reach, "naive" shows every copy
            whole, "auto" is incremental where that can be had. The logger says why where not.
        memory: gigabytes to work in.

    Raises RequestError for another engine, and for "incremental" where it cannot be had.
    """
    if engine not in ("auto", "incremental", "naive"):
        raise RequestError(f"engine={engine!r} should be 'auto', 'incremental' or 'naive'")
    if not memory > 0:
        raise RequestError(f"memory={memory}: gigabytes, more than 0")
    layers = tuple(network.layer(name).name for name in layers)
    image = image.to(network.device, network.dtype)
    if engine != "naive":
        try:
            steps = prepared(network, image, occluders, layers, units, memory)
        except NotCaptured as problem:
            if engine == "incremental":
                raise RequestError(
                    f"{network.name} cannot be computed in parts: {problem}"
                ) from None
            log.info("occlusion of %s shows every copy whole: %s", network.name, problem)
        else:
            yield from _incremental(network, steps, image, occluders, units, memory)
            return
    yield from naive(network, image, occluders, layers, memory)


def prepared(
    network: Network,
    image: Image,
    occluders: Occluders,
    layers: tuple[str, ...],
    units: tuple[int, ...] = (),
    memory: float = 1.0,
) -> Steps:
    """The steps for a network and an image, tried out on one occluder.

    Raises NotCaptured where the network cannot be written down, where nothing of it is local, and
    where the steps do not repeat what the network itself answers.
    """
    trial = torch.tensor([len(occluders) // 2])
    hidden = occluders.some(trial)
    shown = torch.stack([image, hidden.apply(image, torch.tensor([0]))[0]])
    graph, heard = capture(network, shown, layers)
    steps = sort(graph, (image.shape[0], image.shape[1], image.shape[2]))
    if not any(step.flops for step in steps.parts.values()):
        raise NotCaptured(steps.reason or "no layer is local")
    narrow = narrowed(steps, units) if units else None
    if narrow is not None:
        steps, heard = narrow, [answer[:, list(units)] for answer in heard]
    _, made = next(_run(network, steps, image, hidden, memory))
    for layer, answer in zip(layers, heard, strict=True):
        miss = float((made[steps.graph.layers[layer]] - answer[1:]).abs().max())
        if not miss <= 1e-4 * float(answer.abs().max()) + 1e-7:
            raise NotCaptured(f"its steps miss the answer of {layer!r} by {miss:.2g}")
    if steps.reason:
        log.info("occlusion of %s goes on with whole maps where %s", network.name, steps.reason)
    return steps


def _incremental(
    network: Network,
    steps: Steps,
    image: Image,
    occluders: Occluders,
    units: tuple[int, ...],
    memory: float,
) -> Answers:
    done = 0
    for which, values in _run(network, steps, image, occluders, memory):
        heard = {
            name: _all_units(values[number], units, steps.graph.calls[number])
            for name, number in steps.graph.layers.items()
        }
        yield which, Activations(network, image.expand(len(which), *image.shape), heard)
        done += len(which)
        tell("occlusion", done, len(occluders))


def _all_units(values: Tensor, units: tuple[int, ...], call: Call | None) -> Tensor:
    """The answer with NaN for the units that were not computed."""
    if call is None or values.shape[1] == call.shape[1]:
        return values
    every = values.new_full((len(values), *call.shape[1:]), torch.nan)
    every[:, list(units)] = values
    return every


def _run(
    network: Network, steps: Steps, image: Image, occluders: Occluders, memory: float
) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:
    with torch.no_grad():
        work = incremental.Engine(network, steps, image, occluders, memory * 1e9)
        made = groups(steps, occluders.boxes)
        if len(occluders) > 1:
            log.info("occlusion of %s: %s", network.name, said(steps, made, occluders.boxes))
        yield from work.run(made)
