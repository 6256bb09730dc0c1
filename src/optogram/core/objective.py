"""What one asks of an image: a number for each image, made of what a network says about it.

An objective is a function from Activations to one number per image, with a text that prints as
written. A regulariser is an objective about the image. They add, subtract and scale, and none of
these changes its operands.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.activations import Activations, PerImage
from optogram.core.expression import say, spoken
from optogram.core.unit import Targetlike, Unit, units
from optogram.pictures.errors import RequestError

Boundary = Literal["none", "zero", "circular"]
Images = Float[Tensor, "batch channel height width"]
_CALL, _PRODUCT, _SUM = range(3)


@dataclass(frozen=True, eq=False)
class Term:
    """One weighted question: `weight * value(activations)`; `layers` says what it has to hear."""

    weight: float
    text: str
    value: Callable[[Activations], PerImage]
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Objective:
    """A weighted sum of questions about an image, which prints as written.

    Call it with Activations for one number per image. `layers` are the layers it has to hear.
    """

    terms: tuple[Term, ...]
    text: str = ""
    # How loosely the text binds, so that it is read back as the same sums of the same products.
    _looseness: int = field(default=_CALL, repr=False)

    def __call__(self, activations: Activations) -> PerImage:
        """The objective's value for each image, (batch,)."""
        parts = self.parts(activations)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def parts(self, activations: Activations) -> list[PerImage]:
        """Each term's weighted value, (batch,) each, in the order of `terms`."""
        return [
            t.value(activations) if t.weight == 1 else t.weight * t.value(activations)
            for t in self.terms
        ]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the objective has to hear."""
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.layers))

    def __add__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        terms = _scaled(self, 1.0) + _scaled(other, 1.0)
        return Objective(terms, f"{self.text} + {other.text}", _SUM)

    def __sub__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        terms = _scaled(self, 1.0) + _scaled(other, -1.0)
        return Objective(terms, f"{self.text} - {_bound(other, _SUM)}", _SUM)

    def __mul__(self, factor: float) -> "Objective":
        text = f"{say(factor)} * {_bound(self, _PRODUCT)}"
        return Objective(_scaled(self, _finite(factor)), text, _PRODUCT)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Objective":
        text = f"{_bound(self, _SUM)} / {say(divisor)}"
        return Objective(_scaled(self, 1 / _finite(divisor)), text, _PRODUCT)

    def __neg__(self) -> "Objective":
        return Objective(_scaled(self, -1.0), f"-{_bound(self, _PRODUCT)}")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Objective {self.text}>"


def objective(
    value: Callable[[Activations], PerImage], *layers: str, text: str = "custom()"
) -> Objective:
    """An objective of your own: `value(activations)`, a number per image, hearing `layers`."""
    return Objective((Term(1.0, text, value, layers),), text)


@spoken
def activation(target: Targetlike | Sequence[Targetlike], pre: bool = True) -> Objective:
    """A unit's value, averaged over its places, before the ReLU where one made the layer's answer.

    `target` may be a sequence with a unit for each image of the batch: image i is asked about unit
    i. `pre=False` asks for the value after the ReLU, whose gradient is 0 wherever the unit is off
    (METHODS C1 counts the pictures that this costs).
    """
    wanted = units(target)
    layers = tuple(dict.fromkeys(u.layer for u in wanted))
    several = not isinstance(target, str) and isinstance(target, Sequence)

    def value(acts: Activations) -> PerImage:
        acts = acts.before if pre else acts
        return acts.each(wanted) if several else acts[wanted[0]]

    return _term(value, layers)


@spoken
def probability(target: Targetlike | Sequence[Targetlike]) -> Objective:
    """A unit's share of the softmax over its layer: a class's probability, (batch,) in [0, 1]."""
    return _softmaxed(target, torch.softmax)


@spoken
def log_probability(target: Targetlike | Sequence[Targetlike]) -> Objective:
    """The logarithm of `probability`, which does not saturate, (batch,) at most 0."""
    return _softmaxed(target, torch.log_softmax)


@spoken
def others(target: Targetlike | Sequence[Targetlike], pre: bool = True) -> Objective:
    """The mean value of the other units of the unit's layer (the penalty of the MNIST study)."""
    wanted = units(target)
    several = not isinstance(target, str) and isinstance(target, Sequence)

    def value(acts: Activations) -> PerImage:
        acts = acts.before if pre else acts
        count = acts.network.layer(wanted[0].layer).units
        if count < 2:
            raise RequestError(f"{wanted[0].layer!r} has one unit, so there are no others")
        own = acts.each(wanted) if several else acts[wanted[0]]
        return (acts[Unit(wanted[0].layer)] * count - own) / (count - 1)

    if len({u.layer for u in wanted}) > 1 or any(u.place for u in wanted):
        raise RequestError("others() compares units of one layer, over all their places")
    return _term(value, (wanted[0].layer,))


@spoken
def energy(layer: str) -> Objective:
    """Half the squared length of a layer's answer, DeepDream's objective (Mordvintsev, 2015)."""

    def value(acts: Activations) -> PerImage:
        return 0.5 * image_sum(acts.layers[layer].square())

    return _term(value, (layer,))


@spoken
def direction(
    layer: str, vector: Sequence[float] | Tensor, power: float = 0.0, pre: bool = True
) -> Objective:
    """How far a layer's channels go along a vector, averaged over its places.

    At each place the dot product with `vector` (units,), times max(0.1, cosine)^power (lucid): a
    higher power asks for that direction and no other. `power=0` is the dot product itself.
    """
    if power < 0:
        raise RequestError(f"direction(power={power}): at least 0")
    wanted = torch.as_tensor(vector).detach().flatten()
    if not bool(wanted.any()) or not bool(torch.isfinite(wanted.double()).all()):
        raise RequestError(f"the vector of direction({layer!r}, ...) is zero or not finite")

    def value(acts: Activations) -> PerImage:
        places = _places(acts.before if pre else acts, layer)
        if places.shape[-1] != len(wanted):
            raise RequestError(
                f"the vector has {len(wanted)} numbers; {layer!r} has {places.shape[-1]} units"
            )
        return _towards(places, wanted.to(places), power).mean(1)

    return _term(value, (layer,))


@spoken
def between(
    one: Targetlike, other: Targetlike, shares: float | Sequence[float] = 0.5, pre: bool = True
) -> Objective:
    """A way from one unit to another: (1 - share) * one + share * other.

    With a list, image i of the batch has share i, for a row of pictures that changes over.
    """
    first, second = activation(one, pre=pre), activation(other, pre=pre)

    def value(acts: Activations) -> PerImage:
        share = torch.as_tensor(shares).to(acts.image)
        if share.dim() and len(share) != len(acts.image):
            raise RequestError(f"{len(share)} shares for {len(acts.image)} images: give one each")
        return (1 - share) * first(acts) + share * second(acts)

    return _term(value, tuple(dict.fromkeys(first.layers + second.layers)))


@spoken
def diversity(layer: str, facets: int) -> Objective:
    """How alike an image is to its fellows, so that subtracting it makes facets of one unit.

    Every `facets` images in a row belong together. An image's value is the sum, over the others of
    its group, of the cosine of their Gram matrices at `layer`, over `facets`: the group's sum is
    lucid's diversity (Olah et al., 2017, appendix). Images of other groups have no part in it.
    """
    if facets < 2:
        raise RequestError(f"diversity(facets={facets}): at least two images to tell apart")

    def value(acts: Activations) -> PerImage:
        if len(acts.image) % facets:
            raise RequestError(f"{len(acts.image)} images are no groups of {facets} facets")
        places = _places(acts, layer)
        grams = torch.stack([one.T @ one for one in places]).flatten(1)
        grams = grams / image_sum(grams.square()).clamp(min=1e-24).sqrt()[:, None]
        groups = grams.view(-1, facets, grams.shape[1])
        cosines = (groups[:, :, None] * groups[:, None]).sum(-1)
        return (cosines.sum(-1) - cosines.diagonal(dim1=1, dim2=2)).flatten() / facets

    return _term(value, (layer,))


@spoken
def caricature(
    layer: str, image: Float[Tensor, "channel height width"], power: float = 1.0
) -> Objective:
    """What a layer makes of a given image, and more so: activations towards the image's own.

    At each place the dot product with the image's activations there, times max(0.1, cosine)^power,
    averaged over the places (lucid's `dot_compare`). The image is of the size that is looked at.
    """
    heard: dict[int, Tensor] = {}

    def value(acts: Activations) -> PerImage:
        if id(acts.network) not in heard:
            with torch.no_grad():
                own = acts.network.read(image[None].to(acts.image), layer)
            heard[id(acts.network)] = _places(own, layer)
        places, wanted = _places(acts, layer), heard[id(acts.network)]
        if places.shape[1:] != wanted.shape[1:]:
            raise RequestError(
                f"the image has {wanted.shape[1]} places at {layer!r}, what is looked at "
                f"{places.shape[1]}: give an image of the same size"
            )
        return _towards(places, wanted, power).mean(1)

    return _term(value, (layer,))


@spoken
def total_variation(
    delta: float = 0.02, boundary: Boundary = "none", beta: float | None = None
) -> Objective:
    """How much neighbouring pixels differ, summed over the image, in units of the image's range.

    Anisotropic: sum of h(right - here) + h(below - here), i <= N-1, over all channels, with h(d) =
    |d| - delta/2 beyond `delta` and d^2 / (2 delta) within (Huber), so that fixed steps converge;
    `delta=0` is |d| itself, whose sign-subgradient oscillates (METHODS C11). `beta` instead gives
    sum (dx^2 + dy^2)^(beta/2) with the last differences 0 (Mahendran & Vedaldi, 2015, eq. 4).

    Args:
        delta: width of the smooth middle, in units of the image.
        boundary: "none" is the formula; "zero" adds the differences to a frame of zeros, as the
            code of the MNIST study does; "circular" joins opposite edges.
        beta: the exponent of the isotropic form.
    """
    if delta < 0 or (beta is not None and beta <= 0):
        raise RequestError(f"total_variation(delta={delta}, beta={beta}): both must be positive")
    if boundary not in ("none", "zero", "circular"):
        raise RequestError(f"boundary={boundary!r} should be 'none', 'zero' or 'circular'")

    def value(acts: Activations) -> PerImage:
        image = (
            torch.nn.functional.pad(acts.image, (1, 1, 1, 1)) if boundary == "zero" else acts.image
        )
        if beta is not None:
            return _isotropic(image, beta, boundary)
        total: PerImage = _Anisotropic.apply(image, delta, boundary == "circular")
        return total

    return _term(value)


@spoken
def norm(p: float = 2.0) -> Objective:
    """The image's p-norm, (sum |x|^p)^(1/p); `norm(1)` is L1, `norm(math.inf)` the largest |x|."""
    if p < 1:
        raise RequestError(f"norm({p}): a norm has p >= 1")

    def value(acts: Activations) -> PerImage:
        if math.isinf(p):
            return acts.image.abs().flatten(1).amax(1)
        powers = image_sum(_power(acts.image, p))
        if p == 1:
            return powers
        # The gradient of a root at 0 is infinite; an all-zero image has subgradient 0.
        zero = powers == 0
        return torch.where(zero, powers, torch.where(zero, 1.0, powers) ** (1 / p))

    return _term(value)


@spoken
def alpha_norm(alpha: float = 6.0, about: float | Sequence[float] = 0.0) -> Objective:
    """sum |x - about|^alpha, without the root (Mahendran & Vedaldi, 2015, eq. 3).

    `alpha=2` is the squared L2 norm that Simonyan et al. (2013) subtract; `about` is the grey that
    counts as no image, or a colour, a number a channel.
    """
    if alpha < 1:
        raise RequestError(f"alpha_norm({alpha}): alpha >= 1")

    def value(acts: Activations) -> PerImage:
        grey = torch.tensor(about, dtype=acts.image.dtype, device=acts.image.device)
        grey = grey.reshape(-1, 1, 1)
        if len(grey) not in (1, acts.image.shape[1]):
            raise RequestError(f"about={say(about)} is no colour of {acts.image.shape[1]} channels")
        return image_sum(_power(acts.image - grey, alpha))

    return _term(value)


def image_sum(values: Float[Tensor, " batch *rest"]) -> PerImage:
    """The sum over everything but the batch, one axis at a time.

    A single long sum is split among threads where the batch is 1 and not where it is larger, which
    would make a picture's last bits depend on its company.
    """
    while values.dim() > 1:
        values = values.sum(-1)
    return values


def _places(acts: Activations, layer: str) -> Float[Tensor, "batch place unit"]:
    answer = acts.layers[layer]
    if answer.dim() == 2:
        return answer[:, None]
    return answer.movedim(acts.network.layer(layer).axis, -1).flatten(1, -2)


def _towards(
    places: Float[Tensor, "batch place unit"], wanted: Tensor, power: float
) -> Float[Tensor, "batch place"]:
    """Dot products, each times a power of its cosine, which is not let below 0.1."""
    dots = (places * wanted).sum(-1)
    if not power:
        return dots
    sizes = places.square().sum(-1).clamp(min=1e-24).sqrt() * wanted.square().sum(-1).sqrt()
    return dots * (dots / sizes.clamp(min=1e-12)).clamp(min=0.1) ** power


def _power(values: Images, p: float) -> Images:
    if p == 1:
        return values.abs()
    return values.square() if p == 2 else values.abs() ** p


def _term(value: Callable[[Activations], PerImage], layers: tuple[str, ...] = ()) -> Objective:
    # The text comes from `spoken`, which knows how the call was written.
    return Objective((Term(1.0, "", value, layers),))


def _softmaxed(target: Targetlike | Sequence[Targetlike], softmax: Any) -> Objective:
    wanted = units(target)
    several = not isinstance(target, str) and isinstance(target, Sequence)

    def value(acts: Activations) -> PerImage:
        soft = {
            u.layer: softmax(acts.layers[u.layer], acts.network.layer(u.layer).axis) for u in wanted
        }
        shares = Activations(acts.network, acts.image, soft)
        return shares.each(wanted) if several else shares[wanted[0]]

    return _term(value, tuple(dict.fromkeys(u.layer for u in wanted)))


def _scaled(objective: Objective, factor: float) -> tuple[Term, ...]:
    return tuple(
        Term(t.weight * factor, t.text or objective.text, t.value, t.layers)
        for t in objective.terms
    )


def _bound(objective: Objective, loose: int) -> str:
    return f"({objective.text})" if objective._looseness >= loose else objective.text


def _finite(factor: float) -> float:
    if not isinstance(factor, int | float) or not math.isfinite(factor):
        raise RequestError(f"an objective is scaled by a finite number, not by {factor!r}")
    return float(factor)


def _isotropic(images: Images, beta: float, boundary: Boundary) -> PerImage:
    right, below = (torch.zeros_like(images) for _ in range(2))
    if boundary == "circular":
        right, below = images.roll(-1, -1) - images, images.roll(-1, -2) - images
    else:
        right[..., :, :-1] = images.diff(dim=-1)
        below[..., :-1, :] = images.diff(dim=-2)
    squares = right.square() + below.square()
    # beta < 2 has an infinite slope at 0; the authors' code floors the square at 1e-5 there.
    return image_sum(squares.clamp(min=1e-5) ** (beta / 2) if beta < 2 else squares ** (beta / 2))


class _Anisotropic(torch.autograd.Function):
    """Huber's total variation and its gradient, each in a handful of passes over the image."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, delta: float, circular: bool) -> Tensor:
        slopes, total = [], None
        for axis in (-1, -2):
            steps = images.roll(-1, axis) - images if circular else images.diff(dim=axis)
            slope = (steps / delta).clamp_(-1, 1) if delta else steps.sign()
            value = image_sum(steps.sub_(slope, alpha=delta / 2).mul_(slope))
            total = value if total is None else total + value
            slopes.append(slope)
        ctx.save_for_backward(*slopes)
        ctx.circular, ctx.shape = circular, images.shape
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        back = gradients[0].new_zeros(ctx.shape)
        for axis, slope in zip((-1, -2), ctx.saved_tensors, strict=True):
            if ctx.circular:
                back += slope.roll(1, axis) - slope
            else:
                length = ctx.shape[axis] - 1
                back.narrow(axis, 1, length).add_(slope)
                back.narrow(axis, 0, length).sub_(slope)
        return back.mul_(gradients[0][:, None, None, None]), None, None
