"""Fooling: images that are nothing to us, or all but unchanged, and certain to the network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optogram.ascent.pushed import climb
from optogram.ascent.smallest import lead, log_odds, smallest_change
from optogram.core import objective as ask
from optogram.core import progress
from optogram.core.activations import Activations, PerImage
from optogram.core.answers import answers
from optogram.core.maps import Image, Images
from optogram.core.network import Network
from optogram.core.objective import Objective
from optogram.core.technique import technique
from optogram.core.unit import OUTPUT, Target, Targetlike, Unit, units
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError

Method = Literal["progress", "smallest"]
Prior = Literal["none", "decay", "blur", "sparse"]
# The three settings that the authors' search by hand ended with, under the seeds it gave them.
PRIORS: dict[str, dict[str, float]] = {
    "none": {},
    "decay": {"decay": 0.01},
    "blur": {"decay": 0.001, "blur": 0.4, "every": 2},
    "sparse": {"decay": 0.001, "blur": 0.3, "norm": 20, "contribution": 20},
}
STEPS = {"none": 300, "decay": 1500, "blur": 1000, "sparse": 1500}
CERTAIN = 0.9999
MILESTONES = {"majority": 0.5, "99 %": 0.99, "99.9 %": 0.999, "99.99 %": CERTAIN}
NUMBERS = 2**22  # in the images that climb together


@technique
def fool(
    network: Network,
    unit: Targetlike | Sequence[Targetlike],
    *,
    start: Image | Literal["mean", "grey", "noise"] = "mean",
    method: Method | None = None,
    goal: float | str | None = None,
    prior: Prior = "none",
    steps: int | None = None,
    seed: int = 0,
) -> Picture | Sheet:
    """Make an image that the network takes for what it is not, with certainty.

    "progress" ascends a class's probability p from noise (Nguyen, Yosinski & Clune, 2015): each
    step is as long as should raise p by min(0.03, 0.1 (1 - p)), and the ascent stops at the goal.
    "smallest" changes an image by as little (L2) as takes the unit over the goal (an adversarial
    example; Szegedy et al., 2014), by the iterations of Rony et al. (2019) and Croce & Hein (2020),
    so that units and directions can be forged like classes.

    Args:
        network: who is fooled.
        unit: an address or a direction, or several; with a batch of images and several, image i
            goes with unit i.
        start: an image in [0, 1], or a batch of them; or "mean" (0 after the network's
            normalisation), "grey" (both with faint noise of deviation 1/255) or "noise" (uniform).
        method: by default "smallest" from an image, else "progress".
        goal: for an output the probability to reach, or "majority": to be the strongest; by default
            0.9999, from an image "majority". For any other unit the activation to reach, by default
            the strongest that the data reached, where that is known.
        prior: what keeps the image from being noise (progress only): "decay" is the authors' L2
            regularisation (their seed 169), "blur" (seed 188) and "sparse" (seed 360) its other
            settings; their ascents take all their steps, unless a goal is given.
        steps: how many at most; by default 300, under a prior the authors' 1000 or 1500, for
            "smallest" 100.
        seed: with the unit's address it decides the noise of the start.

    Returns:
        A Picture, or a Sheet of them. `score` is the output's probability, for other units the
        activation; `measures` says how many steps it took, and
        when the paper's confidences were reached; `verdict` is "fooled", or "failed" where
        the goal was not reached. From an image, `start`, `change` and `amplified` are there too.

    Raises RequestError for unknown units, for images outside [0, 1] or of another number than the
    units, and where a goal cannot be known.
    """
    asked = [network.resolve(target) for target in units(unit)]
    images = start if isinstance(start, Tensor) else None
    several = not (isinstance(unit, str) or not isinstance(unit, Sequence)) or (
        images is not None and images.dim() == 4
    )
    wanted, begins = _paired(network, asked, images)
    method = method or ("smallest" if begins is not None else "progress")
    _check(method, prior, goal, begins, steps)
    made: dict[int, Picture] = {}
    for places in _chunks(network, wanted):
        some = None if begins is None else begins[places]
        targets = [wanted[place] for place in places]
        aim = _aim(network, targets, goal, method, prior)
        if method == "smallest":
            assert some is not None
            found = _smallest(network, some, aim, steps or 100)
        else:
            begin = start if isinstance(start, str) else some
            assert begin is not None
            found = _progress(network, begin, aim, prior, steps or STEPS[prior], seed)
        made |= zip(places, _pictures(network, aim, found, some), strict=True)
        progress.tell("fool", len(made), len(wanted))
    pictures = tuple(made[place] for place in range(len(wanted)))
    return Sheet(pictures, title=f"{network.name}: fool") if several else pictures[0]


@dataclass(frozen=True, eq=False)
class _Aim:
    """What each image is asked, and the value that is meant to be reached.

    `question` is what the ascent raises and `reading` turns its values into the score; `goals`
    (batch,) are scores; `stops` says whether reaching them is the end.
    """

    targets: list[Target]
    question: Objective
    reading: Callable[[PerImage], PerImage]
    goals: PerImage
    stops: bool
    classes: bool
    method: str


@dataclass(frozen=True, eq=False)
class _Found:
    images: Images
    history: Float[Tensor, "steps batch"]
    reached: Bool[Tensor, " batch"]
    taken: list[int]


def _paired(
    network: Network, asked: list[Target], images: Tensor | None
) -> tuple[list[Target], Images | None]:
    """As many targets as images."""
    if not asked:
        raise RequestError("no unit was asked for: give at least one address, as in 'output:1'")
    if images is None:
        return asked, None
    batch = images if images.dim() == 4 else images[None]
    count = max(len(batch), len(asked))
    if len(batch) not in (1, count) or len(asked) not in (1, count):
        raise RequestError(
            f"{len(batch)} images and {len(asked)} units: give one of either, or as many of both"
        )
    if not bool(((batch >= 0) & (batch <= 1)).all()):
        raise RequestError("the image to start from has values outside [0, 1], or NaN")
    batch = batch.detach().expand(count, *batch.shape[1:]).to(network.device, network.image_dtype)
    return asked * (count // len(asked)), batch


def _check(
    method: str, prior: str, goal: float | str | None, begins: Images | None, steps: int | None
) -> None:
    if method not in ("progress", "smallest"):
        raise RequestError(f"method={method!r} should be 'progress' or 'smallest'")
    if prior not in PRIORS:
        raise RequestError(f"no prior called {prior!r}; there is {', '.join(PRIORS)}")
    if method == "smallest" and begins is None:
        raise RequestError("the smallest change is one of an image: give start=IMAGE")
    if method == "smallest" and prior != "none":
        raise RequestError(f"prior={prior!r} is for method='progress'; the smallest has none")
    if isinstance(goal, str) and goal != "majority":
        raise RequestError(f"goal={goal!r} should be a number or 'majority'")
    if steps is not None and steps < 1:
        raise RequestError(f"steps={steps}: at least 1")


def _aim(
    network: Network,
    targets: list[Target],
    goal: float | str | None,
    method: str,
    prior: str,
) -> _Aim:
    stops = goal is not None or prior == "none"
    if not _is_class(network, targets[0]):
        levels = torch.tensor([_activation_goal(network, target, goal) for target in targets])
        return _Aim(targets, ask.activation(targets), lambda v: v, levels, stops, False, method)
    if goal is None:
        goal = CERTAIN if method == "progress" and stops else "majority"
    share = 0.5 if goal == "majority" else float(goal)
    if not 0 < share < 1:
        raise RequestError(f"goal={goal}: a probability lies between 0 and 1")
    goals = torch.full((len(targets),), share)
    if method == "progress":
        return _Aim(targets, ask.log_probability(targets), torch.exp, goals, stops, True, method)
    if goal == "majority":
        # How far the best is ahead is no probability: it reads as 1/2 where two are equal.
        return _Aim(targets, lead(targets), torch.sigmoid, goals, stops, True, method)
    return _Aim(targets, log_odds(targets), torch.sigmoid, goals, stops, True, method)


def _is_class(network: Network, target: Target) -> bool:
    vector = len(network.layer(target.layer).shape) == 1
    return target.layer == OUTPUT and vector and isinstance(target.index, int)


def _activation_goal(network: Network, target: Target, goal: float | str | None) -> float:
    if isinstance(goal, str):
        raise RequestError(
            f"goal={goal!r} is for outputs; give the activation {target} shall reach"
        )
    best = network.best_in_data(target) if isinstance(target, Unit) and not target.place else None
    found = best if goal is None else goal
    if found is None:
        raise RequestError(
            f"how strongly the data excite {target} is not known: say with goal=... which "
            "activation it shall reach"
        )
    return float(found)


def _chunks(network: Network, wanted: list[Target]) -> Iterator[list[int]]:
    """Places of targets of one layer that are worked on together."""
    size = max(1, NUMBERS // torch.Size(network.shape).numel())
    layers: dict[tuple[str, bool], list[int]] = {}
    for place, target in enumerate(wanted):
        layers.setdefault((target.layer, _is_class(network, target)), []).append(place)
    for places in layers.values():
        for first in range(0, len(places), min(size, 256)):
            yield places[first : first + min(size, 256)]


def _smallest(network: Network, begins: Images, aim: _Aim, steps: int) -> _Found:
    goals = aim.goals.to(begins)
    above = (goals / (1 - goals)).log() if aim.classes else goals

    def value(acts: Activations) -> PerImage:
        return aim.question(acts) - above

    short = ask.objective(value, *aim.question.layers, text=f"{aim.question} - goal")
    # The strongest other class changes from step to step; all others together do not.
    smooth = log_odds(aim.targets) if aim.classes else None
    found = smallest_change(network, begins, short, 0.0, along=smooth, steps=steps)
    history = aim.reading(found.history + above)
    return _Found(found.images, history, found.reached, [steps] * len(begins))


def _progress(
    network: Network,
    start: Images | Literal["mean", "grey", "noise"],
    aim: _Aim,
    prior: str,
    steps: int,
    seed: int,
) -> _Found:
    climbed = climb(
        network, aim.question, aim.goals, start=start, steps=steps, stops=aim.stops,
        probabilities=aim.classes, owners=list(map(str, aim.targets)), seed=seed,
        settings=PRIORS[prior],
    )  # fmt: skip
    return _Found(climbed.images, climbed.history, climbed.reached, climbed.taken)


def _pictures(
    network: Network, aim: _Aim, found: _Found, begins: Images | None
) -> Iterator[Picture]:
    said = answers(network, found.images)
    kind = ask.probability if aim.classes else ask.activation
    question = kind(aim.targets)
    with torch.no_grad():
        scores = question(network.read(found.images, *question.layers, watch=True))
    for place, target in enumerate(aim.targets):
        history = found.history[: found.taken[place] + 1, place]
        yield Picture(
            image=found.images[place],
            unit=str(target),
            score=float(scores[place]),
            history=history,
            verdict="fooled" if found.reached[place] else "failed",
            best_in_data=None if aim.classes else _best(network, target),
            answers=said[place],
            start=None if begins is None else begins[place],
            measures=_milestones(aim, history, found.taken[place]),
        )


def _best(network: Network, target: Target) -> float | None:
    known = isinstance(target, Unit) and target.index is not None and target.place is None
    return network.best_in_data(target) if known and isinstance(target, Unit) else None


def _milestones(
    aim: _Aim, history: Float[Tensor, " steps"], taken: int
) -> tuple[tuple[str, float], ...]:
    """How many steps it took, and after how many each of the paper's confidences was there."""
    steps = ("steps", float(taken))
    if aim.method == "smallest" or not aim.classes:
        return (steps,)
    first = [(name, (history >= level).nonzero()[:1]) for name, level in MILESTONES.items()]
    return (steps, *((f"{name} at step", float(step)) for name, step in first if len(step)))
