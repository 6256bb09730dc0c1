"""Activation maximisation: the image that a unit responds to most, made by gradient ascent."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from optogram.ascent import Parameterization, Step, ascend
from optogram.ascent.cropping import Crop, crop_for, margin_for, window
from optogram.ascent.param import Sphere
from optogram.ascent.presets import Name, Preset, usual
from optogram.ascent.presets import preset as named
from optogram.ascent.transform import shifted
from optogram.ascent.verdict import Evidence, judge, likely_cause
from optogram.core import objective as ask
from optogram.core import progress
from optogram.core.activations import PerImage, at_place
from optogram.core.answers import answers as network_answers
from optogram.core.chance import Streams
from optogram.core.expression import parse, spoken_as
from optogram.core.network import Network
from optogram.core.objective import Objective
from optogram.core.prepared import Precision, resolved
from optogram.core.technique import encode, technique
from optogram.core.unit import OUTPUT, Place, Target, Targetlike, Unit, units
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError

NOISE = 0.05  # the deviation of the noise that a score should survive, of images in [0, 1]
SMALL = 4096  # numbers in an image; up to here a batch is filled up to a multiple of 4

Score = Literal["activation", "probability", "log_probability"]


@technique
def maximize(
    network: Network,
    unit: Targetlike | Sequence[Targetlike],
    *,
    preset: Name | None = None,
    param: Parameterization | str | None = None,
    regularizer: Objective | str | None = "auto",
    relative: bool | None = None,
    transforms: Sequence[Any] | str | None = None,
    steps: int | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    schedule: str | None = None,
    activation: Literal["pre", "post"] | None = None,
    score: Score | None = None,
    others: float = 0.0,
    facets: int | None = None,
    diversity: float | None = None,
    looks: int | None = None,
    redirect: int | None = None,
    crop: bool | None = None,
    precision: Precision | None = None,
    batch: int | None = None,
    seed: int = 0,
) -> Picture | Sheet:
    """Make the image that excites a unit most (Erhan et al., 2009; Simonyan et al., 2013).

    Ascends `value(unit) - regularizer(image) - others * mean(other units)` from the start and
    inside the constraint of `param`. Many units climb in one batch, each with its own score and
    random stream: a unit's picture does not depend on its company. BLAS blocks by shape and
    alignment, so it agrees within 1e-5; in float64 on the CPU, where units climb one at a time,
    bit for bit.

    What is left open a preset fills in: "optogram" for images of 32x32 pixels or more, "plain" for
    smaller ones. `og.preset(name)` prints what it sets and how that differs from its paper; the
    picture's recipe says it too.

    Args:
        network: who is asked.
        unit: an address or a direction, or several: then a Sheet comes back. A layer's channels and
            neurons are meant by `network.units(layer)`.
        preset: settings by name; what is given beside it wins.
        param: what may be painted, such as `og.param.fourier()`; also as text.
        regularizer: what is subtracted, an objective about the image such as `0.032 *
            total_variation() + 0.0032 * norm(1)`; also as text. None subtracts nothing; "auto" is
            the preset's, or nothing where a `param` that was given is no box.
        relative: divide the unit's gradient by its mean size at every step (seen through a 3x3
            average), so that one weight and one step size mean the same for every unit of every
            layer. False follows the difference as it is written, which is what None means where a
            `regularizer` is given.
        transforms: functions the network looks through, such as `og.transform.jitter(1)`; also as
            text.
        steps: how many steps to take.
        optimizer: a `torch.optim` optimiser by name; for another `relative` than the preset's, SGD
            where the gradient is relative, else Adam.
        lr: its step size; for a relative gradient and SGD about the change of a pixel a step.
        schedule: "constant", or "linear" or "cosine" decay to 0.
        activation: "pre" targets what goes into a unit's ReLU, whose gradient never vanishes;
            "post" targets what comes out.
        score: the unit's activation, or for outputs its (log) probability under the softmax.
        others: weight of the mean activation of the layer's other units, which is subtracted.
        facets: how many pictures of each unit to make together, each unlike the others; 1 by
            default.
        diversity: weight of how alike they are at the unit's layer, where there are several: 10 by
            default; with 0 they differ by their starts alone.
        looks: how many draws of the transforms a step averages over.
        redirect: for so many first steps gradients pass ReLUs that would stop them altogether.
        crop: excite one place of a unit on an image of what it can see, where that is less than the
            whole: the same activation, faster. By default for units at a place, such as
            `conv3:7@strongest`; True also for a channel, whose middle place then stands for it.
        precision: what the network multiplies in while a picture climbs: "bfloat16" takes about
            half of the time on processors that know it, and scores are always worked out in the
            network's own, "float32". "auto" is bfloat16 for photographs where the processor has it
            and the layer's answers come out alike; the recipe says which it was.
        batch: how many units climb together; by default what suits the image's size, in float64
            always one.
        seed: with the unit's address it decides every random number.

    Returns:
        A Picture, or a Sheet of them in the order asked. `score` is the target's value on the
        picture, `best_in_data` the data's strongest where the network knows it, `verdict` compares.

    Raises RequestError for unknown units and options, each in a sentence.
    """
    wanted = [network.resolve(target) for target in units(unit)]
    if not wanted:
        raise RequestError("no unit was asked for: give at least one address, as in 'fc7:1'")
    given = {
        "param": param, "transforms": transforms, "steps": steps, "optimizer": optimizer, "lr": lr,
        "schedule": schedule, "activation": activation, "score": score, "relative": relative,
        "looks": looks, "redirect": redirect, "crop": crop, "facets": facets,
        "diversity": diversity, "precision": precision,
    }  # fmt: skip
    chosen = named(preset) if preset else usual(network.shape)
    options = _options(chosen, given, regularizer, all(t.layer == OUTPUT for t in wanted))
    if (facets := options["facets"]) < 1:
        raise RequestError(f"facets={facets}: at least one picture of a unit")
    layers = tuple(dict.fromkeys(target.layer for target in wanted))
    options["precision"] = resolved(network, layers, options["precision"])
    climb = _climb(network, options, others, seed)
    pictures: dict[int, Picture] = {}
    for places in _chunks(wanted, _batch(network, batch, climb, wanted)):
        made = climb.pictures([wanted[p] for p in places])
        for number, place in enumerate(places):
            pictures |= {place * facets + n: made[number * facets + n] for n in range(facets)}
        progress.tell("maximize", len(pictures) // facets, len(wanted))
    notes = {
        "preset": {key: value for key, value in chosen.described().items() if key != "settings"},
        "arguments": {key: encode(value) for key, value in options.items()},
    }
    if (isinstance(unit, str) or not isinstance(unit, Sequence)) and facets == 1:
        return replace(pictures[0], recipe=notes)
    sheet = tuple(pictures[p] for p in range(len(pictures)))
    return Sheet(sheet, title=f"{network.name}: maximize", recipe=notes)


def _options(
    preset: Preset, given: dict[str, Any], regularizer: Objective | str | None, outputs: bool
) -> dict[str, Any]:
    """Every option that a preset can set: what was given, else the preset's."""
    options = preset.options(output=outputs)
    written = regularizer not in ("auto", None)
    if given["relative"] is None and written:
        given = {**given, "relative": False}
    if given["optimizer"] is None and given["relative"] not in (None, options["relative"]):
        given = {**given, "optimizer": "SGD" if given["relative"] else "Adam"}
    options |= {key: value for key, value in given.items() if value is not None}
    boxless = given["param"] is not None and not _painted(given["param"]).in_range
    if regularizer != "auto":
        options["regularizer"] = regularizer
    elif boxless:
        options["regularizer"] = None
    options["preset"] = preset.name
    return options


def _painted(param: Parameterization | str) -> Parameterization:
    return spoken_as(Parameterization, param)  # type: ignore[type-abstract]


def _climb(
    network: Network,
    options: dict[str, Any],
    others: float,
    seed: int,
) -> "_Climb":
    painted = _painted(options["param"])
    painted = painted.fitted(network.records) if isinstance(painted, Sphere) else painted
    return _Climb(
        network=network,
        param=painted,
        regularizer=spoken_as(Objective, options["regularizer"]),
        transforms=_transforms(options["transforms"]),
        loop={
            key: options[key]
            for key in (
                "steps",
                "optimizer",
                "lr",
                "schedule",
                "relative",
                "looks",
                "redirect",
                "precision",
            )
        }
        | {"seed": seed},
        question=_question(options["activation"], options["score"]),
        others=others,
        facets=options["facets"],
        diversity=options["diversity"],
        crops=options["crop"] if not others and getattr(painted, "shape", None) is None else False,
    )


Question = Callable[[Sequence[Target]], Objective]


@dataclass(frozen=True, eq=False)
class _Climb:
    """Everything about an ascent but its units."""

    network: Network
    param: Parameterization
    regularizer: Objective | None
    transforms: Sequence[Any]
    loop: dict[str, Any]
    question: Question
    others: float
    facets: int
    diversity: float
    crops: bool | None

    def crop(self, target: Target) -> Crop | None:
        """What to paint instead of the whole image; None for all of it."""
        whole = isinstance(target, Unit) and target.index is None
        if whole or self.crops is False or (self.crops is None and target.place is None):
            return None
        return crop_for(self.network, target.layer, target.place)

    def canvas(self, target: Target) -> tuple[int, int, int]:
        """(channel, height, width) of what is painted."""
        shape = getattr(self.param, "shape", None) or self.network.shape
        crop = self.crop(target)
        if crop is None:
            return tuple(shape)
        margin = margin_for(crop, self.transforms, self.network.shape)
        return shape[0], crop.size[0] + 2 * margin, crop.size[1] + 2 * margin

    def pictures(self, targets: list[Target]) -> list[Picture]:
        """A picture of every facet of each of some units of one layer, made together."""
        asked, crop, shape = targets, self.crop(targets[0]), self.canvas(targets[0])
        if crop is not None:
            targets = [replace(target, place=crop.place) for target in targets]
        # BLAS rounds a batch of 4n rows mostly the same way for every n, others in other ways; for
        # photographs three more in the batch would cost too much.
        small = shape[0] * shape[1] * shape[2] <= SMALL and self.network.dtype != torch.float64
        spare = -len(targets) % 4 if small else 0
        group = [t for t in targets + [targets[-1]] * spare for _ in range(self.facets)]
        owners = [
            f"{target}/facet {n}" if n else str(target)
            for target in asked + [asked[-1]] * spare
            for n in range(self.facets)
        ]
        values, gradients = [], []
        for step in self._ascend(group, owners, crop, shape):
            if step.index == 0:  # asked again, because the step looks through its transforms
                first = self._inner(step.images, crop)
                starts = self._ask(first, self.question(group)).tolist()
            values.append(step.parts[0])
            gradients += [] if step.gradients is None else [step.gradients]
        inner = self._inner(step.images, crop)
        opacity = None if step.importance is None else _opacity(self._inner(step.importance, crop))
        told = _Told(asked, inner, crop, first, starts, values, gradients, opacity)
        return self._told(told, group)

    def _inner(self, images: Tensor, crop: Crop | None) -> Tensor:
        """What the network is shown of a canvas when nothing moves."""
        if crop is None:
            return images
        down, right = ((n - c) // 2 for n, c in zip(images.shape[-2:], crop.size, strict=True))
        return images[..., down : down + crop.size[0], right : right + crop.size[1]]

    def _told(self, told: "_Told", group: list[Target]) -> list[Picture]:
        """The pictures with all that speaks for and against them."""
        images, values = told.images, told.values
        scores = self._ask(images, self.question(group))
        slopes = torch.stack(told.gradients or [torch.zeros_like(scores)])
        shown = images if told.crop is None else told.crop.seen(images)
        reached = self._reached(images, group, scores)
        survivals, noisy = self._survival(images, group, scores), self._noise(images, group, scores)
        rivals = self._rivals(images, group, told.targets[0].place)
        answers = [()] * len(images) if told.crop else network_answers(self.network, images)
        displayed = self.param.display(shown).float().cpu()
        opacity = told.opacity
        if opacity is not None and told.crop is not None:
            opacity = told.crop.seen(opacity[:, None])[:, 0]
        made = []
        for i in range(len(told.targets) * self.facets):
            target = told.targets[i // self.facets]
            score, best = float(scores[i]), self._best(target)
            slope, on = float(slopes[:, i].max()), self._switchable(group[i])
            history = [value[i] for value in values[1:]]
            evidence = Evidence(
                score,
                told.starts[i],
                best,
                slope,
                on,
                reached[i],
                moved=not torch.equal(images[i], told.first[i]),
                late=_late([told.starts[i], *map(float, history)]),
                extreme=_extreme(shown[i]),
            )
            made.append(
                Picture(
                    image=displayed[i],
                    unit=str(target),
                    score=score,
                    history=torch.stack(history) if history else torch.zeros(0),
                    verdict=judge(evidence),
                    cause=likely_cause(evidence),
                    best_in_data=best,
                    jitter_survival=survivals[i],
                    noise_survival=noisy[i],
                    opacity=None if opacity is None else opacity[i].float().cpu(),
                    gradient_norm=float(slopes[-1, i]),
                    rival=rivals[i][0],
                    rival_score=rivals[i][1],
                    answers=answers[i],
                    raw=None if self.param.in_range else shown[i].float().cpu(),
                )
            )
        return made

    def _ascend(
        self, group: list[Target], owners: list[str], crop: Crop | None, shape: tuple[int, int, int]
    ) -> Iterator[Step]:
        climbed = self.question(group)
        if self.others:
            climbed = climbed - self.others * ask.others(group)
        if self.facets > 1 and self.diversity:
            climbed = climbed - self.diversity * ask.diversity(group[0].layer, self.facets)
        if self.regularizer is not None:
            climbed = climbed - self.regularizer
        margin = 0 if crop is None else (shape[1] - crop.size[0]) // 2
        look = [*self.transforms, window(margin)] if margin else self.transforms
        return ascend(
            self.network,
            climbed,
            self.param,
            transforms=look,
            owners=owners,
            shape=shape,
            **self.loop,
        )

    def _reached(self, images: Tensor, group: list[Target], scores: PerImage) -> list[float]:
        """What compares with the data's strongest: of a channel of a map its strongest place."""
        places = self.network.layer(group[0].layer).places
        if not places or group[0].place or any(t.index is None for t in group):
            return [float(score) for score in scores]
        strongest = [replace(target, place="strongest") for target in group]
        return [float(score) for score in self._ask(images, self.question(strongest))]

    def _ask(self, images: Tensor, question: Objective) -> PerImage:
        with torch.no_grad():
            return question(self.network.read(images, *question.layers, watch=True))

    def _survival(
        self, images: Tensor, group: list[Target], scores: PerImage
    ) -> list[float | None]:
        """The share of a positive score that is left, on average, one pixel to each side."""
        moves = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])
        question = self.question(group)
        left = [self._ask(shifted(images, m.expand(len(group), 2)), question) for m in moves]
        return _shares(torch.stack(left).mean(0), scores)

    def _noise(self, images: Tensor, group: list[Target], scores: PerImage) -> list[float | None]:
        """The share of a positive score that is left, on average, under normal noise, twice.

        The noise is the same for every unit, so that no picture depends on its company.
        """
        question, channels = self.question(group), images[0].numel()
        drawn = Streams(0, ("noise", "more noise")).normal("survival", channels)
        noise = NOISE * drawn.view(2, 1, *images.shape[1:]).to(images)
        left = [self._ask(images + one, question) for one in noise]
        return _shares(torch.stack(left).mean(0), scores)

    def _rivals(
        self, images: Tensor, group: list[Target], said: Place
    ) -> list[tuple[str | None, float | None]]:
        """The strongest other unit of the layer on each image, and its value."""
        layer = self.network.layer(group[0].layer)
        if layer.units < 2 or any(not isinstance(t.index, int) for t in group):
            return [(None, None)] * len(group)
        with torch.no_grad():
            heard = self.network.read(images, layer.name, watch=True).before.layers[layer.name]
        place = group[0].place
        values = at_place(heard.movedim(layer.axis, 1).flatten(0, 1), place).view(len(group), -1)
        own = torch.tensor([int(str(t.index)) for t in group], device=values.device)
        values = values.scatter(1, own[:, None], -torch.inf)
        best, index = values.max(1)
        names = [str(Unit(layer.name, i, said)) for i in index.tolist()]
        return list(zip(names, best.tolist(), strict=True))

    def _best(self, target: Target) -> float | None:
        if self.question is not _VALUES["pre"] or not isinstance(target, Unit) or target.place:
            return None
        return self.network.best_in_data(target)

    def _switchable(self, target: Target) -> bool:
        return self.question is _VALUES["pre"] and self.network.layer(target.layer).switchable


@dataclass(frozen=True, eq=False)
class _Told:
    """What an ascent of some units left behind, a row of each tensor for each facet."""

    targets: list[Target]
    images: Tensor
    crop: Crop | None
    first: Tensor
    starts: list[float]
    values: list[Tensor]
    gradients: list[Tensor]
    opacity: Tensor | None


def _opacity(importance: Tensor) -> Tensor:
    """Accumulated gradients over what four fifths of the pixels stay below, at most 1.

    (batch, height, width); the largest stands for that where most pixels have no gradient at all.
    """
    flat = importance.flatten(1)
    usual, most = flat.kthvalue(max(1, flat.shape[1] * 4 // 5), dim=1).values, flat.amax(1)
    scale = torch.where(usual > 0, usual, most).clamp(min=1e-30)
    return (importance / scale[:, None, None]).clamp(0, 1)


def _shares(left: PerImage, scores: PerImage) -> list[float | None]:
    kept = (left / scores).tolist()
    return [
        share if score > 0 else None for share, score in zip(kept, scores.tolist(), strict=True)
    ]


def _late(history: list[float]) -> float:
    """The share of what was gained that the last tenth of the steps brought.

    Ends are means over a tenth each, since moving views make every step's score another.
    """
    tenth = max(1, len(history) // 10)
    ends = [
        sum(part) / len(part)
        for part in (history[:1], history[-2 * tenth : -tenth] or history[:1], history[-tenth:])
    ]
    gained = ends[2] - ends[0]
    return (ends[2] - ends[1]) / gained if gained > 0 else 0.0


def _extreme(image: Tensor) -> float:
    """The share of numbers that are black or white."""
    return float(((image <= 0.01) | (image >= 0.99)).float().mean())


def _question(activation: str, score: str) -> Question:
    name = activation if score == "activation" else score
    if name not in _VALUES or activation not in ("pre", "post"):
        raise RequestError(
            f"activation={activation!r}, score={score!r}: the first is 'pre' or 'post', the second "
            f"'activation', 'probability' or 'log_probability'"
        )
    return _VALUES[name]


def _transforms(given: Sequence[Any] | str) -> Sequence[Any]:
    if isinstance(given, str):
        given = parse(given)
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _chunks(wanted: list[Target], size: int) -> Iterator[list[int]]:
    """Places of units in what was asked for, of one layer at a time, at most `size` together."""
    layers: dict[tuple[str, object], list[int]] = {}
    for place, target in enumerate(wanted):
        layers.setdefault((target.layer, target.place), []).append(place)
    for places in layers.values():
        for first in range(0, len(places), size):
            yield places[first : first + size]


def _batch(network: Network, asked: int | None, climb: "_Climb", wanted: list[Target]) -> int:
    """How many units climb together: by default about a million numbers, as suits the caches."""
    if asked is not None and asked < 1:
        raise RequestError(f"batch={asked}: at least 1")
    if network.dtype == torch.float64:
        return 1  # where an image lies in memory decides how BLAS rounds; alone, always the same
    if asked is not None:
        return asked
    shapes = [climb.canvas(target) for target in {t.layer: t for t in wanted}.values()]
    numbers = climb.facets * max(shape[0] * shape[1] * shape[2] for shape in shapes)
    return int(min(256, max(4, 2**20 // numbers // 4 * 4)))


_VALUES: dict[str, Question] = {
    "pre": lambda group: ask.activation(group),
    "post": lambda group: ask.activation(group, pre=False),
    "probability": ask.probability,
    "log_probability": ask.log_probability,
}
