"""Moving images uphill: the loop that every picture made for a unit comes from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent.lbfgs import LBFGS
from optogram.ascent.param import Parameterization
from optogram.ascent.tiles import Tiling, tile_for
from optogram.ascent.transform import drawn
from optogram.core import film, progress
from optogram.core.activations import Activations, PerImage
from optogram.core.chance import Streams
from optogram.core.expression import say
from optogram.core.gradient import slope
from optogram.core.network import Network
from optogram.core.objective import Objective, image_sum
from optogram.core.prepared import Precision, Prepared, prepared, resolved
from optogram.core.rules import Rule, plain, redirected
from optogram.pictures.errors import RequestError


@dataclass(frozen=True, eq=False)
class Step:
    """Where an ascent is after `index` steps; 0 is the start.

    `images` (batch, channel, height, width) is what the network is shown, before transforms.
    `scores` (batch,) is the objective there, seen through this step's transforms, and `parts` the
    weighted value of each of its terms. `gradients` (batch,) is the length of the gradient, with
    respect to the canvas, of what the network says; None at the last step, which takes none.
    `importance` (batch, height, width) adds up the size of that gradient over all steps so far:
    where the picture was worked on (Fel et al., 2023, show it as opacity).
    """

    index: int
    images: Float[Tensor, "batch channel height width"]
    scores: PerImage
    parts: tuple[PerImage, ...]
    gradients: PerImage | None
    importance: Float[Tensor, "batch height width"] | None = None


Schedule = Callable[[float], float]
SCHEDULES: dict[str, Schedule] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}


def ascend(
    network: Network,
    objective: Objective,
    param: Parameterization,
    *,
    steps: int = 512,
    optimizer: str = "Adam",
    lr: float = 0.05,
    momentum: float = 0.0,
    schedule: str | Sequence[float] = "constant",
    relative: bool | Literal["mean"] = False,
    transforms: Sequence[Any] = (),
    looks: int = 1,
    redirect: int = 0,
    tile: int | str | None = None,
    shape: tuple[int, int, int] | None = None,
    owners: Sequence[str] = ("image",),
    precision: Precision = "float32",
    seed: int = 0,
) -> Iterator[Step]:
    """Change images step by step so that the objective grows; the caller decides when to stop.

    Yields the start (index 0) and then the state after each of `steps` steps. Images do not
    influence one another: each owner draws from its own random stream, so its picture is the same
    in any batch (bit for bit where the arithmetic is, see docs/gotchas).

    Args:
        network: who is asked.
        objective: what to raise, one number per image.
        param: what may be painted; its start and its constraint.
        steps: how many steps to take.
        optimizer: a `torch.optim` optimiser that treats each number by itself: "SGD", "Adam", ...,
            or "L-BFGS", which treats each image by itself.
        lr: its step size, in units of the parameters for Adam, per unit of gradient for SGD, of the
            quasi-Newton step for L-BFGS (1 is usual).
        momentum: of SGD, v <- momentum * v + gradient.
        schedule: how `lr` changes: "constant", "linear" to 0, "cosine" to 0, or a list of factors,
            each for an equal part of the steps; momentum begins anew where the factor changes.
        relative: divide what the network says by the mean |gradient| of the pixels it reaches, at
            every step: a regulariser's weight and the step size then mean the same for every unit.
            "mean" divides by the plain mean over all pixels, as DeepDream does.
        transforms: functions that the network looks through; regularisers see the canvas itself.
        looks: how many draws of the transforms a step averages over.
        redirect: for so many first steps gradients find a way through ReLUs that stop them all
            (`rules.redirected`), so that a start at which a unit is cut off is no end.
        shape: (channel, height, width) of what is painted; by default the network's.
        tile: show images that are larger than this many pixels a side in pieces, with the same
            gradient (see `ascent.tiles`); "auto" does so beyond 1.2 million pixels.
        owners: a name for each image of the batch; it selects its random stream.
        precision: what the network multiplies in on the way, "bfloat16" or its own ("float32"),
            or "auto", see `core.prepared`. Images, terms and gradients stay in float32.
        seed: the other thing that selects it.

    Raises RequestError for unknown optimisers and schedules, and where the objective has no
    gradient.
    """
    if looks < 1 or redirect < 0:
        raise RequestError(f"looks={looks}, redirect={redirect}: at least 1 look, at least 0 steps")
    if steps < 0 or not lr >= 0 or not math.isfinite(lr):
        raise RequestError(f"steps={steps}, lr={lr}: neither may be negative")
    if not 0 <= momentum < 1 or (momentum and optimizer.lower() != "sgd"):
        raise RequestError(f"momentum={momentum}: from 0 to below 1, and of SGD alone")
    factor = _schedule(schedule)
    streams = Streams(seed, tuple(owners))
    param.begin(
        shape or network.shape,
        streams,
        torch.empty((), device=network.device, dtype=network.image_dtype),
    )
    parameters = list(param.parameters())
    climber = _optimizer(optimizer, parameters, lr, momentum)
    tile = tile_for(network, objective.layers, shape or network.shape, tile)
    ready = prepared(network, objective.layers, resolved(network, objective.layers, precision))
    pace = factor(0.0)
    importance: Tensor | None = None
    for index in range(steps + 1):
        last = index == steps
        rule = redirected if index < redirect else plain
        with torch.set_grad_enabled(not last):
            canvas = param.canvas()
            shown = param.shown(canvas)
            views = [
                _look(
                    network,
                    ready,
                    objective,
                    drawn(transforms, s, index)(shown),
                    canvas,
                    rule,
                    last,
                    tile,
                )
                for s in _each_look(streams, looks)
            ]
            parts = [_mean(values) for values in zip(*(v.parts for v in views), strict=True)]
            if not last:
                pull = _mean_of([view.pull for view in views])
                rest = _mean_of([view.rest for view in views])
                importance = _added(importance, pull)
                about_units = relative if objective.layers else False
                found, lengths = _uphill(pull, rest, canvas, parameters, about_units)
        if film.filmed():
            film.show(param.display(shown.detach()).clamp(0, 1))
        progress.tell("steps", index, steps)
        yield Step(
            index,
            shown.detach().clone(),  # a copy, because the next step writes into the parameters
            torch.stack(parts).sum(0),
            tuple(parts),
            None if last else lengths,
            importance,
        )
        if not last:
            for parameter, gradient in zip(parameters, param.guard(found), strict=True):
                parameter.grad = gradient
            before, pace = pace, factor(index / steps)
            if momentum and pace != before and not isinstance(schedule, str):
                climber.state.clear()
            for group in climber.param_groups:
                group["lr"] = lr * pace
            climber.step()
            param.settle()


class _Look(NamedTuple):
    """What was heard of one view: each term's value, and the gradients on the canvas.

    `pull` is the gradient of what the network says (of all, where it says nothing), `rest` that of
    the terms about the image.
    """

    parts: tuple[Tensor, ...]
    pull: Tensor | None
    rest: Tensor | None


def _look(
    network: Network,
    ready: Prepared,
    objective: Objective,
    view: Tensor,
    canvas: Tensor,
    rule: Rule,
    last: bool,
    tile: int | None,
) -> _Look:
    if tile is not None:
        return _look_at_tiles(network, ready, objective, view, canvas, rule, last, tile)
    parts = objective.parts(_hear(network, ready, objective, view, canvas, rule))
    said = tuple(part.detach() for part in parts)
    if last:
        return _Look(said, None, None)
    heard = [p for p, term in zip(parts, objective.terms, strict=True) if term.layers]
    about = [p for p, term in zip(parts, objective.terms, strict=True) if not term.layers]
    (pull,) = slope(_total(heard or about), canvas, what=str(objective))
    rest = slope(_total(about), canvas, what=str(objective))[0] if heard and about else None
    return _Look(said, pull, rest)


def _look_at_tiles(
    network: Network,
    ready: Prepared,
    objective: Objective,
    view: Tensor,
    canvas: Tensor,
    rule: Rule,
    last: bool,
    tile: int,
) -> _Look:
    tiling = Tiling(network, ready, objective.layers, view.detach(), tile, rule)
    parts = objective.parts(tiling.activations(canvas))
    said = tuple(part.detach() for part in parts)
    if last:
        return _Look(said, None, None)
    heard = _total([p for p, term in zip(parts, objective.terms, strict=True) if term.layers])
    about = [p for p, term in zip(parts, objective.terms, strict=True) if not term.layers]
    pull = tiling.back(slope(heard, *tiling.leaves, what=str(objective)))
    if view is not canvas:
        (pull,) = torch.autograd.grad(view, canvas, pull, retain_graph=True)
    rest = slope(_total(about), canvas, what=str(objective))[0] if about else None
    return _Look(said, pull, rest)


def _each_look(streams: Streams, looks: int) -> Iterator[Streams]:
    yield streams
    for n in range(1, looks):
        yield replace(streams, owners=tuple(f"{owner} look {n}" for owner in streams.owners))


def _mean(values: Sequence[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean(0)


def _mean_of(gradients: Sequence[Tensor | None]) -> Tensor | None:
    there = [g for g in gradients if g is not None]
    return _mean(there) if there else None


def _added(importance: Tensor | None, pull: Tensor | None) -> Tensor | None:
    if pull is None:
        return importance
    size = pull.abs().mean(1)
    return size if importance is None else importance + size


def _uphill(
    pull: Tensor | None,
    rest: Tensor | None,
    canvas: Tensor,
    parameters: Sequence[Tensor],
    relative: bool | str,
) -> tuple[tuple[Tensor, ...], PerImage]:
    """Where the parameters should go, and the length of what the network's part of it says."""
    assert pull is not None
    lengths = image_sum(pull.square()).sqrt()
    if relative:
        size = _mean_size(pull) if relative == "mean" else _size(pull)
        pull = pull / size[:, None, None, None]
    if rest is not None:
        pull = pull + rest
    if canvas is parameters[0]:
        return (pull,), lengths
    return torch.autograd.grad(canvas, parameters, pull), lengths


def _mean_size(gradient: Tensor) -> PerImage:
    """The mean |gradient| over all pixels and channels; 1 where there is none."""
    size = image_sum(gradient.abs()) / gradient[0].numel()
    return torch.where(size > 0, size, 1)


def _size(gradient: Tensor) -> PerImage:
    """The mean |gradient| of the pixels that have one, seen through a 3x3 average.

    A regulariser that smooths competes with what is left of a gradient after smoothing: the noise
    of early layers would otherwise pass for strength.
    """
    seen = image_sum((gradient != 0).to(gradient)).clamp(min=1)
    framed = torch.nn.functional.pad(gradient, (1, 1, 1, 1))
    rows = framed[:, :, :-2] + framed[:, :, 1:-1] + framed[:, :, 2:]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9
    size = image_sum(smooth.abs()) / seen
    return torch.where(size > 0, size, 1)


def _total(parts: list[PerImage]) -> PerImage:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _hear(
    network: Network,
    ready: Prepared,
    objective: Objective,
    shown: Tensor,
    canvas: Tensor,
    rule: Rule,
) -> Activations:
    if not objective.layers:
        return Activations(network, canvas, {})
    heard = ready.read(shown, objective.layers, rule=rule, watch=True)
    return Activations(network, canvas, heard)


def _schedule(schedule: str | Sequence[float]) -> Schedule:
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise RequestError(f"no schedule called {schedule!r}; there is {', '.join(SCHEDULES)}")
        return SCHEDULES[schedule]
    factors = [float(one) for one in schedule]
    if not factors or not all(one >= 0 and math.isfinite(one) for one in factors):
        raise RequestError(f"schedule={say(schedule)}: at least one factor, none below 0")
    return lambda done: factors[min(int(done * len(factors) + 1e-9), len(factors) - 1)]


def _optimizer(
    name: str, parameters: Sequence[Tensor], lr: float, momentum: float
) -> torch.optim.Optimizer:
    if name.lower() in ("l-bfgs", "lbfgs"):
        return LBFGS(parameters, lr)
    known = {n.lower(): n for n in _ELEMENTWISE}
    if name.lower() not in known:
        raise RequestError(
            f"no optimiser called {name!r} that treats each pixel by itself; there is "
            f"{', '.join(_ELEMENTWISE)} and L-BFGS"
        )
    # lr=0 is a legitimate request (nothing moves), and some optimisers refuse it.
    made: torch.optim.Optimizer = getattr(torch.optim, known[name.lower()])(
        parameters, lr=lr, maximize=True, **({"momentum": momentum} if momentum else {})
    )
    return made


# Rprop is not among them: its step sizes are its own, neither `lr` nor a schedule reaches them.
_ELEMENTWISE = (
    "SGD",
    "Adam",
    "AdamW",
    "NAdam",
    "RAdam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "ASGD",
)
