"""What part of the image a unit can see: its receptive field, worked out while the network runs.

The sizes follow from the operations alone: a convolution or a pooling widens the field by its
kernel, an elementwise operation keeps it, a join takes the hull, and whatever mixes all positions
(global pooling, a linear layer, attention) sees the whole image. A dispatch mode attaches the field
to every tensor of one ordinary pass, so control flow, functional calls and names need no tracing.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Axis:
    """Along one image axis position p sees the pixels from `first + p * step`, `size` of them.

    Near an edge, where padding reflected the map, it may see `fold` more on the other side.
    """

    size: int = 1
    step: int = 1
    first: int = 0
    fold: int = 0

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> "Axis":
        """The field after a sliding window over this one."""
        size = self.size + (kernel - 1) * dilation * self.step
        return Axis(size, self.step * stride, self.first - padding * self.step, self.fold)

    def folded(self, padding: int) -> "Axis":
        """The field where the edges were padded with what lies within."""
        return replace(self, fold=self.fold + 2 * padding * self.step)

    def hull(self, other: "Axis") -> "Axis | None":
        """The smallest field that holds both; None where their steps differ."""
        if self.step != other.step:
            return None
        first = min(self.first, other.first)
        end = max(self.first + self.size, other.first + other.size)
        return Axis(end - first, self.step, first, max(self.fold, other.fold))

    def span(self, position: int, limit: int) -> tuple[int, int]:
        """First and one-past-last pixel that `position` sees, inside an image of `limit` pixels."""
        first = self.first + position * self.step
        end = first + self.size
        if self.fold:
            low, high = first < self.fold, end > limit - self.fold
            first, end = first - self.fold * high, end + self.fold * low
        return min(max(first, 0), limit), max(min(end, limit), 0)


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the image that a layer's position (row, column) can see.

    `rows` and `columns` are None where a position sees the whole image. A field may be larger than
    the image; `box` is cut at its edges.
    """

    rows: Axis | None
    columns: Axis | None

    @property
    def whole(self) -> bool:
        """Whether one position sees the whole image."""
        return self.rows is None or self.columns is None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, uncut; None for the whole image."""
        return (
            None
            if self.rows is None or self.columns is None
            else (self.rows.size, self.columns.size)
        )

    def box(self, row: int, column: int, height: int, width: int) -> Box:
        """(top, left, bottom, right) in pixels, ends excluded, in a `height` x `width` image."""
        if self.rows is None or self.columns is None:
            return 0, 0, height, width
        top, bottom = self.rows.span(row, height)
        left, right = self.columns.span(column, width)
        return top, left, bottom, right

    def __str__(self) -> str:
        return "whole" if self.size is None else f"{self.size[0]}x{self.size[1]}"


WHOLE = ReceptiveField(None, None)
PIXEL = ReceptiveField(Axis(), Axis())


class FieldMode(TorchDispatchMode):
    """While it is on, every tensor made from a tensor with a field has one (see `field_of`)."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        given = [
            (t, f) for t in _tensors([*args, *kwargs.values()]) if (f := field_of(t)) is not None
        ]
        if given:
            for made in _tensors((answer,)):
                attach(made, _through(func, args, given, made))
                if func._schema.is_mutable and made._base is not None:
                    attach(made._base, WHOLE)  # a part of it was written into; which, is not said
        return answer


def attach(tensor: Tensor, seen: ReceptiveField) -> Tensor:
    """Say what each position of `tensor` sees of the image."""
    tensor.optogram_field = seen  # type: ignore[attr-defined]
    return tensor


def field_of(tensor: Tensor) -> ReceptiveField | None:
    """What each position of `tensor` sees; None for tensors that the image did not reach."""
    return getattr(tensor, "optogram_field", None)


def _through(
    func: Any, args: Any, given: list[tuple[Tensor, ReceptiveField]], made: Tensor
) -> ReceptiveField:
    first, seen = given[0]
    name = func.overloadpacket.__name__
    if any(f.whole for _, f in given) or made.dim() < 3:
        return WHOLE
    if name == "convolution" and (args[6] or args[1].dim() != 4):
        return (
            WHOLE  # transposed, there is no single step; of another dimension, no rows and columns
        )
    if name in _WINDOWS:
        return _window(seen, *_WINDOWS[name](args))
    if name in _PADS:
        left, right, top, bottom = [*args[1], 0, 0][:4]
        padded = _window(seen, (1, 1), (1, 1), (top, left), (1, 1))
        if name == "constant_pad_nd" or padded.rows is None or padded.columns is None:
            return padded
        return ReceptiveField(
            padded.rows.folded(max(top, bottom)), padded.columns.folded(max(left, right))
        )
    if name == "native_batch_norm" and args[5]:
        return WHOLE  # normalised by the batch's own mean, as instance norm is too
    if name == "select" and args[1] % first.dim() >= first.dim() - 2:
        return WHOLE
    if (name in _SAME_PLACES or torch.Tag.pointwise in func.tags) and all(
        t.shape[-2:] == made.shape[-2:] for t, _ in given
    ):
        return _hull([f for _, f in given])
    if name in _REDUCTIONS and _keeps_places(first, args):
        return seen
    return WHOLE


def _hull(fields: list[ReceptiveField]) -> ReceptiveField:
    rows, columns = fields[0].rows, fields[0].columns
    for other in fields[1:]:
        rows = rows.hull(other.rows) if rows and other.rows else None
        columns = columns.hull(other.columns) if columns and other.columns else None
    return ReceptiveField(rows, columns) if rows and columns else WHOLE


Pair = tuple[int, int]


def _window(
    seen: ReceptiveField, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> ReceptiveField:
    assert seen.rows is not None
    assert seen.columns is not None
    sides = zip((seen.rows, seen.columns), kernel, stride, padding, dilation, strict=True)
    rows, columns = (axis.window(k, s, p, d) for axis, k, s, p, d in sides)
    return ReceptiveField(rows, columns)


def _convolution(args: Any) -> tuple[Pair, Pair, Pair, Pair]:
    weight, stride, padding, dilation = args[1], args[3], args[4], args[5]
    return _pair(weight.shape[-2:]), _pair(stride), _pair(padding), _pair(dilation)


def _pooling(dilated: bool) -> Any:
    def window(args: Any) -> tuple[Pair, Pair, Pair, Pair]:
        kernel = _pair(args[1])
        stride = _pair(args[2]) if len(args) > 2 and args[2] else kernel
        padding = _pair(args[3]) if len(args) > 3 else (0, 0)
        dilation = _pair(args[4]) if dilated and len(args) > 4 else (1, 1)
        return kernel, stride, padding, dilation

    return window


def _pair(value: Any) -> Pair:
    values = [value] if isinstance(value, int) else list(value)
    return (values[-2], values[-1]) if len(values) > 1 else (values[0], values[0])


def _keeps_places(first: Tensor, args: Any) -> bool:
    """Whether a reduction or rearrangement leaves the last two axes, the places, alone."""
    axes = args[1] if len(args) > 1 else None
    if not isinstance(axes, int | list | tuple):
        return False
    touched = {a % first.dim() for a in ([axes] if isinstance(axes, int) else axes)}
    return not touched & {first.dim() - 1, first.dim() - 2}


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


_WINDOWS = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling(True), "max_pool2d": _pooling(True),
    "mkldnn_max_pool2d": _pooling(True),
    "avg_pool2d": _pooling(False), "avg_pool3d": _pooling(False),
}  # fmt: skip
_PADS = {"constant_pad_nd", "reflection_pad2d", "replication_pad2d"}
_SAME_PLACES = {
    "cat", "native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "native_dropout", "view", "_unsafe_view", "clone", "copy_", "detach", "alias", "squeeze",
    "unsqueeze", "channel_shuffle", "_prelu_kernel",
    "slice", "split", "split_with_sizes", "select", "expand", "_to_copy",
}  # fmt: skip
_REDUCTIONS = {"mean", "sum", "amax", "_softmax", "_log_softmax"}
