"""Pieces of work on one folder, which any number of processes may do, and any may be killed.

A piece is done when its files are there, so nobody keeps a list of what was done. Whoever starts a
piece holds its lease; one whose owner died is taken over.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optogram.core import progress
from optogram.pictures.leases import leased

PATIENCE, GLANCE = 0.2, 1.0
"""Seconds between two looks at work that others do, and between two counts of it."""


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of work.

    Attributes:
        name: what it is, for people.
        lease: the file that says that somebody is at it; None where several may be at once.
        weight: how many units it is worth, for the time that is left.
        ready: whether what it needs is there.
        done: whether it is.
        run: do it.
        common: whether every share begins with it, since all wait for it.
    """

    name: str
    lease: Path | None
    weight: int
    ready: Callable[[], bool]
    done: Callable[[], bool]
    run: Callable[[], None]
    common: bool = False


def work(
    tasks: Sequence[Task],
    share: tuple[int, int] | None = None,
    then: Callable[[], None] | None = None,
) -> None:
    """Do tasks until all are done, by this process or another.

    With a `share` (i, n) it begins at the i-th of n places in the list, and ends where others are
    at all that is left. `then` is called now and then, and at the end.
    """
    total = sum(task.weight for task in tasks)
    pending = [task for task in tasks if not task.done()]
    if share is not None:
        first = share[0] * len(pending) // share[1]
        common = [task for task in pending if task.common]
        rest = [task for task in pending[first:] + pending[:first] if not task.common]
        pending = common + rest
    looked = -math.inf
    while True:
        if time.monotonic() - looked > GLANCE or not pending:
            pending = [task for task in pending if not task.done()]
            progress.tell("atlas", total - sum(task.weight for task in pending), total)
            if then is not None:
                then()
            looked = time.monotonic()
        if not pending:
            return
        if not _step(pending):
            if share is not None and all(task.ready() for task in pending):
                return
            time.sleep(PATIENCE)


def _step(pending: list[Task]) -> bool:
    """Do the first task that is ready and free, and strike it off; False where there is none."""
    for task in list(pending):
        if task.done():
            pending.remove(task)
            continue
        if not task.ready():
            continue
        if task.lease is None:
            task.run()
        else:
            with leased(task.lease) as got:
                if not got:
                    continue
                if not task.done():
                    task.run()
        pending.remove(task)
        return True
    return False
