"""Deep Art: an image repainted so that a network finds another's textures in it."""

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from optogram.ascent import ascend, param
from optogram.ascent.tiles import read_in_tiles
from optogram.core import film, progress
from optogram.core import objective as ask
from optogram.core.activations import Activations, PerImage
from optogram.core.chance import Streams
from optogram.core.network import Layer, Network
from optogram.core.objective import Objective, image_sum
from optogram.core.technique import Photograph, encode, technique
from optogram.core.unit import OUTPUT
from optogram.pictures import Picture
from optogram.pictures import image as read_image
from optogram.pictures.errors import RequestError
from optogram.survey.datasets import fit

Formula = Literal["relative", "gatys2015"]
Styles = list[Tensor]
STYLE_LAYERS, CONTENT_LEVEL = 5, 4  # relu1_1 to relu5_1 of VGG-19, and relu4_2
WEIGHTS = {"relative": (1.0, 0.02), "gatys2015": (1e3, 1.0)}  # of the style, of the content
COARSEST = 256  # pixels of the longer side, below which no coarser size is painted first


@technique
def stylize(
    network: Network,
    image: Photograph,
    style: str | Photograph | Sequence[str] | Sequence[Photograph],
    *,
    layers: Sequence[str] | None = None,
    content: Sequence[str] | None = None,
    style_weight: float | None = None,
    content_weight: float | None = None,
    smooth: float = 0.0,
    shares: Sequence[float] | None = None,
    masks: Sequence[str] | Sequence[Tensor] | None = None,
    colours: Literal["style", "match", "content"] = "style",
    formula: Formula = "relative",
    pooling: Literal["max", "average"] = "max",
    start: Literal["content", "noise", "style"] = "content",
    optimizer: str = "L-BFGS",
    lr: float | None = None,
    steps: int = 200,
    scales: int | None = None,
    size: int | None = None,
    tile: int | str | None = "auto",
    seed: int = 0,
) -> Picture:
    """Paint an image with the textures of another (Gatys, Ecker & Bethge, 2015).

    Minimises content_weight |F - P|^2 + style_weight sum_l |G_l - A_l|^2, where F and P are the
    answers of a deep layer to the picture and to the image, and G and A the Gram matrices of
    several layers, F F^T over the number of places, for the picture and for the style.

    Args:
        network: who looks. VGG-19 was made famous by this; any network with maps will do.
        image: what to paint, of any size that the network takes; it keeps its size.
        style: whose textures; an image or a file of one, or several.
        layers: where textures are compared; by default the first layer at each of the network's
            first five sizes of maps, relu1_1 to relu5_1 of VGG-19.
        content: where the picture is compared with the image; by default the second layer at the
            fourth size, or at the last where there are fewer, relu4_2 of VGG-19.
        style_weight: of the style, 1, or 1000 in Gatys' formula.
        content_weight: of the content, 0.02, or 1 in Gatys' formula; 0 leaves it out.
        smooth: weight of the squared differences of neighbouring pixels.
        shares: of several styles, how much each counts; equal by default.
        masks: for each style where on the image it belongs: tensors (height, width) in [0, 1], or
            image files, white where it does.
        colours: "style" takes them from the style; "match" recolours the style first, to the
            image's mean and covariance; "content" takes over the brightness alone.
        formula: "relative" divides each difference by the size of what is aimed at, so that weights
            mean the same for every network; "gatys2015" is the paper's.
        pooling: "average" replaces the network's max pools, as the paper does.
        start: where to begin, at the image, from noise, or at the style.
        optimizer: "L-BFGS", "Adam" or another.
        lr: its step size, by default 1 for L-BFGS, else 0.02.
        steps: how many at each size.
        scales: how many sizes, each twice the one before, the last the image's; by default as many
            as begin at 256 pixels or more.
        size: resize the image first, so that its longer side has so many pixels.
        tile: a larger image is worked on in pieces of so many pixels a side, with the same result;
            "auto" beyond 1.2 million pixels.
        seed: decides the noise.

    Returns:
        A Picture of the image's size. `score` is minus what was minimised; `measures` holds the
        loss of style as a share of what it was at the start, and that of content. What the network
        lacks of VGG-19's layers stands in the recipe under `lacks`.

    Raises RequestError for a network without maps, for layers that are not there, and where styles,
    shares and masks are not as many.
    """
    _check(steps, scales, size, smooth)
    image = _of_size(image.to(network.device, network.image_dtype), size)
    styles = _styles(style, network)
    chosen = _layers(network, layers, content)
    usual = WEIGHTS[formula]
    weights = _Weights(
        usual[0] if style_weight is None else style_weight,
        usual[1] if content_weight is None else content_weight,
        smooth,
        _shares(shares, len(styles)),
    )
    covers = _masks(masks, len(styles), image)
    shown = [_recoloured(one, image) if colours == "match" else one for one in styles]
    painter = _Painter(
        _pooled(network, pooling), chosen, weights, formula, optimizer, lr, steps, tile, seed
    )
    sizes = _sizes(image, scales)
    begun = _start(start, image, shown[0], seed)
    painted, history = painter.painted(image, shown, covers, begun, sizes)
    losses, before = (painter.losses(one, image, shown, covers) for one in (painted, begun))
    if colours == "content":
        painted = (image + (_brightness(painted) - _brightness(image))).clamp(0, 1)
    notes: dict[str, Any] = {"arguments": {"style": encode(styles), "scales": len(sizes)}}
    notes["layers"] = {"style": list(chosen.style), "content": list(chosen.content)}
    if chosen.lacks:
        notes["lacks"] = chosen.lacks
    share = [("style, of the start's", losses[0] / before[0])] if before[0] > 0 else []
    return replace(
        Picture(
            image=painted.float().cpu().clamp(0, 1),
            unit="style",
            score=-sum(losses),
            history=history,
            measures=(*share, ("style loss", losses[0]), ("content loss", losses[1])),
        ),
        recipe=notes,
    )


@dataclass(frozen=True)
class _Weights:
    style: float
    content: float
    smooth: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class _Layers:
    """Where textures and contents are compared, and what VGG-19 has beyond them."""

    style: tuple[str, ...]
    content: tuple[str, ...]
    lacks: str


@dataclass(frozen=True, eq=False)
class _Painter:
    """Everything about a painting but its images."""

    network: Network
    layers: _Layers
    weights: _Weights
    formula: Formula
    optimizer: str
    lr: float | None
    steps: int
    tile: int | str | None
    seed: int

    def painted(
        self,
        image: Tensor,
        styles: Styles,
        masks: list[Tensor] | None,
        begun: Tensor,
        sizes: list[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """The best picture of the last size, and minus the whole loss at every step."""
        picture, history = begun, []
        rate = 1.0 if self.optimizer.lower() in ("l-bfgs", "lbfgs") else 0.02
        for number, size in enumerate(sizes):
            target, start = _resized(image, size), _resized(picture, size)
            question = self.question(target, styles, masks)
            best = -math.inf  # without a line search L-BFGS can take a step too far, and back
            for step in ascend(
                self.network,
                question,
                param.pixels(start=start),
                steps=self.steps,
                optimizer=self.optimizer,
                lr=rate if self.lr is None else self.lr,
                shape=(target.shape[0], *size),
                tile=self.tile,
                seed=self.seed,
            ):
                history.append(step.scores)
                done = number * self.steps + step.index
                progress.tell("stylize", done, len(sizes) * self.steps)
                if float(step.scores) > best:
                    best, picture = float(step.scores), step.images[0]
        return picture, torch.cat(history).float().cpu()

    def losses(
        self, picture: Tensor, image: Tensor, styles: Styles, masks: list[Tensor] | None
    ) -> tuple[float, ...]:
        """The weighted loss of style, of content and of roughness, at the image's size."""
        with film.only(False):
            (only,) = ascend(
                self.network,
                self.question(image, styles, masks),
                param.pixels(start=picture),
                steps=0,
                shape=(image.shape[0], image.shape[1], image.shape[2]),
                tile=self.tile,
            )
        return tuple(-float(part) for part in only.parts)

    def question(self, image: Tensor, styles: Styles, masks: list[Tensor] | None) -> Objective:
        """Minus the losses: style, content, and where it is asked for roughness."""
        longer = max(image.shape[-2:])
        small = [_resized_to(one, min(longer, max(one.shape[-2:]))) for one in styles]
        total = -self.weights.style * self._style(small, masks)
        total = total - self.weights.content * self._content(image)
        if self.weights.smooth:
            total = total - self.weights.smooth * ask.total_variation(beta=2.0)
        return total

    def _style(self, styles: Styles, masks: list[Tensor] | None) -> Objective:
        names = self.layers.style
        grams = [self._grams(one) for one in styles]

        def value(acts: Activations) -> PerImage:
            total = acts.image.new_zeros(len(acts.image))
            for number, (wanted, share) in enumerate(zip(grams, self.weights.shares, strict=True)):
                for name in names:
                    answer = acts.layers[name]
                    mask = None if masks is None else _resized(masks[number], answer.shape[-2:])[0]
                    made = gram(answer, mask)
                    total = total + share / len(names) * self._apart(made, wanted[name], answer)
            return total

        return ask.objective(value, *names, text="style()")

    def _apart(self, made: Tensor, wanted: Tensor, answer: Tensor) -> PerImage:
        """How far two Gram matrices are apart."""
        difference = image_sum((made - wanted).square())
        if self.formula == "gatys2015":  # G and A there are sums over places; ours are means
            return difference / (4 * answer.shape[1] ** 2)
        return difference / image_sum(wanted.square()).clamp(min=1e-30)

    def _content(self, image: Tensor) -> Objective:
        names = self.layers.content
        wanted = read_in_tiles(self.network, image[None], names, self.tile)

        def value(acts: Activations) -> PerImage:
            total = acts.image.new_zeros(len(acts.image))
            for name in names:
                difference = image_sum((acts.layers[name] - wanted[name]).square())
                size = 2.0 if self.formula == "gatys2015" else _length(wanted[name])
                total = total + difference / size / len(names)
            return total

        return ask.objective(value, *names, text="content()")

    def _grams(self, style: Tensor) -> dict[str, Tensor]:
        answers = read_in_tiles(self.network, style[None], self.layers.style, self.tile)
        return {name: gram(answer) for name, answer in answers.items()}


def gram(
    answer: Float[Tensor, "batch channel rows columns"],
    mask: Float[Tensor, "rows columns"] | None = None,
) -> Float[Tensor, "batch channel channel"]:
    """Products of channels, averaged over the places, weighted by a mask where there is one.

    It does not change when places change places: texture without layout.
    """
    places = answer.flatten(2)
    if mask is None:
        return places @ places.transpose(1, 2) / places.shape[2]
    weights = mask.flatten().to(places)
    return (places * weights) @ places.transpose(1, 2) / weights.sum().clamp(min=1e-12)


def _layers(
    network: Network, layers: Sequence[str] | None, content: Sequence[str] | None
) -> _Layers:
    """The layers that were asked for, and the usual ones for those that were not."""
    for name in [*(layers or ()), *(content or ())]:
        if not _is_map(network.layer(name)):
            raise RequestError(f"{name!r} of {network.name} has no places: choose a layer of maps")
    levels = _levels(network)
    if not levels and (layers is None or content is None):
        raise RequestError(
            f"{network.name} has no layers of maps, and style is what their channels have in "
            "common over places: take a convolutional network"
        )
    style = tuple(layers or [names[0] for names in levels[:STYLE_LAYERS]])
    deep = levels[min(CONTENT_LEVEL, len(levels)) - 1] if levels else []
    there = min(len(levels), STYLE_LAYERS)
    lacks = ""
    if layers is None and there < STYLE_LAYERS:
        lacks = (
            f"{network.name} has {there} of the {STYLE_LAYERS} sizes of maps at which VGG-19's "
            "style is measured: the largest textures are missing"
        )
    return _Layers(style, tuple(content or [deep[min(1, len(deep) - 1)]]), lacks)


def _levels(network: Network) -> list[list[str]]:
    """Layers of maps that a ReLU made, outermost blocks only, those of one size together."""
    maps = [x for x in network.layers if _is_map(x) and x.kind != "Sequential" and x.name != OUTPUT]
    rectified = [x for x in maps if x.rectified] or maps
    steps = {x.name: x.field.rows.step for x in rectified if x.field.rows}
    found: dict[int, list[str]] = {}
    for name, step in steps.items():
        parts = name.split(".")
        outer = (".".join(parts[:n]) for n in range(1, len(parts)))
        if not any(steps.get(block) == step for block in outer):
            found.setdefault(step, []).append(name)
    return [found[step] for step in sorted(found)]


def _is_map(layer: Layer) -> bool:
    return not layer.field.whole and len(layer.places) == 2 and layer.axis == 1


def _pooled(network: Network, pooling: str) -> Network:
    """The network, or a twin with the same weights whose pools average."""
    if pooling == "max":
        return network
    kept = {id(t): t for t in (*network.module.parameters(), *network.module.buffers())}
    module = copy.deepcopy(network.module, memo=kept)
    pools = [n for n, p in module.named_modules() if isinstance(p, nn.MaxPool2d) and p.stride != 1]
    if not pools:
        raise RequestError(f"{network.name} has no module that pools by maxima: use pooling='max'")
    for name in pools:
        pool: Any = module.get_submodule(name)
        parent, _, last = name.rpartition(".")
        average = nn.AvgPool2d(
            pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, count_include_pad=False
        )
        setattr(module.get_submodule(parent), last, average)
    return network.with_module(module)


def _styles(style: Any, network: Network) -> Styles:
    given = [style] if isinstance(style, str | os.PathLike | Tensor) else list(style)
    if not given:
        raise RequestError("there is no style: give at least one image")
    found: Styles = []
    for one in given:
        read = one if isinstance(one, Tensor) else read_image(one, channels=network.shape[0])
        if read.dim() != 3 or read.shape[0] != network.shape[0]:
            raise RequestError(
                f"a style is an image ({network.shape[0]}, height, width); this one is "
                f"{tuple(read.shape)}"
            )
        moved = read.to(network.device, network.image_dtype)
        if source := getattr(read, "source", None):
            moved.source = source  # type: ignore[attr-defined]
        found.append(moved)
    return found


def _shares(shares: Sequence[float] | None, count: int) -> tuple[float, ...]:
    given = [1.0] * count if shares is None else list(shares)
    if len(given) != count or min(given) < 0 or sum(given) <= 0:
        raise RequestError(f"shares={given} for {count} styles: one each, none below 0")
    return tuple(one / sum(given) for one in given)


def _masks(masks: Any, count: int, image: Tensor) -> list[Tensor] | None:
    if masks is None:
        return None
    given = [masks] if isinstance(masks, str | os.PathLike | Tensor) else list(masks)
    if len(given) != count:
        raise RequestError(f"{len(given)} masks for {count} styles: give one each")
    found = []
    for one in given:
        read = one if isinstance(one, Tensor) else read_image(one).mean(0)
        if read.dim() != 2 or not 0 <= float(read.min()) <= float(read.max()) <= 1:
            raise RequestError("a mask is (height, width) with values in [0, 1]")
        if not bool(read.any()):
            raise RequestError("a mask is 0 everywhere: its style would have no place")
        found.append(_resized(read[None].to(image), image.shape[-2:]))
    return found


def _start(start: str, image: Tensor, style: Tensor, seed: int) -> Tensor:
    if start == "style":
        channels, height, width = image.shape
        return fit(style, (channels, height, width))
    if start == "noise":
        drawn = Streams(seed, ("style",)).normal("start", image.numel()).view(image.shape)
        return (0.5 + 0.2 * drawn).clamp(0, 1).to(image)
    return image


def _recoloured(style: Tensor, image: Tensor) -> Tensor:
    """The style's colours moved to the mean and the covariance of the image's (Gatys, 2016)."""
    (own, root), (aim, target) = (_colours(one) for one in (style, image))
    flat = style.flatten(1).double() - own[:, None]
    mixed = target @ torch.linalg.solve(root, flat) + aim[:, None]
    return mixed.reshape(style.shape).clamp(0, 1).to(style)


def _colours(image: Tensor) -> tuple[Tensor, Tensor]:
    flat = image.flatten(1).double()
    mean = flat.mean(1)
    spread = (flat - mean[:, None]) @ (flat - mean[:, None]).T / flat.shape[1]
    return mean, torch.linalg.cholesky(spread + 1e-6 * torch.eye(len(flat)).to(spread))


def _brightness(image: Tensor) -> Tensor:
    """(1, height, width): NTSC's luma of a colour image, the mean of others."""
    shares = [0.299, 0.587, 0.114] if image.shape[0] == 3 else [1 / image.shape[0]] * len(image)
    return (image * torch.tensor(shares).to(image)[:, None, None]).sum(0, keepdim=True)


def _sizes(image: Tensor, scales: int | None) -> list[tuple[int, int]]:
    """(height, width) of each size that is painted, the coarsest first."""
    height, width = image.shape[-2:]
    if scales is None:
        scales = 1
        while max(height, width) >> scales >= COARSEST:
            scales += 1
    return [(max(1, height >> n), max(1, width >> n)) for n in reversed(range(scales))]


def _resized(image: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    height, width = size
    one = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
    return one[0].clamp(0, 1)


def _resized_to(image: Tensor, longer: int) -> Tensor:
    share = longer / max(image.shape[-2:])
    return _resized(image, [max(1, round(n * share)) for n in image.shape[-2:]])


def _of_size(image: Tensor, size: int | None) -> Tensor:
    return image if size is None else _resized_to(image, size)


def _length(wanted: Tensor) -> float:
    return float(image_sum(wanted.square())[0]) or 1.0


def _check(steps: int, scales: int | None, size: int | None, smooth: float) -> None:
    if steps < 0 or smooth < 0:
        raise RequestError(f"steps={steps}, smooth={smooth}: neither may be negative")
    if (scales is not None and scales < 1) or (size is not None and size < 1):
        raise RequestError(f"scales={scales}, size={size}: at least 1")
