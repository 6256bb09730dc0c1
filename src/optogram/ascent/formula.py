"""Images as formulas that can be bred: networks from a pixel's place to its colour, of any shape.

Unlike `cppn`, whose shape is fixed and whose weights climb, these gain and lose neurons by chance
(Stanley, 2007). Each neuron is a sine, a sigmoid, a Gaussian or a line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

INPUTS = 4  # row, column, distance from the middle, 1
RANGE = 10.0  # of a weight, to either side
Edge = tuple[int, int, float]
Plane = np.ndarray


@dataclass(frozen=True)
class Formula:
    """A network without circles: neurons are numbered, inputs first, then outputs, then the rest.

    `kinds` is the function of each neuron that is no input, by its place in `FUNCTIONS`, -1 where a
    neuron has gone; `edges` are (from, to, weight).
    """

    outputs: int
    kinds: tuple[int, ...]
    edges: tuple[Edge, ...]

    def written(self) -> list[Any]:
        """As JSON values; `read` turns them back, bit for bit."""
        return [self.outputs, list(self.kinds), [list(edge) for edge in self.edges]]

    @classmethod
    def read(cls, written: Sequence[Any]) -> "Formula":
        """What `written` wrote."""
        outputs, kinds, edges = written
        return cls(outputs, tuple(kinds), tuple((a, b, float(w)) for a, b, w in edges))

    def paint(self, height: int, width: int) -> Plane:
        """The image, (1 or 3, height, width), uint8: a grey, or a hue, a lightness, a saturation.

        Every pixel is worked out by itself in double precision, so that it depends on nothing else.
        """
        values: list[Plane | None] = [*_places(height, width)]
        values += [None] * len(self.kinds)
        into: dict[int, list[Edge]] = {}
        for edge in self.edges:
            into.setdefault(edge[1], []).append(edge)
        answers = [_value(INPUTS + n, self, into, values) for n in range(self.outputs)]
        levels = [(np.clip(answer, -1, 1) + 1) / 2 for answer in answers]
        image = levels[0][None] if self.outputs == 1 else _rgb(*levels)
        return np.rint(image * 255).astype(np.uint8)


def first(outputs: int, chance: Iterator[float]) -> Formula:
    """Every output joined to every input by a random weight, with random functions."""
    kinds = tuple(_among(len(FUNCTIONS), chance) for _ in range(outputs))
    edges = tuple(
        (source, INPUTS + n, RANGE * (2 * next(chance) - 1))
        for n in range(outputs)
        for source in range(INPUTS)
    )
    return Formula(outputs, kinds, edges)


def mutated(parent: Formula, chance: Iterator[float], rate: float, eta: float) -> Formula:
    """A child: perhaps an edge or a neuron more or less, and each weight changed with `rate`.

    The shares are those of the authors' code: an edge added 0.5, taken away 0.3, moved 0.5, a
    neuron added 0.5, taken away 0.2.
    """
    kinds, edges = list(parent.kinds), list(parent.edges)
    if next(chance) < 0.5:
        _add_edge(kinds, edges, chance)
    if next(chance) < 0.3 and len(edges) > 1:
        edges.pop(_among(len(edges), chance))
    if next(chance) < 0.5 and edges:
        edges.pop(_among(len(edges), chance))
        _add_edge(kinds, edges, chance)
    if next(chance) < 0.5 and edges:
        source, to, weight = edges.pop(_among(len(edges), chance))
        new = INPUTS + len(kinds)
        kinds.append(_among(len(FUNCTIONS), chance))
        edges += [(source, new, 1.0), (new, to, weight)]
    hidden = [n for n, kind in enumerate(kinds) if kind >= 0 and n >= parent.outputs]
    if next(chance) < 0.2 and hidden:
        gone = hidden[_among(len(hidden), chance)]
        kinds[gone] = -1
        edges = [edge for edge in edges if INPUTS + gone not in edge[:2]]
    for place, kind in enumerate(kinds):
        if kind >= 0 and next(chance) < rate:
            kinds[place] = _among(len(FUNCTIONS), chance)
    for place, (source, to, weight) in enumerate(edges):
        if next(chance) < rate:
            weight = weight + 2 * RANGE * float(polynomial(np.asarray(next(chance)), eta))
            edges[place] = (source, to, min(max(weight, -RANGE), RANGE))
    return Formula(parent.outputs, *_packed(kinds, edges))


def needed(formulas: Sequence[Formula]) -> int:
    """How many random numbers any of them needs at most to have a child."""
    return max((20 + 2 * len(f.kinds) + 2 * len(f.edges) + 12 for f in formulas), default=40)


def polynomial(uniform: Plane, eta: float) -> Plane:
    """Deb's polynomial mutation, as a share of the range: mostly small, at most 1 either way."""
    power = 1 / (eta + 1)
    low = (2 * np.minimum(uniform, 0.5)) ** power - 1
    high = 1 - (2 * (1 - np.maximum(uniform, 0.5))) ** power
    return np.where(uniform < 0.5, low, high)


def _among(count: int, chance: Iterator[float]) -> int:
    return min(int(next(chance) * count), count - 1)


def _add_edge(kinds: list[int], edges: list[Edge], chance: Iterator[float]) -> None:
    """Join two neurons, where that is new and closes no circle."""
    there = [INPUTS + n for n, kind in enumerate(kinds) if kind >= 0]
    sources = [*range(INPUTS), *there]
    source, to = sources[_among(len(sources), chance)], there[_among(len(there), chance)]
    weight = RANGE * (2 * next(chance) - 1)
    taken = any(edge[:2] == (source, to) for edge in edges)
    if not taken and source not in _after(to, edges):
        edges.append((source, to, weight))


def _after(neuron: int, edges: list[Edge]) -> set[int]:
    """The neuron and all that it reaches."""
    seen, front = {neuron}, [neuron]
    while front:
        here = front.pop()
        ahead = {to for source, to, _ in edges if source == here} - seen
        seen |= ahead
        front += ahead
    return seen


def _packed(kinds: list[int], edges: list[Edge]) -> tuple[tuple[int, ...], tuple[Edge, ...]]:
    """Without the neurons that have gone."""
    kept = [n for n, kind in enumerate(kinds) if kind >= 0]
    names = {INPUTS + old: INPUTS + new for new, old in enumerate(kept)}
    names |= {n: n for n in range(INPUTS)}
    again = tuple((names[source], names[to], weight) for source, to, weight in edges)
    return tuple(kinds[n] for n in kept), again


def _value(
    neuron: int, formula: Formula, into: dict[int, list[Edge]], values: list[Plane | None]
) -> Plane:
    found = values[neuron]
    if found is None:
        total = np.zeros_like(values[0])  # a neuron with nothing before it is one grey all over
        for source, _, weight in into.get(neuron, []):
            total = total + weight * _value(source, formula, into, values)
        found = values[neuron] = FUNCTIONS[formula.kinds[neuron - INPUTS]](total)
    return found


_PLACES: dict[tuple[int, int], tuple[Plane, ...]] = {}


def _places(height: int, width: int) -> tuple[Plane, ...]:
    """Row and column from -1 to 1, distance from the middle (1 in the corners), and 1."""
    if (height, width) not in _PLACES:
        rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        one = np.ones((height, width))
        _PLACES[height, width] = rows, columns, np.sqrt((rows**2 + columns**2) / 2), one
    return _PLACES[height, width]


def _rgb(hue: Plane, lightness: Plane, saturation: Plane) -> Plane:
    """HLS, all in [0, 1], as red, green and blue."""
    spread = saturation * np.minimum(lightness, 1 - lightness)
    turns = [(n + 12 * hue) % 12 for n in (0, 8, 4)]
    bright = [lightness - spread * np.clip(np.minimum(turn - 3, 9 - turn), -1, 1) for turn in turns]
    return np.stack(bright)


def _sigmoid(values: Plane) -> Plane:
    return np.asarray(np.tanh(values / 2))


def _gaussian(values: Plane) -> Plane:
    return np.asarray(np.exp(-np.square(np.clip(values, -30, 30))))


def _line(values: Plane) -> Plane:
    return np.asarray(np.clip(values, -3, 3) / 3)


FUNCTIONS = (np.sin, _sigmoid, _gaussian, _line)
