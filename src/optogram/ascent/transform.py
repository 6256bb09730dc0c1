"""What an image must survive: functions it is looked through during an ascent.

Any function from images to images will do. One that draws random numbers has a method `at(streams,
step)` that returns the function for this step, so that each image is moved by its own stream. One
that only moves the point of view has `view(streams, step, shape)` instead, and neighbours of that
kind are composed into a single resampling.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.ascent import view
from optogram.ascent.view import Beyond, View
from optogram.core.chance import Streams
from optogram.core.expression import say, spoken
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]
Transform = Callable[[Images], Images]


@runtime_checkable
class Random(Protocol):
    """A transform that is drawn anew for each step and each image."""

    def at(self, streams: Streams, step: int) -> Transform:
        """The function for this step."""
        ...


@runtime_checkable
class Moving(Protocol):
    """A transform that only moves the point of view, drawn for each step and each image."""

    def view(self, streams: Streams, step: int, shape: tuple[int, int]) -> View:
        """The view of this step, of images of that height and width."""
        ...


class _Geometric:
    """A moving transform by itself is a transform too."""

    def at(self, streams: Streams, step: int) -> Transform:
        """The function for this step."""
        moving: Moving = self  # type: ignore[assignment]
        return lambda images: moving.view(streams, step, _size(images))(images)


@dataclass(frozen=True)
class Jitter:
    """Shift by up to `pixels` along both axes, drawn for each image and step.

    Alone, edges wrap around; next to other moves, what is beyond the edge comes from them.
    """

    pixels: int
    text: str = ""

    def at(self, streams: Streams, step: int) -> Transform:
        """The shifts of this step."""
        shifts = self.shifts(streams, step)
        return lambda images: shifted(images, shifts)

    def view(self, streams: Streams, step: int, shape: tuple[int, int]) -> View:
        """The same shifts as a view."""
        return view.shift(self.shifts(streams, step).double())

    def shifts(self, streams: Streams, step: int) -> Tensor:
        """How far down and right each image goes, (batch, 2)."""
        return streams.integers("jitter", -self.pixels, self.pixels, 2, step)


@dataclass(frozen=True)
class Scale(_Geometric):
    """A zoom, one of `factors` or, where they are a range, uniform between them."""

    factors: tuple[float, ...]
    between: bool
    text: str = ""

    def view(self, streams: Streams, step: int, shape: tuple[int, int]) -> View:
        """The zooms of this step."""
        return view.zoom(_among(streams, "scale", self.factors, self.between, step))


@dataclass(frozen=True)
class Rotate(_Geometric):
    """A turn, one of `degrees` or, where they are a range, uniform between them."""

    degrees: tuple[float, ...]
    between: bool
    text: str = ""

    def view(self, streams: Streams, step: int, shape: tuple[int, int]) -> View:
        """The turns of this step."""
        return view.turned(_among(streams, "rotate", self.degrees, self.between, step))


@dataclass(frozen=True)
class Frame(_Geometric):
    """More image around the image: `pixels` on each side, of a grey or mirrored."""

    pixels: int
    beyond: Beyond
    text: str = ""

    def view(self, streams: Streams, step: int, shape: tuple[int, int]) -> View:
        """The same at every step."""
        return view.frame(len(streams.owners), self.pixels, self.beyond)


@dataclass(frozen=True)
class Crop(_Geometric):
    """A box inside the image, shown at the image's size."""

    size: float
    to: float
    steps: int
    spread: float
    wander: float
    least: float
    text: str = ""

    def view(self, streams: Streams, step: int, shape: tuple[int, int]) -> View:
        """The box of this step, as a view."""
        return view.cut(*self.boxes(streams, step), shape)

    def boxes(self, streams: Streams, step: int) -> tuple[Tensor, Tensor]:
        """Centres (batch, 2) and sizes (batch,) as shares of the image; all boxes lie inside."""
        done = min(step / (self.steps - 1), 1.0) if self.steps > 1 else 1.0
        drawn = streams.normal("crop", 3, step)
        sizes = (self.size + done * (self.to - self.size) + self.spread * drawn[:, 0]).clamp(
            self.least, 1.0
        )
        half = sizes[:, None] / 2
        return (0.5 + self.wander * drawn[:, 1:]).clamp(half, 1 - half), sizes


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of `sigma` pixels, mirrored at the edges."""

    sigma: float
    text: str = ""

    def __call__(self, images: Images) -> Images:
        """The blurred images."""
        return blurred(images, self.sigma)


@dataclass(frozen=True)
class Noise:
    """Noise on every number of every image: normal and uniform, drawn for each step."""

    normal: float
    uniform: float
    text: str = ""

    def at(self, streams: Streams, step: int) -> Transform:
        """Add this step's noise."""

        def noisy(images: Images) -> Images:
            count = images[0].numel()
            noise = self.normal * streams.normal("noise", count, step) if self.normal else 0.0
            if self.uniform:
                noise = noise + self.uniform * (2 * streams.uniform("grain", count, step) - 1)
            return images + torch.as_tensor(noise).to(images).view(-1, *images.shape[1:])

        return noisy if self.normal or self.uniform else lambda images: images


@dataclass(frozen=True)
class Colour:
    """Each channel stretched and lifted a little, drawn for each step and image."""

    stretch: float
    lift: float
    text: str = ""

    def at(self, streams: Streams, step: int) -> Transform:
        """Apply this step's colour cast."""

        def cast(images: Images) -> Images:
            channels = images.shape[1]
            drawn = 2 * streams.uniform("colour", 2 * channels, step).to(images) - 1
            stretch, lift = drawn[:, :, None, None].split(channels, 1)
            return (images - 0.5) * (1 + self.stretch * stretch) + 0.5 + self.lift * lift

        return cast


@dataclass(frozen=True)
class Composed:
    """One transform after another, the first one first."""

    parts: tuple[Any, ...]
    text: str = ""

    def at(self, streams: Streams, step: int) -> Transform:
        """The composition as it is drawn for this step."""
        return drawn(self.parts, streams, step)


@spoken
def jitter(pixels: int) -> Jitter:
    """A shift of the image by a whole number of pixels, uniform in -pixels..pixels on each axis.

    Edges wrap around, as in DeepDream's code (Mordvintsev et al., 2015); every position is equally
    likely, left and up too.
    """
    if not isinstance(pixels, int) or pixels < 0:
        raise RequestError(f"jitter({pixels!r}): a whole number of pixels, at least 0")
    return Jitter(pixels)


@spoken
def scale(factors: Sequence[float], between: bool = True) -> Scale:
    """A zoom about the middle, uniform between two factors, or one of a list: `between=False`.

    Above 1 enlarges. The image keeps its size; below 1 what lies beyond its edges comes into sight.
    """
    if not factors or min(factors) <= 0:
        raise RequestError(f"scale({say(factors)}): factors are above 0, as in scale([0.9, 1.1])")
    return Scale(tuple(map(float, factors)), between)


@spoken
def rotate(degrees: Sequence[float], between: bool = True) -> Rotate:
    """A turn anticlockwise about the middle, uniform between two angles, or one of a list."""
    if not degrees:
        raise RequestError("rotate([]): give degrees, as in rotate([-10, 10])")
    return Rotate(tuple(map(float, degrees)), between)


@spoken
def pad(pixels: int, value: Beyond = 0.5) -> Frame:
    """More image: `pixels` on each side, of one value or "mirror"; what is shown grows.

    Moves after it see the same value beyond the edges.
    """
    if not isinstance(pixels, int) or pixels < 0:
        raise RequestError(f"pad({pixels!r}): a whole number of pixels, at least 0")
    return Frame(pixels, value)


@spoken
def edge(value: Beyond = 0.5) -> Frame:
    """What the moves next to this one see beyond the edges: one value, or "mirror" (the default).

    Like `pad`, but the image keeps its size, as networks of a fixed input size need.
    """
    return Frame(0, value)


@spoken
def crop(
    size: float,
    to: float | None = None,
    steps: int = 1,
    spread: float = 0.05,
    wander: float = 0.15,
    least: float = 0.05,
) -> Crop:
    """A box of the image, shown at the image's size (Fel et al., 2023).

    Args:
        size: the box's share of the image's height and width, on average.
        to: what that shrinks or grows to, linearly.
        steps: over how many steps.
        spread: the standard deviation of the share.
        wander: that of the box's middle; a box that would leave the image is moved back into it.
        least: the smallest share.
    """
    end = size if to is None else to
    if not 0 < least <= min(size, end) <= max(size, end) <= 1 or steps < 1:
        raise RequestError(
            f"crop(size={size}, to={to}, steps={steps}, least={least}): shares of the image "
            f"between least and 1, over at least one step"
        )
    return Crop(float(size), float(end), steps, spread, wander, least)


@spoken
def blur(sigma: float) -> Blur:
    """A Gaussian blur of `sigma` pixels; edges are mirrored."""
    if not sigma >= 0:
        raise RequestError(f"blur({sigma}): at least 0 pixels")
    return Blur(float(sigma))


@spoken
def noise(normal: float = 0.08, uniform: float = 0.04) -> Noise:
    """Noise of standard deviation `normal`, and uniform in -uniform..uniform (Fel et al., 2023)."""
    return Noise(normal, uniform)


@spoken
def colour(stretch: float = 0.1, lift: float = 0.1) -> Colour:
    """Each channel times 1 +- `stretch` about the middle grey, plus +- `lift`, uniform."""
    return Colour(stretch, lift)


@spoken
def compose(*transforms: Any) -> Composed:
    """One transform after another, the first one first."""
    return Composed(tuple(transforms))


def drawn(transforms: Sequence[Any], streams: Streams, step: int) -> Transform:
    """The function that a list of transforms amounts to at one step.

    Each draws numbers of its own, also where two are equal. Neighbours that only move the point of
    view become one resampling; a jitter with no such neighbour wraps around instead.
    """
    own = _own_streams(transforms, streams)
    steps: list[Transform] = []
    for moving, group in groupby(own, lambda pair: isinstance(pair[0], Moving)):
        run = list(group)
        if moving and len(run) > 1:
            steps.append(_one_view(run, step))
        else:
            steps += [t.at(s, step) if isinstance(t, Random) else t for t, s in run]

    def through(images: Tensor) -> Tensor:
        for one in steps:
            images = one(images)
        return images

    return through


def _own_streams(transforms: Sequence[Any], streams: Streams) -> list[tuple[Any, Streams]]:
    """Each transform with the streams it draws from: the plain ones for the first random one."""
    own, count = [], 0
    for one in transforms:
        salt = "" if count == 0 else f"/{count}"
        own.append((one, replace(streams, owners=tuple(o + salt for o in streams.owners))))
        count += isinstance(one, Random)
    return own


def _one_view(run: Sequence[tuple[Moving, Streams]], step: int) -> Transform:
    def look(images: Tensor) -> Tensor:
        height, width = _size(images)
        whole = view.still(len(images))
        for moving, streams in run:
            shape = height + whole.grow[0], width + whole.grow[1]
            whole = whole.then(moving.view(streams, step, shape))
        return whole(images)

    return look


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _among(
    streams: Streams, purpose: str, values: tuple[float, ...], between: bool, step: int
) -> Tensor:
    """One of some values for each owner, or a number between the least and the largest."""
    if between:
        low, high = min(values), max(values)
        return low + (high - low) * streams.uniform(purpose, 1, step)[:, 0]
    return torch.tensor(values).double()[
        streams.integers(purpose, 0, len(values) - 1, 1, step)[:, 0]
    ]


def blurred(images: Images, sigma: float) -> Images:
    """A Gaussian blur, cut at 4 sigma, in sums of shifted images: the same bits in any batch."""
    radius = min(math.ceil(4 * sigma), min(images.shape[-2:]) - 1)
    if radius < 1:
        return images
    weights = [math.exp(-0.5 * (n / sigma) ** 2) for n in range(-radius, radius + 1)]
    for axis in (-2, -1):
        around = [0, 0, radius, radius] if axis == -2 else [radius, radius, 0, 0]
        wide = torch.nn.functional.pad(images, around, mode="reflect")
        length = images.shape[axis]
        total = torch.zeros_like(images)
        for offset, weight in enumerate(weights):
            total = total + weight / sum(weights) * wide.narrow(axis, offset, length)
        images = total
    return images


def shifted(images: Images, shifts: Tensor) -> Images:
    """Each image rolled by its own (down, right), in one indexing operation."""
    moved: Images = _Shift.apply(images, shifts.to(images.device))
    return moved


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, shifts: Tensor) -> Tensor:
        ctx.save_for_backward(shifts)
        return _roll(images, shifts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _roll(gradients[0], -ctx.saved_tensors[0]), None


def _roll(images: Tensor, shifts: Tensor) -> Tensor:
    batch, _, height, width = images.shape
    rows = (torch.arange(height, device=images.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=images.device) - shifts[:, 1:]) % width
    every = torch.arange(batch, device=images.device)
    moved = images.movedim(1, -1)[every[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.movedim(-1, 1)
