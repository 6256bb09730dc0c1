"""How a unit behaves over a data set, in running numbers that merge.

Every number here is of pre-activations. `Moments` are over all places of all images. `Answers` are
over images, and an image's answer is its strongest place, the same number that the top k are
ordered by. Both merge associatively, up to the rounding of float64; counts merge exactly (Chan et
al., 1983).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

ERROR = 0.02
"""How far off a quantile may be, relative to itself."""

SMALLEST, LARGEST = 1e-6, 1e6
_GROWTH = math.log((1 + ERROR) / (1 - ERROR))
_SIDE = math.ceil(math.log(LARGEST / SMALLEST) / _GROWTH)
BINS = 2 * _SIDE + 1
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


@dataclass(frozen=True, eq=False)
class Moments:
    """Of `count` values a unit: mean, sum of squared distances from it, extremes, how many > 0."""

    count: int
    mean: Float64[Tensor, " unit"]
    spread: Float64[Tensor, " unit"]
    minimum: Float[Tensor, " unit"]
    maximum: Float[Tensor, " unit"]
    active: Int64[Tensor, " unit"]

    @classmethod
    def empty(cls, units: int) -> "Moments":
        """Of no value at all."""
        zero = torch.zeros(units, dtype=torch.float64)
        low = torch.full((units,), torch.inf)
        return cls(0, zero, zero, low, -low, torch.zeros(units, dtype=torch.int64))

    @property
    def variance(self) -> Float64[Tensor, " unit"]:
        """The population variance; NaN of no value."""
        return self.spread / (self.count or math.nan)

    def merge(self, other: "Moments") -> "Moments":
        """Of the values of both, which must be different ones."""
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        away = other.mean - self.mean
        return Moments(
            count,
            self.mean + away * (other.count / count),
            self.spread + other.spread + away.square() * (self.count * other.count / count),
            torch.minimum(self.minimum, other.minimum),
            torch.maximum(self.maximum, other.maximum),
            self.active + other.active,
        )


@dataclass(frozen=True, eq=False)
class Answers:
    """What the images' answers have in common, for one layer.

    Attributes:
        images: how many images.
        rectified: sums of max(answer, 0) and of its square, (2, unit), for the sparseness.
        class_count: images per class, the last one for images of no known class.
        class_sum: sum of answers per class, (class + 1, unit).
        scatter: sum of squared distances of the answers from their mean, (unit,).
        bins: how many answers fell into each bin of `bin_of`, (unit, BINS).
        half_count, half_mean, half_spread: for two halves of a fair sample of the images, see
            `halves`: how many, the mean answer (2, unit) and the sum of products of distances from
            it (2, unit, unit); no products for very wide layers.
        across: the same sums between this layer's units and the network's outputs, (unit, output),
            of all images; `across_mean` (output,) is the outputs' mean.
    """

    images: int
    rectified: Float64[Tensor, "2 unit"]
    class_count: Int64[Tensor, " class_and_none"]
    class_sum: Float64[Tensor, "class_and_none unit"]
    scatter: Float64[Tensor, " unit"]
    bins: Int64[Tensor, "unit bin"]
    half_count: tuple[int, int]
    half_mean: Float64[Tensor, "2 unit"]
    half_spread: Float64[Tensor, "2 some_unit some_unit"]
    across: Float64[Tensor, "across_unit output"]
    across_mean: Float64[Tensor, " output"]

    @classmethod
    def of(
        cls,
        answers: Float[Tensor, "image unit"],
        numbers: Int64[Tensor, " image"],
        labels: Int64[Tensor, " image"],
        *,
        classes: int,
        pairs: bool,
        share: float = 1.0,
        outputs: Float[Tensor, "image output"] | None = None,
    ) -> "Answers":
        """Of some images at once; `share` of them enter the halves, which cost most.

        `labels` are -1 where the class is not known.
        """
        wide = answers.double()
        open_ = wide.clamp(min=0)
        known = labels.masked_fill(labels < 0, classes)
        sums = torch.zeros(classes + 1, wide.shape[1], dtype=torch.float64)
        which = halves(numbers, share)
        units = wide.shape[1] if pairs else 0
        means = torch.zeros(2, wide.shape[1], dtype=torch.float64)
        spread = torch.zeros(2, units, units, dtype=torch.float64)
        for half in (0, 1):
            part = wide[which == half]
            if len(part):
                means[half] = part.mean(0)
                centred = (part - means[half])[:, :units].float()
                spread[half] = (centred.T @ centred).double()
        beside = torch.zeros(len(wide), 0) if outputs is None else outputs
        beside = beside.double()
        middle = beside.mean(0) if len(beside) else beside.sum(0)
        crossed = (wide - wide.mean(0)).T @ (beside - middle)
        return cls(
            len(wide),
            torch.stack([open_.sum(0), open_.square().sum(0)]),
            torch.bincount(known, minlength=classes + 1),
            sums.index_add(0, known, wide),
            (wide - wide.mean(0)).square().sum(0),
            _counted(bin_of(answers)),
            (int((which == 0).sum()), int((which == 1).sum())),
            means,
            spread,
            crossed[: 0 if outputs is None else None],
            middle,
        )

    def merge(self, other: "Answers") -> "Answers":
        """Of the images of both, which must be different ones."""
        if not self.images or not other.images:
            return other if not self.images else self
        means, spread = _joined_halves(self, other)
        weight = self.images * other.images / (self.images + other.images)
        away = other.mean - self.mean
        beside = other.across_mean - self.across_mean
        share = other.images / (self.images + other.images)
        return Answers(
            self.images + other.images,
            self.rectified + other.rectified,
            self.class_count + other.class_count,
            self.class_sum + other.class_sum,
            self.scatter + other.scatter + weight * away.square(),
            self.bins + other.bins,
            (
                self.half_count[0] + other.half_count[0],
                self.half_count[1] + other.half_count[1],
            ),
            means,
            spread,
            self.across + other.across + weight * torch.outer(away, beside)[: len(self.across)],
            self.across_mean + share * beside,
        )

    @property
    def mean(self) -> Float64[Tensor, " unit"]:
        """The mean answer."""
        return self.class_sum.sum(0) / self.images

    @property
    def variance(self) -> Float64[Tensor, " unit"]:
        """The population variance of the answers."""
        return self.scatter / self.images

    def spread(self, half: int | None = None) -> tuple[int, Float64[Tensor, "unit unit"]]:
        """How many images and the sum of products of distances, of one half or of both together."""
        if half is not None:
            return self.half_count[half], self.half_spread[half]
        first, second = self.half_count
        away = (self.half_mean[1] - self.half_mean[0])[: self.half_spread.shape[1]]
        between = torch.outer(away, away) * (first * second / max(first + second, 1))
        return first + second, self.half_spread[0] + self.half_spread[1] + between

    def quantile(self, *shares: float, unit: int | None = None) -> Float64[Tensor, "share unit"]:
        """The answers that each of `shares` of the images stay below, within 2 % of themselves.

        Answers closer to 0 than 1e-6 count as 0, those beyond 1e6 as 1e6. With `unit` for it alone.
        """
        below = (self.bins if unit is None else self.bins[unit : unit + 1]).cumsum(1)
        ranks = [math.floor(share * (self.images - 1)) for share in shares]
        return torch.stack([value_of((below <= rank).sum(1)) for rank in ranks])

    def sparseness(self) -> Float64[Tensor, " unit"]:
        """Lifetime sparseness of max(answer, 0), 0 for all alike to 1 for one image alone.

        (1 - mean^2 / mean square) / (1 - 1/n) (Vinje & Gallant, 2000, after Treves & Rolls, 1995);
        NaN for a unit that no image excites.
        """
        first, second = self.rectified / self.images
        return (1 - first.square() / second) / (1 - 1 / max(self.images, 2))


def halves(numbers: Int64[Tensor, " image"], share: float = 1.0) -> Int64[Tensor, " image"]:
    """0 or 1 for the images of a fair sample, -1 for the rest, by a hash of their number.

    It is the fraction of number * golden ratio, so no order or period in the data can tip the
    scale, and the same images are taken however the set is cut up.
    """
    fraction = ((numbers + 1) * _GOLDEN).double() * 2.0**-64 + 0.5  # whole numbers wrap round
    half = (2 * fraction / share).long()
    return half.masked_fill(half > 1, -1) if share < 1 else half.clamp(max=1)


def bin_of(values: Float[Tensor, "image unit"]) -> Int64[Tensor, "image unit"]:
    """The bin of each value: bins grow by 4 % away from 0, as in DDSketch (Masson et al., 2019)."""
    size = values.abs().clamp_(SMALLEST, LARGEST).log_().sub_(math.log(SMALLEST))
    # The 1e-4 is what float32 may add to a value at the end of its bin.
    step = size.div_(_GROWTH).sub_(1e-4).ceil_().clamp_(0, _SIDE)
    return step.mul_(values.sign()).add_(_SIDE).long()


def value_of(bin_: Int64[Tensor, " unit"]) -> Float64[Tensor, " unit"]:
    """The value in the middle of a bin, in the sense that neither end is further off than 2 %."""
    step = (bin_ - _SIDE).double()
    size = SMALLEST * torch.exp(step.abs() * _GROWTH) * (1 - ERROR)
    return torch.where(step == 0, torch.zeros_like(size), step.sign() * size)


def _counted(bins: Int64[Tensor, "image unit"]) -> Int64[Tensor, "unit bin"]:
    counts = torch.zeros(bins.shape[1], BINS, dtype=torch.int64)
    return counts.scatter_add_(1, bins.T.contiguous(), torch.ones_like(bins.T))


def _joined_halves(one: Answers, other: Answers) -> tuple[Tensor, Tensor]:
    means, spread = one.half_mean.clone(), one.half_spread + other.half_spread
    for half in (0, 1):
        first, second = one.half_count[half], other.half_count[half]
        share = second / max(first + second, 1)
        away = other.half_mean[half] - one.half_mean[half]
        means[half] += away * share
        some = away[: spread.shape[1]]
        spread[half].addr_(some, some, alpha=first * share)
    return means, spread
