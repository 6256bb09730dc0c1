"""Which operations are local, and how each is computed on a part of its map.

Parts of maps are (place, row, column, channel), contiguous: the channels of a pixel lie together,
so that a window with its surroundings is put together by copying rows of memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from optogram.core.incremental.capture import Call, Graph, Ref, repeat
from optogram.core.incremental.winograd import Tiles

# (place, row, column, channel); unnamed, since a step's answer has other sizes than its input.
Parts = Float[Tensor, "_ _ _ _"]
Pair = tuple[int, int]
Places = np.ndarray
ZERO, LOWEST = 0, 1  # the two rows that stand before the clean map: what padding reads


@dataclass(frozen=True, eq=False)
class Pointwise:
    """An answer that depends on the same place of the inputs alone (all channels of it).

    `work(parts, owned)` may overwrite the first part where it is `owned`. `rectifies` says that it
    is a ReLU, which can be written straight to where it is needed.
    """

    inputs: tuple[int, ...]
    work: Callable[[list[Parts], bool], Parts]
    rectifies: bool = False
    flops: float = 0.0


@dataclass(frozen=True, eq=False)
class Join:
    """Maps laid one behind the other along the channels."""

    inputs: tuple[int, ...]
    flops: float = 0.0


@dataclass(frozen=True, eq=False)
class Window:
    """An answer that depends on a window: a convolution or a pooling.

    `work(maps, padding)` takes and gives (place, channel, row, column) views. `fill` is what lies
    outside the map. `flops` for each output place, `weights` the bytes of the weights, `copied`
    those of the weights that the network itself does not hold.
    `share` gives, where it is not the same everywhere, by how much an average is to be multiplied.
    `tiles` is the same convolution with fewer products, where there is one; `picked` is what a
    window of one pixel does where only the pixels that it reads are given.
    """

    inputs: tuple[int, ...]
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    work: Callable[[Tensor, Pair], Tensor]
    fill: int = ZERO
    flops: float = 0.0
    weights: int = 0
    copied: int = 0
    share: Callable[[int, Places, int], Places] | None = None
    whole: Callable[[Tensor], Tensor] | None = None
    tiles: Tiles | None = None
    picked: Callable[[Tensor, Pair], Tensor] | None = None

    def reach(self, axis: int, low: Places, high: Places, length: int) -> tuple[Places, Places]:
        """First and one-past-last output place that the input places [low, high) can change."""
        k, s, p, d = (x[axis] for x in (self.kernel, self.stride, self.padding, self.dilation))
        first = np.clip(-((-(low + p - (k - 1) * d)) // s), 0, length)
        last = np.clip((high - 1 + p) // s + 1, 0, length)
        return first, np.maximum(last, first)

    def field(self, starts: Places, size: Pair) -> tuple[Places, Pair]:
        """Where the input places begin that boxes of the answer read, and how many those are."""
        first = starts * np.array(self.stride, np.int32) - np.array(self.padding, np.int32)
        rows, columns = (
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(size, self.stride, self.kernel, self.dilation, strict=True)
        )
        return first, (rows, columns)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean over all places of a map: the clean one, plus what changed."""

    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    flops: float = 0.0


@dataclass(frozen=True, eq=False)
class Dense:
    """A fully connected layer on a whole map: its clean answer, plus what changed.

    `weight` (out, channel * row * column), as the layer has it.
    """

    inputs: tuple[int, ...]
    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None

    def on(self, maps: Parts) -> Float[Tensor, "place out"]:
        """The answers to whole maps."""
        return F.linear(maps.permute(0, 3, 1, 2).flatten(1), self.weight, self.bias)

    def add(
        self, answer: Tensor, changes: Tensor, pixels: Places, owners: Places, room: float
    ) -> None:
        """Add to answers (place, out) what changes (some, channel) of pixels make of them.

        The weights are laid out anew a part at a time, in about `room` bytes.
        """
        channels, order = changes.shape[1], np.argsort(pixels, kind="stable")
        changes = changes[torch.from_numpy(order).to(changes.device)]
        owner = torch.from_numpy(owners[order]).to(changes.device)
        ends = np.cumsum(np.bincount(pixels)).tolist()
        fit = int(max(_FEWEST, min(_OUTPUTS, room / self.weight[0].nbytes)))
        for first in range(0, len(self.weight), fit):
            some = slice(first, first + fit)
            # (pixel, out, channel): the weights of one pixel lie together.
            weight = self.weight[some].reshape(-1, self.weight.shape[1] // channels)
            weight = weight.t().contiguous().view(weight.shape[1], -1, channels)
            made = answer.new_zeros(len(answer), weight.shape[1])
            for pixel, (start, end) in enumerate(pairwise([0, *ends])):
                if end > start:
                    made.index_add_(0, owner[start:end], changes[start:end] @ weight[pixel].t())
            answer[:, some] += made


Local = Pointwise | Join | Window | Mean


def dense(graph: Graph, number: int, maps: dict[int, tuple[int, int, int]]) -> Dense | None:
    """How a call is a fully connected layer on one of the maps; None where it is not."""
    call = graph.calls[number]
    if call is None or call.name != "linear":
        return None
    a = _bound(call, "input weight bias")
    if isinstance(a["weight"], Ref) or isinstance(a["bias"], Ref):
        return None
    (source,) = call.inputs
    while source not in maps:
        before = graph.calls[source]
        if before is None or before.name not in _LAYS_OUT or len(before.inputs) != 1:
            return None
        if before.name == "dropout" and _bound(before, "input p training")["training"]:
            return None
        (source,) = before.inputs
    given = graph.calls[call.inputs[0]]
    if given is None or given.shape[1:] != (int(np.prod(maps[source])),):
        return None
    return Dense((source,), a["weight"].detach(), _data(a["bias"]))


def local(graph: Graph, number: int, image: tuple[int, ...]) -> Local | None:
    """How a call is computed on parts of its inputs; None where it is not local."""
    call = graph.calls[number]
    assert call is not None
    shapes = [_shape(graph, i, image) for i in call.inputs]
    if any(len(shape) != 4 for shape in shapes):
        return None
    reader = _READERS.get(call.name)
    return None if reader is None else reader(call, shapes)


def folded(window: Window, norm: Call) -> Window | None:
    """A convolution and the batch norm that follows it as one; None if it cannot be."""
    kept = getattr(window.work, "convolution", None)
    scale_shift = _scale_and_shift(norm)
    if kept is None or scale_shift is None:
        return None
    weight, bias, groups = kept
    scale, shift = scale_shift
    weight = weight * scale.view(-1, 1, 1, 1).to(weight.dtype)
    shift = shift if bias is None else shift + bias.double() * scale
    made = _with_weights(window, weight, shift.to(weight.dtype), groups)
    return replace(made, copied=made.weights)


def sliced(window: Window, channels: list[int]) -> Window | None:
    """A convolution that computes some of its channels; None for another window."""
    kept = getattr(window.work, "convolution", None)
    if kept is None or kept[2] != 1:
        return None
    weight, bias = kept[0][channels], None if kept[1] is None else kept[1][channels]
    return replace(_with_weights(window, weight, bias, 1), copied=0)


def again(call: Call, values: dict[int, Tensor], batch: int) -> Tensor:
    """A call repeated on whole tensors; a linear layer by the faster of two ways."""
    if call.name == "linear" and _LINEAR is not None:
        a = _bound(call, "input weight bias")
        shown = values[call.inputs[0]]
        plain = not isinstance(a["weight"], Ref) and not isinstance(a["bias"], Ref)
        if shown.dim() == 2 and plain and _onednn(shown):
            answer: Tensor = _LINEAR(shown, a["weight"], a["bias"], "none", [], "")
            return answer
    return repeat(call, values, batch)


def _onednn(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
    )


def _shape(graph: Graph, number: int, image: tuple[int, ...]) -> tuple[int, ...]:
    call = graph.calls[number]
    return image if call is None else call.shape


def _bound(call: Call, names: str, **defaults: Any) -> dict[str, Any]:
    given = dict(zip(names.split(), call.args, strict=False))
    return {**dict.fromkeys(names.split()), **defaults, **given, **call.kwargs}


def _convolution(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    a = _bound(
        call, "input weight bias stride padding dilation groups",
        stride=1, padding=0, dilation=1, groups=1,
    )  # fmt: skip
    weight, bias = a["weight"], a["bias"]
    if not isinstance(a["input"], Ref) or isinstance(weight, Ref) or isinstance(bias, Ref):
        return None
    stride, dilation = _pair(a["stride"]), _pair(a["dilation"])
    kernel = (weight.shape[2], weight.shape[3])
    padding = a["padding"]
    if isinstance(padding, str):
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        if padding == "same" and any(r % 2 for r in reach):
            return None
        padding = (0, 0) if padding == "valid" else (reach[0] // 2, reach[1] // 2)
    window = Window(call.inputs[:1], kernel, stride, _pair(padding), dilation, _nothing)
    return _with_weights(window, weight.detach(), _data(bias), a["groups"])


def _with_weights(window: Window, weight: Tensor, bias: Tensor | None, groups: int) -> Window:
    single = weight.device.type == "cpu" and weight.dtype == torch.float32
    plain = groups == 1 and window.kernel == (3, 3) and window.stride == window.dilation == (1, 1)
    skips = window.kernel == (1, 1) and window.stride != (1, 1)
    return replace(
        window,
        work=_convolving(weight, bias, window.stride, window.dilation, groups),
        flops=2.0 * weight.numel(),
        weights=weight.numel() * weight.element_size(),
        tiles=Tiles(weight, bias) if single and plain else None,
        picked=_convolving(weight, bias, (1, 1), (1, 1), groups) if skips else None,
    )


def _nothing(maps: Tensor, padding: Pair) -> Tensor:
    return maps


def _convolving(
    weight: Tensor, bias: Tensor | None, stride: Pair, dilation: Pair, groups: int
) -> Callable[[Tensor, Pair], Tensor]:
    kept: list[Tensor] = []

    def work(maps: Tensor, padding: Pair) -> Tensor:
        if len(maps) > 1 and not kept:
            kept.append(weight.contiguous(memory_format=torch.channels_last))
        by = kept[0] if kept else weight
        if _onednn(maps):
            # conv2d itself takes a slower way for small inputs, which ours are.
            return torch.mkldnn_convolution(maps, by, bias, padding, stride, dilation, groups)
        return F.conv2d(maps, by, bias, stride, padding, dilation, groups)

    work.convolution = (weight, bias, groups)  # type: ignore[attr-defined]
    return work


def _maximum(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    a = _bound(
        call, "input kernel_size stride padding dilation ceil_mode return_indices",
        padding=0, dilation=1, ceil_mode=False, return_indices=False,
    )  # fmt: skip
    if a["return_indices"]:
        return None
    kernel, dilation = _pair(a["kernel_size"]), _pair(a["dilation"])
    stride, padding = _pair(a["stride"] or kernel), _pair(a["padding"])

    def work(maps: Tensor, padding: Pair) -> Tensor:
        return F.max_pool2d(maps, kernel, stride, padding, dilation)

    def whole(maps: Tensor) -> Tensor:
        return F.max_pool2d(maps, kernel, stride, padding, dilation, bool(a["ceil_mode"]))

    flops = float(kernel[0] * kernel[1] * shapes[0][1])
    return Window(
        call.inputs[:1], kernel, stride, padding, dilation, work,
        fill=LOWEST, flops=flops, whole=whole,
    )  # fmt: skip


def _average(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    a = _bound(
        call, "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
        padding=0, ceil_mode=False, count_include_pad=True,
    )  # fmt: skip
    kernel = _pair(a["kernel_size"])
    stride, padding = _pair(a["stride"] or kernel), _pair(a["padding"])
    counted, divisor = bool(a["count_include_pad"]), a["divisor_override"]
    lengths = shapes[0][2:]

    def work(maps: Tensor, padding: Pair) -> Tensor:
        return F.avg_pool2d(maps, kernel, stride, divisor_override=divisor)

    def whole(maps: Tensor) -> Tensor:
        ceil = bool(a["ceil_mode"])
        return F.avg_pool2d(maps, kernel, stride, padding, ceil, counted, divisor)

    def share(axis: int, start: Places, size: int) -> Places:
        k, p, n = kernel[axis], padding[axis], lengths[axis]
        first = (start[:, None] + np.arange(size)) * stride[axis] - p
        last = np.minimum(first + k, n + p)
        inside = last - first if counted else np.minimum(last, n) - np.maximum(first, 0)
        shares: Places = k / inside
        return shares

    plain = divisor is not None or (not any(padding) and not a["ceil_mode"])
    flops = float(kernel[0] * kernel[1] * shapes[0][1])
    return Window(
        call.inputs[:1], kernel, stride, padding, (1, 1), work,
        flops=flops, share=None if plain else share, whole=whole,
    )  # fmt: skip


def _adaptive(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    height, width = shapes[0][2:]
    rows, columns = call.shape[2:]
    if (rows, columns) == (height, width):
        return Pointwise(call.inputs, lambda parts, owned: parts[0])
    if (rows, columns) == (1, 1):
        return Mean(call.inputs[:1], call.shape[1:])
    if height % rows or width % columns:
        return None
    kernel = (height // rows, width // columns)

    def work(maps: Tensor, padding: Pair) -> Tensor:
        return F.avg_pool2d(maps, kernel)

    flops = float(kernel[0] * kernel[1] * shapes[0][1])
    return Window(call.inputs[:1], kernel, kernel, (0, 0), (1, 1), work, flops=flops)


def _padded(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    a = _bound(call, "input pad mode value", mode="constant")
    if a["mode"] != "constant" or a["value"] or len(a["pad"]) > 4 or min(a["pad"]) < 0:
        return None
    left, _, top, _ = [*a["pad"], 0, 0][:4]

    def whole(maps: Tensor) -> Tensor:
        return F.pad(maps, a["pad"])

    return Window(
        call.inputs[:1],
        (1, 1),
        (1, 1),
        (top, left),
        (1, 1),
        lambda maps, padding: maps,
        whole=whole,
    )


def _mean(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    a = _bound(call, "input dim keepdim dtype")
    axes = a["dim"] if isinstance(a["dim"], list | tuple) else (a["dim"],)
    if any(not isinstance(axis, int) for axis in axes) or a["dtype"] is not None:
        return None
    spatial = {axis % 4 for axis in axes} == {2, 3}
    return Mean(call.inputs[:1], call.shape[1:]) if spatial else None


def _join(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    a = _bound(call, "tensors dim", dim=0)
    same = all(shape[2:] == call.shape[2:] for shape in shapes)
    if a["dim"] not in (1, -3) or not same or len(call.inputs) != len(a["tensors"]):
        return None
    return Join(call.inputs)


def _normalized(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    found = _scale_and_shift(call)
    if found is None:
        return None
    scale, shift = found

    def work(parts: list[Parts], owned: bool) -> Parts:
        return torch.addcmul(shift.to(parts[0]), parts[0], scale.to(parts[0]))

    return Pointwise(call.inputs[:1], work, flops=2.0 * call.shape[1])


def _scale_and_shift(call: Call) -> tuple[Tensor, Tensor] | None:
    a = _bound(
        call, "input running_mean running_var weight bias training momentum eps",
        training=False, eps=1e-5,
    )  # fmt: skip
    if call.name != "batch_norm" or a["training"] or a["running_mean"] is None:
        return None
    scale = (a["running_var"].double() + a["eps"]).rsqrt()
    if a["weight"] is not None:
        scale = scale * a["weight"].detach().double()
    shift = -a["running_mean"].double() * scale
    if a["bias"] is not None:
        shift = shift + a["bias"].detach().double()
    return scale, shift


def _rectified(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    def work(parts: list[Parts], owned: bool) -> Parts:
        return parts[0].relu_() if owned else parts[0].relu()

    return Pointwise(call.inputs[:1], work, rectifies=True)


def _response_norm(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    a = _bound(call, "input size alpha beta k", alpha=1e-4, beta=0.75, k=1.0)
    size, alpha, beta, k = a["size"], a["alpha"], a["beta"], a["k"]

    def work(parts: list[Parts], owned: bool) -> Parts:
        # torch divides by `size` at the edges of the channels too, where fewer are summed.
        squares = F.pad(parts[0].square(), (size // 2, (size - 1) // 2))
        channels = parts[0].shape[-1]
        total = squares[..., :channels].clone()
        for shift in range(1, size):
            total += squares[..., shift : shift + channels]
        total.mul_(alpha / size).add_(k)
        if beta == 0.75:
            root = total.rsqrt_()
            return parts[0] * root.mul_(root.sqrt())
        return parts[0] * total.pow_(-beta)

    return Pointwise(call.inputs[:1], work, flops=2.0 * size * call.shape[1])


def _elementwise(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    """Any function of single numbers: what torch does to whole maps, done to parts of them."""
    if any(shape[1:] != call.shape[1:] for shape in shapes) or not _constants_fit(call):
        return None
    numbers = call.inputs

    def work(parts: list[Parts], owned: bool) -> Parts:
        maps = {n: part.permute(0, 3, 1, 2) for n, part in zip(numbers, parts, strict=True)}
        answer = repeat(call, maps, len(parts[0]), overwrite=owned)
        return answer.permute(0, 2, 3, 1).contiguous()

    return Pointwise(numbers, work, flops=float(call.shape[1]))


def _constants_fit(call: Call) -> bool:
    """Whether each tensor that is no map has the same number for all places."""
    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, Tensor):
            places = value.shape[-2:] if value.dim() >= 2 else (1, *value.shape)
            if any(n != 1 for n in places) or (value.dim() > 3 and value.shape[0] != 1):
                # The slope of a PReLU is one number a channel, as a vector.
                return call.name == "prelu"
    return True


def _unchanged(call: Call, shapes: list[tuple[int, ...]]) -> Local | None:
    training = _bound(call, "input p training")["training"]
    return None if training else Pointwise(call.inputs[:1], lambda parts, owned: parts[0])


def _pair(value: Any) -> Pair:
    if isinstance(value, int):
        return value, value
    values = list(value)
    return (values[0], values[-1])


def _data(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


# Twice as fast as torch's own (measured on AMD EPYC); private, so perhaps not there.
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

_OUTPUTS, _FEWEST = 512, 16
_LAYS_OUT = {"flatten", "view", "reshape", "dropout"}
_READERS: dict[str, Callable[[Call, list[tuple[int, ...]]], Local | None]] = {
    "conv2d": _convolution, "max_pool2d": _maximum, "avg_pool2d": _average,
    "adaptive_avg_pool2d": _adaptive, "mean": _mean, "cat": _join, "concat": _join,
    "batch_norm": _normalized, "pad": _padded, "relu": _rectified,
    "local_response_norm": _response_norm,
    "dropout": _unchanged, "dropout2d": _unchanged, "feature_dropout": _unchanged,
    "contiguous": lambda call, shapes: Pointwise(call.inputs, lambda parts, owned: parts[0]),
}  # fmt: skip
_READERS |= dict.fromkeys(
    (
        "add", "iadd", "radd", "sub", "isub", "rsub", "mul", "imul", "rmul", "div", "truediv",
        "itruediv", "maximum", "minimum", "neg", "abs", "square", "sqrt", "exp", "pow", "clamp",
        "clamp_min", "clamp_max", "hardtanh", "relu6", "leaky_relu", "elu", "selu", "celu", "prelu",
        "gelu", "silu", "mish", "softplus", "hardswish", "hardsigmoid", "sigmoid", "tanh",
        "logsigmoid", "threshold", "softsign",
    ),
    _elementwise,
)  # fmt: skip
