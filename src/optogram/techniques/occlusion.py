"""Occlusion: hide a part of the image and see what the network loses (Zeiler & Fergus, 2013)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optogram.core import objective as ask
from optogram.core import rules
from optogram.core.activations import Activations
from optogram.core.cam import deepest_maps
from optogram.core.incremental import Occluders, Way, answers, grid, hull, instead
from optogram.core.maps import asked, gradients, pixel_maps
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import OUTPUT, Target, Targetlike, Unit, units
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError

Image = Float[Tensor, "channel height width"]
Size = int | tuple[int, int]
Masks = Bool[Tensor, "occluder height width"]
Score = Literal["logit", "activation", "probability", "activity", "class"]


@technique
def occlusion(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    patch: Size | list[int] | list[tuple[int, int]] | None = None,
    stride: Size | None = None,
    value: float | int | str | Sequence[float] | Tensor = 0.5,
    score: Score = "logit",
    show: Literal["drop", "value"] = "drop",
    masks: Masks | None = None,
    adaptive: float | None = None,
    engine: Way = "auto",
    memory: float = 1.0,
) -> Attribution | Sheet:
    """Show what a unit loses where the image is hidden: slide an occluder, ask at every place.

    The map is the drop, clean value minus occluded value: positive (red) where the unit needs what
    is hidden. `show="value"` gives the value itself, as figure 7 of the paper does, where a *low*
    probability marks what matters. Only what an occluder can reach is computed again, exactly.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1].
        unit: an address, or several. A class: `output:Pomeranian`. Any layer's unit will do.
        patch: side of the occluder in pixels, (height, width) for a rectangle, a list for several
            occluders; by default a seventh of the image. The paper does not state its size.
        stride: pixels between places; by default a quarter of the patch. The last place of a row is
            flush with the edge.
        value: what is shown instead: a number in [0, 1], one a channel, an image, or "grey",
            "black", "white", "mean" (of the data the network was trained on), "blur".
        score: "logit" (or "activation"): the unit's value, for a class before the softmax;
            "probability" under the softmax over its layer; "activity": the sum over the unit's
            map; "class": the number of the most probable output, whatever the unit.
        show: "drop", or the "value" itself.
        masks: (occluder, height, width), true where hidden, instead of `patch` and `stride`.
        adaptive: a share of the places, in (0, 1): ask on a coarse grid, then only where most is
            lost, and interpolate the rest. Approximate, and marked so in `checks`.
        engine: "incremental" computes only what changes; "naive" shows the network every occluded
            copy; "auto" is incremental wherever that is possible; the logger `optogram` says why
            where it is not.
        memory: gigabytes to work in.

    Returns:
        An Attribution whose `values` are the grid of places and `boxes` where they lie; with masks
        one row, the boxes those around the masks, and `raw` the mean over the masks that hide a
        pixel; with classes the boxes are what is nearest to each place, for they have no mean. A
        Sheet where there are several units or patches, units first.

    Raises RequestError for unknown units, sizes, values and masks that cannot be read.
    """
    _check(network, image, score, show, adaptive)
    targets = [network.resolve(target) for target in units(unit)]
    several = isinstance(patch, list) or not (
        isinstance(unit, str) or not isinstance(unit, Sequence)
    )
    made: list[list[Attribution]] = []
    for size in _sizes(patch, image):
        boxes = grid(image.shape[1], image.shape[2], size, _stride(stride, size))
        if masks is not None:
            boxes = hull(_checked(masks, image))[None]
        hidden = Occluders(boxes.flatten(0, 1), instead(network, image, value, size), masks)
        question = _Question(network, tuple(targets), score, engine, memory)
        made.append(_maps(question, image, hidden, boxes, show, adaptive))
    items = tuple(maps[i] for i in range(len(targets)) for maps in made)
    return Sheet(items) if several else items[0]


@technique
def occlusion_panels(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    layer: str | None = None,
    patch: Size | None = None,
    stride: Size | None = None,
    value: float | int | str | Sequence[float] | Tensor = 0.5,
    show: Literal["drop", "value"] = "drop",
    engine: Way = "auto",
    memory: float = 1.0,
) -> Sheet:
    """Figure 7 of Zeiler & Fergus (2014), all panels from one slide of the occluder over the image.

    What a feature map needs and what a class needs are two questions, whose answers often lie in
    different places: a network can tell a dog while its strongest map fires on the face of a human
    beside it. For each class a row of four: (b) the activity of the layer's strongest map, its sum
    over all places, (c) that map's strongest place projected down by the deconvnet, (d) the class's
    probability, (e) the most probable class.

    Args:
        network: who is asked; for (c) its activation functions must be ReLUs.
        image: (channel, height, width) in [0, 1].
        unit: a class, such as `output:Pomeranian`, or several.
        layer: whose strongest map is followed; by default the last layer with places.
        patch: side of the occluder in pixels, or (height, width); by default a seventh of the
            image.
        stride: pixels between places; by default a quarter of the patch.
        value: what is shown instead, as in `occlusion`.
        show: (b) and (d) as the "drop", red where what is hidden was needed, or as the "value"
            under the occluder, where *low* marks that, as in the paper.
        engine: as in `occlusion`.
        memory: gigabytes to work in.

    Returns:
        A Sheet of four Attributions a class. `checks["panel"]` says what each is. The numbers of
        (e) rank the classes, 0 the one that is most probable at most places; `checks["classes"]`
        names them.

    Raises RequestError as `occlusion` and `deconvnet` do, and for units that are no classes.
    """
    _check(network, image, "probability", show, None)
    request = asked(network, image, unit)
    if any(target.layer != OUTPUT for target in request.targets):
        raise RequestError(
            f"{', '.join(map(str, request.targets))}: figure 7 asks about classes; for any unit "
            f"take occlusion(score='activity')"
        )
    name = network.layer(deepest_maps(request) if layer is None else layer).name
    strongest = strongest_map(network, image, name)
    size = _sizes(patch, image)[0]
    boxes = grid(image.shape[1], image.shape[2], size, _stride(stride, size))
    hidden = Occluders(boxes.flatten(0, 1), instead(network, image, value, size))
    questions = [
        _Question(network, (strongest,), "activity", engine, memory),
        _Question(network, request.targets, "probability", engine, memory),
        _Question(network, request.targets[:1], "class", engine, memory),
    ]
    columns = [torch.empty(len(hidden), len(q.targets)) for q in questions]
    work = answers(network, image, hidden, (name, OUTPUT), engine=engine, memory=memory)
    for which, acts in work:
        for question, column in zip(questions, columns, strict=True):
            column[which] = question._value(acts)
    activity, chances, classes = (
        _shown(q, image, q.clean(image), column.unflatten(0, boxes.shape[:2]), boxes, show)
        for q, column in zip(questions, columns, strict=True)
    )
    place = asked(network, image, Unit(name, strongest.index, "strongest"))
    below = pixel_maps(place, *gradients(place, rules.deconvnet), signed=True, title="")
    assert isinstance(below, Attribution)
    panels = []
    ranked = _ranked(network, classes[0])
    for chance in chances:
        panels += [
            _labelled(activity[0], "(b) activity"),
            _labelled(below, "(c) projection"),
            _labelled(chance, "(d) probability"),
            replace(ranked, target=chance.target),
        ]
    return Sheet(tuple(panels), title=f"{network.name}: figure 7", columns=5, scale="each")


def strongest_map(network: Network, image: Image, layer: str) -> Unit:
    """The unit of a layer whose map is most active on the image, summed over its places.

    Figure 7 (b) of the paper follows it while the image is occluded:
    `occlusion(network, image, strongest_map(...), score="activity", show="value")`.
    """
    acts = network.read(image[None], layer)
    values = acts.layers[layer].movedim(network.layer(layer).axis, -1)[0]
    return Unit(layer, int(values.reshape(-1, values.shape[-1]).sum(0).argmax()))


@dataclass(frozen=True)
class _Question:
    """What is asked at every place, of whom, and how the work is done."""

    network: Network
    targets: tuple[Target, ...]
    score: Score
    engine: Way
    memory: float

    @property
    def layers(self) -> tuple[str, ...]:
        if self.score == "class":
            return (OUTPUT,)
        return tuple(dict.fromkeys(target.layer for target in self.targets))

    @property
    def units(self) -> tuple[int, ...]:
        """The only units of the one layer that matter to the score; none where all do."""
        numbers = [target.index for target in self.targets]
        if self.score not in ("logit", "activation", "activity") or len(self.layers) > 1:
            return ()
        found = tuple(dict.fromkeys(n for n in numbers if isinstance(n, int)))
        return found if all(isinstance(n, int) for n in numbers) else ()

    def clean(self, image: Image) -> Float[Tensor, " unit"]:
        with torch.no_grad():
            return self._value(self.network.read(image[None], *self.layers))[0]

    def ask(self, image: Image, occluders: Occluders) -> Float[Tensor, "occluder unit"]:
        values = torch.empty(len(occluders), len(self.targets))
        work = answers(
            self.network,
            image,
            occluders,
            self.layers,
            units=self.units,
            engine=self.engine,
            memory=self.memory,
        )
        for which, acts in work:
            values[which] = self._value(acts)
        return values

    def _value(self, acts: Activations) -> Float[Tensor, "batch unit"]:
        return torch.stack([self._of(acts, target) for target in self.targets], 1).float().cpu()

    def _of(self, acts: Activations, target: Target) -> Float[Tensor, " batch"]:
        if self.score == "class":
            return acts.layers[OUTPUT].argmax(1).float()
        if self.score == "probability":
            return ask.probability(target)(acts)
        if self.score == "activity":
            return acts.map(target).flatten(1).sum(1)
        return acts[target]


def _maps(
    question: _Question,
    image: Image,
    hidden: Occluders,
    boxes: Int[Tensor, "rows columns 4"],
    show: str,
    adaptive: float | None,
) -> list[Attribution]:
    clean = question.clean(image)
    if adaptive is None:
        occluded = question.ask(image, hidden).unflatten(0, boxes.shape[:2])
    else:
        occluded = _adaptively(question, image, hidden, boxes, clean, adaptive)
    made = _shown(question, image, clean, occluded, boxes, show, hidden.masks)
    return [
        replace(
            one,
            raw=_spread(one.values[0], hidden.masks),
            checks=_remarks(question, one.values, adaptive),
        )
        for one in made
    ]


def _shown(
    question: _Question,
    image: Image,
    clean: Float[Tensor, " unit"],
    occluded: Float[Tensor, "rows columns unit"],
    boxes: Int[Tensor, "rows columns 4"],
    show: str,
    masks: Masks | None = None,
) -> list[Attribution]:
    # The most probable class is a name, not a quantity: it cannot drop.
    drop = show == "drop" and question.score != "class"
    maps = clean - occluded if drop else occluded
    if question.score == "class" and masks is None:
        boxes = _cells(boxes, image)
    return [
        Attribution(
            values=maps[..., i],
            image=image,
            target=str(target),
            score=float(clean[i]),
            boxes=boxes,
            checks=_remarks(question, maps[..., i], None),
            unit_of_values=_unit_of(question, target),
            signed=drop,
        )
        for i, target in enumerate(question.targets)
    ]


def _cells(boxes: Int[Tensor, "rows columns 4"], image: Image) -> Int[Tensor, "rows columns 4"]:
    """What is nearest to the middle of each box: where boxes overlap, names have no mean."""
    ends = []
    for axis, line in enumerate((boxes[:, 0], boxes[0])):
        middles = (line[:, axis] + line[:, axis + 2]) / 2
        between = ((middles[1:] + middles[:-1]) / 2).floor().long()
        ends.append([0, *between.tolist(), image.shape[1 + axis]])
    rows, columns = (torch.tensor(list(pairwise(side))) for side in ends)
    shape = (len(rows), len(columns), 2)
    down, across = rows[:, None].expand(shape), columns[None].expand(shape)
    return torch.stack([down, across], -1).flatten(2)


def _labelled(one: Attribution, panel: str) -> Attribution:
    return replace(one, checks={"panel": panel, **(one.checks or {})})


def _ranked(network: Network, classes: Attribution) -> Attribution:
    """Classes by how many places they are the most probable at, 0 at most of them."""
    numbers, found, counts = classes.values.unique(return_inverse=True, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    names = [network.label(int(numbers[i])) for i in order]
    shares = [f"{100 * int(counts[i]) / found.numel():.0f}%" for i in order]
    said = dict(zip(names[:3], shares, strict=False))
    checks = {"panel": "(e) likeliest", **said, "classes": dict(enumerate(names))}
    return replace(classes, values=order.argsort()[found].float(), checks=checks)


def _adaptively(
    question: _Question,
    image: Image,
    hidden: Occluders,
    boxes: Int[Tensor, "rows columns 4"],
    clean: Float[Tensor, " unit"],
    share: float,
) -> Float[Tensor, "rows columns unit"]:
    """Ask every fourth place, interpolate, then ask where the interpolated drop is largest."""
    rows, columns = boxes.shape[:2]
    coarse = [torch.tensor(sorted({*range(0, n, 4), n - 1})) for n in (rows, columns)]
    asked = torch.zeros(rows, columns, dtype=torch.bool)
    asked[coarse[0][:, None], coarse[1]] = True
    numbers = torch.arange(rows * columns).view(rows, columns)
    first = question.ask(image, hidden.some(numbers[asked])).unflatten(0, tuple(map(len, coarse)))
    values = _between(first, coarse, (rows, columns))
    left = max(0, round(share * rows * columns) - int(asked.sum()))
    drop = (clean - values).abs().amax(-1).masked_fill(asked, -1)
    more = drop.flatten().topk(min(left, int((~asked).sum()))).indices.sort().values
    if len(more):
        values.view(-1, values.shape[-1])[more] = question.ask(image, hidden.some(more))
    return values


def _between(
    values: Float[Tensor, "coarse_rows coarse_columns unit"],
    at: list[Tensor],
    shape: tuple[int, int],
) -> Float[Tensor, "rows columns unit"]:
    """Bilinear interpolation of values known at some rows and columns."""
    for axis in (0, 1):
        places = torch.arange(shape[axis])
        after = torch.bucketize(places, at[axis]).clamp(1, max(len(at[axis]) - 1, 1))
        if len(at[axis]) == 1:
            continue
        low, high = at[axis][after - 1], at[axis][after]
        weight = ((places - low) / (high - low)).view(-1, *[1] * (2 - axis))
        parts = values.movedim(axis, 0) if axis == 0 else values
        before, behind = parts.index_select(axis, after - 1), parts.index_select(axis, after)
        values = before + (behind - before) * weight
    return values.contiguous()


def _spread(values: Float[Tensor, " occluder"], masks: Masks | None) -> Tensor | None:
    if masks is None:
        return None
    covers = masks.sum(0)
    total = (values[:, None, None] * masks.cpu()).sum(0)
    return torch.where(covers.cpu() > 0, total / covers.cpu(), 0.0)[None]


def _remarks(
    question: _Question, values: Tensor, adaptive: float | None
) -> dict[str, object] | None:
    remarks: dict[str, object] = {}
    if adaptive is not None:
        remarks["approximate"] = f"asked at {adaptive:.0%} of the places, interpolated between"
    if question.score == "class":
        numbers = values.unique().long().tolist()
        remarks["classes"] = {str(n): question.network.label(n) for n in numbers}
    return remarks or None


def _unit_of(question: _Question, target: Target) -> str:
    if question.score in ("logit", "activation"):
        return "logit" if target.layer == OUTPUT else "activation"
    return question.score


def _check(network: Network, image: Image, score: str, show: str, adaptive: float | None) -> None:
    if score not in ("logit", "activation", "probability", "activity", "class"):
        raise RequestError(
            f"score={score!r} should be 'logit', 'activation', 'probability', 'activity' or 'class'"
        )
    if show not in ("drop", "value"):
        raise RequestError(f"show={show!r} should be 'drop' or 'value'")
    if adaptive is not None and not 0 < adaptive < 1:
        raise RequestError(f"adaptive={adaptive}: a share of the places between 0 and 1")
    if image.dim() != 3 or image.shape[0] != network.shape[0]:
        raise RequestError(
            f"occlusion takes one image, ({network.shape[0]}, height, width); this has "
            f"{tuple(image.shape)}"
        )


def _sizes(patch: Size | list[int] | list[tuple[int, int]] | None, image: Image) -> list[Size]:
    if patch is None:
        return [max(1, round(min(image.shape[1:]) / 7))]
    if isinstance(patch, list):
        if not patch:
            raise RequestError("patch=[]: give at least one size")
        return list(patch)
    return [patch]


def _stride(stride: Size | None, size: Size) -> Size:
    if stride is not None:
        return stride
    return max(1, (size if isinstance(size, int) else min(size)) // 4)


def _checked(masks: Masks, image: Image) -> Masks:
    if masks.dim() != 3 or masks.shape[1:] != image.shape[1:] or not len(masks):
        raise RequestError(
            f"masks of shape {tuple(masks.shape)}: give (occluder, {image.shape[1]}, "
            f"{image.shape[2]})"
        )
    return masks
