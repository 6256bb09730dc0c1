"""How long work below tells the doors how far it is, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("optogram_progress", default=None)


def tell(what: str, done: int, total: int) -> None:
    """Say that `done` of `total` parts of something are finished."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(what, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener(what, done, total)` called for the length of a `with`.

    What it raises ends the work: that is how a door cancels.
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
