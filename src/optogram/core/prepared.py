"""A private copy of a network that is asked many times: the same numbers, for less arithmetic.

Its parameters need no gradients, a batch norm whose numbers are fixed is part of the convolution
before it, weights lie in memory as convolutions read them fastest, norms across channels are sums
by matrices, and it may count in bfloat16.
"""

import copy
from dataclasses import dataclass
from itertools import chain
from types import FunctionType
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.layout import LARGE
from optogram.core.listen import hooks
from optogram.core.network import Network
from optogram.core.rules import Before, remember, remembered_of, version
from optogram.pictures.errors import RequestError

Precision = Literal["auto", "float32", "bfloat16"]
SAME = 1e-4  # how far a folded network may be from the original, of the largest answer
MANY = 64  # images from which making a network ready is worth it
ALIKE = 0.1  # how far one in bfloat16 may be, by the length of the difference
Images = Float[Tensor, "batch channel height width"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network ready for many passes to some layers; `network` is the copy, or the original."""

    network: Network
    channels_last: bool

    def read(self, images: Images, layers: tuple[str, ...], **options: Any) -> dict[str, Tensor]:
        """What the layers answer, in the images' precision; options as of `Network.read`."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        heard = self.network.read(images, *layers, **options).layers
        return {name: _widened(answer, self.network) for name, answer in heard.items()}


def prepared(network: Network, layers: tuple[str, ...], precision: Precision) -> Prepared:
    """The network made ready for passes to these layers; remembered until a weight changes.

    What cannot be copied or folded is left as it is: the answers are those of the network within
    1e-4 of the largest (tried on one image of noise), in bfloat16 within its 8 bits.
    """
    state = _state(network)
    known = _READY.get(network)
    if known is None or known[0] != state:
        known = _READY[network] = (state, {})
    key = layers, precision
    if key not in known[1]:
        if len(known[1]) >= 4:
            known[1].clear()
        known[1][key] = _prepared(network, layers, precision)
    made = known[1][key]
    # None rather than the network, which nothing that is remembered about it may keep alive.
    return made or Prepared(network, _large(network) and network.device.type == "cpu")


def for_many(network: Network, layers: tuple[str, ...], images: int) -> Network:
    """The network to show so many images: made ready in its own precision, where they are many.

    A few are not worth the passes that making ready takes. The numbers are those of the network
    within float32's rounding or, where `prepared` folds what none of the layers asks about, 1e-4.
    """
    return network if images < MANY else prepared(network, layers, "float32").network


def resolved(
    network: Network, layers: tuple[str, ...], precision: Precision | str
) -> Literal["float32", "bfloat16"]:
    """What "auto" means for this network on this machine: "bfloat16" or "float32".

    bfloat16 where the processor multiplies it natively, images have 96x96 pixels or more (below,
    passes are short) and the layers' answers to an image of noise come out alike.

    Raises RequestError for another word, and for bfloat16 where the network is not in float32.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise RequestError(f"precision={precision!r} should be 'auto', 'float32' or 'bfloat16'")
    if precision == "bfloat16" and network.dtype != torch.float32:
        raise RequestError(
            f"precision='bfloat16' is for networks in float32; {network.name} is in "
            f"{str(network.dtype).removeprefix('torch.')}"
        )
    if precision == "float32":
        return "float32"
    possible = bool(layers) and network.dtype == torch.float32 and _native(network.device)
    possible = possible and network.shape[1] * network.shape[2] >= LARGE
    if precision == "auto" and not possible:
        return "float32"
    made = prepared(network, layers, "bfloat16").network
    there = not layers or (made is not network and _asked(made, layers) is not None)
    if precision == "bfloat16" and not there:
        raise RequestError(f"{network.name} does not work in bfloat16: take precision='float32'")
    if precision == "auto" and not (there and _alike(network, made, layers)):
        return "float32"
    return "bfloat16"


def _native(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = (
        getattr(torch.cpu, f"_is_{what}_supported", None) for what in ("avx512_bf16", "amx_tile")
    )
    return device.type == "cpu" and any(asked() for asked in known if asked is not None)


def _large(network: Network) -> bool:
    """Whether channels last in memory are faster (see `core.layout`)."""
    return network.shape[0] > 1 and network.shape[1] * network.shape[2] >= LARGE


def _prepared(network: Network, layers: tuple[str, ...], precision: Precision) -> Prepared | None:
    """A copy made ready; None where there is nothing to gain, or it comes out otherwise."""
    last = _large(network)
    dtype = torch.bfloat16 if precision == "bfloat16" else network.dtype
    if (
        not layers
        or _closed(network)
        or (not last and dtype == network.dtype and not _norms(network))
    ):
        return None
    pairs = _pairs(network, layers)
    for folding in (pairs, []) if pairs else ([],):
        made = _copy(network, folding, last, network.dtype)
        if made is not None and _same(network, made, layers):
            break
    else:
        return None
    if dtype != network.dtype:
        made = _copy(network, folding, last, dtype)
        assert made is not None
    return Prepared(made, last)


def _closed(network: Network) -> bool:
    """Whether a copy would not be one: compiled, or with functions that still ask the original."""
    parts = list(network._root.modules())
    own = [value for part in parts for value in vars(part).values()]
    return any(isinstance(part, torch.jit.ScriptModule) for part in parts) or any(
        isinstance(value, FunctionType) and value.__closure__ for value in own
    )


def _norms(network: Network) -> bool:
    kinds = (nn.BatchNorm2d, nn.LocalResponseNorm)
    return any(type(part) in kinds for part in network._root.modules())


def _pairs(network: Network, layers: tuple[str, ...]) -> list[tuple[str, str]]:
    """Convolutions that a batch norm follows at once, by name, where nobody asks for them."""
    made: dict[int, tuple[str, Tensor, int]] = {}
    calls: dict[str, int] = {}
    found: list[tuple[str, str]] = []

    def record(name: str) -> Any:
        def speak(part: nn.Module, given: Any, answer: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(part, nn.Conv2d):
                made[id(answer)] = name, answer, version(answer)
            elif id(given[0]) in made and made[id(given[0])][2] == version(given[0]):
                found.append((made[id(given[0])][0], name))

        return speak

    assert network.layers  # are found out by a pass of their own, which is none of these calls
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    names = {n: part for n, part in network._root.named_modules() if n and type(part) in kinds}
    with hooks(network._root, dict.fromkeys(names), record), torch.no_grad():
        network.read(_noise(network), *layers)
    parts = dict(network._root.named_modules())
    return [
        (one, other)
        for one, other in found
        if calls[one] == calls[other] == 1
        and one not in layers
        and parts[other].running_mean is not None
        and not any(parts[n]._forward_pre_hooks or parts[n]._forward_hooks for n in (one, other))
    ]


def _copy(
    network: Network, pairs: list[tuple[str, str]], channels_last: bool, dtype: torch.dtype
) -> Network | None:
    """The network with those pairs folded; None where its module cannot be copied.

    Tensors that stay as they are, are shared.
    """
    root = network._root
    shared: dict[int, Any] = {id(t): t for t in chain(root.parameters(), root.buffers())}
    try:
        module = copy.deepcopy(root, shared)
    except (RuntimeError, TypeError, AttributeError):
        return None
    parts = dict(module.named_modules())
    for one, other in pairs:
        convolution, norm = parts[one], parts[other]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        weight, bias = _folded(convolution, norm)
        convolution._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
        convolution._parameters["bias"] = nn.Parameter(bias, requires_grad=False)
        owner, _, last = other.rpartition(".")
        setattr(parts[owner], last, nn.Identity())
    for name, part in parts.items():
        if type(part) is nn.LocalResponseNorm and dtype != torch.float64:
            owner, _, last = name.rpartition(".")
            setattr(parts[owner], last, _Across(part))
    for part in module.modules():
        held: Any = (part._parameters, part._buffers)
        for tensors in held:
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_floating_point():
                    tensors[name] = _laid(tensor, part, channels_last, dtype)
    twin = network.with_module(module.eval())
    twin.dtype = dtype
    return twin


class _Across(nn.Module):
    """`nn.LocalResponseNorm`, whose sums over neighbouring channels are a product of matrices."""

    def __init__(self, norm: nn.LocalResponseNorm) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = norm.size, norm.alpha, norm.beta, norm.k
        self.bands: dict[Any, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """x / (k + alpha * the mean square of the channels about)^beta."""
        key = x.shape[1], x.dtype, x.device
        if key not in self.bands:
            below, above = self.size // 2, (self.size - 1) // 2
            ones = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device)
            self.bands[key] = ones.tril(above).triu(-below)[:, :, None, None]
        made: Tensor = _Divided.apply(x, self.bands[key], self.alpha / self.size, self.beta, self.k)
        return made


class _Divided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, band: Tensor, share: float, beta: float, k: float) -> Tensor:
        whole = F.conv2d(x * x, band).mul_(share).add_(k)
        factor = whole.pow(-beta)
        ctx.save_for_backward(x, whole, factor, band)
        ctx.share, ctx.beta = share, beta
        return x * factor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, whole, factor, band = ctx.saved_tensors
        straight = gradients[0] * factor
        crossed = F.conv2d((straight * x).div_(whole), band.transpose(0, 1))
        return (
            straight.addcmul_(crossed, x, value=-2 * ctx.share * ctx.beta),
            None,
            None,
            None,
            None,
        )


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does both; in double precision on the way."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    bias = -norm.running_mean.double() * scale
    if norm.bias is not None:
        bias = bias + norm.bias.detach().double()
    if convolution.bias is not None:
        bias = bias + convolution.bias.detach().double() * scale
    weight = convolution.weight.detach()
    return (weight.double() * scale[:, None, None, None]).to(weight), bias.to(weight)


def _laid(tensor: Tensor, part: nn.Module, channels_last: bool, dtype: torch.dtype) -> Tensor:
    made = tensor.detach().to(dtype)
    if channels_last and made.dim() == 4 and isinstance(part, nn.Conv2d):
        made = made.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def _same(network: Network, twin: Network, layers: tuple[str, ...]) -> bool:
    one, other = _asked(network, layers), _asked(twin, layers)
    if one is None or other is None:
        return False
    bounds = [SAME * a.abs().max().clamp(min=1e-12) for a in one]
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= bound)
        for a, b, bound in zip(one, other, bounds, strict=True)
    )


def _alike(network: Network, twin: Network, layers: tuple[str, ...]) -> bool:
    one, other = _asked(network, layers), _asked(twin, layers)
    if one is None or other is None:
        return False
    return all(
        bool((a - b.to(a)).norm() <= ALIKE * a.norm()) for a, b in zip(one, other, strict=True)
    )


def _asked(network: Network, layers: tuple[str, ...]) -> list[Tensor] | None:
    """What the layers answer to noise, and what their ReLUs were given; None where it fails."""
    try:
        with torch.no_grad():
            heard = network.read(_noise(network), *layers, watch=True)
    except (RequestError, RuntimeError, ValueError, TypeError, AssertionError):
        return None
    return [*heard.layers.values(), *heard.before.layers.values()]


def _noise(network: Network) -> Tensor:
    # Every number another, smooth enough for no unit to be out of its range.
    count = network.shape[0] * network.shape[1] * network.shape[2]
    numbers = (torch.arange(count, dtype=torch.float64) * 0.6180339887498949).frac()
    return numbers.view(1, *network.shape).to(network.device, network.image_dtype)


def _widened(answer: Tensor, network: Network) -> Tensor:
    """In the precision that images have, with what is remembered of its pre-activation."""
    wide = network.image_dtype
    if answer.dtype == wide or not answer.is_floating_point():
        return answer
    known, made = remembered_of(answer), answer.to(wide)
    if known is None:
        return made
    return remember(
        made, Before(tuple(p.to(wide) for p in known.parts), known.axis, known.origin, known.calls)
    )


def _state(network: Network) -> tuple[Any, ...]:
    """What tells a change: of weights, also one that autograd does not count, of parts, of hooks.

    A hook may change what a layer answers, and one part may stand in the place of another.
    """
    tensors = [*network._root.parameters(), *network._root.buffers()]
    real = [_sample(t.detach()) for t in tensors if t.is_floating_point()]
    sums = torch.stack([t.double().sum().cpu() for t in real]).tolist() if real else []
    parts = [
        (
            name,
            id(part),
            id(vars(part).get("forward")),
            *part._forward_pre_hooks,
            *part._forward_hooks,
        )
        for name, part in network._root.named_modules()
    ]
    return tuple((id(t), t._version) for t in tensors), tuple(sums), tuple(parts)


def _sample(tensor: Tensor) -> Tensor:
    """At most about a thousand of a tensor's numbers."""
    if not torch.ops.aten.is_non_overlapping_and_dense(tensor):
        return tensor
    count = max(1, min(1024, tensor.numel()))
    return tensor.as_strided((min(count, tensor.numel()),), (tensor.numel() // count or 1,))


_READY: WeakKeyDictionary[Network, tuple[Any, dict[Any, Prepared | None]]] = WeakKeyDictionary()
