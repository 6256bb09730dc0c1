"""Showing a range of images to a network once, with an ear at every chosen layer."""

import fnmatch
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from optogram.core import progress
from optogram.core.layout import laid_out
from optogram.core.memory import Room, at_once, trim
from optogram.core.network import Layer, Network
from optogram.core.onward import LARGE, Onward
from optogram.core.prepared import for_many
from optogram.core.unit import OUTPUT
from optogram.core.visit import visit
from optogram.pictures.errors import RequestError
from optogram.survey.ahead import ahead
from optogram.survey.datasets import ImageSet
from optogram.survey.part import LayerPart, Part
from optogram.survey.reduce import Tallies, heard, moments_of
from optogram.survey.statistics import Answers, Moments
from optogram.survey.topk import (
    Entries,
    TopK,
    challenge_everywhere,
    entered,
    entries,
    joined,
    within,
)

Statistics = Literal["none", "moments", "all"]
Places = Literal["strongest", "all"]

BUFFER = 1 << 23
"""So many answers are kept before they are added up."""

TALLIES = 128
"""So many images' sums of chunks are kept before they enter the moments."""

TRIMMED = 1024
"""After so many images the heap is put in order, so that it does not grow with their number."""

WIDEST = 2048
"""Layers with more units than this get no matrix of co-activation."""

SAMPLE = 16384
"""About so many images, fairly chosen, say how units go together."""


@dataclass(frozen=True)
class Plan:
    """What a scan asks: it decides the numbers, but for the rounding of another batch size.

    Attributes:
        layers: names of layers, in the network's order.
        k: how many of the strongest are kept for each unit.
        places: "strongest" counts each image's strongest place, "all" every place of every image.
        statistics: "none", "moments" (of all places), or "all" (of images and pairs of units too).
        batch: how many images are shown at once.
        share: how large a part of the images says how units go together.
    """

    layers: tuple[str, ...]
    k: int = 9
    places: Places = "strongest"
    statistics: Statistics = "all"
    batch: int = 16
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.k < 1 or self.batch < 1:
            raise RequestError(f"k={self.k}, batch={self.batch}: both are at least 1")
        if self.places not in ("strongest", "all"):
            raise RequestError(f"places={self.places!r} should be 'strongest' or 'all'")
        if self.statistics not in ("none", "moments", "all"):
            raise RequestError(
                f"statistics={self.statistics!r} should be 'none', 'moments' or 'all'"
            )


def chosen(network: Network, layers: str | Sequence[str] | None) -> tuple[str, ...]:
    """The layers that names and patterns mean, in the network's order.

    None means every convolution and linear layer: what has weights, and no answer twice.

    Raises RequestError for a name that is not there, with the nearest.
    """
    if layers is None:
        kinds = ("Conv", "Linear")
        found = {x.name for x in network.layers if x.kind.startswith(kinds)}
        return _ordered(network, found or {OUTPUT})
    wanted: set[str] = set()
    for name in [layers] if isinstance(layers, str) else layers:
        known = [x.name for x in network.layers if fnmatch.fnmatchcase(x.name, name)]
        wanted |= {name} if name in known else set(known or [network.layer(name).name])
    if not wanted:
        raise RequestError("no layer was asked for: name at least one, or none for all")
    return _ordered(network, wanted)


def scan(
    network: Network,
    images: ImageSet,
    plan: Plan,
    start: int,
    stop: int,
    *,
    earlier: Part | None = None,
) -> Part:
    """What the images from `start` until before `stop` excite.

    With the part of all `earlier` images, answers are left out of the top k that theirs beat: the
    merged lists are the same, and fewer answers are looked into.

    Raises RequestError for images that the network cannot take, and where one makes a layer answer
    NaN or infinity; it names the image.
    """
    layers = {name: network.layer(name) for name in plan.layers}
    rows = -(-BUFFER // sum(layer.units for layer in layers.values()))
    outputs = layers[OUTPUT].units if OUTPUT in layers else 0
    ears = {
        name: _Ear.on(layer, plan, len(images.classes), outputs, rows + plan.batch)
        for name, layer in layers.items()
    }
    for name, ear in ears.items():
        ear.top = ear.top if earlier is None else earlier.layers[name].top
    before = set(images.skipped)
    seen = 0
    waiting: list[tuple[Tensor, Tensor]] = []
    newest = max(int(ear.top.images.max()) for ear in ears.values())
    room, onward = Room(), _onward(network, plan, layers.values())
    ready = for_many(network, plan.layers, len(images))
    batches = images.batches(at_once(network, plan.batch), start=start, stop=stop)
    if network.device.type != "cpu":  # there the processor has nothing else to do meanwhile
        batches = ahead(batches)
    for numbers, shown, labels in batches:

        def listen(some: Sequence[int], numbers: Tensor = numbers, shown: Tensor = shown) -> None:
            nonlocal newest
            part = slice(some[0], some[-1] + 1)
            later = int(numbers[part].min()) > newest
            _listen(ready, images, plan, ears, numbers[part], shown[part], onward, later=later)
            newest = max(newest, int(numbers[part].max()))

        for _ in room.each(range(len(numbers)), listen):
            pass
        waiting.append((numbers, labels))
        seen += len(numbers)
        if _passed(TALLIES, seen, len(numbers)):
            for ear in ears.values():
                ear.add_moments()
        if _passed(TRIMMED, seen, len(numbers)):
            trim()
        if sum(len(numbers) for numbers, _ in waiting) >= rows:
            _add_up(ears, plan, waiting)
            waiting = []
        progress.tell("survey", start + seen, len(images))
    _add_up(ears, plan, waiting)
    skipped = {name: why for name, why in images.skipped.items() if name not in before}
    parts = {
        name: LayerPart(within(ear.top, start, stop), ear.moments, ear.answers if seen else None)
        for name, ear in ears.items()
    }
    return Part(((start, stop),), seen, parts, skipped)


def _onward(network: Network, plan: Plan, layers: Iterable[Layer]) -> Onward | None:
    """What goes on with the network while an answer is in the cache, where one is so large."""
    largest = max((math.prod(x.shape) for x in layers if len(x.places) == 2), default=0)
    worth = network.device.type == "cpu" and plan.batch * largest >= LARGE
    return Onward() if worth else None


def _passed(step: int, seen: int, last: int) -> bool:
    """Whether a whole number of steps was reached with the last of all that were seen."""
    return seen // step > (seen - last) // step


@dataclass(eq=False)
class _Ear:
    """What one layer has said so far, and the answers that are not yet added up.

    They wait in the first `filled` rows of `waiting`, which is taken once: many small pieces of
    memory that outlive a batch would lie scattered between what the next batches need.
    """

    layer: Layer
    top: TopK
    moments: Moments | None
    answers: Answers | None
    waiting: Float[Tensor, "room unit"]
    filled: int
    tallies: list[Tallies]
    highest: list[Float[Tensor, " unit"]]

    @classmethod
    def on(cls, layer: Layer, plan: Plan, classes: int, outputs: int, room: int) -> "_Ear":
        units, every = layer.units, plan.statistics == "all"
        some = None if plan.statistics == "none" else Moments.empty(units)
        answers = None
        if every:
            pairs = units <= WIDEST
            answers = Answers.empty(units, classes=classes, pairs=pairs, outputs=outputs)
        waiting = torch.empty(room if every else 0, units)
        return cls(layer, TopK.empty(units, plan.k), some, answers, waiting, 0, [], [])

    def keep(self, strongest: Float[Tensor, "batch unit"], tallies: Tallies | None) -> None:
        """Let a batch's answers wait."""
        if tallies is not None:
            self.tallies.append(tallies)
            self.highest.append(strongest.amax(0))
        if self.answers is not None:
            first, self.filled = self.filled, self.filled + len(strongest)
            self.waiting[first : self.filled] = strongest

    def add_moments(self) -> None:
        """Add the tallies that wait to the moments."""
        if self.tallies and self.moments is not None:
            some = moments_of(torch.stack(self.highest), self.tallies)
            self.moments = self.moments.merge(some)
        self.tallies, self.highest = [], []


def _listen(
    network: Network,
    images: ImageSet,
    plan: Plan,
    ears: dict[str, _Ear],
    numbers: Int64[Tensor, " batch"],
    shown: Float[Tensor, "batch channel height width"],
    onward: Onward | None,
    *,
    later: bool,
) -> None:
    """Show a batch. While a layer's answer is there, as little is done with it as can be.

    Every operation then finds an empty cache: what can wait is done for all layers afterwards.
    Where the pass fails nothing is kept of it: it may be shown again in parts.
    """
    new: dict[str, Entries] = {}
    tops: dict[str, TopK] = {}
    strongest: dict[str, Tensor] = {}
    tallies: dict[str, Tallies] = {}

    def hear(name: str, answer: Tensor) -> None:
        ear = ears[name]
        reach = onward.reach if onward is not None and onward.waits else None
        said = heard(answer, ear.layer.axis, with_moments=ear.moments is not None, reach=reach)
        strongest[name] = said.strongest
        if plan.places == "all":
            tops[name] = challenge_everywhere(ear.top, said.strongest, numbers, said.look)
        else:
            new[name] = entries(ear.top, said.strongest, numbers, said.find, later=later)
        if said.tallies is not None:
            tallies[name] = said.tallies

    visit(network, laid_out(shown), plan.layers, hear, onward)
    _check(strongest, images, numbers)
    if new:
        _enter(ears, new)
    for name, top in tops.items():
        ears[name].top = top
    for name, values in strongest.items():
        ears[name].keep(values, tallies.get(name))


def _enter(ears: dict[str, _Ear], new: dict[str, Entries]) -> None:
    """The entries of all layers into their lists, at once."""
    first = 0
    units = []
    for name, ear in ears.items():
        units.append(new[name].units + first)
        first += ear.layer.units
    parts = [new[name] for name in ears]
    some = Entries(
        torch.cat(units),
        torch.cat([part.values for part in parts]),
        torch.cat([part.images for part in parts]),
        torch.cat([part.places for part in parts]),
    )
    if len(some.units):
        every = entered(joined([ear.top for ear in ears.values()]), some)
        sizes = [ear.layer.units for ear in ears.values()]
        split = zip(
            *(t.split(sizes) for t in (every.values, every.images, every.places)), strict=True
        )
        for ear, lists in zip(ears.values(), split, strict=True):
            ear.top = TopK(*lists)


def _check(
    strongest: dict[str, Tensor], images: ImageSet, numbers: Int64[Tensor, " batch"]
) -> None:
    """Refuse an image that makes a layer answer NaN or infinity. Raises RequestError."""
    if math.isfinite(torch.stack([values.sum() for values in strongest.values()]).sum().item()):
        return
    for name, values in strongest.items():
        if not bool(torch.isfinite(values).all()):
            row = int((~torch.isfinite(values)).any(1).nonzero()[0])
            raise RequestError(
                f"{images.caption(int(numbers[row]))} makes {name!r} answer NaN or infinity: "
                f"look at that image, or leave it out"
            )


def _add_up(ears: dict[str, _Ear], plan: Plan, waiting: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add the waiting answers, to images of these numbers and labels, to the statistics."""
    if not waiting:
        return
    numbers, labels = (torch.cat(some) for some in zip(*waiting, strict=True))
    outputs = ears.get(OUTPUT)
    beside = None if outputs is None else outputs.waiting[: outputs.filled]
    for ear in ears.values():
        ear.add_moments()
        if ear.answers is not None:
            ear.answers = ear.answers.add(
                ear.waiting[: ear.filled], numbers, labels, share=plan.share, outputs=beside
            )
    for ear in ears.values():
        ear.filled = 0


def planned(plan: Plan, images: int) -> Plan:
    """The plan with the share of images that says how units go together."""
    return replace(plan, share=min(1.0, SAMPLE / max(images, 1)))


def _ordered(network: Network, names: set[str]) -> tuple[str, ...]:
    return tuple(layer.name for layer in network.layers if layer.name in names)
