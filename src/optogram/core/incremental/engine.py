"""Computing only what changes: clean maps are kept, parts cut out, passed on and pasted.

Every map that is cut from lies in one block of memory: a row of zeros, a row of the lowest number,
the clean map pixel by pixel, and behind it the parts of the occluders at hand. One list of row
numbers then fetches any window, its surroundings and what pads it in a single copy.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.incremental.occluders import Occluders
from optogram.core.incremental.operations import (
    LOWEST,
    ZERO,
    Join,
    Local,
    Parts,
    Pointwise,
    Window,
    again,
)
from optogram.core.incremental.plan import Boxes, Group, Places, Steps, copies, covers, split
from optogram.core.incremental.winograd import Scratch
from optogram.core.network import Network

Rows = Float[Tensor, "row channel"]
HEAD = 2
_CACHE, _LATE = 16e6, 32e6  # bytes of the widest map that is worked on at a time


@dataclass(eq=False)
class Block:
    """A clean map as rows of channels, with room behind it for parts."""

    rows: Rows
    height: int
    width: int
    base: int

    @classmethod
    def of(cls, clean: Parts, room: int, more: Parts | None = None) -> "Block":
        """A block around a clean map (1, row, column, channel) with room for so many pixels."""
        _, height, width, channels = clean.shape
        behind = [] if more is None else [more.reshape(-1, channels)]
        base = HEAD + height * width * (1 + len(behind))
        rows = clean.new_empty(base + room, channels)
        rows[ZERO], rows[LOWEST] = 0, -torch.inf
        torch.cat([clean.reshape(-1, channels), *behind], out=rows[HEAD:base])
        return cls(rows, height, width, base)

    def fetch(self, index: Places) -> Tensor:
        """The pixels of those row numbers, in that shape, channels last."""
        numbers = torch.from_numpy(index.reshape(-1)).to(self.rows.device)
        return self.rows.index_select(0, numbers).view(*index.shape, -1)

    def tail(self, count: int, size: tuple[int, int]) -> Parts:
        """The room, as parts of a size."""
        numbers = count * size[0] * size[1]
        return self.rows[self.base : self.base + numbers].view(count, *size, -1)


@dataclass(frozen=True, eq=False)
class Change:
    """By how much pixels (some, channel) of a map differ from the clean ones, and whose they are.

    Of `count` occluders; `owners` are numbers among them, `pixels` places of the map in one row.
    """

    count: int
    values: Rows
    pixels: Places
    owners: Places

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, eq=False)
class Stage:
    """Steps that parts go through together: their numbers in order, and what they leave.

    `last` tells by which step each map is read last, `left` which maps are kept whole behind it.
    """

    numbers: tuple[int, ...]
    last: dict[int, int]
    left: frozenset[int]

    @classmethod
    def of(cls, steps: Steps, numbers: Collection[int]) -> "Stage":
        """Some of the steps, with what the others and the answers need of theirs."""
        last: dict[int, int] = {}
        others = set(steps.frontier)
        for number, step in sorted(steps.all.items()):
            for source in step.inputs:
                if number in numbers:
                    last[source] = number
                else:
                    others.add(source)
        made = {0, *numbers}
        return cls(tuple(sorted(numbers)), last, frozenset(others & made & set(steps.shapes)))

    def bytes(self, steps: Steps, one: Group) -> int:
        """Numbers that one occluder of a group takes at most: parts, surroundings, whole maps."""
        sizes = {n: _count(b.size) * steps.shapes[n][0] for n, b in one.boxes.items()}
        live, most = 0, 0
        for number in self.numbers:
            step = steps.all[number]
            if number in steps.parts:
                around = 0
                if isinstance(step, Window) and number not in one.tiles:
                    (source,) = step.inputs
                    _, size = step.field(np.zeros((1, 2), np.int32), one.boxes[number].size)
                    around = _count(size) * steps.shapes[source][0]
                live += sizes[number]
                most = max(most, live + around)
            live -= sum(
                sizes[i]
                for i, last in self.last.items()
                if last == number and i not in one.cut and i in self.numbers
            )
        cut = sum(sizes[i] for i in one.cut if i in self.last)
        whole = sum(_count(steps.shapes[i]) for i in self.left)
        return most + cut + whole


@dataclass(eq=False)
class Engine:
    """A network's steps for one image, its clean maps at hand.

    `memory` in bytes bounds what the blocks and the parts at work take together, where that leaves
    room for one occluder at a time.
    """

    network: Network
    steps: Steps
    image: Float[Tensor, "channel height width"]
    occluders: Occluders
    memory: float
    blocks: dict[int, Block] = field(default_factory=dict)
    sums: dict[int, Tensor] = field(default_factory=dict)
    full: dict[int, Tensor] = field(default_factory=dict)
    scratch: Scratch = field(default_factory=Scratch)

    def run(
        self, groups: list[Group], first: int = 0
    ) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:
        """(numbers of the occluders, whole answers by number of the call) in batches.

        The occluder of the number `first` comes first.
        """
        groups, late = split(self.steps, groups)
        stages = self._stages(groups, late)
        room = self._room(groups if late is None else [*groups, late])
        chunks = [(one, chunk) for one in groups for chunk in self._chunks(one, stages[0], room)]
        chunks.sort(key=lambda chunk: first not in chunk[0].which[chunk[1]])
        one, places = chunks[0]
        chunks[0] = one, places[np.argsort(one.which[places] != first, kind="stable")]
        together = 0 if late is None else len(self._chunks(late, stages[1], room, _LATE)[0])
        self._prepare(chunks if late is None else [*chunks, (late, np.arange(2 * together))])
        waiting: list[tuple[Tensor, dict[int, Tensor | Change]]] = []
        for number, (one, places) in enumerate(chunks):
            waiting.append((torch.from_numpy(one.which[places]), self._early(one, places, stages)))
            count = sum(len(which) for which, _ in waiting)
            if count >= max(self._most_waiting, 2 * together) or number == len(chunks) - 1:
                which = torch.cat([w for w, _ in waiting])
                heads = {n: self._put(n, [v[n] for _, v in waiting]) for n in waiting[0][1]}
                waiting = []
                if late is not None:
                    heads |= self._late(late, heads, together, stages[1])
                yield from self._after(which, heads)

    def _stages(self, groups: list[Group], late: Group | None) -> list[Stage]:
        steps = self.steps
        if late is None:
            return [Stage.of(steps, steps.all)]
        after = {n for n in steps.parts if all(covers(steps, n, g.boxes[n]) for g in groups)}
        after |= {n for n, step in steps.all.items() if after.intersection(step.inputs)}
        return [Stage.of(steps, set(steps.all) - after), Stage.of(steps, after)]

    def _room(self, groups: list[Group]) -> float:
        """Bytes for parts, beside clean maps and copies of weights and those of tiles."""
        kept = {0} | {number for one in groups for number in one.cut}
        clean = sum(_count(self.steps.shapes[number]) for number in kept) * self._bytes
        tiles = _held(self.steps, groups)
        held = tiles + copies(self.steps, groups)
        left = max(self.memory - held - clean, 0)
        self.scratch.bound(left / 4, tiles)
        return left * 3 / 4

    def _chunks(
        self, one: Group, stage: Stage, room: float, cache: float = _CACHE
    ) -> list[np.ndarray]:
        """The group's places in parts that fit the caches, and the memory."""
        widest = max(
            _count(boxes.size) * self.steps.shapes[number][0]
            for number, boxes in one.boxes.items()
            if number in stage.numbers or number in stage.last
        )
        most = min(cache // widest, room / 2 // max(stage.bytes(self.steps, one), 1)) / self._bytes
        count = len(one.which)
        return np.array_split(np.arange(count), -(-count // int(max(1, min(most, _MOST)))))

    def _prepare(self, chunks: list[tuple[Group, np.ndarray]]) -> None:
        """Run the clean image once, and keep the maps that will be cut from."""
        room: dict[int, int] = {}
        for one, places in chunks:
            for number in one.cut:
                height, width = one.boxes[number].size
                room[number] = max(room.get(number, 0), len(places) * height * width)
        shown = torch.stack([self.image, self.occluders.content.to(self.image)])
        pixels = self.network.normalized(shown).permute(0, 2, 3, 1).contiguous()
        clean, last = {0: pixels[:1]}, Stage.of(self.steps, self.steps.all).last
        self.blocks[0] = Block.of(pixels[:1], room.get(0, 0), pixels[1:])
        for number, step in self.steps.parts.items():
            clean[number] = _whole(step, [clean[i] for i in step.inputs], owned=False)
            if number in room:
                self.blocks[number] = Block.of(clean[number], room[number])
            for mean in self.steps.readers(number):
                if mean in self.steps.means:
                    self.sums[number] = _integral(clean[number][0])
                if mean in self.steps.dense:
                    self.full[mean] = self.steps.dense[mean].on(clean[number])
            for i in [i for i in clean if last.get(i, -1) <= number]:
                del clean[i]

    def _early(
        self, one: Group, places: np.ndarray, stages: list[Stage]
    ) -> dict[int, Tensor | Change]:
        """What some occluders of a group leave behind the first stage."""
        starts = {number: boxes.starts[places] for number, boxes in one.boxes.items()}
        hand = _Hand(self, one, starts, places)
        hand.keep(0, self._occluded(one, torch.from_numpy(one.which[places]), hand))
        return self._through(stages[0], hand)

    def _late(
        self, late: Group, heads: dict[int, Tensor], together: int, stage: Stage
    ) -> dict[int, Tensor]:
        """What comes of whole maps (place, row, column, channel), so many places together."""
        made: list[dict[int, Tensor | Change]] = []
        count = len(next(iter(heads.values())))
        for places in np.array_split(np.arange(count), max(1, round(count / together))):
            at = slice(int(places[0]), int(places[-1]) + 1)
            starts = {number: boxes.starts[: len(places)] for number, boxes in late.boxes.items()}
            hand = _Hand(self, late, starts, places - places[0])
            for number in stage.last:
                if number not in stage.numbers:
                    hand.keep(number, heads[number][at])
            made.append(self._through(stage, hand))
        return {n: self._put(n, [one[n] for one in made]) for n in made[0]}

    def _through(self, stage: Stage, hand: "_Hand") -> dict[int, Tensor | Change]:
        heads: dict[int, Tensor | Change] = {}
        for number in stage.numbers:
            if number in self.steps.means:
                heads[number] = self._mean(number, hand)
            elif number in self.steps.dense:
                heads[number] = self._dense(number, hand)
            else:
                hand.keep(number, hand.step(number))
            for i in [i for i in hand.values if stage.last.get(i, -1) <= number]:
                if i in stage.left:
                    heads[i] = hand.whole(i)
                del hand.values[i]
        return heads | {i: hand.whole(i) for i in hand.values if i in stage.left}

    def _occluded(self, one: Group, which: Tensor, hand: "_Hand") -> Parts:
        block, boxes = self.blocks[0], self.occluders.boxes[which].numpy()
        size = one.boxes[0].size
        row, column = (_along(hand.starts[0], axis, size[axis]) for axis in (0, 1))
        inside = (row >= boxes[:, 0:1]) & (row < boxes[:, 2:3])
        beside = (column >= boxes[:, 1:2]) & (column < boxes[:, 3:4])
        hidden = inside[:, :, None] & beside[:, None, :]
        pixel = row[:, :, None] * block.width + column[:, None, :]
        if self.occluders.masks is not None:
            masks = self.occluders.masks[which].flatten(1).cpu().numpy()
            hidden &= np.take_along_axis(masks, pixel.reshape(len(pixel), -1), 1).reshape(
                hidden.shape
            )
        index = pixel + HEAD + hidden * (block.height * block.width)
        return block.fetch(index)

    def _mean(self, number: int, hand: "_Hand") -> Tensor:
        step = self.steps.means[number]
        (source,) = step.inputs
        part, boxes = hand.values[source], hand.group.boxes[source]
        _, height, width = self.steps.shapes[source]
        if boxes.size == (height, width):
            return part.mean((1, 2)).view(len(part), *step.shape)
        (top, left), sums = hand.starts[source].T, self.sums[source]
        bottom, right = top + boxes.size[0], left + boxes.size[1]
        window = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        total = sums[-1, -1] + (part.sum((1, 2)).double() - window)
        return (total / (height * width)).to(part).view(len(part), *step.shape)

    def _dense(self, number: int, hand: "_Hand") -> Tensor | Change:
        (source,) = self.steps.dense[number].inputs
        boxes, part = hand.group.boxes[source], hand.values[source]
        if covers(self.steps, source, boxes):
            return self.steps.dense[number].on(part)
        if len(self.occluders) < _FEW:
            return self.steps.dense[number].on(hand.whole(source))
        block, (low, high) = self.blocks[source], hand.reach(source)
        row, column = (_along(hand.starts[source], axis, boxes.size[axis]) for axis in (0, 1))
        own = [(x >= low[:, [i]]) & (x < high[:, [i]]) for i, x in enumerate((row, column))]
        owners, rows, columns = np.nonzero(own[0][:, :, None] & own[1][:, None])
        pixels = row[owners, rows] * block.width + column[owners, columns]
        inside = (owners * boxes.size[0] + rows) * boxes.size[1] + columns
        values = part.flatten(0, 2)[torch.from_numpy(inside).to(part.device)]
        return Change(hand.count, values - block.fetch(pixels + HEAD), pixels, owners)

    def _put(self, number: int, heads: list[Tensor | Change]) -> Tensor:
        """What batches answer, one behind the other."""
        firsts = np.cumsum([0, *map(len, heads)]).tolist()
        placed = list(zip(firsts, heads, strict=False))
        changes = [(first, head) for first, head in placed if isinstance(head, Change)]
        if not changes:
            return torch.cat([head for head in heads if isinstance(head, Tensor)])
        answer = self.full[number].repeat(firsts[-1], 1)
        for first, head in placed:
            if isinstance(head, Tensor):
                answer[first : first + len(head)] = head
        self.steps.dense[number].add(
            answer,
            torch.cat([change.values for _, change in changes]),
            np.concatenate([change.pixels for _, change in changes]),
            np.concatenate([change.owners + first for first, change in changes]),
            self.memory / 8,
        )
        return answer

    def _after(
        self, which: Tensor, heads: dict[int, Tensor]
    ) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:
        for places in torch.arange(len(which)).split(self._together):
            at = slice(int(places[0]), int(places[-1]) + 1)
            values = {n: head[at] for n, head in heads.items() if n in self.steps.frontier}
            for number in values:
                if number in self.steps.shapes:
                    values[number] = values[number].permute(0, 3, 1, 2).contiguous()
            for number in self.steps.after:
                call = self.steps.graph.calls[number]
                assert call is not None
                values[number] = again(call, values, len(places))
            yield which[at], {n: values[n] for n in self.steps.graph.layers.values()}

    @property
    def _together(self) -> int:
        """How many occluders go through what follows the parts in one batch."""
        calls = [self.steps.graph.calls[n] for n in (*self.steps.after, *self.steps.frontier)]
        numbers = sum(int(np.prod(call.shape[1:])) for call in calls if call is not None)
        # Whatever suits the caches: the weights of a transformer are brought in for every batch.
        most = min(max(_SUFFIX, _FEWEST * numbers), self.memory / self._bytes / 2) // max(
            numbers, 1
        )
        return int(max(4, min(256, most)))

    @property
    def _most_waiting(self) -> int:
        """How many occluders wait for it: many, where large weights are brought in for them."""
        numbers = [
            np.prod(self.steps.shapes[i]) for d in self.steps.dense.values() for i in d.inputs
        ]
        # Changes wait, are laid one behind the other, and sorted.
        most = self.memory / self._bytes / 12 // max(sum(numbers), 1)
        return int(max(self._together, min(_DENSE, most))) if numbers else self._together

    @property
    def _bytes(self) -> int:
        return self.image.element_size()

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.network.device


@dataclass(eq=False)
class _Hand:
    """The parts of some occluders on their way through the steps."""

    engine: Engine
    group: Group
    starts: dict[int, Places]
    places: Places
    values: dict[int, Parts] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many occluders they are."""
        return len(self.places)

    def keep(self, number: int, parts: Parts) -> None:
        """Put the parts of a map where they can be cut from, if they will be."""
        if number in self.group.cut:
            tail = self.engine.blocks[number].tail(self.count, self.group.boxes[number].size)
            if tail.data_ptr() != parts.data_ptr():
                tail.copy_(parts)
            parts = tail
        self.values[number] = parts

    def step(self, number: int) -> Parts:
        """The parts of a map from those of its inputs."""
        step, boxes = self.engine.steps.parts[number], self.group.boxes[number]
        if isinstance(step, Window):
            return self._window(number, step, boxes)
        given = [self._at(i, self.starts[number], boxes.size, ZERO) for i in step.inputs]
        if isinstance(step, Join):
            return torch.cat(given, -1)
        assert isinstance(step, Pointwise)
        if step.rectifies and number in self.group.cut:
            tail = self.engine.blocks[number].tail(self.count, boxes.size)
            return torch.clamp_min(given[0], 0, out=tail)
        return step.work(given, self._owned(step, given[0]))

    def reach(self, number: int) -> tuple[Places, Places]:
        """First and one-past-last (row, column) that each occluder itself can change."""
        low, high = self.group.reach[number]
        return low[self.places], high[self.places]

    def whole(self, number: int) -> Parts:
        """The whole map (occluder, row, column, channel), the clean one around the part; a copy."""
        _, height, width = self.engine.steps.shapes[number]
        starts = np.zeros((self.count, 2), dtype=np.int32)
        found = self._at(number, starts, (height, width), ZERO)
        return found.clone() if found is self.values[number] else found

    def _window(self, number: int, step: Window, boxes: Boxes) -> Parts:
        (source,) = step.inputs
        steps = self.engine.steps
        tile = self.group.tiles.get(number)
        if tile is not None and step.tiles is not None:
            block = self.engine.blocks[source]
            whole = tuple(-(-n // side) * side for n, side in zip(boxes.size, tile, strict=True))
            starts, size = step.field(self.starts[number], (whole[0], whole[1]))
            index = self._index(source, block, starts, size, step.fill)
            return step.tiles(block.rows, index, boxes.size, tile, self.engine.scratch)
        if covers(steps, source, self.group.boxes[source]) and covers(steps, number, boxes):
            return _whole(step, [self.values[source]], owned=False)
        starts, size = step.field(self.starts[number], boxes.size)
        if step.picked is not None:
            block = self.engine.blocks[source]
            index = self._index(source, block, starts, boxes.size, step.fill, step.stride)
            part, work = block.fetch(index), step.picked
        else:
            part, work = self._at(source, starts, size, step.fill), step.work
        answer = work(part.permute(0, 3, 1, 2), (0, 0)).permute(0, 2, 3, 1).contiguous()
        if step.share is not None:
            row, column = (
                torch.from_numpy(step.share(axis, self.starts[number][:, axis], boxes.size[axis]))
                for axis in (0, 1)
            )
            answer = answer * (row[:, :, None, None] * column[:, None, :, None]).to(answer)
        return answer

    def _at(self, number: int, starts: Places, size: tuple[int, int], fill: int) -> Parts:
        """A map's values in boxes of one size, fetched unless they are just the map's own parts."""
        if self.group.boxes[number].size == size and np.array_equal(self.starts[number], starts):
            return self.values[number]
        block = self.engine.blocks[number]
        return block.fetch(self._index(number, block, starts, size, fill))

    def _index(
        self,
        number: int,
        block: Block,
        starts: Places,
        size: tuple[int, int],
        fill: int,
        stride: tuple[int, int] = (1, 1),
    ) -> Places:
        """The block's rows that hold a window of each occluder: part, clean map, padding.

        With a stride, `size` pixels of it.
        """
        height, width = self.group.boxes[number].size
        row, column = (_along(starts, axis, size[axis], stride[axis]) for axis in (0, 1))
        in_row, in_column = row - self.starts[number][:, :1], column - self.starts[number][:, 1:]
        first = np.arange(self.count, dtype=np.int32)[:, None] * height
        own = ((first + in_row) * width + block.base)[:, :, None] + in_column[:, None, :]
        clean = (row * block.width + HEAD)[:, :, None] + column[:, None, :]
        # As unsigned numbers, those below 0 are larger than any size.
        owns_row, owns_column = in_row.view(np.uint32) < height, in_column.view(np.uint32) < width
        index = np.where(owns_row[:, :, None] & owns_column[:, None, :], own, clean)
        in_map = row.view(np.uint32) < block.height, column.view(np.uint32) < block.width
        if not (in_map[0].all() and in_map[1].all()):
            index[~(in_map[0][:, :, None] & in_map[1][:, None, :])] = fill
        return index

    def _owned(self, step: Pointwise, part: Parts) -> bool:
        """Whether nobody else will read the first input, so that it may be overwritten."""
        first = step.inputs[0]
        steps = self.engine.steps
        # A step that hands its input through makes two numbers share one memory.
        shared = sum(value.data_ptr() == part.data_ptr() for value in self.values.values())
        return len(steps.readers(first)) == 1 and first not in steps.frontier and (
            shared == 1 and first not in self.group.cut
        )  # fmt: skip


def _whole(step: Local, given: list[Parts], owned: bool) -> Parts:
    """A step on whole maps."""
    if isinstance(step, Join):
        return torch.cat(given, -1)
    if isinstance(step, Pointwise):
        return step.work(given, owned)
    assert isinstance(step, Window)
    maps = given[0].permute(0, 3, 1, 2)
    answer = step.work(maps, step.padding) if step.whole is None else step.whole(maps)
    return answer.permute(0, 2, 3, 1).contiguous()


def _along(starts: Places, axis: int, size: int, stride: int = 1) -> Places:
    """The rows or columns of boxes: (place, row or column)."""
    rows: Places = starts[:, axis, None] + np.arange(size, dtype=np.int32) * np.int32(stride)
    return rows


def _held(steps: Steps, groups: list[Group]) -> int:
    """Bytes of the weights of all tiles that will be used."""
    used = {(number, tile) for one in groups for number, tile in one.tiles.items()}
    tiles = ((steps.parts[number].tiles, tile) for number, tile in used)  # type: ignore[union-attr]
    return sum(kept.bytes(tile) for kept, tile in tiles if kept is not None)


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _integral(clean: Float[Tensor, "row column channel"]) -> Tensor:
    """Sums over all pixels above and left of each corner, in double precision."""
    sums = clean.double().cumsum(0).cumsum(1)
    return torch.nn.functional.pad(sums, (0, 0, 1, 0, 1, 0))


_MOST = 256
_SUFFIX, _FEWEST = 16e6, 16
_DENSE, _FEW = 1024, 32
