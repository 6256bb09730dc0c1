"""Triage: is an image natural, adversarial or fooling? Measured, and judged by examples of each."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent import elites
from optogram.ascent.elites import Archive, Painted
from optogram.ascent.pushed import climb
from optogram.ascent.smallest import log_odds, smallest_change
from optogram.ascent.transform import shifted
from optogram.core import objective as ask
from optogram.core import progress
from optogram.core.answers import answers
from optogram.core.chance import Streams
from optogram.core.maps import Image, Images, blurred
from optogram.core.network import Network
from optogram.core.objective import Objective
from optogram.core.technique import technique
from optogram.core.unit import OUTPUT, Target, Unit
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError
from optogram.survey import ImageSet

Measures = Float[Tensor, "image measure"]
KINDS = ("natural", "adversarial", "fooling")
MEASURES = (
    "sure",  # log p / (1 - p) of the answer
    "left after jitter",  # share of p, over shifts by one pixel
    "left after noise",
    "left after blur",
    "from data",  # distance of the features to the nearest image of the data, of its own usual one
    "own or other",  # log of the distances to the nearest of the answer's class and of another
    "pixels own or other",
    "roughness",  # total variation a pixel
    "slope of spectrum",
)
NOISE, LOOKS, BLUR = 0.1, 8, 1.0
BANK = 500
GENERATIONS, POPULATION = 8, 40
RUNS = 4
SURE = 0.9


@technique
def triage(
    network: Network,
    image: Image,
    dataset: ImageSet,
    *,
    layer: str | None = None,
    samples: int = 40,
    seed: int = 0,
) -> Picture | Sheet:
    """Say whether an image is natural, adversarial or fooling, and by which measures.

    Nine numbers of the image and the network's answer to it (Nguyen et al., 2015, and Szegedy et
    al., 2014, showed such images, and no measure) are compared with those of three sets that are
    made on the spot: images of the data; the same, changed as little as makes them another class
    (to an equal chance, or to 99 %); and images of nothing, climbed from noise or grey and bred as
    formulas. The judge is a logistic regression on the numbers and their squares.

    Args:
        network: a classifier.
        image: (channel, height, width) in [0, 1], or a batch of images.
        dataset: what is natural to the network: half of the examples are drawn from it, and the
            images that distances are measured to.
        layer: whose features distances are measured in; by default the last before the outputs.
        samples: how many examples of each kind are made to learn from, and as many again to test.
        seed: decides every random number.

    Returns:
        A Picture, or a Sheet for a batch: `unit` and `score` are the network's answer and its
        probability, `verdict` the kind, `measures` the nine numbers, the chance of each kind, and
        how well the judge told each kind from the others on the examples that it had not seen (area
        under the curve; 0.5 is a guess).

    Raises RequestError for networks that are no classifiers, layers that are not there, and too
    few images.
    """
    if len(network.layer(OUTPUT).shape) != 1 or network.layer(OUTPUT).units < 2:
        raise RequestError(f"{network.name} is no classifier, so no answer of it can be judged")
    if samples < 10:
        raise RequestError(f"samples={samples}: at least 10 of each kind")
    images = (image if image.dim() == 4 else image[None]).detach()
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise RequestError("the image has values outside [0, 1], or NaN")
    name = network.layer(layer).name if layer is not None else _features(network)
    judge = _judge(network, dataset, name, samples, seed)
    measured = judge.measured(images)
    pictures = judge.pictures(images, measured)
    several = image.dim() == 4
    return Sheet(pictures, title=f"{network.name}: triage") if several else pictures[0]


@dataclass(frozen=True, eq=False)
class Judge:
    """What tells the kinds apart for one network and data set, and how well it does.

    `auc` is each kind's area under the curve against the other two, on examples not learned from.
    """

    network: Network
    bank: "_Bank"
    seed: int
    model: Any = None
    auc: tuple[float, ...] = ()

    def measured(self, images: Images) -> Measures:
        """The nine numbers of each image, (image, measure), float64."""
        with torch.no_grad():
            parts = [self._measured(part) for part in images.split(_at_once(self.network))]
        return torch.cat(parts)

    def chances(self, measured: Measures) -> Float[Tensor, "image kind"]:
        """The chance of each kind, (image, 3)."""
        return torch.from_numpy(self.model.predict_proba(measured.numpy()))

    def pictures(self, images: Images, measured: Measures) -> tuple[Picture, ...]:
        """Each image with its numbers and its verdict."""
        said = answers(self.network, images)
        shares = self.network(images).softmax(1).max(1)
        made = []
        for place, chances in enumerate(self.chances(measured).tolist()):
            numbers = list(zip(MEASURES, measured[place].tolist(), strict=True))
            numbers += zip(KINDS, chances, strict=True)
            numbers += [(f"AUC of {k}", a) for k, a in zip(KINDS, self.auc, strict=True)]
            made.append(
                Picture(
                    image=images[place],
                    unit=str(Unit(OUTPUT, int(shares.indices[place]))),
                    score=float(shares.values[place]),
                    history=torch.zeros(0),
                    verdict=KINDS[chances.index(max(chances))],
                    answers=said[place],
                    measures=tuple(numbers),
                )
            )
        return tuple(made)

    def _measured(self, images: Images) -> Measures:
        images = images.to(self.network.device, self.network.image_dtype)
        logits = self.network(images)
        winner = logits.argmax(1)
        p = _share(logits, winner)
        odds = (p / (1 - p).clamp(min=1e-7)).log()
        moves = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])
        moved = [self._asked(shifted(images, m.expand(len(images), 2)), winner) for m in moves]
        # The same noise for every image, so that none depends on its company.
        noise = Streams(self.seed, tuple(f"look {n}" for n in range(LOOKS)))
        veils = noise.normal("triage", images[0].numel()).view(LOOKS, *images.shape[1:])
        looks = [(images + NOISE * veil.to(images)).clamp(0, 1) for veil in veils]
        noisy = [self._asked(look, winner) for look in looks]
        blurry = self._asked(blurred(images, BLUR), winner)
        near = self.bank.distances(self.network, images, winner)
        columns = [
            odds.clamp(-16, 16),
            torch.stack(moved).mean(0) / p,
            torch.stack(noisy).mean(0) / p,
            blurry / p,
            *near,
            _roughness(images),
            _slope(images),
        ]
        return torch.stack([column.double().cpu() for column in columns], 1).nan_to_num()

    def _asked(self, images: Images, winner: Tensor) -> Tensor:
        return _share(self.network(images), winner)


@dataclass(frozen=True, eq=False)
class _Bank:
    """Images of the data, as features and as pixels, with the network's answers to them."""

    layer: str
    features: Float[Tensor, "image feature"]
    pixels: Float[Tensor, "image pixel"]
    winners: Tensor
    usual: float

    def distances(
        self, network: Network, images: Images, winner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """To the nearest, over the data's usual; and logs of own class's over another's, twice."""
        features, pixels = _feature_vectors(network, self.layer, images), _small(images)
        near, own, other = self._nearest(features, self.features, winner)
        _, own_pixels, other_pixels = self._nearest(pixels, self.pixels, winner)
        return near / self.usual, (own / other).log(), (own_pixels / other_pixels).log()

    def _nearest(self, some: Tensor, bank: Tensor, winner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        far = torch.cdist(some, bank)
        far = far.masked_fill(far < 1e-4, torch.inf)  # an image of the bank is not its own company
        same = self.winners[None] == winner[:, None]
        own, other = (far.masked_fill(~m, torch.inf).amin(1) for m in (same, ~same))
        # A class that is not in the bank is as far as the farthest that is.
        top = far.masked_fill(torch.isinf(far), 0).amax(1).clamp(min=1e-4)
        return far.amin(1).minimum(top), own.minimum(top), other.minimum(top)


_STARTS: tuple[tuple[Literal["noise", "grey"], int], ...] = (("noise", 1), ("grey", 0))
_JUDGES: dict[tuple[Any, ...], Judge] = {}


def _judge(network: Network, dataset: ImageSet, layer: str, samples: int, seed: int) -> Judge:
    """The judge of a network and a data set; the last few are remembered."""
    key = (network.fingerprint, network.name, str(network.device), dataset.digest)
    key = (*key, layer, samples, seed)  # type: ignore[assignment]
    if key not in _JUDGES:
        while len(_JUDGES) > 3:
            _JUDGES.pop(next(iter(_JUDGES)))
        _JUDGES[key] = learned(network, dataset, layer, samples, seed)
    return replace(_JUDGES[key], network=network)


def learned(
    network: Network, dataset: ImageSet, layer: str, samples: int = 40, seed: int = 0
) -> Judge:
    """Make examples of the three kinds, learn from half of them, and test on the other half."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    drawn = _drawn(network, dataset, 2 * samples + BANK, seed)
    count = min(2 * samples, len(drawn) // 2)
    if count < 20:
        raise RequestError(f"{dataset.name} has {len(drawn)} images: give a set of at least 40")
    judge = Judge(network, _bank(network, layer, drawn[count:]), seed)
    sets = examples(network, drawn[:count], seed)
    numbers = [judge.measured(kind) for kind in sets]
    told = torch.cat([torch.full((len(kind),), k) for k, kind in enumerate(numbers)])
    every = torch.cat(numbers)
    held = torch.cat([torch.arange(len(kind)) % 2 == 1 for kind in numbers])
    model = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, interaction_only=False, include_bias=False),
        LogisticRegression(C=0.1, max_iter=2000),
    ).fit(every[~held].numpy(), told[~held].numpy())
    judge = replace(judge, model=model)
    chances = judge.chances(every[held])
    auc = [float(roc_auc_score(told[held] == k, chances[:, k])) for k in range(len(KINDS))]
    return replace(judge, auc=tuple(auc))


def examples(network: Network, images: Images, seed: int = 0) -> tuple[Images, Images, Images]:
    """Natural images and as many that are adversarial and fooling, made from or for them.

    Half of the changes go to an equal chance with all other classes, half to 99 %. Of the images of
    nothing a third is bred as formulas, the others climb from noise or grey to 99.9 %.
    """
    classes = network.layer(OUTPUT).units
    winners = torch.cat([network(p).argmax(1).cpu() for p in images.split(_at_once(network))])
    numbers = torch.arange(len(images))
    targets = ((winners + 1 + numbers % (classes - 1)) % classes).tolist()
    forged, nothing = [], []
    size = _at_once(network)
    for first in range(0, len(images), size):
        progress.tell("adversarial examples", first, len(images))
        some = slice(first, first + size)
        goal = torch.where(numbers[some] % 2 == 0, 0.0, math.log(99.0))
        units: list[Target] = [Unit(OUTPUT, target) for target in targets[some]]
        found = smallest_change(
            network, images[some], _beyond(log_odds(units), goal), 0.0, steps=20
        )
        forged.append(found.images)
    bred = _bred(network, len(images) // 3, seed)
    left = len(images) - len(bred)
    for first in range(0, left, size):
        progress.tell("images of nothing", first, left)
        chosen = list(range(first, min(first + size, left)))
        units = [Unit(OUTPUT, n % classes) for n in chosen]
        owners = [f"triage {n}" for n in chosen]
        for start, odd in _STARTS:
            mine = [n for n in range(len(chosen)) if chosen[n] // classes % 2 == odd]
            if mine:
                asked, names = [units[n] for n in mine], [owners[n] for n in mine]
                question, goals = ask.log_probability(asked), torch.full((len(mine),), 0.999)
                made = climb(
                    network, question, goals, start=start, steps=120, owners=names, seed=seed
                )
                nothing.append(made.images)
    chance = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images, torch.cat(forged), torch.cat([*nothing, bred])[chance]


def _beyond(objective: Objective, goals: Tensor) -> Objective:
    return ask.objective(
        lambda acts: objective(acts) - goals.to(acts.image), *objective.layers, text="odds - goal"
    )


def _bred(network: Network, count: int, seed: int) -> Images:
    """Champions of short evolutions that the network is sure of, the surest first of each."""
    kept: list[Images] = []
    encoding = Painted(network.shape, 0.1)
    if network.shape[0] not in (1, 3):
        return torch.zeros(0, *network.shape)

    def judge(images: Images) -> Tensor:
        parts = images.to(network.device, network.image_dtype).split(_at_once(network))
        with torch.no_grad():
            return torch.cat([network(part).softmax(1) for part in parts])

    for run in range(RUNS):
        archive = Archive({"population": POPULATION, "shape": list(network.shape)})
        for _ in elites.breed(archive, encoding, judge, GENERATIONS, seed + 1000 * (run + 1)):
            progress.tell("formulas", archive.generation, GENERATIONS)
        sure = sorted(range(len(archive.fitness)), key=lambda n: -archive.fitness[n])
        champions = {archive.champions[n]: None for n in sure[:20] if archive.fitness[n] > SURE}
        if champions:
            genomes = [archive.beings[number].genome for number in champions]
            kept.append(elites.as_images(encoding, genomes))
        if sum(map(len, kept)) >= count:
            break
    return torch.cat(kept)[:count] if kept else torch.zeros(0, *network.shape)


def _drawn(network: Network, dataset: ImageSet, count: int, seed: int) -> Images:
    """Images of the data in a random order, fitted to the network."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count]
    return dataset.fitted(network.shape).take(order)[0]


def _bank(network: Network, layer: str, images: Images) -> _Bank:
    with torch.no_grad():
        parts = images.split(_at_once(network))
        features = torch.cat([_feature_vectors(network, layer, part) for part in parts])
        winners = torch.cat([network(part).argmax(1) for part in parts])
    far = torch.cdist(features, features).fill_diagonal_(torch.inf).amin(1)
    usual = max(float(far.median()), 1e-6)
    pixels = _small(images.to(network.device, network.image_dtype))
    return _Bank(layer, features, pixels, winners, usual)


def _features(network: Network) -> str:
    """The last layer whose answer is no set of logits."""
    shape = network.layer(OUTPUT).shape
    for layer in reversed(network.layers):
        if layer.name != OUTPUT and layer.shape[:1] != shape[:1] and layer.units > 1:
            return layer.name
    raise RequestError(f"{network.name} has no layer before its outputs: name one, layer=...")


def _feature_vectors(network: Network, layer: str, images: Images) -> Tensor:
    answer = network.read(images, layer).layers[layer].movedim(network.layer(layer).axis, 1)
    return answer.flatten(2).mean(2) if answer.dim() > 2 else answer


def _small(images: Images) -> Tensor:
    """Pixels as vectors, of large images those of a thumbnail."""
    if max(images.shape[-2:]) > 32:
        images = torch.nn.functional.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    return images.flatten(1)


def _share(logits: Tensor, winner: Tensor) -> Tensor:
    return logits.softmax(1).gather(1, winner[:, None])[:, 0]


def _roughness(images: Images) -> Tensor:
    """Total variation over the number of values."""
    steps = sum(images.diff(dim=axis).abs().flatten(1).sum(1) for axis in (-1, -2))
    return torch.as_tensor(steps / images[0].numel())


def _slope(images: Images) -> Tensor:
    """The slope of log power over log frequency, from one wave a picture to half the pixels.

    About -2 for photographs, 0 for white noise (Field, 1987).
    """
    grey = images.double().mean(1)
    power = torch.fft.fft2(grey - grey.mean((-2, -1), keepdim=True)).abs().square()
    rows, columns = (torch.fft.fftfreq(n, d=1 / n) for n in grey.shape[-2:])
    far = (rows[:, None].square() + columns[None].square()).sqrt().to(power)
    half = min(grey.shape[-2:]) // 2
    ring = far.round().long()
    rings = []
    for n in range(1, half + 1):
        rings.append(power[:, ring == n].mean(1))
    levels = (torch.stack(rings, 1) + 1e-9).log()
    place = torch.arange(1, half + 1).to(levels).log()
    place = place - place.mean()
    return (levels * place).sum(1) / place.square().sum()


def _at_once(network: Network) -> int:
    return max(1, min(256, 2**22 // math.prod(network.shape)))
