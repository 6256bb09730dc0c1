"""How much fits into a device's memory: guessed before, and halved where it turns out less."""

import ctypes
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from optogram.core.network import Network
from optogram.pictures.errors import RequestError

Item = TypeVar("Item")
Made = TypeVar("Made")
WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
SHARE = 0.5
"""How much of the free memory a batch may be expected to take."""

JOINED = 16
LAYERS = 6
"""A pass without gradients holds about so many of its largest answers at once."""


def ran_out(problem: BaseException) -> bool:
    """Whether an error says that memory ran out: a graphics card's, or the processor's."""
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(word in str(problem) for word in WORDS)


@dataclass
class Room:
    """How many things fit into memory at once: all that are asked for, until it runs out.

    `most` is the largest number that did not fit, halved, and halved again; what is found once
    holds for all that follows. `what` is what an error calls them.
    """

    what: str = "images"
    most: int | None = None

    def each(self, items: Sequence[Item], do: Callable[[Sequence[Item]], Made]) -> Iterator[Made]:
        """`do` for all items at once or, where memory runs out, for parts of them, in order.

        `do` must be able to begin again. Raises RequestError where memory is short for one alone.
        """
        first = 0
        while first < len(items):
            some = items[first : first + (self.most or len(items))]
            try:
                made = do(some)
            except (RuntimeError, MemoryError) as problem:
                if not ran_out(problem):
                    raise
                if len(some) == 1:
                    raise RequestError(
                        f"memory is short even for one of the {self.what} at a time: "
                        f"{str(problem).splitlines()[0]}; choose fewer layers or another device"
                    ) from problem
                self.most = len(some) // 2
            else:
                first += len(some)
                yield made
                continue
            release()  # when nothing holds what the failed pass had made any more


def trim() -> None:
    """Give the system back what the allocator keeps of freed memory, where it can be asked to.

    Tensors of many sizes that come and go leave the C library's heap in pieces, and it grows and
    grows around them. It is glibc that has such a call; elsewhere nothing happens.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def release() -> None:
    """Give back memory that is held for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def at_once(network: Network, batch: int) -> int:
    """How many images to show to a network at once, by the free memory of its device.

    On the processor the batch that was asked for; on a graphics card, which is slow on small ones,
    up to 16 of them joined. Either is halved until the free memory should take it: a guess from the
    largest answer of a layer; where it is wrong, `Room` finds out.
    """
    largest = max([*(math.prod(layer.shape) for layer in network.layers), math.prod(network.shape)])
    free = free_memory(network.device)
    size = batch * (JOINED if network.device.type == "cuda" else 1)
    while free is not None and size > 1 and size * largest * 4 * LAYERS > SHARE * free:
        size //= 2
    return size


def free_memory(device: torch.device) -> int | None:
    """Bytes of a device's memory that are free; None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1])
    return None
