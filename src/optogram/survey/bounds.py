"""How large and how small a layer can get on any image at all, by interval arithmetic.

Every tensor of one ordinary pass carries a lower and an upper bound of its values over all images
with pixels in [0, 1]; each operation passes them on (Gowal et al., 2018). The bounds are sound: no
image exceeds them. For a layer that is linear in the image they are exact, deeper they grow loose.
An
operation that is not known here ends the matter: no bound is better than a wrong one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from optogram.core.network import Network
from optogram.core.visit import visit

Bounds = tuple[Tensor, Tensor]


def bounds(
    network: Network, layers: Sequence[str]
) -> dict[str, tuple[Float64[Tensor, " unit"], Float64[Tensor, " unit"]] | None]:
    """For each layer the least and the largest pre-activation that each unit can have on any image.

    None for a layer that an operation precedes through which no bound is known here (attention, a
    product of two layers, normalisation over an image ...).
    """
    found: dict[str, Any] = {}

    def hear(name: str, answer: Tensor) -> None:
        known = _of(answer)
        if known is None or known == UNKNOWN:
            found[name] = None
            return
        axis = network.layer(name).axis
        low, high = (_units(part, axis) for part in known)
        found[name] = low.amin(1).cpu(), high.amax(1).cpu()

    image = torch.full((1, *network.shape), 0.5, device=network.device, dtype=network.dtype)
    wide = image.double()
    _attach(image, (torch.zeros_like(wide), torch.ones_like(wide)))
    with _BoundMode() as mode:
        visit(network, image, layers, hear)
    return found if mode.sound else dict.fromkeys(found)


UNKNOWN = "unknown"


class _BoundMode(TorchDispatchMode):
    """While on, what is made from a tensor with bounds has bounds, or is marked as unknown."""

    sound = True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = [known for part in _tensors(args) if (known := _of(part)) is not None]
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.endswith("__")
        # What is written through a view changes its base as well, whose bounds would be wrong then.
        if in_place and given and args[0]._is_view():
            self.sound = False
        answer = func(*args, **kwargs)
        if not given:
            if in_place and _of(args[0]) is not None:
                _attach(args[0], UNKNOWN)
            return answer
        rule = _RULES.get(name.rstrip("_"))
        known = UNKNOWN
        if rule is not None and UNKNOWN not in [k for k in given if isinstance(k, str)]:
            known = rule(func, args, kwargs)
        for made in _tensors((answer,)):
            _attach(made, known)
        return answer


def _monotone(func: Any, args: Any, kwargs: Any) -> Any:
    """Of an operation that grows with every number it is given, or only moves numbers about."""
    sides = []
    for side in (0, 1):
        first, *rest = (_side(part, side) for part in args)
        answer = func(_fresh(first), *rest, **_wide(kwargs))
        sides.append(answer[0] if isinstance(answer, tuple) else answer)
    return sides[0], sides[1]


def _copied(func: Any, args: Any, kwargs: Any) -> Any:
    """Of what is written over a tensor of the same shape."""
    known = _both(args[1])
    return known if known[0].shape == args[0].shape else UNKNOWN


def _added(func: Any, args: Any, kwargs: Any) -> Any:
    if kwargs.get("alpha", 1) < 0:
        return UNKNOWN
    return _monotone(func, args, kwargs)


def _subtracted(func: Any, args: Any, kwargs: Any) -> Any:
    if kwargs.get("alpha", 1) != 1:
        return UNKNOWN
    (low, high), (less, more) = (_both(part) for part in args[:2])
    return low - more, high - less


def _scaled(func: Any, args: Any, kwargs: Any) -> Any:
    """Of a product with, or a quotient by, something that does not depend on the image."""
    one, other = args[:2]
    if isinstance(one, Tensor) and isinstance(other, Tensor) and _of(one) and _of(other):
        return UNKNOWN
    divides = func.overloadpacket.__name__.startswith("div")
    if divides and (isinstance(other, Tensor) and _of(other)):
        return UNKNOWN
    if not (isinstance(one, Tensor) and _of(one)):
        one, other = other, one
    other = other.double() if isinstance(other, Tensor) else other
    low, high = _of(one)
    ends = (low / other, high / other) if divides else (low * other, high * other)
    return torch.minimum(*ends), torch.maximum(*ends)


def _convolved(func: Any, args: Any, kwargs: Any) -> Any:
    image, weight, bias, *how = args
    if _of(image) is None or _of(weight) is not None:
        return UNKNOWN
    middle, radius = _ball(image)
    weight = weight.double()
    bias = None if bias is None else bias.double()
    middle = torch.ops.aten.convolution(middle, weight, bias, *how)
    radius = torch.ops.aten.convolution(radius, weight.abs(), None, *how)
    return middle - radius, middle + radius


def _multiplied(func: Any, args: Any, kwargs: Any) -> Any:
    """Of a linear layer: addmm(bias, input, weight) or mm(input, weight)."""
    *bias, image, weight = args
    if kwargs or _of(image) is None or _of(weight) is not None:
        return UNKNOWN
    middle, radius = _ball(image)
    weight = weight.double()
    shift = bias[0].double() if bias else 0
    middle, radius = middle @ weight + shift, radius @ weight.abs()
    return middle - radius, middle + radius


def _normalised(func: Any, args: Any, kwargs: Any) -> Any:
    """Of a batch normalisation in eval mode, which scales and shifts each channel."""
    image, weight, bias, mean, variance, *rest = args
    if mean is None or (func.overloadpacket.__name__ in _TRAINABLE and rest[0]):
        return UNKNOWN
    low, high = _of(image)
    middle, width = mean.double(), variance.double()
    sides = [F.batch_norm(side, middle, width, eps=rest[-1]) for side in (low, high)]
    shape = (1, -1, *[1] * (low.dim() - 2))
    scale = 1 if weight is None else weight.double().view(shape)
    shift = 0 if bias is None else bias.double().view(shape)
    ends = [side * scale + shift for side in sides]
    return torch.minimum(*ends), torch.maximum(*ends)


def _ball(tensor: Tensor) -> Bounds:
    low, high = _of(tensor)
    return (low + high) / 2, (high - low) / 2


def _both(part: Any) -> tuple[Any, Any]:
    known = _of(part) if isinstance(part, Tensor) else None
    if known is not None:
        return known
    wide = part.double() if isinstance(part, Tensor) else part
    return wide, wide


def _side(part: Any, side: int) -> Any:
    if isinstance(part, list | tuple):
        return [_side(inner, side) for inner in part]
    return _both(part)[side] if isinstance(part, Tensor) else part


def _fresh(part: Any) -> Any:
    return part.clone() if isinstance(part, Tensor) else part


def _wide(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "dtype"}


def _units(values: Tensor, axis: int) -> Tensor:
    return values.movedim(axis, 0).flatten(1) if values.dim() > axis else values[None]


def _of(tensor: Tensor) -> Any:
    return getattr(tensor, "optogram_bounds", None)


def _attach(tensor: Tensor, known: Any) -> None:
    tensor.optogram_bounds = known  # type: ignore[attr-defined]


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


Rule = Callable[[Any, Any, Any], Any]
_TRAINABLE = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}
_GROWING = (
    "relu clamp clamp_min hardtanh threshold sigmoid tanh softplus leaky_relu elu hardsigmoid "
    "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d mean sum amax "
    "view _unsafe_view reshape permute transpose t squeeze unsqueeze expand select slice "
    "clone detach alias _to_copy contiguous cat constant_pad_nd reflection_pad2d replication_pad2d"
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_GROWING.split(), _monotone),
    "copy": _copied,
    "add": _added,
    "sub": _subtracted,
    **dict.fromkeys(("mul", "div"), _scaled),
    **dict.fromkeys(("convolution", "_convolution", "mkldnn_convolution"), _convolved),
    **dict.fromkeys(("addmm", "mm"), _multiplied),
    **dict.fromkeys(
        ("_native_batch_norm_legit_no_training", "batch_norm_inference", *_TRAINABLE), _normalised
    ),
}
