"""What steps cost on parts of some sizes, counted, so that the planner can choose.

Occluders of a grid fall into classes by how far they reach along each axis; those of one class of
rows and one of columns are computed together, at the size that the largest of them needs. Fewer
classes mean larger batches and more that is computed for nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optogram.core.incremental.operations import Join, Local, Window
from optogram.core.incremental.winograd import TILES

Places = np.ndarray
Pair = tuple[int, int]

# Seconds for a floating point operation, for moving a number through memory, for calling a step
# once and for bringing in a byte of weights; only their proportions decide.
PRODUCT, MOVE, CALL, WEIGHT = 1e-11, 1.5e-9, 250e-6, 0.4e-9
_FEW = 5


@dataclass(frozen=True, eq=False)
class Side:
    """The classes of one axis: how many places of each map they reach.

    `tops` (class, map) is the most that any of a class needs, `counts` how many occluders it has,
    `owners` the class of each interval.
    """

    tops: Places
    counts: Places
    owners: Places

    @classmethod
    def of(cls, spans: Places, counts: Places) -> "Side":
        """Intervals that reach (interval, map) places, so many occluders each: like ones a class"""
        unlike, owners = np.unique(spans, axis=0, return_inverse=True)
        return cls(unlike, np.bincount(owners.ravel(), counts), owners.ravel())

    def merged(self, a: int, b: int) -> "Side":
        """With class b counted to class a, the lower number."""
        tops, counts = self.tops.copy(), self.counts.copy()
        tops[a], counts[a] = np.maximum(tops[a], tops[b]), counts[a] + counts[b]
        owners = np.where(self.owners == b, a, self.owners)
        return Side(np.delete(tops, b, 0), np.delete(counts, b), owners - (owners > b))

    def mergers(self) -> Iterator[tuple[int, int]]:
        """All pairs of classes."""
        yield from ((a, b) for b in range(len(self.tops)) for a in range(b))


@dataclass(frozen=True, eq=False)
class Work:
    """The steps' costs: seconds a place of each map, and for each call.

    `tiled` are the maps that can be made in tiles. Of those, (map, tile, 1, 1), `each` is what a
    tile costs, `around` what a round of at most so many tiles, `once` what the first use, in
    seconds, and `held` the bytes of the transformed weights.
    """

    price: Places
    call: Places
    tiled: list[int]
    each: Places
    around: Places
    most: Places
    once: Places
    held: Places

    @classmethod
    def of(cls, parts: dict[int, Local], shapes: dict[int, tuple[int, int, int]]) -> "Work":
        """For steps and the shapes of their maps, the image first."""
        price, call, tiled, found = [0.0], [0.0], [], []
        for place, (number, step) in enumerate(parts.items(), 1):
            moved = shapes[number][0]
            if isinstance(step, Window | Join):
                moved += sum(shapes[i][0] for i in step.inputs)
            price.append(PRODUCT * step.flops + MOVE * moved)
            call.append(CALL + WEIGHT * (step.weights if isinstance(step, Window) else 0))
            if isinstance(step, Window) and step.tiles is not None:
                tiled.append(place)
                found.append(step.tiles.prices())
        prices = np.array(found, dtype=float).reshape(len(found), 5, len(TILES), 1, 1)
        return cls(np.array(price), np.array(call), tiled, *prices.swapaxes(0, 1))

    def merge(self, sides: tuple[Side, Side]) -> tuple[Side, Side]:
        """Classes put together, two at a time, as long as that costs less in all."""
        sides = self._few(sides, 0), sides[1]
        sides = sides[0], self._few((sides[1], sides[0]), 1)
        cost = self.seconds(sides)
        while True:
            tried = [(sides[0].merged(a, b), sides[1]) for a, b in sides[0].mergers()]
            tried += [(sides[0], sides[1].merged(a, b)) for a, b in sides[1].mergers()]
            costs = [self.seconds(one) for one in tried]
            if not tried or min(costs) >= cost:
                return sides
            cost = min(costs)
            sides = tried[costs.index(cost)]

    def _few(self, sides: tuple[Side, Side], axis: int) -> Side:
        """The first side in a few classes, by what is computed for nothing alone."""
        side, other = sides
        price = self.price * (other.tops * other.counts[:, None]).sum(0) / other.counts.sum()
        while len(side.tops) > _FEW:

            def loss(pair: tuple[int, int], side: Side = side) -> float:
                tops = side.tops[list(pair)]
                extra = side.counts[list(pair)] @ (tops.max(0) - tops)
                return float((extra * price).sum())

            side = side.merged(*min(side.mergers(), key=loss))
        return side

    def seconds(self, sides: tuple[Side, Side]) -> float:
        """What all occluders cost."""
        plain, same, each, *_ = self._each(sides)
        return float(plain.sum() - np.maximum(np.maximum(same.max(1), each), 0).sum())

    def tiles(self, sides: tuple[Side, Side], room: float) -> dict[int, Places]:
        """Which of the tiles each map is computed in, -1 for none: (class, class).

        Their weights take at most `room` bytes; what saves most a byte comes first, and is given
        up for what saves more where that fits too.
        """
        _, same, each, best, saved = self._each(sides)
        offers = []
        for row, place in enumerate(self.tiled):
            for tile in np.flatnonzero(same[row] > 0):
                choice = np.where(saved[row, tile] > 0, tile, -1)
                offers.append((float(same[row, tile]), self.held[row, tile, 0, 0], place, choice))
            if each[row] > 0:
                choice = np.where(saved[row].max(0) > 0, best[row], -1)
                held = self.held[row, np.unique(choice[choice >= 0]), 0, 0].sum()
                offers.append((float(each[row]), held, place, choice))
        chosen: dict[int, Places] = {}
        taken: dict[int, tuple[float, float]] = {}
        for gain, held, place, choice in sorted(offers, key=lambda one: -one[0] / max(one[1], 1)):
            before, used = taken.get(place, (0.0, 0.0))
            if gain > before and held - used <= room:
                chosen[place], taken[place], room = choice, (gain, held), room - held + used
        return chosen

    def _each(self, sides: tuple[Side, Side]) -> tuple[Places, Places, Places, Places, Places]:
        """Seconds of every map, and what tiles save of them.

        For the maps in tiles: saved by one tile for all classes (map, tile), by the best for each
        (map), which those are (map, class, class), and all (map, tile, class, class).
        """
        row, column = sides
        counts = np.outer(row.counts, column.counts) / row.counts.sum()
        covered = row.tops[:, None] * column.tops[None]
        plain = counts[..., None] * covered * self.price + self.call
        tall, wide = (side[:, None, None] for side in TILES.T)
        down, across = (one.tops[:, self.tiled].T[:, None] for one in sides)
        tiles = counts * -(-down[..., None] // tall) * -(-across[:, :, None] // wide)
        cost = tiles * self.each + np.ceil(tiles / self.most) * self.around
        saved = np.maximum(plain[..., self.tiled].transpose(2, 0, 1)[:, None] - cost - CALL, 0)
        once, best, most = self.once[..., 0, 0], saved.argmax(1), saved.max(1)
        used = (best[:, None] == np.arange(len(TILES))[:, None, None]) & (most > 0)[:, None]
        each = most.sum((1, 2)) - (once * used.any((2, 3))).sum(1)
        return plain.sum((0, 1)), saved.sum((2, 3)) - once, each, best, saved
