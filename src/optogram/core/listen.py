"""Hearing what named layers say while an ordinary pass runs, and leaving no trace of it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from optogram.core.rules import remember, remembered_of, version
from optogram.pictures.errors import RequestError

State = tuple[int, ...]


class _Enough(Exception):
    """Every layer that was asked for has spoken: the rest of the pass is not needed."""


def listen(
    module: nn.Module,
    names: tuple[str, ...],
    run: Callable[[], Any],
    overwritten: set[str],
    *,
    to_the_end: bool = False,
) -> dict[str, Tensor]:
    """Run a pass and return what the named layers answered; it stops at the last of them.

    `to_the_end` lets the pass finish, for whoever wants the module's own answer too.

    `names` are names of sub-modules, `relu#2` for the second call. `overwritten` holds the layers
    whose answer a later in-place operation is known to overwrite; they are copied. The set grows
    when a pass meets a new one, which costs one repetition of that pass, once.

    Raises RequestError for a name that no call answered to.
    """
    while True:
        heard = _hear(module, names, run, overwritten, to_the_end)
        fresh = {name for name, (tensor, state) in heard.items() if _state(tensor) != state}
        if not fresh - overwritten:
            return {name: tensor for name, (tensor, _) in heard.items()}
        overwritten |= fresh


def _hear(
    module: nn.Module,
    names: tuple[str, ...],
    run: Callable[[], Any],
    overwritten: set[str],
    to_the_end: bool,
) -> dict[str, tuple[Tensor, State]]:
    heard: dict[str, tuple[Tensor, State]] = {}
    calls: dict[str, int] = {}
    wanted = set(names)
    thread = threading.get_ident()

    def hook(name: str) -> Callable[..., Tensor | None]:
        def speak(_: nn.Module, __: Any, answer: Any) -> Tensor | None:
            if threading.get_ident() != thread:  # another thread's pass through the same module
                return None
            calls[name] = calls.get(name, 0) + 1
            call = called(name, calls[name])
            if call in wanted:
                tensor = first_tensor(answer, call)
                kept = _copy(tensor) if call in overwritten else tensor
                heard[call] = kept, _state(kept)
                if len(heard) == len(wanted) and not to_the_end:
                    raise _Enough
                if call in overwritten and tensor is answer:
                    # The pass goes on from what is kept, so that gradients flow through it.
                    return _copy(kept)
            return None

        return speak

    with hooks(module, {split_call(name)[0]: None for name in names}, hook), suppress(_Enough):
        run()
    if missing := wanted - heard.keys():
        raise RequestError(
            f"the pass never reached {', '.join(sorted(missing))}: was it traced or skipped?"
        )
    return heard


@contextmanager
def hooks(
    module: nn.Module, names: dict[str, None], make: Callable[[str], Callable[..., Any]]
) -> Iterator[None]:
    """Forward hooks on the named sub-modules for the length of a `with`."""
    handles = []
    try:
        for name in names:
            handles.append(module.get_submodule(name).register_forward_hook(make(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


_LOCK = threading.RLock()
_MODES: dict[int, tuple[int, list[nn.Module]]] = {}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part in eval mode for the length of a `with`, and as it was before afterwards.

    Counted per module, so that two threads that ask one model neither train nor restore too early.
    """
    key = id(module)
    with _LOCK:
        depth, training = _MODES.get(key, (0, []))
        if depth == 0:
            training = [part for part in module.modules() if part.training]
            for part in training:
                part.training = False
        _MODES[key] = depth + 1, training
    try:
        yield
    finally:
        with _LOCK:
            depth, training = _MODES.pop(key)
            if depth > 1:
                _MODES[key] = depth - 1, training
            else:
                for part in training:
                    part.training = True


def called(name: str, call: int) -> str:
    """A layer's name at its first, second, ... call: `relu`, `relu#2`."""
    return name if call == 1 else f"{name}#{call}"


def split_call(name: str) -> tuple[str, int]:
    """The module and the call that a layer's name means."""
    module, mark, call = name.rpartition("#")
    return (module, int(call)) if mark and call.isdigit() else (name, 1)


def first_tensor(answer: Any, name: str) -> Tensor:
    """The tensor in what a module returned: itself, `.logits`, or the first of several."""
    if isinstance(answer, Tensor):
        return answer
    logits = getattr(answer, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = (
        answer.values()
        if isinstance(answer, dict)
        else answer
        if isinstance(answer, list | tuple)
        else ()
    )
    for part in parts:
        if isinstance(part, Tensor):
            return part
    raise RequestError(
        f"the layer {name!r} returns {type(answer).__name__}, in which there is no tensor"
    )


def _copy(tensor: Tensor) -> Tensor:
    remembered = remembered_of(tensor)
    return remember(tensor.clone(), remembered.copied()) if remembered else tensor.clone()


def _state(tensor: Tensor) -> State:
    """What changes when a tensor, or what is remembered of its pre-activation, is overwritten."""
    remembered = remembered_of(tensor)
    return version(tensor), *map(version, remembered.parts if remembered else ())
