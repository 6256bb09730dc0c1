"""How a gradient passes back through a ReLU.

A rule is a plain function of (gradient, input, output), all of the activation function's shape: the
gradient that arrives from above, what the function was given and what it answered. It returns the
gradient that goes on downwards. Saliency, the deconvnet and guided backpropagation differ in
nothing else (Simonyan et al., 2013, sec. 4; Springenberg et al., 2014, fig. 1).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optogram.pictures.errors import RequestError

Values = Float[Tensor, "*shape"]
Rule = Callable[[Values, Values, Values], Values]


def plain(gradient: Values, input: Values, output: Values) -> Values:
    """The derivative: the gradient passes where the forward pass was open."""
    return gradient * (output > 0)


def deconvnet(gradient: Values, input: Values, output: Values) -> Values:
    """The deconvnet's ReLU: rectify what comes back, whatever went up (Zeiler & Fergus, 2013)."""
    return gradient.clamp(min=0)


def guided(gradient: Values, input: Values, output: Values) -> Values:
    """Guided backpropagation: open forwards and positive backwards (Springenberg et al., 2014)."""
    # What `nn.ReLU` itself runs backwards: one pass, where a mask and a product take three.
    passed = torch.ops.aten.threshold_backward(gradient, output, 0)
    return passed.clamp_(min=0)


def redirected(gradient: Values, input: Values, output: Values) -> Values:
    """The derivative; for an image whose gradient it would stop altogether, a way out (lucid).

    Where nothing gets through, the gradient passes closed ReLUs too, but for what would push them
    further down. It is meant for ascents: a positive gradient raises what it arrives at.
    """
    passed = plain(gradient, input, output)
    stopped = (passed == 0).flatten(1).all(1) if passed.dim() > 1 else passed == 0
    stopped = stopped.view(-1, *[1] * (passed.dim() - 1))
    return torch.where(stopped, gradient * ((input > 0) | (gradient > 0)), passed)


class ActivationMode(TorchFunctionMode):
    """While it is on, every ReLU obeys a rule and remembers what it was given.

    A function mode sees `nn.ReLU`, `F.relu`, `torch.relu`, `Tensor.relu_` and clamp(min=0) alike,
    changes nothing in the model and unwinds itself when an error passes (STACK.md, part 6, has what
    hooks on modules miss). Afterwards `relus` says how many calls it reached and `others` which
    activation functions it met for which gated rules have no meaning. `remembers=False` saves the
    copies of what ReLUs were given, where nobody will ask for pre-activations; a set of numbers
    (from 1, in the order of calls) has them only of those ReLUs.
    """

    def __init__(self, rule: Rule = plain, remembers: bool | frozenset[int] = True) -> None:
        super().__init__()
        self.rule = rule
        self.remembers = remembers
        self.relus = 0
        self.others: set[str] = set()

    def __enter__(self) -> "ActivationMode":
        self.relus = 0
        self.others.clear()
        super().__enter__()
        return self

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELUS or (func in _CLAMPS and _is_relu(args, kwargs)):
            self.relus += 1
            return self._relu(args[0], in_place=_in_place(func, args, kwargs), cap=None)
        if func in _CAPPED and (cap := _CAPPED[func](args, kwargs)) is not None:
            self.relus += 1
            return self._relu(args[0], in_place=_in_place(func, args, kwargs), cap=cap)
        if func in _SMOOTH:
            self.others.add(_SMOOTH[func])
        if func is F.batch_norm and self.rule in _LEAN and not kwargs["training"]:
            return _LeanNorm.apply(*args, kwargs["weight"], kwargs["bias"], kwargs["eps"])
        answer = func(*args, **kwargs)
        if func in _CATS:
            _remember_parts(answer, args, kwargs)
        return answer

    def _relu(self, input: Tensor, *, in_place: bool, cap: float | None) -> Tensor:
        odd = in_place and (input._is_view() or input.is_leaf)
        kept = self.remembers if isinstance(self.remembers, bool) else self.relus in self.remembers
        if not kept and self.rule in _LEAN and not odd:
            return _LeanReLU.apply(input, self.rule, cap, in_place)
        if not kept and self.rule is plain:
            if cap is None:
                return input.relu_() if in_place else input.relu()
            return F.hardtanh_(input, 0.0, cap) if in_place else F.hardtanh(input, 0.0, cap)
        # In-place calls must still overwrite, some models ignore the returned value; the rule gets
        # a copy because autograd refuses to go back through a tensor that is overwritten later.
        given = input.clone() if in_place or self.rule is not plain else input
        origin = (id(input), version(input))
        input.optogram_fed = (*getattr(input, "optogram_fed", ()), origin[1])  # type: ignore[attr-defined]
        if self.rule is plain and in_place:
            output = input.relu_() if cap is None else F.hardtanh_(input, 0.0, cap)
        elif self.rule is plain:
            output = given.relu() if cap is None else F.hardtanh(given, 0.0, cap)
        else:
            output = _RuledReLU.apply(given, self.rule, cap)
            output = input.copy_(output) if in_place else output
        return remember(output, Before((given,), origin=origin, calls=(self.relus,)))

    def check(self, what: str) -> None:
        """Refuse to hand out a plain gradient under another name. Raises RequestError."""
        name = getattr(self.rule, "__name__", "rule")
        if self.others:
            met = ", ".join(sorted(self.others))
            raise RequestError(
                f"the rule {name!r} says how a gradient passes a ReLU, and {what} uses {met}: "
                f"take rule=plain, or a network of ReLUs"
            )
        if self.relus == 0:
            raise RequestError(
                f"the rule {name!r} met no ReLU on the way through {what}: its map would be the "
                f"plain gradient, so ask for that"
            )


@dataclass(frozen=True, eq=False)
class Before:
    """What the ReLUs that made a tensor were given: `parts`, to be joined along `axis`.

    `origin` tells a single part apart, by its identity and the state it was in; `calls` are the
    numbers of those ReLUs among all of the pass, from 1.
    """

    parts: tuple[Tensor, ...]
    axis: int = 0
    origin: tuple[int, int] | None = None
    calls: tuple[int, ...] = ()

    def joined(self) -> Tensor:
        """The pre-activation."""
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts, self.axis)

    def copied(self) -> "Before":
        """The same in tensors of its own."""
        return replace(self, parts=tuple(part.clone() for part in self.parts))


def before(output: Tensor) -> Tensor:
    """The pre-activation of a tensor that a ReLU (or several, joined) made, else itself."""
    remembered = remembered_of(output)
    return output if remembered is None else remembered.joined()


def remember(output: Tensor, before: Before) -> Tensor:
    """Say what the ReLUs that made a tensor were given."""
    output.optogram_before = version(output), before  # type: ignore[attr-defined]
    return output


def remembered_of(output: Tensor) -> Before | None:
    """What is known of the ReLUs that made a tensor; None where none did, or it changed since."""
    made, remembered = getattr(output, "optogram_before", (None, None))
    return remembered if made == version(output) else None


def fed(tensor: Tensor, state: int) -> bool:
    """Whether a ReLU was given this tensor in this state (see `version`)."""
    return state in getattr(tensor, "optogram_fed", ())


def version(tensor: Tensor) -> int:
    """How often a tensor was overwritten so far."""
    # Inference tensors keep no version; nothing here makes them, but a user's model may.
    return 0 if tensor.is_inference() else tensor._version


class _LeanReLU(torch.autograd.Function):
    """A ReLU under a rule that looks at gradient and output alone: no copies, as natively."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, rule: Rule, cap: float | None, in_place: bool) -> Tensor:
        if in_place:
            output = input.relu_() if cap is None else input.clamp_(0, cap)
            ctx.mark_dirty(input)
        else:
            output = input.relu() if cap is None else input.clamp(0, cap)
        ctx.save_for_backward(output)
        ctx.rule, ctx.cap = rule, cap
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (output,) = ctx.saved_tensors
        passed = ctx.rule(gradients[0], output, output)
        closed = ctx.cap is not None
        return (passed * (output < ctx.cap) if closed else passed), None, None, None


class _LeanNorm(torch.autograd.Function):
    """A batch norm with fixed statistics, whose weights nobody wants to learn: only a factor.

    torch's own sums up on the way back what its weights would get, also where nobody asks for it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(variance, weight)
        ctx.eps = eps
        return F.batch_norm(input, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        variance, weight = ctx.saved_tensors
        factor = (variance + ctx.eps).rsqrt()
        factor = factor if weight is None else factor * weight
        (above,) = gradients
        below = above * factor.to(above.dtype).view(-1, *[1] * (above.dim() - 2))
        return below, None, None, None, None, None


class _RuledReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, rule: Rule, cap: float | None) -> Tensor:
        output = input.relu() if cap is None else input.clamp(0, cap)
        ctx.save_for_backward(input, output)
        ctx.rule, ctx.cap = rule, cap
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        input, output = ctx.saved_tensors
        passed = ctx.rule(gradients[0], input, output)
        # A ReLU6 at its ceiling is closed as one below zero is.
        return (passed if ctx.cap is None else passed * (input < ctx.cap)), None, None


def _remember_parts(answer: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A concatenation of ReLUs (an inception block's output) has a pre-activation too."""
    parts = args[0] if args else kwargs.get("tensors", ())
    axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    if parts and all(remembered_of(part) for part in parts):
        calls = tuple(call for part in parts for call in _calls(part))
        remember(answer, Before(tuple(before(part) for part in parts), axis, calls=calls))


def _calls(output: Tensor) -> tuple[int, ...]:
    remembered = remembered_of(output)
    return () if remembered is None else remembered.calls


def _is_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    return isinstance(low, int | float) and low == 0 and high is None


def _ceiling(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The ceiling of a hardtanh that is a ReLU with one (`nn.ReLU6` is), else None."""
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    high = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
    return float(high) if low == 0 else None


def _in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    named = func in (F.relu, F.relu6) and len(args) > 1 and bool(args[1])
    return bool(kwargs.get("inplace")) or named or getattr(func, "__name__", "").endswith("_")


_LEAN = (deconvnet, guided)
_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_CAPPED = {F.relu6: lambda args, kwargs: 6.0, F.hardtanh: _ceiling, F.hardtanh_: _ceiling}
_CLAMPS = {
    torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_,
    torch.clip, torch.clip_, Tensor.clip, Tensor.clip_,
    torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_,
}  # fmt: skip
_CATS = {torch.cat, torch.concat, torch.concatenate}
_SMOOTH = {
    F.gelu: "GELU", F.silu: "SiLU", F.leaky_relu: "LeakyReLU", F.leaky_relu_: "LeakyReLU",
    F.elu: "ELU", F.elu_: "ELU", F.selu: "SELU", F.selu_: "SELU", F.celu: "CELU",
    F.mish: "Mish", F.hardswish: "Hardswish", F.prelu: "PReLU", F.rrelu: "RReLU",
    F.softplus: "Softplus", F.hardtanh: "Hardtanh", F.hardtanh_: "Hardtanh",
    F.tanh: "tanh", torch.tanh: "tanh", Tensor.tanh: "tanh", Tensor.tanh_: "tanh",
    F.logsigmoid: "LogSigmoid", torch.selu: "SELU", torch.celu: "CELU",
}  # fmt: skip
