"""Evolution: images bred until a network is certain of them, without a gradient."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent import elites
from optogram.ascent.elites import Archive, Being, Direct, Encoding, Painted
from optogram.core import objective as ask
from optogram.core import progress
from optogram.core.answers import answers
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import OUTPUT, Target, Targetlike, Unit, units
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError

AT_ONCE = 2**22  # numbers in the images that the network is shown together
SAVED_EVERY = 10


@technique
def evolve(
    network: Network,
    unit: Targetlike | Sequence[Targetlike],
    *,
    encoding: Literal["cppn", "direct"] = "cppn",
    generations: int = 200,
    population: int = 200,
    rate: float = 0.1,
    family: int = 0,
    archive: str | None = None,
    seed: int = 0,
) -> Picture | Sheet:
    """Breed images that a network is certain of (Nguyen, Yosinski & Clune, 2015).

    MAP-Elites: every unit of the asked unit's layer is a niche with a champion. Each generation,
    `population` children of random champions are shown to the network once, and each takes every
    niche in which it beats the champion; for outputs fitness is the softmax probability, for other
    layers the mean activation. No gradient is used.

    Args:
        network: who is fooled.
        unit: whose champion is shown, an address, or several; a whole layer, as `output`, is the
            gallery of all its champions.
        encoding: "cppn" breeds formulas from place to colour, whose images are regular; "direct"
            breeds pixels, whose images are noise.
        generations: how many; the paper had 200 to 1000 for MNIST, 5000 for ImageNet.
        population: children a generation; the authors' 200 for MNIST, 400 for ImageNet.
        rate: chance of a pixel, or of a weight or neuron of a formula, to mutate; for pixels it is
            halved every 1000 generations.
        family: how many of those whom a champion comes from to show before it, evenly chosen from
            its family tree by age; of each the niche that it first won, and its parents' numbers.
        archive: a .json file that the champions and their ancestors are kept in: a run that was
            stopped goes on there, and one that was finished can be given more generations.
        seed: decides every random number.

    Returns:
        A Picture, or a Sheet where there are several. `history` is the champion's fitness after
        each generation, `measures` its number, its parents' and when it was born, and how many
        images were shown to the network.

    Raises RequestError for unknown units and options, and for an archive of another run.
    """
    wanted = [network.resolve(target) for target in units(unit)]
    layer = _layer_of(network, wanted)
    if min(generations, population) < 1 or not 0 < rate <= 1 or family < 0:
        raise RequestError(
            f"generations={generations}, population={population}, rate={rate}, family={family}: "
            "at least 1 of the first two, a rate above 0 and up to 1, no negative family"
        )
    kind: Encoding = (Painted if encoding == "cppn" else Direct)(network.shape, rate)
    if encoding == "cppn" and network.shape[0] not in (1, 3):
        raise RequestError(f"formulas paint 1 or 3 channels, not {network.shape[0]}: use 'direct'")
    run = _Run(network, layer, kind, archive, seed)
    found = run.bred(
        {
            "network": network.name, "weights": network.fingerprint, "layer": layer,
            "shape": list(network.shape), "encoding": encoding, "population": population,
            "rate": rate, "seed": seed,
        },
        generations,
    )  # fmt: skip
    niches = [n for target in wanted for n in _niches(network, target)]
    pictures = [p for n in niches for p in run.shown(found, n, generations, family)]
    # What lies in the archive is no argument of the picture: it comes out the same without.
    notes = {"arguments": {"archive": None}}
    if len(pictures) == 1 and (isinstance(unit, str) or not isinstance(unit, Sequence)):
        return replace(pictures[0], recipe=notes)
    return Sheet(tuple(pictures), title=f"{network.name}: evolve, {encoding}", recipe=notes)


def _layer_of(network: Network, wanted: list[Target]) -> str:
    if not wanted:
        raise RequestError("no unit was asked for: give at least one address, as in 'output:1'")
    if any(not isinstance(t, Unit) or t.place is not None for t in wanted):
        raise RequestError("every unit of a layer is a niche: a direction or a place is none")
    layers = {target.layer for target in wanted}
    if len(layers) > 1:
        raise RequestError(f"the niches are one layer's units, not of {', '.join(sorted(layers))}")
    return wanted[0].layer


def _niches(network: Network, target: Target) -> Sequence[int]:
    if isinstance(target.index, int):
        return [target.index]
    return range(network.layer(target.layer).units)


@dataclass(frozen=True, eq=False)
class _Run:
    network: Network
    layer: str
    encoding: Encoding
    file: str | None
    seed: int

    @property
    def classes(self) -> bool:
        """Whether fitness is a probability."""
        return self.layer == OUTPUT and len(self.network.layer(OUTPUT).shape) == 1

    def bred(self, settings: dict[str, Any], generations: int) -> Archive:
        """The archive after so many generations, kept on the way."""
        self._check_file()
        archive = elites.load(self.file, self.encoding, settings) if self.file else None
        archive = archive or Archive(settings)
        for _ in elites.breed(archive, self.encoding, self.judge, generations, self.seed):
            progress.tell("evolve", archive.generation, generations)
            if archive.generation % SAVED_EVERY == 0 or archive.generation == generations:
                archive.swept()
                if self.file:
                    elites.save(archive, self.encoding, self.file)
        if archive.generation > generations:
            raise RequestError(
                f"the archive '{self.file}' has seen {archive.generation} generations already: ask "
                "for as many or more"
            )
        return archive

    def judge(self, images: Float[Tensor, "batch channel height width"]) -> Tensor:
        """The fitness of each image in each niche, one pass for all niches."""
        size = max(1, AT_ONCE // images[0].numel())
        with torch.no_grad():
            return torch.cat([self._fitness(part) for part in images.split(size)])

    def _fitness(self, images: Tensor) -> Tensor:
        heard = self.network.read(images.to(self.network.device), self.layer, watch=True)
        values = heard.before.layers[self.layer].movedim(self.network.layer(self.layer).axis, 1)
        if self.classes:
            return values.softmax(1)
        return values.flatten(2).mean(2) if values.dim() > 2 else values

    def shown(self, archive: Archive, niche: int, generations: int, family: int) -> list[Picture]:
        """A niche's champion, before it some of those it comes from."""
        tree = archive.tree(archive.champions[niche])
        *before, last = (being for being in tree if being.genome is not None)
        if len(before) > family:
            places = np.linspace(0, len(before) - 1, family).round().astype(int)
            before = [before[place] for place in places]
        past = [self._picture(archive, archive.niches[b.number][0], b) for b in before]
        champion = self._picture(archive, niche, last)
        history = torch.tensor([row[niche] for row in archive.history], dtype=torch.float32)
        shown = float(generations * archive.settings["population"])
        measures = (*champion.measures, ("images shown", shown))
        return [*past, replace(champion, history=history, measures=measures)]

    def _picture(self, archive: Archive, niche: int, being: Being) -> Picture:
        images = elites.as_images(self.encoding, [being.genome])
        target = Unit(self.layer, niche)
        question = ask.probability(target) if self.classes else ask.activation(target)
        with torch.no_grad():
            heard = self.network.read(images.to(self.network.device), self.layer, watch=True)
            score = float(question(heard)[0])
        best = None if self.classes else self.network.best_in_data(target)
        reached = score >= 0.5 if self.classes else best is None or score >= best
        return Picture(
            image=images[0],
            unit=str(target),
            score=score,
            history=torch.zeros(0),
            verdict="fooled" if reached else "failed",
            best_in_data=best,
            answers=answers(self.network, images)[0],
            measures=(
                ("number", float(being.number)),
                *zip(("first parent", "second parent"), map(float, being.parents), strict=False),
                ("born in generation", float(being.born)),
            ),
        )

    def _check_file(self) -> None:
        if self.file is not None and not Path(os.fspath(self.file)).name.endswith(".json"):
            raise RequestError(f"the archive {self.file!r} should be a .json file")
