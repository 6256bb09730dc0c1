"""Relevance flows backwards: a score is divided among the inputs of every operation, to the pixels.

A function mode gives each operation of an ordinary pass its own backward pass, so that autograd
carries relevance where it would carry gradients. Like the rules for ReLUs it sees modules,
functions and methods alike and changes nothing in the model. What it has no rule for it refuses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optogram.pictures.errors import RequestError

Linear = Callable[..., Tensor]
TINY = 1e-9


@dataclass(frozen=True)
class Composite:
    """Which rule divides relevance where.

    `epsilon` stabilises every denominator, as a share of the root mean square of what it divides
    by; `gamma` favours positive contributions in convolutions; `dense_gamma` in linear layers;
    `box` takes the first layer's inputs to lie between black and white (the z-box rule).
    """

    epsilon: float = 1e-6
    gamma: float = 0.0
    dense_gamma: float = 0.0
    box: bool = False


class RelevanceMode(TorchFunctionMode):
    """While it is on, what autograd returns for a seed of relevance is relevance."""

    def __init__(self, composite: Composite) -> None:
        super().__init__()
        self.composite = composite

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        handle = _HANDLERS.get(func)
        if handle is None or not any(_tracked(a) for a in args):
            answer = func(*args, **kwargs)
            if handle is None:
                _refuse_unknown(func, args, answer)
            return answer
        return handle(self.composite, func, args, kwargs)


def start_at_pixels(images: Tensor) -> Tensor:
    """Images that know that they lie between black and white, for the z-box rule."""
    images.optogram_bounds = (torch.zeros_like(images), torch.ones_like(images))  # type: ignore[attr-defined]
    return images


class _Divide(torch.autograd.Function):
    """An answer that is known already; backwards, `divide` says what each input had in it."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, answer: Tensor, divide: Any) -> Tensor:
        ctx.divide = divide
        return answer.detach().clone()

    @staticmethod
    def backward(ctx: Any, *relevances: Tensor) -> tuple[Tensor, None, None]:
        return ctx.divide(relevances[0]), None, None


class _Pass(torch.autograd.Function):
    """Relevance goes on as it comes, whatever happened to the values."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, answer: Tensor) -> Tensor:
        return answer.detach().clone()

    @staticmethod
    def backward(ctx: Any, *relevances: Tensor) -> tuple[Tensor, None]:
        return relevances[0], None


class _Share(torch.autograd.Function):
    """A sum gives each summand the share that it made of the sum."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, epsilon: float) -> Tensor:
        # Copies: `first += second` overwrites the first.
        ctx.summands, ctx.epsilon = (first.clone(), second.clone()), epsilon
        return first + second

    @staticmethod
    def backward(ctx: Any, *relevances: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = ctx.summands
        share = relevances[0] / _stable(first + second, ctx.epsilon)
        return first * share, second * share, None


def _divided(input: Tensor, linear: Linear, weight: Tensor, bias: Any, rule: "_Rule") -> Tensor:
    with torch.no_grad():
        plain = input.detach().clone()  # a later in-place operation may overwrite it
        answer = linear(plain, weight, bias)

    def divide(relevance: Tensor) -> Tensor:
        return rule(plain, linear, weight.detach(), bias, answer, relevance)

    return _Divide.apply(input, answer, divide)


_Rule = Callable[[Tensor, Linear, Tensor, Any, Tensor, Tensor], Tensor]


def _epsilon_rule(epsilon: float) -> _Rule:
    """R_i = x_i * sum over outputs of w R / (z + epsilon sign z) (Bach et al., 2015)."""

    def rule(x: Tensor, f: Linear, w: Tensor, b: Any, z: Tensor, relevance: Tensor) -> Tensor:
        return x * _back(f, x, w, relevance / _stable(z, epsilon))

    return rule


def _gamma_rule(gamma: float, epsilon: float) -> _Rule:
    """Positive contributions count 1 + gamma times; where an output is negative, negative ones.

    Montavon et al. (2019), in the form of Andeol et al. (2021) that also takes negative inputs.
    """

    def rule(x: Tensor, f: Linear, w: Tensor, b: Any, z: Tensor, relevance: Tensor) -> Tensor:
        above, below = x.clamp(min=0), x.clamp(max=0)
        more, less = w + gamma * w.clamp(min=0), w + gamma * w.clamp(max=0)
        more_b, less_b = (
            None if b is None else b + gamma * b.clamp(**kept) for kept in ({"min": 0}, {"max": 0})
        )
        total = torch.zeros_like(x)
        signs = ((z > 0, more, less, more_b), (z < 0, less, more, less_b))
        for where, for_above, for_below, bias in signs:
            whole = f(above, for_above, bias) + f(below, for_below, None)
            share = torch.where(where, relevance / _stable(whole, epsilon), 0.0)
            total += above * _back(f, x, for_above, share) + below * _back(f, x, for_below, share)
        return total

    return rule


def _box_rule(low: Tensor, high: Tensor, epsilon: float) -> _Rule:
    """z-box: inputs count from the wall that speaks most against (Montavon et al., 2017)."""

    def rule(x: Tensor, f: Linear, w: Tensor, b: Any, z: Tensor, relevance: Tensor) -> Tensor:
        up, down = w.clamp(min=0), w.clamp(max=0)
        whole = f(x, w, None) - f(low.expand_as(x), up, None) - f(high.expand_as(x), down, None)
        share = relevance / _stable(whole, epsilon)
        walls = low * _back(f, x, up, share) + high * _back(f, x, down, share)
        return x * _back(f, x, w, share) - walls

    return rule


def _back(f: Linear, like: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """What a linear operation's transpose makes of values at its outputs."""
    with torch.enable_grad():
        point = torch.zeros_like(like, requires_grad=True)
        return torch.autograd.grad(f(point, weight, None), point, values)[0]


def _stable(values: Tensor, epsilon: float) -> Tensor:
    """The values, moved away from 0 by epsilon of their usual size; 0 counts as positive."""
    size = epsilon * values.square().mean().sqrt() + TINY * TINY
    return values + torch.where(values >= 0, size, -size)


def _weighted(kind: str) -> Any:
    """A convolution or linear layer: its weights divide, by the rule of its kind or the z-box."""

    def handle(composite: Composite, func: Any, args: Any, kwargs: Any) -> Tensor:
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        input, weight, bias = named.pop("input"), named.pop("weight"), named.pop("bias", None)
        rest = args[3:]

        def linear(x: Tensor, w: Tensor, b: Any) -> Tensor:
            return func(x, w, b, *rest, **named)

        bounds = getattr(input, "optogram_bounds", None)
        gamma = composite.gamma if kind == "convolution" else composite.dense_gamma
        if bounds is not None and composite.box:
            rule = _box_rule(bounds[0], bounds[1], composite.epsilon)
        elif gamma:
            rule = _gamma_rule(gamma, composite.epsilon)
        else:
            rule = _epsilon_rule(composite.epsilon)
        answer = _divided(input, linear, weight, bias, rule)
        answer.optogram_made = (input, linear, weight, bias, rule)  # type: ignore[attr-defined]
        return answer

    return handle


def _normalized(composite: Composite, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Batch normalisation melts into the convolution before it; elsewhere it passes on."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training")
    named = dict(zip(names, args, strict=False)) | kwargs
    made = getattr(named["input"], "optogram_made", None)
    if made is None or named.get("training"):
        return _passed(composite, func, args, kwargs)
    input, linear, weight, bias, rule = made
    mean, variance = named["running_mean"], named["running_var"]
    scale = (variance + (named.get("eps") or 1e-5)).rsqrt()
    scale = scale if named.get("weight") is None else scale * named["weight"]
    shift = 0 if named.get("bias") is None else named["bias"]
    melted = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    moved = (-mean if bias is None else bias - mean) * scale + shift
    return _divided(input, linear, melted.detach(), moved.detach(), rule)


def _averaged(composite: Composite, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Averages and sums are linear: each value gets the share that it made of them."""
    input = args[0]

    def linear(x: Tensor, _: Any, __: Any) -> Tensor:
        return func(x, *args[1:], **kwargs)

    rule = _epsilon_rule(composite.epsilon)
    return _divided(input, linear, input.new_zeros(()), None, rule)


def _passed(composite: Composite, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Activation functions and normalisations: relevance goes on as it comes."""
    tensors = [a for a in args if _tracked(a)]
    with torch.no_grad():
        plain = [a.detach().clone() if isinstance(a, Tensor) else a for a in args]
        answer = func(*plain, **{k: v for k, v in kwargs.items() if k != "inplace"})
    made = _bounded(func, args, kwargs, _Pass.apply(tensors[0], answer))
    return args[0].copy_(made) if _in_place(func, kwargs) else made


def _arithmetic(composite: Composite, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A constant passes relevance on; two summands share it; two factors have no rule."""
    tensors = [a for a in args[:2] if _tracked(a)]
    if len(tensors) < 2:
        return _passed(composite, func, args, kwargs)
    if func not in _SUMS or kwargs.get("alpha", 1) != 1:
        raise RequestError(
            f"lrp has no rule for {func.__name__!r} of two parts that both depend on the image: "
            f"take integrated_gradients"
        )
    first, second = torch.broadcast_tensors(*tensors)
    made = _Share.apply(first, second, composite.epsilon)
    return args[0].copy_(made) if _in_place(func, kwargs) else made


def _shaped(composite: Composite, func: Any, args: Any, kwargs: Any) -> Any:
    """What only moves, joins or picks values: autograd's own backward pass moves relevance."""
    return _bounded(func, args, kwargs, func(*args, **kwargs))


def _bounded(func: Any, args: Any, kwargs: Any, answer: Any) -> Any:
    """Black and white go through what the pixels go through before the first layer."""
    bounds = getattr(args[0], "optogram_bounds", None) if args else None
    if bounds is not None and isinstance(answer, Tensor):
        ends = [func(end.clone(), *args[1:], **kwargs) for end in bounds]
        answer.optogram_bounds = (torch.minimum(*ends), torch.maximum(*ends))  # type: ignore[attr-defined]
    return answer


def _in_place(func: Any, kwargs: Any) -> bool:
    """In-place operations must still overwrite: some models ignore the returned value."""
    name = getattr(func, "__name__", "")
    trailing = name.endswith("_") and not name.endswith("__")
    return trailing or name.startswith("__i") or bool(kwargs.get("inplace"))


def _tracked(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _refuse_unknown(func: Any, args: tuple[Any, ...], answer: Any) -> None:
    """An operation on relevant values without a rule would pass gradients for relevance."""
    made = answer if isinstance(answer, tuple | list) else (answer,)
    relevant = any(map(_tracked, args)) and any(map(_tracked, made))
    if not relevant or getattr(func, "__name__", "") in _HARMLESS:
        return
    raise RequestError(
        f"lrp has no rule for {getattr(func, '__name__', func)!r}, which this network uses: take "
        f"integrated_gradients"
    )


_SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}
_FACTORS = {
    torch.sub, Tensor.sub, Tensor.sub_, Tensor.__sub__, Tensor.__isub__, torch.mul, Tensor.mul,
    Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, torch.div, Tensor.div,
    Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__, Tensor.__rsub__,
}  # fmt: skip
_ACTIVATIONS = {
    F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh,
    F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.prelu,
    F.tanh, torch.tanh, Tensor.tanh, torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_,
    torch.clamp_min, Tensor.clamp_min, F.dropout, F.dropout2d, F.local_response_norm, F.layer_norm,
}  # fmt: skip
_AVERAGES = {
    F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean, torch.sum, Tensor.sum,
}  # fmt: skip
_SHAPES = {
    torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape, Tensor.permute,
    torch.permute, Tensor.transpose, torch.transpose, Tensor.squeeze, torch.squeeze, torch.cat,
    torch.concat, Tensor.unsqueeze, torch.unsqueeze, Tensor.expand, Tensor.contiguous, F.pad,
    Tensor.clone, torch.clone, Tensor.chunk, torch.chunk, torch.split, Tensor.split, torch.stack,
    Tensor.__getitem__, Tensor.to, Tensor.float, Tensor.double,
    F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d, F.channel_shuffle, torch.channel_shuffle,
    Tensor.movedim, torch.movedim, Tensor.copy_, Tensor.select, Tensor.unflatten,
}  # fmt: skip
_HARMLESS = {"__get__", "__set__", "detach", "requires_grad_", "type", "size", "dim", "backward"}
_HANDLERS: dict[Any, Any] = {
    F.conv2d: _weighted("convolution"), torch.conv2d: _weighted("convolution"),
    F.linear: _weighted("linear"), F.batch_norm: _normalized, torch.batch_norm: _normalized,
    **dict.fromkeys(_SUMS | _FACTORS, _arithmetic),
    **dict.fromkeys(_ACTIVATIONS, _passed),
    **dict.fromkeys(_AVERAGES, _averaged),
    **dict.fromkeys(_SHAPES, _shaped),
}  # fmt: skip
