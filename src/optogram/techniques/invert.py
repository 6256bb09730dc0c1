"""Inversion: an image that a layer cannot tell from a given one, made from its answer alone."""

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent import Step, ascend, param
from optogram.core import objective as ask
from optogram.core import progress
from optogram.core.activations import Activations, PerImage
from optogram.core.chance import Streams
from optogram.core.expression import parse, spoken_as
from optogram.core.network import Network
from optogram.core.objective import Objective, image_sum
from optogram.core.technique import encode, technique
from optogram.core.unit import OUTPUT, Direction, Target, Targetlike
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError

Image = Float[Tensor, "channel height width"]
Formula = Literal["mahendran2015", "seed_literal"]

# Mahendran & Vedaldi's released code, whose images are 227x227x3 numbers in [0, 255] less the mean.
SIDE = 227
DEVIATION = 27098.1 / (SIDE * SIDE * 3) ** 0.5 / 255  # of a pixel, as a share of the range
ALPHA = 8e-10
VARIATION = ((0.3, 1.0), (0.6, 10.0), (1.0, 100.0))  # up to which share of the layers, and how much
HALVINGS, FAR = 8, 20.0  # a descent that takes a pixel 20 ranges away is begun anew, half as fast
RATES = {"sgd": 0.004, "adam": 0.02, "l-bfgs": 1.0}
SCHEDULE = [1.0, 0.1, 0.1, 0.01]


@technique
def invert(
    network: Network,
    image: Image | None,
    layer: Targetlike | Sequence[Targetlike],
    *,
    code: str | os.PathLike[str] | Tensor | None = None,
    formula: Formula = "mahendran2015",
    regularizer: Objective | str | None = "auto",
    steps: int = 400,
    optimizer: str = "SGD",
    lr: float | None = None,
    schedule: str | Sequence[float] | None = None,
    start: Literal["noise", "mean"] = "noise",
    starts: int = 1,
    transforms: Sequence[Any] | str = "[]",
    seed: int = 0,
) -> Picture | Sheet:
    """Reconstruct an image from what a layer answers to it (Mahendran & Vedaldi, 2015).

    Minimises |phi(x) - phi0|^2 / |phi0|^2 + a sum |x - mean|^6 + v sum (dx^2 + dy^2), where phi0 is
    the layer's answer to `image`, from noise. What comes back is one of the images that the layer
    takes for the same: what it has not kept, the picture cannot show.

    Args:
        network: whose layer it is.
        image: what is reconstructed, of a size that the network takes; None where a `code` is given
            and there is nothing to compare with.
        layer: `fc7` is all that a layer answers, `conv3:17` the map of one unit, `conv3:17@3,5` one
            number; a direction is its map; or several, or a pattern such as `inception*`: then a
            Sheet.
        code: an answer of the layer from elsewhere instead: a tensor, or an .npy file, in the shape
            that the layer answers one image with.
        formula: "seed_literal" is what the lecture's notes wrote down, |phi(x) - phi0|^2 + lambda
            |phi(x)|^6: it pulls the answer to 0 and says nothing of the image (lambda makes both
            terms equal at phi0).
        regularizer: what is subtracted instead of the paper's two terms, such as
            `0.01 * total_variation()`; also as text. None subtracts nothing.
        steps: how many steps to take.
        optimizer: "SGD" (with momentum 0.9, as in the paper), "Adam", "L-BFGS" or another.
        lr: its step size; for SGD in the paper's units, where an image has norm 1. A descent that
            diverges is begun anew at half of it.
        schedule: how it changes; SGD's is the paper's, 1 for a quarter of the steps, 0.1 for two,
            0.01 for the last. Others fall off linearly, L-BFGS does not.
        start: "noise" is Gaussian, with the deviation of photographs; "mean" the mean colour.
        starts: how many pictures of each layer to make, each from noise of its own.
        transforms: functions the network looks through, such as `jitter(2)`; also as text.
        seed: decides the noise.

    Returns:
        A Picture, or a Sheet of them, in the order of the layers. `score` is minus the distance of
        the answers, |phi(x) - phi0|^2 / |phi0|^2, and `measures` holds that distance, the same of
        the images (1: as far as a plain grey), their structural similarity (SSIM), and where there
        are several starts the mean distance to the others. `raw` is the image before it was
        clipped to [0, 1].

    Raises RequestError for a layer that is not there, for a code of another shape, and where the
    answer is 0 everywhere.
    """
    if starts < 1:
        raise RequestError(f"starts={starts}: at least one")
    if image is None and code is None:
        raise RequestError("there is nothing to invert: give an image, or a code")
    targets = _targets(network, layer)
    given = _Given(network, image, _read(code))
    settings = _settings(optimizer, lr, schedule, steps, starts, seed)
    look = parse(transforms) if isinstance(transforms, str) else transforms
    made: list[Picture] = []
    for target in targets:
        wanted = given.answer(target)
        question = _question(network, target, wanted, formula, regularizer, given.shape)
        made += _pictures(given, target, wanted, question, start, look, settings)
        progress.tell("invert", len(made), len(targets) * starts)
    file = encode(code) if isinstance(code, Tensor | None) else os.fspath(code)
    notes = {"arguments": {"code": file, "lr": settings.lr, "schedule": encode(settings.schedule)}}
    if len(targets) == 1 and _is_one(layer) and starts == 1:
        return replace(made[0], recipe=notes)
    return Sheet(tuple(made), title=f"{network.name}: invert", recipe=notes)


@dataclass(frozen=True)
class _Settings:
    optimizer: str
    lr: float
    schedule: str | Sequence[float]
    steps: int
    starts: int
    seed: int

    @property
    def momentum(self) -> float:
        return 0.9 if self.optimizer.lower() == "sgd" else 0.0


@dataclass(frozen=True, eq=False)
class _Given:
    """What is to be reconstructed: an image, or what a layer said about one."""

    network: Network
    image: Image | None
    code: Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of the pictures."""
        if self.image is None:
            return self.network.shape
        channels, height, width = self.image.shape
        return channels, height, width

    def answer(self, target: Target) -> Tensor:
        """What the target should say, (1, ...)."""
        shown = self.image
        if shown is None:
            shown = torch.full(self.network.shape, 0.5)
        heard = self.network.read(shown[None].to(self.network.device), target.layer)
        answer = _said(heard, target)
        if self.code is not None:
            code = self.code.to(answer)
            if code.numel() != answer.numel() or code.squeeze().shape != answer.squeeze().shape:
                raise RequestError(
                    f"the code is {tuple(code.shape)}; {target} answers {tuple(answer.shape[1:])}"
                )
            answer = code.reshape(answer.shape)
        if not bool(answer.any()):
            raise RequestError(f"{target} is 0 everywhere on this image: that is nothing to invert")
        return answer


def _pictures(
    given: _Given,
    target: Target,
    wanted: Tensor,
    question: Objective,
    start: str,
    look: Sequence[Any],
    settings: _Settings,
) -> list[Picture]:
    owners = [f"{target}/start {n}" if n else str(target) for n in range(settings.starts)]
    for halvings in range(HALVINGS):
        distances, gradients, step = _descend(
            given, question, owners, start, look, settings, 0.5**halvings
        )
        if bool((step.images.abs() < FAR).all()):
            break
    else:
        raise RequestError(f"the inversion of {target} diverges at lr={settings.lr}: try a smaller")
    heard = given.network.read(step.images, target.layer)
    apart = _distance(_said(heard, target), wanted)
    history = torch.stack(distances[1:]) if settings.steps else torch.zeros(0, len(owners))
    images = step.images.float().cpu()
    return [
        Picture(
            image=images[n].clamp(0, 1),
            unit=str(target),
            score=-float(apart[n]),
            history=-history[:, n],
            gradient_norm=float(gradients[-1][n]) if gradients else None,
            measures=_measures(given, float(apart[n]), images, n),
            raw=images[n],
        )
        for n in range(len(owners))
    ]


def _descend(
    given: _Given,
    question: Objective,
    owners: Sequence[str],
    start: str,
    look: Sequence[Any],
    settings: _Settings,
    slower: float,
) -> tuple[list[Tensor], list[Tensor], Step]:
    """The distances and gradients of every step, and the last; it ends early where it diverges."""
    scale = DEVIATION**2 * float(np.prod(given.shape)) if settings.momentum else 1.0
    distances, gradients = [], []
    for step in ascend(
        given.network,
        question,
        param.pixels(start=_noise(given, owners, start, settings.seed), box=None),
        steps=settings.steps,
        optimizer=settings.optimizer,
        lr=settings.lr * scale * slower,
        momentum=settings.momentum,
        schedule=settings.schedule,
        transforms=look,
        shape=given.shape,
        owners=owners,
        seed=settings.seed,
    ):
        distances.append(-step.parts[0])
        gradients += [] if step.gradients is None else [step.gradients]
        if not bool((step.images.abs() < FAR).all()):
            break
    return distances, gradients, step


def _measures(
    given: _Given, apart: float, images: Tensor, number: int
) -> tuple[tuple[str, float], ...]:
    """How far the answers are apart, how far the images, and how far other starts came out."""
    shown, found = images.clamp(0, 1), [("feature distance", apart)]
    if given.image is not None:
        from skimage.metrics import structural_similarity

        image = given.image.float().cpu()
        found.append(("image distance", _apart(shown[number], image, image)))
        if min(image.shape[1:]) >= 7:
            pair = (one.numpy() for one in (shown[number], image))
            ssim = structural_similarity(*pair, channel_axis=0, data_range=1.0)
            found.append(("SSIM", float(ssim)))
    others = [
        _apart(shown[number], other, given.image if given.image is not None else other)
        for n, other in enumerate(shown)
        if n != number
    ]
    return (*found, *((("other starts", sum(others) / len(others)),) if others else ()))


def _apart(one: Image, other: Image, reference: Image) -> float:
    """|one - other|^2 over |reference - its mean colour|^2."""
    size = (reference - reference.mean((1, 2), keepdim=True)).square().sum().clamp(min=1e-12)
    return float((one - other).square().sum() / size)


def _question(
    network: Network,
    target: Target,
    wanted: Tensor,
    formula: Formula,
    regularizer: Objective | str | None,
    shape: tuple[int, int, int],
) -> Objective:
    """What is raised: minus the distance of the answers, first, and what is subtracted from it."""
    distance = ask.objective(
        lambda acts: _distance(_said(acts, target), wanted), target.layer, text="distance()"
    )
    if formula == "seed_literal":
        size = ask.objective(
            lambda acts: (image_sum(_said(acts, target).square()) / _size(wanted)) ** 3,
            target.layer,
            text="size()",
        )
        return -distance - size
    if regularizer == "auto":
        return -distance - _natural(network, target, shape)
    subtracted = spoken_as(Objective, regularizer)
    return -distance if subtracted is None else -distance - subtracted


def _natural(network: Network, target: Target, shape: tuple[int, int, int]) -> Objective:
    """The paper's regulariser: its constants are for numbers in [0, 255], less their mean.

    They are also for 227 pixels a side. In an image of fewer pixels neighbours differ more, so that
    differences count by the width of the image: v (side / 227)^2.
    """
    sigma = DEVIATION * 255 * float(np.prod(shape)) ** 0.5
    names = [x.name for x in network.layers if x.name != OUTPUT and x.same_as is None]
    depth = (names.index(target.layer) + 1) / len(names) if target.layer in names else 1.0
    rough = next(weight for share, weight in VARIATION if depth <= share)
    norm = 0.5 * ALPHA * 255**6 / sigma**2 * ask.alpha_norm(6.0, about=_grey(network).tolist())
    rough *= shape[1] * shape[2] / SIDE**2
    return norm + 0.5 * rough * 255**2 / sigma**2 * ask.total_variation(beta=2.0)


def _grey(network: Network) -> Float[Tensor, " channel"]:
    """The colour that the network subtracts; the middle where it subtracts none."""
    if network.mean is None:
        return torch.full((network.shape[0],), 0.5)
    return network.mean.flatten().float().cpu()


def _noise(given: _Given, owners: Sequence[str], start: str, seed: int) -> Tensor:
    """The starts, (owner, channel, height, width): noise about the mean colour, or that alone."""
    channels, height, width = given.shape
    grey = _grey(given.network).double()[:, None, None].expand(given.shape)
    if start == "mean":
        return grey.expand(len(owners), *given.shape)
    drawn = Streams(seed, tuple(owners)).normal("start", channels * height * width)
    return grey + DEVIATION * drawn.view(-1, *given.shape)


def _said(acts: Activations, target: Target) -> Tensor:
    """What a target says, (batch, ...): a whole layer's answer, a unit's map, one place's units."""
    answer = acts.layers[target.layer]
    if isinstance(target, Direction) or target.index is not None:
        return acts.map(target) if target.place is None else acts[target][:, None]
    return answer


def _distance(said: Tensor, wanted: Tensor) -> PerImage:
    return image_sum((said - wanted).square()) / _size(wanted)


def _size(wanted: Tensor) -> Tensor:
    return image_sum(wanted.square())[0]


def _targets(network: Network, layer: Targetlike | Sequence[Targetlike]) -> list[Target]:
    found: list[Target] = []
    for one in [layer] if isinstance(layer, str) or not isinstance(layer, Sequence) else layer:
        if isinstance(one, str) and ("*" in one or "?" in one) and ":" not in one:
            names = [x.name for x in network.layers if x.same_as is None or x.name == OUTPUT]
            matched = [network.resolve(n) for n in names if fnmatch.fnmatchcase(n, one)]
            if not matched:
                raise RequestError(f"{one!r} matches no layer of {network.name}")
            found += matched
        else:
            found.append(network.resolve(one))
    if not found:
        raise RequestError("no layer was asked for: give at least one, as in 'fc7'")
    return found


def _is_one(layer: Any) -> bool:
    return isinstance(layer, str) or not isinstance(layer, Sequence)


def _read(code: str | os.PathLike[str] | Tensor | None) -> Tensor | None:
    if code is None or isinstance(code, Tensor):
        return code
    path = Path(code)
    if not path.is_file():
        raise RequestError(f"no file {str(path)!r} to read a code from")
    try:
        values = np.load(path, allow_pickle=False)
        read = torch.from_numpy(np.asarray(values, dtype=np.float32))
    except (ValueError, OSError, EOFError, TypeError) as problem:
        raise RequestError(f"'{path}' is no .npy file of numbers: {problem}") from problem
    if not bool(torch.isfinite(read).all()):
        raise RequestError(f"'{path}' holds NaN or infinity")
    return read


def _settings(
    optimizer: str,
    lr: float | None,
    schedule: str | Sequence[float] | None,
    steps: int,
    starts: int,
    seed: int,
) -> _Settings:
    name = optimizer.lower().replace("lbfgs", "l-bfgs")
    usual: str | Sequence[float] = "constant" if name == "l-bfgs" else "linear"
    if name == "sgd":
        usual = SCHEDULE
    rate = RATES.get(name, RATES["adam"]) if lr is None else lr
    return _Settings(optimizer, rate, usual if schedule is None else schedule, steps, starts, seed)
