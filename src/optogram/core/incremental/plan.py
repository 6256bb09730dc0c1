"""Which part of every map an occluder can reach, and how occluders are put together in batches.

Along each axis the places [low, high) of a map that a change can reach follow from those of its
inputs (Nakandala et al., 2019). Occluders of one group get parts of one size, the largest any of
them needs: what is computed beyond one's own reach comes out as it was, so the answer is exact.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int
from torch import Tensor

from optogram.core.incremental.capture import Graph
from optogram.core.incremental.costs import Side, Work
from optogram.core.incremental.operations import (
    Dense,
    Join,
    Local,
    Mean,
    Pointwise,
    Window,
    dense,
    folded,
    local,
    sliced,
)
from optogram.core.incremental.winograd import TILES

Places = np.ndarray
Pair = tuple[int, int]

# A part that covers this share of its map is not worth being cut out.
WHOLE_FROM = 0.9


@dataclass(frozen=True, eq=False)
class Steps:
    """A graph sorted into what is computed on parts and what is repeated on whole tensors.

    `parts` are local operations by number, in order; `means` and `dense` those that leave the maps;
    `after` the numbers that are repeated as they were called. `frontier` are the numbers that
    `after` and the asked layers read. `shapes` of maps in parts are (channels, rows, columns).
    """

    graph: Graph
    parts: dict[int, Local]
    means: dict[int, Mean]
    dense: dict[int, Dense]
    after: tuple[int, ...]
    frontier: tuple[int, ...]
    shapes: dict[int, tuple[int, int, int]]
    reason: str | None

    @property
    def form(self) -> tuple[object, ...]:
        """All that planning depends on: the steps without their weights."""
        windows = {
            number: (step.kernel, step.stride, step.padding, step.dilation, step.tiles is not None)
            for number, step in self.parts.items()
            if isinstance(step, Window)
        }
        made = [
            (n, type(step), step.inputs, step.flops, windows.get(n))
            for n, step in self.parts.items()
        ]
        read = tuple(step.inputs for step in self.dense.values())
        return *made, *self.shapes.items(), read, self.frontier

    @cached_property
    def all(self) -> dict[int, Local | Dense]:
        """What is computed on parts, by number, in order."""
        return dict(sorted({**self.parts, **self.means, **self.dense}.items()))

    def readers(self, number: int) -> list[int]:
        """Who among the local operations reads a map."""
        return [n for n, step in self.all.items() if number in step.inputs]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Where the parts of one map lie: starts (occluder, 2) in rows and columns, and one size."""

    starts: Places
    size: Pair


@dataclass(frozen=True, eq=False)
class Group:
    """Occluders whose parts have one size at every map.

    `cut` are the maps that some step reads elsewhere than just where their parts lie. `tiles` are
    those of the convolutions that are cheaper so. `reach` tells of maps that fully connected layers
    read what each occluder itself can change.
    """

    which: Places
    boxes: dict[int, Boxes]
    cut: frozenset[int]
    tiles: dict[int, Pair]
    reach: dict[int, tuple[Places, Places]]


def sort(graph: Graph, image: tuple[int, int, int]) -> Steps:
    """Sort a graph's calls; batch norms are folded into the convolutions they follow."""
    parts: dict[int, Local] = {}
    means: dict[int, Mean] = {}
    full: dict[int, Dense] = {}
    after: list[int] = []
    reason = None
    shapes = {0: image}
    for number, call in enumerate(graph.calls):
        if call is None:
            continue
        maps = bool(call.inputs) and all(i in shapes for i in call.inputs)
        step = local(graph, number, (1, *image)) if maps else None
        if isinstance(step, Mean):
            means[number] = step
        elif step is not None:
            parts[number] = _prolonged(graph, step, parts) if isinstance(step, Join) else step
            shapes[number] = call.shape[1:]  # type: ignore[assignment]
        elif (connected := dense(graph, number, shapes)) is not None:
            full[number] = connected
        else:
            if maps and call.name not in _ENDS:
                reason = reason or f"{call.name} is not local"
            after.append(number)
    _fold(graph, parts, shapes)
    read = set(graph.layers.values())
    for number in reversed(after):
        if number in read:
            read.update(graph.calls[number].inputs)  # type: ignore[union-attr]
    after = [number for number in after if number in read]
    made = {0, *parts, *means, *full}
    return Steps(
        graph, parts, means, full, tuple(after), tuple(sorted(read & made)), shapes, reason
    )


def narrowed(steps: Steps, units: tuple[int, ...]) -> Steps | None:
    """The steps for some units alone of the one layer asked, where a convolution makes them.

    A classifier that is a convolution under a global mean is a good part of what an occlusion
    computes, and one logit needs one of its channels. None where the way back to a convolution
    is no plain chain.
    """
    graph, parts = steps.graph, dict(steps.parts)
    if len(graph.layers) != 1:
        return None
    (number,) = graph.layers.values()
    while number in steps.after:
        call = graph.calls[number]
        if call is None or call.name not in _PASSES or len(call.inputs) != 1:
            return None
        (number,) = call.inputs
    mean = steps.means.get(number)
    if mean is None or steps.frontier != (number,):
        return None
    shapes, (way,) = dict(steps.shapes), mean.inputs
    while True:
        step = parts.get(way)
        if len(steps.readers(way)) != 1 or step is None:
            return None
        shapes[way] = (len(units), *shapes[way][1:])
        if isinstance(step, Window):
            break
        if not isinstance(step, Pointwise) or not step.rectifies:
            return None
        (way,) = step.inputs
    picked = sliced(step, list(units))
    if picked is None:
        return None
    parts[way] = picked
    means = {number: replace(mean, shape=(len(units), *mean.shape[1:]))}
    return replace(steps, parts=parts, means=means, shapes=shapes)


def groups(steps: Steps, boxes: Int[Tensor, "occluder 4"], memory: float = math.inf) -> list[Group]:
    """The occluders in groups of like reach, so few that calling them does not cost too much.

    Weights of tiles take at most half of the `memory` in bytes that copies of weights leave.
    The plans of the last few forms of network, image and occluders are kept: they hold no weights,
    which may change from call to call.
    """
    key = (steps.form, boxes.numpy().tobytes(), memory)
    if key not in _kept:
        _kept[key] = _grouped(steps, boxes.numpy(), max(memory - copies(steps), 0) / 2)
        while len(_kept) > _KEPT:
            _kept.pop(next(iter(_kept)))
    return _kept[key]


def _grouped(steps: Steps, corners: Places, room: float) -> list[Group]:
    sides = [np.unique(corners[:, axis::2], axis=0, return_inverse=True) for axis in (0, 1)]
    work = Work.of(steps.parts, steps.shapes)
    found = (
        Side.of(_spans(steps, axis, *side[0].T), np.bincount(side[1].ravel()))
        for axis, side in enumerate(sides)
    )
    classes = work.merge((next(found), next(found)))
    numbers, tiles = list(steps.shapes), work.tiles(classes, room)
    row, column = (classes[axis].owners[sides[axis][1].ravel()] for axis in (0, 1))
    made = []
    for both in np.unique(np.stack([row, column]), axis=1).T:
        which = np.flatnonzero((row == both[0]) & (column == both[1]))
        chosen = {numbers[place]: int(tile[tuple(both)]) for place, tile in tiles.items()}
        made.append(group(steps, corners, which, chosen))
    return made


def group(steps: Steps, corners: Places, which: Places, tiles: dict[int, int]) -> Group:
    """The boxes of all maps for some occluders, their sizes the largest that any needs.

    `tiles` are numbers among `TILES`, -1 for none.
    """
    lows, highs = {0: corners[which, :2]}, {0: corners[which, 2:]}
    found, reach = {}, {}
    read = {i for step in steps.dense.values() for i in step.inputs}
    for number, shape in steps.shapes.items():
        if number:
            lows[number], highs[number] = _reach(steps, number, lows, highs)
        if number in read:
            reach[number] = lows[number], highs[number]
        lengths = np.array(shape[1:])
        size = np.maximum((highs[number] - lows[number]).max(0), 1)
        if size.prod() >= WHOLE_FROM * lengths.prod() and number:
            lows[number] = np.zeros_like(lows[number])
            highs[number] = np.broadcast_to(lengths, lows[number].shape)
            size = lengths
        starts = np.minimum(lows[number], lengths - size).astype(np.int32)
        found[number] = Boxes(starts, (int(size[0]), int(size[1])))
    chosen = {
        number: (int(TILES[tile, 0]), int(TILES[tile, 1]))
        for number, tile in tiles.items()
        if tile >= 0
    }
    return Group(which, found, _cut(steps, found, chosen), chosen, reach)


def split(steps: Steps, made: list[Group]) -> tuple[list[Group], Group | None]:
    """The groups as far as they differ, and one of all occluders for what all compute whole.

    Late maps, which every occluder reaches whole, are made of many occluders together.
    """
    late = {n for n in steps.parts if all(covers(steps, n, one.boxes[n]) for one in made)}
    if len(late) in (0, len(steps.parts)):
        return made, None
    early = [
        replace(
            one,
            cut=_cut(steps, one.boxes, one.tiles, late),
            tiles={number: tile for number, tile in one.tiles.items() if number not in late},
        )
        for one in made
    ]
    largest = max(made, key=lambda one: len(one.which))
    tiles = {number: tile for number, tile in largest.tiles.items() if number in late}
    which = np.arange(sum(len(one.which) for one in made))
    start = np.zeros((len(which), 2), np.int32)
    whole = {number: Boxes(start, shape[1:]) for number, shape in steps.shapes.items()}
    cut = frozenset(source for number in tiles for source in steps.parts[number].inputs)
    return early, Group(which, whole, cut, tiles, {})


def copies(steps: Steps, made: list[Group] | None = None) -> int:
    """Bytes of weights in other forms than the network's: with norms, and channels last.

    Convolutions that groups make in tiles alone have none of the second kind.
    """
    total = 0
    for number, step in steps.parts.items():
        if isinstance(step, Window):
            plain = made is None or any(number not in one.tiles for one in made)
            total += step.copied + step.weights * (plain and step.kernel != (1, 1))
    return total


def covers(steps: Steps, number: int, boxes: Boxes) -> bool:
    """Whether the parts are the whole map."""
    return boxes.size == steps.shapes[number][1:]


def flops(steps: Steps, made: list[Group]) -> float:
    """Floating point operations of the local steps for all groups."""
    return sum(
        len(one.which) * step.flops * float(np.prod(one.boxes[number].size))
        for one in made
        for number, step in steps.parts.items()
    )


def whole_flops(steps: Steps, count: int) -> float:
    """The same for so many images shown whole."""
    return count * sum(
        step.flops * float(np.prod(steps.shapes[number][1:]))
        for number, step in steps.parts.items()
    )


def least_flops(steps: Steps, boxes: Int[Tensor, "occluder 4"]) -> float:
    """The lower bound: every occluder alone, and only what it reaches."""
    corners = boxes.numpy()
    lows, highs = {0: corners[:, :2]}, {0: corners[:, 2:]}
    total = 0.0
    for number, step in steps.parts.items():
        lows[number], highs[number] = _reach(steps, number, lows, highs)
        total += step.flops * float((highs[number] - lows[number]).prod(1).sum())
    return total


def said(steps: Steps, made: list[Group], boxes: Int[Tensor, "occluder 4"]) -> str:
    """What was planned, in a sentence."""
    whole, least = whole_flops(steps, len(boxes)), least_flops(steps, boxes)
    share = f"{flops(steps, made) / whole:.1%} of the arithmetic of whole copies"
    return (
        f"{len(boxes)} occluders in {len(made)} groups, {share} where {least / whole:.1%} is the "
        f"least; {len({n for one in made for n in one.tiles})} convolutions in tiles, "
        f"{len(steps.dense)} fully connected layers by difference, {len(steps.after)} operations "
        f"on whole answers"
    )


def _reach(
    steps: Steps, number: int, lows: dict[int, Places], highs: dict[int, Places]
) -> tuple[Places, Places]:
    step = steps.parts[number]
    low = np.minimum.reduce([lows[i] for i in step.inputs])
    high = np.maximum.reduce([highs[i] for i in step.inputs])
    if not isinstance(step, Window):
        return low, high
    lengths = steps.shapes[number][1:]
    axes = [step.reach(axis, low[:, axis], high[:, axis], lengths[axis]) for axis in (0, 1)]
    return np.stack([a[0] for a in axes], 1), np.stack([a[1] for a in axes], 1)


def _spans(steps: Steps, axis: int, low: Places, high: Places) -> Places:
    """How many places of each map intervals of one axis reach: (interval, map)."""
    corners = np.stack([low, low, high, high], 1)
    lows, highs = {0: corners[:, :2]}, {0: corners[:, 2:]}
    found = [np.maximum(high - low, 1)]
    for number in steps.parts:
        lows[number], highs[number] = _reach(steps, number, lows, highs)
        found.append(np.maximum(highs[number][:, axis] - lows[number][:, axis], 1))
    return np.stack(found, 1)


def _cut(
    steps: Steps,
    boxes: dict[int, Boxes],
    tiles: dict[int, Pair],
    late: Collection[int] = (),
) -> frozenset[int]:
    cut = {n for n in steps.frontier if n in boxes and not covers(steps, n, boxes[n])}
    cut |= {
        source for number in tiles if number not in late for source in steps.parts[number].inputs
    }
    cut |= {
        i for step in steps.dense.values() for i in step.inputs if not covers(steps, i, boxes[i])
    }
    for number, step in steps.parts.items():
        if number in late:
            cut |= {i for i in step.inputs if not covers(steps, i, boxes[i])}
        if number in tiles or number in late:
            continue
        target = boxes[number]
        for source in step.inputs:
            own, starts, size = boxes[source], target.starts, target.size
            if isinstance(step, Window):
                if covers(steps, source, own) and covers(steps, number, target):
                    continue
                starts, size = step.field(starts, size)
            if own.size != size or not np.array_equal(own.starts, starts):
                cut.add(source)
    return frozenset(cut)


def _prolonged(graph: Graph, join: Join, parts: dict[int, Local]) -> Join:
    """A join that begins as an earlier one did, on top of that one (as dense blocks do)."""
    joins = [number for number, step in parts.items() if isinstance(step, Join)]
    earlier = {graph.calls[number].inputs: number for number in joins}  # type: ignore[union-attr]
    for length in range(len(join.inputs) - 1, 1, -1):
        number = earlier.get(join.inputs[:length])
        if number is not None:
            return Join((number, *join.inputs[length:]))
    return join


def _fold(graph: Graph, parts: dict[int, Local], shapes: dict[int, tuple[int, int, int]]) -> None:
    asked = set(graph.layers.values())
    read = [i for call in graph.calls if call is not None for i in call.inputs]
    for number, step in list(parts.items()):
        call = graph.calls[number]
        if call is None or call.name != "batch_norm" or not isinstance(step, Pointwise):
            continue
        before = step.inputs[0]
        window = parts.get(before)
        if isinstance(window, Window) and read.count(before) == 1 and before not in asked:
            joined = folded(window, call)
            if joined is not None:
                parts[number] = joined
                del parts[before], shapes[before]


_KEPT = 16
_kept: dict[tuple[object, ...], list[Group]] = {}
_PASSES = {"flatten", "dropout"}
_ENDS = {"flatten", "linear", "softmax", "log_softmax"}
