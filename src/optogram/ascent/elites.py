"""Evolution with a niche for every unit: the best image found for each, bred from all the others.

MAP-Elites (Mouret & Clune, 2015) as it was used by Nguyen, Yosinski and Clune (2015): a child is
asked about every unit of a layer at once and takes the place of each champion that it beats.
"""

import base64
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent import formula
from optogram.ascent.formula import Formula, polynomial
from optogram.core.chance import Streams
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically

Judge = Callable[[Float[Tensor, "batch channel height width"]], Float[Tensor, "batch niche"]]
Genome = Any
ETA_MUTATION, ETA_CROSSOVER = 15.0, 10.0
CROSSED = 0.5
HALVED_AFTER = 1000  # generations, for the direct encoding's mutation rate
SMALL = 4096  # numbers of an image, up to which the archive keeps ancestors' pixels


@dataclass(frozen=True, eq=False)
class Being:
    """One image of the archive: its number, its parents, when it was born, its genome.

    `parents` are none in the first generation, two where a crossover had a part, else one.
    `genome` is None for a large image's ancestor that is no champion any more.
    """

    number: int
    parents: tuple[int, ...]
    born: int
    genome: Genome


@dataclass(eq=False)
class Archive:
    """The champions, and those they come from, after so many generations.

    `champions` (niches,) are the numbers of beings, `fitness` (niches,) theirs, `history` the
    fitness after each generation, `won` who won which niche first.
    """

    settings: dict[str, Any]
    generation: int = 0
    champions: list[int] = field(default_factory=list)
    fitness: list[float] = field(default_factory=list)
    history: list[list[float]] = field(default_factory=list)
    beings: dict[int, Being] = field(default_factory=dict)
    niches: dict[int, list[int]] = field(default_factory=dict)

    def tree(self, *numbers: int) -> list[Being]:
        """Some beings and all whom they come from, the oldest first."""
        found: dict[int, Being] = {}
        asked = list(numbers)
        while asked:
            number = asked.pop()
            if number not in found:
                found[number] = self.beings[number]
                asked.extend(found[number].parents)
        return [found[number] for number in sorted(found)]

    def swept(self) -> None:
        """Forget who is no champion's ancestor."""
        self.beings = {being.number: being for being in self.tree(*self.champions)}
        self.niches = {n: self.niches[n] for n in self.beings if n in self.niches}


@runtime_checkable
class Encoding(Protocol):
    """How a genome begins, has a child, is painted and is written."""

    def first(self, count: int, streams: Streams) -> list[Genome]:
        """The first generation."""
        ...

    def children(
        self, parents: list[Genome], others: list[Genome], streams: Streams, generation: int
    ) -> tuple[list[Genome], list[bool]]:
        """A child of each parent, and whether the one of `others` had a part in it."""
        ...

    def paint(self, genome: Genome) -> np.ndarray:
        """The image, uint8."""
        ...

    def write(self, genome: Genome) -> Any:
        """As JSON values."""
        ...

    def read(self, written: Any) -> Genome:
        """What `write` wrote."""
        ...


@dataclass(frozen=True)
class Direct:
    """A byte for each pixel: noise at first, then polynomial mutation and crossover (SBX)."""

    shape: tuple[int, int, int]
    rate: float

    def first(self, count: int, streams: Streams) -> list[Genome]:
        """Uniform noise."""
        pixels = streams.uniform("first", int(np.prod(self.shape))).numpy()
        return list(np.rint(pixels * 255).astype(np.uint8))

    def children(
        self, parents: list[Genome], others: list[Genome], streams: Streams, generation: int
    ) -> tuple[list[Genome], list[bool]]:
        """Crossed with half of the others, then each pixel changed with the rate."""
        size, step = len(parents[0]), generation
        one, other = (np.stack(some).astype(np.float64) / 255 for some in (parents, others))
        drawn = streams.uniform("crossover", size + 1, step).numpy()
        crossed = drawn[:, :1] < CROSSED
        even = drawn[:, 1:]
        # Simulated binary crossover: one of its two children.
        low, high = 2 * even, 1 / (2 * (1 - even)).clip(1e-12)
        spread = np.where(even <= 0.5, low, high) ** (1 / (ETA_CROSSOVER + 1))
        child = np.where(crossed, 0.5 * ((1 + spread) * one + (1 - spread) * other), one)
        rate = self.rate * 0.5 ** (generation // HALVED_AFTER)
        where = streams.uniform("where", size, step).numpy() < rate
        much = polynomial(streams.uniform("much", size, step).numpy(), ETA_MUTATION)
        child = np.where(where, child + much, child)
        return list(np.rint(child.clip(0, 1) * 255).astype(np.uint8)), crossed[:, 0].tolist()

    def paint(self, genome: Genome) -> np.ndarray:
        """The bytes in rows."""
        return np.asarray(genome).reshape(self.shape)

    def write(self, genome: Genome) -> Any:
        """Packed, as text."""
        return base64.b64encode(zlib.compress(genome.tobytes(), 6)).decode()

    def read(self, written: Any) -> Genome:
        """What `write` wrote."""
        return np.frombuffer(zlib.decompress(base64.b64decode(written)), np.uint8)


@dataclass(frozen=True)
class Painted:
    """A formula for each image (`optogram.ascent.formula`), which has one parent."""

    shape: tuple[int, int, int]
    rate: float

    def first(self, count: int, streams: Streams) -> list[Genome]:
        """The simplest formulas, with random weights."""
        rows = streams.uniform("first", 40).tolist()
        return [formula.first(self.shape[0], iter(row)) for row in rows]

    def children(
        self, parents: list[Genome], others: list[Genome], streams: Streams, generation: int
    ) -> tuple[list[Genome], list[bool]]:
        """Each mutated."""
        rows = streams.uniform("mutation", formula.needed(parents), generation).tolist()
        pairs = zip(parents, rows, strict=True)
        mutated = [formula.mutated(p, iter(row), self.rate, ETA_MUTATION) for p, row in pairs]
        return mutated, [False] * len(mutated)

    def paint(self, genome: Genome) -> np.ndarray:
        """The formula's answer at every pixel."""
        return np.asarray(genome.paint(*self.shape[1:]))

    def write(self, genome: Genome) -> Any:
        """The formula as lists."""
        return genome.written()

    def read(self, written: Any) -> Genome:
        """What `write` wrote."""
        return Formula.read(written)


def breed(
    archive: Archive, encoding: Encoding, judge: Judge, generations: int, seed: int
) -> Iterator[Archive]:
    """Breed until the archive has seen so many generations; yields it after each.

    What a generation does follows from the archive, the seed and its number alone, so that a run
    that was stopped goes on as if it had not been.
    """
    population = archive.settings["population"]
    streams = Streams(seed, tuple(f"child {n}" for n in range(population)))
    while archive.generation < generations:
        step = archive.generation
        if step == 0:
            parents: list[tuple[int, ...]] = [()] * population
            genomes = encoding.first(population, streams)
        else:
            drawn = streams.integers("parents", 0, len(archive.champions) - 1, 2, step).tolist()
            chosen = [[archive.champions[n] for n in pair] for pair in drawn]
            mothers, fathers = (
                [archive.beings[pair[side]].genome for pair in chosen] for side in (0, 1)
            )
            genomes, crossed = encoding.children(mothers, fathers, streams, step)
            parents = [
                (one, other) if both and one != other else (one,)
                for (one, other), both in zip(chosen, crossed, strict=True)
            ]
        _admit(archive, parents, genomes, judge(as_images(encoding, genomes)))
        archive.generation += 1
        archive.history.append(list(archive.fitness))
        yield archive


def as_images(
    encoding: Encoding, genomes: list[Genome]
) -> Float[Tensor, "batch channel height width"]:
    """The images of some genomes, float32 in [0, 1]."""
    return torch.from_numpy(np.stack([encoding.paint(g) for g in genomes])).float() / 255


def _admit(
    archive: Archive, parents: list[tuple[int, ...]], genomes: list[Genome], scores: Tensor
) -> None:
    """Each niche to the best child, where that beats its champion."""
    best, place = scores.cpu().max(0)
    if not bool(torch.isfinite(best).all()):
        raise RequestError("the network's answer to an evolved image holds NaN or infinity")
    first = len(genomes) * archive.generation
    if not archive.champions:
        archive.champions, archive.fitness = [-1] * len(best), [-np.inf] * len(best)
    for niche, (score, child) in enumerate(zip(best.tolist(), place.tolist(), strict=True)):
        if score > archive.fitness[niche]:
            number = first + child
            archive.champions[niche], archive.fitness[niche] = number, score
            archive.niches.setdefault(number, []).append(niche)
            archive.beings[number] = Being(
                number, parents[child], archive.generation, genomes[child]
            )


def save(archive: Archive, encoding: Encoding, path: str | os.PathLike[str]) -> None:
    """Write the archive as JSON, atomically; the same archive makes the same bytes."""
    archive.swept()
    small = int(np.prod(archive.settings["shape"])) <= SMALL or isinstance(encoding, Painted)
    keeps = set(archive.beings) if small else set(archive.champions)
    beings = [
        [b.number, b.parents, b.born, encoding.write(b.genome) if b.number in keeps else None]
        for b in archive.beings.values()
    ]
    content = {
        "settings": archive.settings,
        "generation": archive.generation,
        "champions": archive.champions,
        "fitness": archive.fitness,
        "history": archive.history,
        "beings": beings,
        "niches": {str(number): won for number, won in archive.niches.items()},
    }
    write_atomically(path, json.dumps(content, allow_nan=False, sort_keys=True).encode())


def load(
    path: str | os.PathLike[str], encoding: Encoding, settings: Mapping[str, Any]
) -> Archive | None:
    """The archive that a run left; None where there is none yet.

    Raises RequestError for a file of something else, and for one of another network or settings.
    """
    if not Path(path).exists():
        return None
    try:
        found = json.loads(Path(path).read_text("utf-8"))
        known = found["settings"]
        beings = [
            Being(number, tuple(parents), born, None if genome is None else encoding.read(genome))
            for number, parents, born, genome in found["beings"]
        ]
        archive = Archive(
            dict(settings),
            int(found["generation"]),
            list(found["champions"]),
            list(found["fitness"]),
            list(found["history"]),
            {being.number: being for being in beings},
            {int(number): won for number, won in found["niches"].items()},
        )
    except (KeyError, ValueError, TypeError, OSError, UnicodeDecodeError, zlib.error) as problem:
        raise RequestError(
            f"'{path}' is no archive of an evolution: name another file"
        ) from problem
    odd = [name for name in settings if known.get(name) != settings[name]]
    if odd:
        raise RequestError(
            f"the archive '{path}' is of another {odd[0]}: {known.get(odd[0])!r}, not "
            f"{settings[odd[0]]!r}; name another file"
        )
    return archive
