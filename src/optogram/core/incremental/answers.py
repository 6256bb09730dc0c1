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
from optogram.core.incremental.winograd import workspace
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
        work = _incremental(network, image, occluders, layers, units, memory)
        try:
            first = next(work)
        except NotCaptured as problem:
            if engine == "incremental":
                raise RequestError(
                    f"{network.name} cannot be computed in parts: {problem}"
                ) from None
            log.info("occlusion of %s shows every copy whole: %s", network.name, problem)
        else:
            yield first
            yield from work
            return
    yield from naive(network, image, occluders, layers, memory)


def prepared(
    network: Network,
    image: Image,
    occluders: Occluders,
    layers: tuple[str, ...],
    units: tuple[int, ...] = (),
) -> Steps:
    """The steps for a network and an image.

    Raises NotCaptured where the network cannot be written down, and where nothing of it is local.
    """
    return _written(network, image, occluders, layers, units)[0]


def _written(
    network: Network,
    image: Image,
    occluders: Occluders,
    layers: tuple[str, ...],
    units: tuple[int, ...],
) -> tuple[Steps, list[Tensor]]:
    """The steps, and what the network itself says of the image under the occluder of the trial."""
    hidden = occluders.apply(image, torch.tensor([_trial(occluders)]))
    graph, heard = capture(network, torch.cat([image[None], hidden]), layers)
    steps = sort(graph, (image.shape[0], image.shape[1], image.shape[2]))
    if not any(step.flops for step in steps.parts.values()):
        raise NotCaptured(steps.reason or "no layer is local")
    narrow = narrowed(steps, units) if units else None
    if narrow is None:
        return steps, [answer[1] for answer in heard]
    return narrow, [answer[1, list(units)] for answer in heard]


def _trial(occluders: Occluders) -> int:
    """Which of the occluders is computed in both ways, so that a wrong step is found."""
    return len(occluders) // 2


def _incremental(
    network: Network,
    image: Image,
    occluders: Occluders,
    layers: tuple[str, ...],
    units: tuple[int, ...],
    memory: float,
) -> Answers:
    """Raises NotCaptured before the first batch where that misses what the network itself says."""
    steps, heard = _written(network, image, occluders, layers, units)
    if steps.reason:
        log.info("occlusion of %s goes on with whole maps where %s", network.name, steps.reason)
    done = 0
    for which, values in _run(network, steps, image, occluders, memory):
        answered = {name: values[number] for name, number in steps.graph.layers.items()}
        if not done:
            row = int((which == _trial(occluders)).nonzero())
            _compare({name: answer[row] for name, answer in answered.items()}, layers, heard)
        done += len(which)
        found = {
            name: _all_units(answer, units, steps.graph.calls[steps.graph.layers[name]])
            for name, answer in answered.items()
        }
        yield which, Activations(network, image.expand(len(which), *image.shape), found)
        tell("occlusion", done, len(occluders))


def _compare(answered: dict[str, Tensor], layers: tuple[str, ...], heard: list[Tensor]) -> None:
    for layer, answer in zip(layers, heard, strict=True):
        miss = float((answered[layer] - answer).abs().max())
        if not miss <= 1e-4 * float(answer.abs().max()) + 1e-7:
            raise NotCaptured(f"its steps miss the answer of {layer!r} by {miss:.2g}")


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
    with workspace(network) as scratch:
        work = incremental.Engine(network, steps, image, occluders, memory * 1e9, scratch=scratch)
        made = groups(steps, occluders.boxes, memory * 1e9)
        if len(occluders) > 1:
            log.info("occlusion of %s: %s", network.name, said(steps, made, occluders.boxes))
        batches = work.run(made, first=_trial(occluders))
        while True:
            with torch.no_grad():  # and not while the caller has the batch
                found = next(batches, None)
            if found is None:
                return
            yield found
