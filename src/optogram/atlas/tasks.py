"""Who does which piece of work: one process, several on this machine, or one share of many.

A piece of work is done when its files are there, so nobody keeps a list of what was done. Whoever
starts a piece holds its lease; a lease whose owner died is taken over. So any number of processes
may work on one folder, and any of them may be killed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optogram.atlas.store import leased
from optogram.core import progress
from optogram.pictures.errors import RequestError

PATIENCE, GLANCE = 0.2, 1.0
"""Seconds between two looks at work that others do, and between two counts of it."""


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of work.

    Attributes:
        name: what it is, for people.
        lease: the file that says that somebody is at it.
        weight: how many units it is worth, for the time that is left.
        ready: whether what it needs is there.
        done: whether it is.
        run: do it.
        common: whether every share may do it, since all wait for it.
    """

    name: str
    lease: Path
    weight: int
    ready: Callable[[], bool]
    done: Callable[[], bool]
    run: Callable[[], None]
    common: bool = False


class Executor(Protocol):
    """Says which tasks this process does."""

    def mine(self, tasks: Sequence[Task]) -> list[Task]:
        """Its share of the tasks, in the order in which to try them."""


@dataclass(frozen=True)
class Serial:
    """All of them, one after the other; what others hold is waited for."""

    def mine(self, tasks: Sequence[Task]) -> list[Task]:
        """All tasks."""
        return list(tasks)


@dataclass(frozen=True)
class Share:
    """Every n-th task from `index` on (of 0 to n - 1), as a cluster's array job asks."""

    index: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            raise RequestError(f"share {self.index}/{self.of}: the first is 0 to {self.of - 1}")

    @classmethod
    def parse(cls, text: str) -> "Share":
        """The share that `i/n` says. Raises RequestError for other texts."""
        index, slash, count = text.partition("/")
        if not slash or not index.isdecimal() or not count.isdecimal() or count == "0":
            raise RequestError(f"{text!r} is no share: write i/n, as in 0/4 to 3/4")
        return cls(int(index), int(count))

    def mine(self, tasks: Sequence[Task]) -> list[Task]:
        """Common tasks, and the share of the others."""
        own = [task for task in tasks if not task.common]
        shared = [task for task in tasks if task.common]
        return shared + own[self.index :: self.of]


def work(tasks: Sequence[Task], then: Callable[[], None] | None = None) -> None:
    """Do tasks until all are done, by this process or another.

    `then` is called now and then, and at the end.
    """
    total = sum(task.weight for task in tasks)
    pending = [task for task in tasks if not task.done()]
    looked = 0.0
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
            time.sleep(PATIENCE)


def _step(pending: list[Task]) -> bool:
    """Do the first task that is ready and free, and strike it off; False where there is none."""
    for task in list(pending):
        if task.done():
            pending.remove(task)
            continue
        if not task.ready():
            continue
        with leased(task.lease) as got:
            if not got:
                continue
            if not task.done():
                task.run()
        pending.remove(task)
        return True
    return False
