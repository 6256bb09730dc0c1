"""What a network does, written down while an ordinary pass does it: a graph of operations.

A function mode sees every call of torch that touches the image, whether a module, a function or an
operator makes it, so nothing in the network needs tracing or renaming. What cannot be written down
faithfully (a number read out of a tensor, a write into part of one) raises `NotCaptured`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optogram.core.listen import called, evaluating, first_tensor, hooks
from optogram.core.network import Network
from optogram.core.unit import OUTPUT
from optogram.pictures.errors import RequestError


class NotCaptured(Exception):
    """The network does something that cannot be repeated from a list of operations; says what."""


@dataclass(frozen=True)
class Ref:
    """Stands in a call's arguments for the answer of the call of that number; 0 is the image."""

    node: int


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function of torch: what was called with what, and the shape of its answer.

    `part` picks one of several answers. `in_place` says that it overwrote its first argument.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    in_place: bool = False
    part: int | None = None

    @property
    def name(self) -> str:
        """The function's name, without the underscore or dunder of its in-place form."""
        return getattr(self.function, "__name__", "?").strip("_")

    @property
    def inputs(self) -> tuple[int, ...]:
        """Whose answers it reads."""
        return tuple(ref.node for ref in refs((self.args, self.kwargs)))


@dataclass(frozen=True, eq=False)
class Graph:
    """The calls in order, and which of them each layer is; number 0 is the image, no call."""

    calls: tuple[Call | None, ...]
    layers: dict[str, int]


def capture(
    network: Network, images: Tensor, layers: tuple[str, ...]
) -> tuple[Graph, list[Tensor]]:
    """The graph of a pass over the images as far as the layers need it, and the layers' answers.

    Raises NotCaptured with the reason where the pass cannot be written down.
    """
    graph, answers = _record(network, images, layers)
    # Which numbers belong to the batch is seen by comparing with a pass of another batch.
    if not all(_for_any(call) for call in graph.calls if call):
        other, _ = _record(network, torch.cat([images, images[:1]]), layers)
        graph = _for_any_batch(graph, other, len(images))
    return graph, answers


def repeat(call: Call, values: dict[int, Tensor], batch: int, overwrite: bool = False) -> Tensor:
    """The answer of a call to other values, batch first; `overwrite` allows it to work in place."""
    given = [_filled(part, values, batch) for part in call.args]
    if call.in_place and not overwrite:
        given[0] = given[0].clone()
    answer = call.function(*given, **_filled(call.kwargs, values, batch))
    tensor: Tensor = answer if call.part is None else answer[call.part]
    return tensor


def refs(value: Any) -> Iterator[Ref]:
    """The references inside nested arguments."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from refs(part)
    elif isinstance(value, dict):
        yield from refs(tuple(value.values()))


@dataclass(frozen=True)
class _Batches:
    """A number that grows with the batch: so many for each image."""

    each: int


@dataclass(frozen=True, eq=False)
class _Repeated:
    """A tensor that is the same for each image, such as a class token."""

    one: Tensor


@dataclass
class _Notebook(TorchFunctionMode):
    image: Tensor
    calls: list[Call | None] = field(default_factory=lambda: [None])
    numbers: dict[int, int] = field(default_factory=dict)
    alive: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._know(self.image, 0)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        known = {id(t): t for t in _tensors((args, kwargs)) if id(t) in self.numbers}
        if not known:
            return func(*args, **kwargs)
        written = self._written((args, kwargs))
        versions = {key: t._version for key, t in known.items()}
        answer = func(*args, **kwargs)
        changed = [
            known[key] for key, version in versions.items() if known[key]._version != version
        ]
        self._note(func, written, answer, changed)
        return answer

    def _note(
        self, func: Any, written: tuple[Any, Any], answer: Any, changed: list[Tensor]
    ) -> None:
        name = getattr(func, "__name__", str(func))
        if changed:
            first = written[0][0] if written[0] else None
            same = isinstance(answer, Tensor) and [id(t) for t in changed] == [id(answer)]
            if not same or not isinstance(first, Ref) or self._shared(changed[0]):
                raise NotCaptured(f"{name} writes into a part of a tensor")
            self._add(Call(func, *written, tuple(answer.shape), in_place=True), answer)
        elif isinstance(answer, Tensor):
            if id(answer) not in self.numbers:
                self._add(Call(func, *written, tuple(answer.shape)), answer)
        elif isinstance(answer, list | tuple) and any(isinstance(t, Tensor) for t in answer):
            for part, tensor in enumerate(answer):
                if isinstance(tensor, Tensor):
                    self._add(Call(func, *written, tuple(tensor.shape), part=part), tensor)
        elif name not in _ABOUT and name != "__get__":
            raise NotCaptured(f"{name} reads numbers out of a tensor, on which the pass may depend")

    def _add(self, call: Call, answer: Tensor) -> None:
        self.calls.append(call)
        self._know(answer, len(self.calls) - 1)

    def _know(self, tensor: Tensor, number: int) -> None:
        # Kept alive, or another tensor could take the same identity.
        if id(tensor) not in self.numbers:
            self.alive.append(tensor)
        self.numbers[id(tensor)] = number

    def _shared(self, tensor: Tensor) -> bool:
        """Whether another tensor of the pass lies in the same memory."""
        place = tensor.untyped_storage().data_ptr()
        return any(t is not tensor and t.untyped_storage().data_ptr() == place for t in self.alive)

    def _written(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return Ref(self.numbers[id(value)]) if id(value) in self.numbers else value
        if isinstance(value, dict):
            return {key: self._written(part) for key, part in value.items()}
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            return type(value)(self._written(part) for part in value)
        return value


def _record(
    network: Network, images: Tensor, layers: tuple[str, ...]
) -> tuple[Graph, list[Tensor]]:
    root = network._root
    shown = network.normalized(images)
    notebook = _Notebook(shown)
    calls: dict[str, int] = {}
    at: dict[str, int] = {}
    heard: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def speak(_: Any, __: Any, answer: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            call = called(name, calls[name])
            if call in layers:
                at[call], heard[call] = _number(notebook, answer, call), first_tensor(answer, call)
                # A later operation may overwrite it.
                heard[call] = heard[call].clone()

        return speak

    names = {layer.rpartition("#")[0] or layer: None for layer in layers if layer != OUTPUT}
    with evaluating(root), torch.no_grad(), hooks(root, names, hook):
        with notebook:
            answer = root(shown)
        if OUTPUT in layers:
            at[OUTPUT], heard[OUTPUT] = (
                _number(notebook, answer, OUTPUT),
                first_tensor(answer, OUTPUT),
            )
    if missing := set(layers) - set(at):
        raise RequestError(f"the pass never reached {', '.join(sorted(missing))}")
    return _pruned(Graph(tuple(notebook.calls), at)), [heard[layer] for layer in layers]


def _number(notebook: _Notebook, answer: Any, name: str) -> int:
    number = notebook.numbers.get(id(first_tensor(answer, name)))
    if number is None:
        raise NotCaptured(f"the answer of {name!r} was made by nothing that could be seen")
    return number


def _pruned(graph: Graph) -> Graph:
    """Only the calls that the layers depend on, in order, numbered anew."""
    needed = set(graph.layers.values())
    for number in range(len(graph.calls) - 1, 0, -1):
        call = graph.calls[number]
        if number in needed and call is not None:
            needed.update(call.inputs)
    kept = [0, *sorted(needed - {0})]
    new = {number: place for place, number in enumerate(kept)}
    calls = tuple(_renumbered(graph.calls[number], new) for number in kept)
    return Graph(calls, {name: new[number] for name, number in graph.layers.items()})


def _renumbered(call: Call | None, new: dict[int, int]) -> Call | None:
    def walk(value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(new[value.node])
        if isinstance(value, dict):
            return {key: walk(part) for key, part in value.items()}
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            return type(value)(walk(part) for part in value)
        return value

    if call is None:
        return None
    return Call(
        call.function, walk(call.args), walk(call.kwargs), call.shape, call.in_place, call.part
    )


def _for_any_batch(graph: Graph, other: Graph, batch: int) -> Graph:
    """The graph with every number that grew with the batch written as so many for each image."""
    same = [c.function if c else None for c in graph.calls] == [
        c.function if c else None for c in other.calls
    ]
    if not same or graph.layers != other.layers:
        raise NotCaptured("what it does depends on the size of the batch")
    calls: list[Call | None] = []
    for call, again in zip(graph.calls, other.calls, strict=True):
        if call is None or again is None:
            calls.append(None)
            continue
        args = _compared(call.args, again.args, batch)
        kwargs = _compared(call.kwargs, again.kwargs, batch)
        calls.append(Call(call.function, args, kwargs, call.shape, call.in_place, call.part))
    return Graph(tuple(calls), graph.layers)


def _for_any(call: Call) -> bool:
    """Whether a call is known to be the same for any batch."""
    plain = all(isinstance(value, Ref | float | bool) for value in call.args) and not call.kwargs
    return call.name in _FOR_ANY_BATCH or (call.name in _OF_MAPS and plain)


def _compared(value: Any, again: Any, batch: int) -> Any:
    if isinstance(value, dict):
        return {key: _compared(part, again[key], batch) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_compared(a, b, batch) for a, b in zip(value, again, strict=True)]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, Tensor):
        return _Repeated(value[:1]) if _is_repeated(value, again) else value
    if isinstance(value, bool) or not isinstance(value, int) or value == again:
        return value
    if value * (batch + 1) != again * batch:
        raise NotCaptured(f"the numbers {value} and {again} follow the batch in no simple way")
    return _Batches(value // batch)


def _is_repeated(value: Tensor, again: Any) -> bool:
    if not isinstance(again, Tensor) or value.shape == again.shape:
        return False
    if value.shape[1:] != again.shape[1:] or not bool((value == value[:1]).all()):
        raise NotCaptured("a tensor that it makes follows the batch in no simple way")
    return True


def _filled(value: Any, values: dict[int, Tensor], batch: int) -> Any:
    if isinstance(value, Ref):
        return values[value.node]
    if isinstance(value, _Batches):
        return value.each * batch
    if isinstance(value, _Repeated):
        return value.one.expand(batch, *value.one.shape[1:])
    if isinstance(value, dict):
        return {key: _filled(part, values, batch) for key, part in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)(_filled(part, values, batch) for part in value)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


_ABOUT = {
    "size", "dim", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "__len__",
    "ndimension", "element_size", "storage_offset", "is_complex", "data_ptr", "get_device",
    "untyped_storage", "is_same_size", "result_type", "__hash__", "type", "is_pinned",
    "has_names", "is_inference", "_is_view", "__repr__",
}  # fmt: skip
_FOR_ANY_BATCH = {
    "conv2d", "relu", "hardtanh", "relu6", "batch_norm", "max_pool2d", "avg_pool2d", "linear",
    "adaptive_avg_pool2d", "flatten", "cat", "local_response_norm", "dropout", "gelu", "silu",
    "sigmoid", "tanh", "softmax", "log_softmax", "leaky_relu", "elu",
}  # fmt: skip
_OF_MAPS = {"add", "iadd", "sub", "isub", "mul", "imul", "div", "truediv", "neg", "square"}
