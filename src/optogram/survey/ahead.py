"""Reading ahead: the next batches are made while the present one is worked on."""

import contextvars
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
END = object()


def ahead(items: Iterable[Item], most: int = 2) -> Iterator[Item]:
    """The same items in the same order, up to `most` of them made in advance by a thread.

    What making them raises is raised here in its turn. The thread ends when the iterator is closed.
    """
    made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(most)
    closed = threading.Event()

    def put(item: Any, problem: BaseException | None = None) -> bool:
        while not closed.is_set():
            try:
                made.put((item, problem), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(END)
        except BaseException as problem:
            put(END, problem)

    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(work), daemon=True)
    thread.start()
    try:
        while True:
            item, problem = made.get()
            if problem is not None:
                raise problem
            if item is END:
                return
            yield item
    finally:
        closed.set()
        thread.join()
