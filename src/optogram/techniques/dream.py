"""DeepDream: what a layer believes to see in an image, and then more of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from optogram.ascent import Step, ascend, param, transform
from optogram.core import film, progress
from optogram.core import objective as ask
from optogram.core.activations import Activations, PerImage
from optogram.core.expression import spoken_as
from optogram.core.network import Network
from optogram.core.objective import Objective, image_sum
from optogram.core.technique import Photograph, technique
from optogram.core.unit import Target, Targetlike
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError

OCTAVES, LEAST_SIDE = 4, 24
WHITE = 0.9998  # the quantile that is shown as white where nothing was clipped
AT_ONCE = 2**24  # cosines with the guide that are held at a time


@technique
def dream(
    network: Network,
    image: Photograph,
    layer: Objective | Targetlike | Sequence[Targetlike],
    *,
    guide: Photograph | None = None,
    steps: int = 10,
    octaves: int | None = None,
    scale: float = 1.4,
    lr: float = 1.5 / 255,
    jitter: int = 32,
    strength: float = 1.0,
    clip: bool = True,
    size: int | None = None,
    frames: int = 1,
    zoom: float = 0.05,
    tile: int | str | None = "auto",
    seed: int = 0,
) -> Picture | Sheet:
    """Show in an image what a layer believes to see there (DeepDream; Mordvintsev et al., 2015).

    Raises half the squared length of the layer's answer by gradient steps of a fixed mean size,
    first on a small copy of the image, then on larger ones to which what was found is carried over.

    Args:
        network: who dreams.
        image: of any size that the network takes; it keeps its size.
        layer: `inception4c`, whose every channel is raised that is there already; a unit, whose
            mean is raised; several, each relative to its value on the image; or an objective of
            your own, as in `energy("inception3b") + 2 * activation("inception4c:12")`, also as
            text.
        guide: an image to dream of: each place is moved towards what it is most like in the
            guide's answer.
        steps: how many at each size.
        octaves: how many sizes; by default four, of at least 24 pixels, where the layer is one of
            maps, else one.
        scale: how many times larger each is than the one before.
        lr: by how much a step changes a pixel on average.
        jitter: how many pixels the image is shifted at each step, at most, and back.
        strength: how much of what was found is added to the image, 1 as it was found.
        clip: keep pixels in [0, 1] at every step; else the result is scaled to be shown.
        size: resize the image first, so that its longer side has so many pixels.
        frames: how many dreams, each of the one before: then a Sheet, the frames of a film.
        zoom: how much of the frame is cut off between two dreams, on which the next looks closer.
        tile: a larger image is worked on in pieces of so many pixels a side, with the same result;
            "auto" beyond 1.2 million pixels.
        seed: decides the jitter.

    Returns:
        A Picture of the image's size, or a Sheet of frames. `score` is the objective on it, and
        `measures` has how many times that of the image it is.

    Raises RequestError for a layer that is not there and for settings that make no sense.
    """
    _check(steps, octaves, scale, lr, jitter, frames, zoom, size)
    image = _of_size(image, size).to(network.device, network.image_dtype)
    question, unit = _question(network, image, layer, guide, tile)
    climb = _Climb(network, question, unit, steps, scale, lr, jitter, clip, tile, seed)
    count = _octaves(network, question, image, scale) if octaves is None else octaves
    made: list[Picture] = []
    shown = image
    for number in range(frames):
        with film.only(frames == 1):
            found, history = climb.dreamt(
                shown, count, f"{unit}/frame {number}" if number else unit
            )
        if strength != 1:
            found = shown + strength * (found - shown)
        found = found.clamp(0, 1) if clip else found
        made.append(climb.picture(found, image, history))
        if frames > 1:
            film.show(made[-1].image[None])
            progress.tell("dream", number + 1, frames)
            shown = closer(found, zoom)
    notes = {"arguments": {"octaves": count}}
    if frames == 1:
        return replace(made[0], recipe=notes)
    return Sheet(tuple(made), title=f"{network.name}: dream of {unit}", recipe=notes)


@dataclass(frozen=True, eq=False)
class _Climb:
    """Everything about a dream but its image."""

    network: Network
    question: Objective
    unit: str
    steps: int
    scale: float
    lr: float
    jitter: int
    clip: bool
    tile: int | str | None
    seed: int

    def dreamt(self, image: Photograph, count: int, owner: str) -> tuple[Photograph, list[Tensor]]:
        """The image after all octaves, and the objective at every step."""
        bases = [image[None]]
        for _ in range(count - 1):
            height, width = (max(1, round(n / self.scale)) for n in bases[-1].shape[-2:])
            bases.append(resized(bases[-1], height, width))
        detail, history = torch.zeros_like(bases[-1]), []
        for number, base in enumerate(reversed(bases)):
            if number:
                detail = resized(detail, *base.shape[-2:])
            source = base + detail
            for step in self._steps(source[0], f"{owner}/octave {number}"):
                history.append(step.scores)
                progress.tell(f"octave {number + 1} of {count}", len(history), self.steps * count)
            detail = step.images - base
        return step.images[0], history

    def _steps(self, start: Photograph, owner: str) -> Iterator[Step]:
        channels, height, width = start.shape
        return ascend(
            self.network,
            self.question,
            param.pixels(start=start, box="project" if self.clip else None),
            steps=self.steps,
            optimizer="SGD",
            lr=self.lr,
            relative="mean",
            transforms=[transform.jitter(self.jitter)] if self.jitter else [],
            shape=(channels, height, width),
            owners=[owner],
            tile=self.tile,
            seed=self.seed,
        )

    def score(self, image: Photograph) -> float:
        """The objective on an image as it is."""
        channels, height, width = image.shape
        with film.only(False):
            (only,) = ascend(
                self.network,
                self.question,
                param.pixels(start=image, box=None),
                steps=0,
                shape=(channels, height, width),
                tile=self.tile,
            )
        return float(only.scores)

    def picture(self, found: Photograph, image: Photograph, history: list[Tensor]) -> Picture:
        """What was dreamt, with the objective on it and how that compares with the image's."""
        score, before = self.score(found), self.score(image)
        found = found.float().cpu()
        white = 1.0 if self.clip else float(_quantile(found, WHITE))
        return Picture(
            image=(found / white).clamp(0, 1),
            unit=self.unit,
            score=score,
            history=torch.cat(history).float(),
            measures=(("times the image's", score / before),) if before > 0 else (),
            raw=None if self.clip else found,
        )


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Linear, corner on corner, as scipy's zoom of order 1."""
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=True)


def closer(image: Photograph, zoom: float) -> Photograph:
    """The middle of an image, less a share `zoom` of it, at the image's size (linear)."""
    _, height, width = image.shape
    grids = [
        (torch.arange(n, dtype=torch.float64) * (1 - zoom) + n * zoom / 2) / max(n - 1, 1) * 2 - 1
        for n in (height, width)
    ]
    down, right = torch.meshgrid(*grids, indexing="ij")
    grid = torch.stack([right, down], -1)[None].to(image)
    return F.grid_sample(image[None], grid, align_corners=True, padding_mode="border")[0]


def guided(layer: str, answer: Tensor) -> Objective:
    """Each place's dot product with the place of a guide's answer that it is most like.

    Its gradient is the guide's channels there, as in the notebook.
    """
    wanted = answer[0].flatten(1)

    def value(acts: Activations) -> PerImage:
        places = acts.layers[layer].flatten(2).movedim(1, -1)
        with torch.no_grad():
            parts = places.split(max(1, AT_ONCE // wanted.shape[1]), dim=1)
            best = torch.cat([(part @ wanted).argmax(-1) for part in parts], 1)
        return image_sum(places * wanted.T[best])

    return ask.objective(value, layer, text=f'guided("{layer}")')


def _question(
    network: Network,
    image: Photograph,
    layer: Objective | Targetlike | Sequence[Targetlike],
    guide: Photograph | None,
    tile: int | str | None,
) -> tuple[Objective, str]:
    """What is raised, and what it is called."""
    if isinstance(layer, Objective) or (isinstance(layer, str) and "(" in layer):
        if guide is not None:
            raise RequestError("a guide speaks of layers: give their names, not an objective")
        question = spoken_as(Objective, layer)
        assert question is not None
        return question, str(question)
    asked = [layer] if isinstance(layer, str) or not isinstance(layer, Sequence) else layer
    targets = [network.resolve(one) for one in asked]
    if not targets:
        raise RequestError("no layer was asked for: give at least one, as in 'inception4c'")
    parts = [_part(network, target, guide) for target in targets]
    if len(parts) == 1:
        return parts[0], str(targets[0])
    sizes = [abs(_value(network, part, image, tile)) or 1.0 for part in parts]
    total = parts[0] / sizes[0]
    for part, extent in zip(parts[1:], sizes[1:], strict=True):
        total = total + part / extent
    return total, " + ".join(map(str, targets))


def _part(network: Network, target: Target, guide: Photograph | None) -> Objective:
    if guide is None:
        return ask.energy(target.layer) if target.index is None else ask.activation(target)
    if target.index is not None:
        raise RequestError(f"{target}: a guide is for a whole layer, as in {target.layer!r}")
    heard = network.read(guide[None].to(network.device, network.image_dtype), target.layer)
    if heard.layers[target.layer].dim() != 4:
        raise RequestError(f"{target.layer!r} has no places to compare with a guide's")
    return guided(target.layer, heard.layers[target.layer])


def _value(network: Network, part: Objective, image: Photograph, tile: int | str | None) -> float:
    return _Climb(network, part, "", 0, 1.4, 0.0, 0, True, tile, 0).score(image)


def _octaves(network: Network, question: Objective, image: Photograph, scale: float) -> int:
    if any(network.layer(name).field.whole for name in question.layers):
        return 1
    room = math.log(max(min(image.shape[-2:]) / LEAST_SIDE, 1.0)) / math.log(scale)
    return max(1, min(OCTAVES, int(room) + 1))


def _of_size(image: Photograph, size: int | None) -> Photograph:
    if size is None or max(image.shape[-2:]) == size:
        return image
    share = size / max(image.shape[-2:])
    height, width = (max(1, round(n * share)) for n in image.shape[-2:])
    whole = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
    return whole[0].clamp(0, 1)


def _quantile(values: Tensor, share: float) -> Tensor:
    """torch's own takes no more than 2^24 numbers."""
    flat = values.flatten()
    return flat.kthvalue(max(1, math.ceil(share * flat.numel()))).values


def _check(
    steps: int,
    octaves: int | None,
    scale: float,
    lr: float,
    jitter: int,
    frames: int,
    zoom: float,
    size: int | None,
) -> None:
    if steps < 0 or not lr > 0 or jitter < 0:
        raise RequestError(f"steps={steps}, lr={lr}, jitter={jitter}: none may be negative")
    if (octaves is not None and octaves < 1) or not scale > 1:
        raise RequestError(f"octaves={octaves}, scale={scale}: at least 1, and above 1")
    if frames < 1 or not 0 <= zoom < 1:
        raise RequestError(f"frames={frames}, zoom={zoom}: at least 1, and from 0 to below 1")
    if size is not None and size < 1:
        raise RequestError(f"size={size}: at least one pixel")
