"""How a unit behaves over a data set, in running numbers that merge.

Every number here is of pre-activations. `Moments` are over all places of all images. `Answers` are
over images, and an image's answer is its strongest place, the same number that the top k are
ordered by. Both merge associatively, up to the rounding of float64; counts merge exactly (Chan et
al., 1983).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor

ERROR = 0.02
"""How far off a quantile may be, relative to itself."""

SMALLEST, LARGEST = 1e-6, 1e6
_GROWTH = math.log((1 + ERROR) / (1 - ERROR))
_SIDE = math.ceil(math.log(LARGEST / SMALLEST) / _GROWTH)
BINS = 2 * _SIDE + 1
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64

CHUNK = 1 << 16
"""How many answers are looked at together: they fit a cache, and are worth a call."""

SPLIT = 64
"""The answers of at most so many units are counted into bins together, and of so many classes are
added up by a product of matrices."""

BLOCK = 256
"""Products of pairs of units are made in blocks of so many units, each pair once."""


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
    bins: Int32[Tensor, "unit bin"]
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
        """Of some images at once, see `add`; with `pairs` also how units go together."""
        units, beside = answers.shape[1], 0 if outputs is None else outputs.shape[1]
        empty = cls.empty(units, classes=classes, pairs=pairs, outputs=beside)
        return empty.add(answers, numbers, labels, share=share, outputs=outputs)

    @classmethod
    def empty(cls, units: int, *, classes: int, pairs: bool, outputs: int = 0) -> "Answers":
        """Of no image."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        paired = units if pairs else 0
        return cls(
            0,
            zeros(2, units),
            torch.zeros(classes + 1, dtype=torch.int64),
            zeros(classes + 1, units),
            zeros(units),
            torch.zeros(units, BINS, dtype=torch.int32),
            (0, 0),
            zeros(2, units),
            zeros(2, paired, paired),
            zeros(units if outputs else 0, outputs),
            zeros(outputs),
        )

    def add(
        self,
        answers: Float[Tensor, "image unit"],
        numbers: Int64[Tensor, " image"],
        labels: Int64[Tensor, " image"],
        *,
        share: float = 1.0,
        outputs: Float[Tensor, "image output"] | None = None,
    ) -> "Answers":
        """With those of more images; `share` of them enter the halves, which cost most.

        `labels` are -1 where the class is not known. The answer lies in the same memory, which is
        much: these ones must not be used any more.
        """
        count, classes = len(answers), len(self.class_count) - 1
        if not count:
            return self
        known = labels.masked_fill(labels < 0, classes)
        few = classes < SPLIT
        member = torch.zeros(count, classes + 1 if few else 0, dtype=torch.float64)
        if few:
            member[torch.arange(count), known] = 1
        beside = torch.zeros(count, 0) if outputs is None else outputs
        beside = beside.double()
        middle = beside.mean(0)
        products, scatter, rectified = _added(answers, torch.cat([member, beside - middle], 1))
        if few:
            sums = products[: classes + 1]
        else:
            sums = torch.zeros(classes + 1, answers.shape[1], dtype=torch.float64)
            sums.index_add_(0, known, answers.double())
        total = self.images + count
        away, aside = sums.sum(0) / count, middle
        if self.images:
            away, aside = away - self.mean, middle - self.across_mean
        weight = self.images * count / total
        if outputs is not None:
            self.across.add_(products[member.shape[1] :].T).addr_(away, aside, alpha=weight)
        counted(answers, self.bins)
        return replace(
            self,
            images=total,
            rectified=self.rectified + rectified,
            class_count=self.class_count + torch.bincount(known, minlength=classes + 1),
            class_sum=self.class_sum + sums,
            scatter=self.scatter + scatter + weight * away.square(),
            half_count=self._add_halves(answers, halves(numbers, share)),
            across_mean=self.across_mean + aside * (count / total),
        )

    def _add_halves(
        self, answers: Float[Tensor, "image unit"], which: Int64[Tensor, " image"]
    ) -> tuple[int, int]:
        """The new `half_count`; the other numbers of the halves are changed where they lie."""
        counts = list(self.half_count)
        units = self.half_spread.shape[1]
        for half in (0, 1):
            part = answers[which == half]
            if not len(part):
                continue
            before, counts[half] = counts[half], counts[half] + len(part)
            mean, spread = self.half_mean[half], self.half_spread[half]
            new = part.double().mean(0)
            _pairs(part[:, :units] - new[:units].to(part), spread)
            away = new - mean
            if before:
                weight = before * len(part) / counts[half]
                spread.addr_(away[:units], away[:units], alpha=weight)
            mean.add_(away, alpha=len(part) / counts[half])
        return counts[0], counts[1]

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
    return _steps(values, torch.empty_like(values)).long().add_(_SIDE)


def _steps(
    values: Float[Tensor, "image unit"], room: Float[Tensor, "image unit"]
) -> Float[Tensor, "image unit"]:
    """The bin of each value, counted from that of 0, before it is cut down to a whole number.

    It is worked out in `room`. The 1e-4 is what float32 may add to a value at the end of its bin.
    """
    size = torch.abs(values, out=room).log_()
    first = torch.tensor(1 - 1e-4 - math.log(SMALLEST) / _GROWTH, dtype=values.dtype)
    return torch.add(first, size, alpha=1 / _GROWTH, out=size).clamp_(0, _SIDE).copysign_(values)


def counted(answers: Float[Tensor, "image unit"], bins: Int32[Tensor, "unit bin"]) -> None:
    """Add to `bins` how many answers of each unit fall into each."""
    count, units = answers.shape
    width = min(SPLIT, units)
    rows = CHUNK // width
    given, room = torch.empty(2, min(rows, count), width, dtype=answers.dtype)
    where = torch.empty(count, width, dtype=torch.int32)
    start = torch.arange(width, dtype=torch.int32) * BINS + _SIDE
    for first in range(0, units, width):
        held = bins[first : first + width]
        parts = answers[:, first : first + width].split(rows)
        for part, at in zip(parts, where[:, : len(held)].split(rows), strict=True):
            some = slice(0, len(part)), slice(0, len(held))
            at.copy_(_steps(given[some].copy_(part), room[some])).add_(start[: len(held)])
        found = torch.bincount(where[:, : len(held)].flatten(), minlength=held.numel())
        held.add_(found.view_as(held))


def value_of(bin_: Int64[Tensor, " unit"]) -> Float64[Tensor, " unit"]:
    """The value in the middle of a bin, in the sense that neither end is further off than 2 %."""
    step = (bin_ - _SIDE).double()
    size = SMALLEST * torch.exp(step.abs() * _GROWTH) * (1 - ERROR)
    return torch.where(step == 0, torch.zeros_like(size), step.sign() * size)


def mean_and_variance(
    values: Float[Tensor, "row column"],
) -> tuple[Float[Tensor, " column"], Float[Tensor, " column"]]:
    """Of each column, the variance being the population's.

    It is what batch normalisation asks, so torch has it for a processor in two quick passes; its
    general function takes ten times as long where the columns lie side by side.
    """
    image = values[None, :, None].permute(0, 3, 1, 2)
    mean, variance = torch.batch_norm_update_stats(image, None, None, 0.0)
    return mean, variance


def pooled(
    counts: Float64[Tensor, " chunk"],
    means: Float64[Tensor, "chunk unit"],
    variances: Float64[Tensor, "chunk unit"],
) -> tuple[Float64[Tensor, " unit"], Float64[Tensor, " unit"]]:
    """The mean of chunks of values together, and the sum of squared distances from it."""
    mean = counts @ means / counts.sum()
    return mean, counts @ (variances + (means - mean).square())


def _added(
    answers: Float[Tensor, "image unit"], beside: Float64[Tensor, "image other"]
) -> tuple[Float64[Tensor, "other unit"], Float64[Tensor, " unit"], Float64[Tensor, "2 unit"]]:
    """Products of `beside` and the answers; `scatter` and `rectified` of `Answers`.

    Within a chunk numbers are added up in float32, as distances from the first answers where a
    large mean would swallow them; chunks in float64.
    """
    units = answers.shape[1]
    about = answers[:1].clone()
    products = beside.sum(0)[:, None] * about.double()
    found: list[Tensor] = []
    parts = answers.split(max(1, CHUNK // units))
    room = torch.empty_like(parts[0])
    for part, other in zip(parts, beside.to(answers).split(len(parts[0])), strict=True):
        some = room[: len(part)]
        products += other.T @ torch.sub(part, about, out=some)
        found += mean_and_variance(some)
        found += mean_and_variance(torch.clamp(part, min=0, out=some))
    counts = torch.tensor([float(len(part)) for part in parts], dtype=torch.float64)
    values = torch.stack(found).double().view(-1, 4, units)
    mean, variance, first, second = values.unbind(1)
    open_ = torch.stack([counts @ first, counts @ (second + first.square())])
    return products, pooled(counts, mean, variance)[1], open_


def _pairs(rows: Float[Tensor, "image unit"], found: Float64[Tensor, "unit unit"]) -> None:
    """Add to `found` the sums over images of the products of each two units."""
    units = found.shape[0]
    for first in range(0, units, BLOCK):
        last = first + BLOCK
        block = rows[:, first:last].T @ rows[:, first:]
        found[first:last, first:] += block
        found[last:, first:last] += block[:, BLOCK:].T


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
