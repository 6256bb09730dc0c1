"""Going on with a network while what it has just said is still in the processor's cache.

A large answer that is heard is read from memory; the batch norm behind it reads it once more and
writes, the ReLU behind that reads and writes again. Piece by piece, all of it costs one journey to
memory and back.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

LARGE = 1 << 22
"""Answers of fewer numbers stay in the cache until they are read again anyway."""

ALIGNMENT = 64
"""Bytes of a cache line, which vector instructions should not straddle."""


class Onward(TorchDispatchMode):
    """Puts off the hearing of a large answer until the network goes on with it.

    While it is on, whatever touches such an answer has it heard first. A batch norm in eval mode is
    put off too, and an activation function in place behind that done with it. Whoever hears calls
    `reach` before he reads the answer up to a place (a norm fetches it from memory faster than a
    maximum does); what he leaves is done when he returns. The numbers are those of an ordinary pass
    to the last bit.

    It sees every operation that torch dispatches, inside TorchScript too; an extension that takes
    the address of a tensor's memory and reads there on its own would find nothing yet. One serves
    many passes, one after the other: the memory for what batch norms answer is used again, where
    nobody holds it any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._due: dict[int, _Due] = {}
        self._now: _Due | None = None
        self._buffers = _Buffers()

    def hear(self, answer: Tensor, hear: Callable[[Tensor], None]) -> None:
        """Have `hear(answer)` called, now or before anybody looks into the answer."""
        self._settle(answer)
        due = _Due(answer, hear)
        self._due[id(answer)] = due
        if not _is_large(answer):
            self._settle(answer)

    @property
    def waits(self) -> bool:
        """Whether something is to be done with the answer that is being heard."""
        return self._now is not None and self._now.norm is not None

    def reach(self, place: int) -> None:
        """Go on with the first places of the answer that is being heard, counted over the batch."""
        if self._now is not None:
            self._now.go_on(place)

    def finish(self) -> None:
        """Hear whatever still waits."""
        for due in list(self._due.values()):
            self._settle(due.answer)

    def __exit__(self, *problem: Any) -> None:
        """After an error nothing that waits will be heard."""
        self._due.clear()
        super().__exit__(*problem)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self._due:
            return func(*args, **kwargs)
        touched = [part for part in _tensors((args, kwargs)) if id(part) in self._due]
        if len(touched) == 1 and touched[0] is args[0]:
            answer = self._put_further_off(func, *args, **kwargs)
            if answer is not None:
                return answer
        for part in touched:
            self._settle(part)
        return func(*args, **kwargs)

    def _put_further_off(self, func: Any, given: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the operation will have answered, where it can be done with what waits."""
        due = self._due[id(given)]
        if (
            func is aten.native_batch_norm.default
            and due.norm is None
            and _is_fixed(*args, **kwargs)
        ):
            due.made = self._buffers.like(given)
            due.norm = _norm(given, due.made, *args)
            self._due[id(due.made)] = due
            return due.made, given.new_empty(0), given.new_empty(0)
        if func in _IN_PLACE and given is due.made:
            due.activation = partial(_applied, func, args, kwargs)
            self._settle(given)
            return given
        return None

    def _settle(self, tensor: Tensor) -> None:
        due = self._due.get(id(tensor))
        if due is None:
            return
        self._due = {key: other for key, other in self._due.items() if other is not due}
        self._now = due
        try:
            with _undisturbed():
                due.hear(due.answer)
                due.go_on(due.places)
        finally:
            self._now = None


@dataclass(eq=False)
class _Due:
    """An answer that waits to be heard, and what the network did with it meanwhile."""

    answer: Tensor
    hear: Callable[[Tensor], None]
    made: Tensor | None = None
    norm: Callable[[int, int], Tensor] | None = None
    activation: Callable[[Tensor], None] | None = None
    reached: int = 0

    @property
    def places(self) -> int:
        """How many places the answer has, those of all images together."""
        return self.answer.numel() // self.answer.shape[1]

    def go_on(self, place: int) -> None:
        """Do what the network did, up to a place."""
        first, self.reached = self.reached, place
        if self.norm is not None and place > first:
            made = self.norm(first, place)
            if self.activation is not None:
                self.activation(made)


def _norm(given: Tensor, into: Tensor, *stated: Any) -> Callable[[int, int], Tensor]:
    """The batch norm of some places, which it answers where they belong in `into`."""
    places = given.numel() // given.shape[1]
    # One image of one long column: what torch does with it, it does place by place.
    whole, made = (
        some.permute(0, 2, 3, 1).view(1, places, 1, -1).permute(0, 3, 1, 2)
        for some in (given, into)
    )
    unused = given.new_empty(0), given.new_empty(0)

    def some(first: int, last: int) -> Tensor:
        part = made[:, :, first:last]
        torch.native_batch_norm(whole[:, :, first:last], *stated, out=(part, *unused))
        return part

    return some


def _applied(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], piece: Tensor) -> None:
    func(piece, *args, **kwargs)


class _Buffers:
    """Memory that is taken again when no tensor lies in it any more.

    Memory fresh from the system costs more than what a batch norm does with it. NumPy's arrays
    tell when the tensor that was made of them, and every view of it, is gone.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def like(self, answer: Tensor) -> Tensor:
        """A tensor of the same shape and layout, with anything in it."""
        needed = answer.numel() * answer.element_size()
        fitting = [at for at, some in enumerate(self._free) if some.nbytes >= needed + ALIGNMENT]
        if fitting:
            buffer = self._free.pop(min(fitting, key=lambda at: self._free[at].nbytes))
        else:
            self._free.clear()  # they are too small for what is needed now
            buffer = np.empty(needed + ALIGNMENT, np.uint8)
        first = -buffer.ctypes.data % ALIGNMENT
        taken = buffer[first : first + needed]
        weakref.finalize(taken, self._free.append, buffer).atexit = False
        made = torch.from_numpy(taken).view(answer.dtype)
        return made.as_strided(answer.shape, answer.stride())


def _is_large(answer: Tensor) -> bool:
    """Whether an answer is worth putting off, and lies so that its pieces do."""
    return (
        type(answer) is Tensor
        and answer.device.type == "cpu"
        and answer.dtype == torch.float32
        and answer.dim() == 4
        and answer.numel() >= LARGE
        and answer.is_contiguous(memory_format=torch.channels_last)
        and not answer.requires_grad
    )


def _tensors(some: Any) -> Iterator[Tensor]:
    if isinstance(some, Tensor):
        yield some
    elif isinstance(some, list | tuple):
        for part in some:
            yield from _tensors(part)
    elif isinstance(some, dict):
        yield from _tensors(list(some.values()))


def _is_fixed(
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> bool:
    """Whether a batch norm scales and shifts each channel whatever the batch, in float32."""
    parts = (weight, bias, mean, variance)
    alike = all(part is None or part.dtype == torch.float32 for part in parts)
    return alike and not training and mean is not None and variance is not None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Operations of our own, which no mode is to look at."""
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        yield


# What a number becomes must not depend on where it lies, as the last ones of a row do in a sigmoid.
_IN_PLACE = {aten.relu_.default, aten.hardtanh_.default, aten.leaky_relu_.default}
