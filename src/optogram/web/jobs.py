"""Work that takes a while: one thing at a time, a bounded queue, told as it goes, and cancelled.

Torch works in one thread here, so that visitors who only look are answered meanwhile. What a job
says is kept as numbered events: whoever comes late, or comes back, is told what is still of use.
"""

import contextlib
import itertools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from optogram.pictures.errors import RequestError

PAUSE = 0.2
STATES = ("waiting", "running", "done", "failed", "cancelled")
ENDED = STATES[2:]


class Cancelled(Exception):
    """Somebody did not want to wait for the end."""


class Full(RequestError):
    """The queue takes no more."""


@dataclass
class Job:
    """One piece of work and what is known of it.

    `number` names it in addresses; `version` counts what changed. `preview` is the growing picture
    as WebP; `result` what the work returned, JSON values; `media` its pictures by name, WebP.
    """

    number: int
    title: str
    about: dict[str, Any]
    work: Callable[["Job"], dict[str, Any]] = field(repr=False)
    state: str = "waiting"
    what: str = ""
    done: int = 0
    total: int = 0
    version: int = 0
    preview: bytes | None = field(default=None, repr=False)
    pictures: int = 0
    result: dict[str, Any] | None = None
    media: dict[str, bytes] = field(default_factory=dict, repr=False)
    error: str | None = None
    asked: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    _told: float = field(default=0.0, repr=False)
    _shown: float = field(default=0.0, repr=False)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    def facts(self) -> dict[str, Any]:
        """All that a page shows, as JSON values."""
        names = ("number", "title", "about", "state", "what", "done", "total", "version", "error")
        facts = {name: getattr(self, name) for name in names}
        end = self.ended or time.time()
        seconds = None if self.started is None else round(end - self.started, 1)
        return facts | {
            "pictures": self.pictures,
            "result": self.result,
            "media": sorted(self.media),
            "seconds": seconds,
            "left": self._left(seconds),
        }

    def tell(self, what: str, done: int, total: int) -> None:
        """Be told how far the work is; raises Cancelled where nobody wants it any more."""
        self._check()
        self._note(what, done, total, hurry=done == total)

    def show(self, images: Any) -> None:
        """Be shown the picture so far, a few times a second; raises Cancelled as `tell` does."""
        self._check()
        if self.preview and time.monotonic() - self._shown < PAUSE:
            return
        from optogram.pictures.drawing import as_pil
        from optogram.pictures.saving import webp_bytes

        self.preview = webp_bytes(as_pil(images[0].float().cpu()))
        self.pictures, self._shown = self.pictures + 1, time.monotonic()
        self.version += 1

    def _check(self) -> None:
        if self.stopping.is_set():
            raise Cancelled

    def _note(self, what: str, done: int, total: int, *, hurry: bool) -> None:
        now = time.monotonic()
        if not hurry and what == self.what and now - self._told < PAUSE:
            return
        self.what, self.done, self.total, self._told = what, done, total, now
        self.version += 1

    def _left(self, seconds: float | None) -> float | None:
        """Seconds that are still needed, if all goes on as it went."""
        if self.state != "running" or not seconds or not self.done or not self.total:
            return None
        return round(seconds * max(0, self.total - self.done) / self.done, 1)


class Jobs:
    """A queue of at most `most` waiting jobs, worked on by one thread; the last 100 are kept."""

    kept = 100

    def __init__(self, most: int) -> None:
        self.most = most
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._closed = False

    def __iter__(self) -> Iterator[Job]:
        """All that are remembered, the newest first."""
        with self._changed:
            return iter(list(reversed(self._jobs.values())))

    def __getitem__(self, number: int) -> Job:
        """The job of that number. Raises RequestError for one that is not remembered."""
        with self._changed:
            if number not in self._jobs:
                raise RequestError(f"there is no job {number}: it ended long ago, or never was")
            return self._jobs[number]

    def start(
        self, title: str, about: dict[str, Any], work: Callable[[Job], dict[str, Any]]
    ) -> Job:
        """Put work at the end of the queue. Raises Full where too much waits already."""
        with self._changed:
            if len(self._waiting) >= self.most or self._closed:
                raise Full(f"{len(self._waiting)} jobs are waiting: try again when one has ended")
            job = Job(next(self._numbers), title, about, work)
            self._jobs[job.number] = job
            self._waiting.append(job)
            self._forget()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return job

    def cancel(self, number: int) -> Job:
        """End a job: at once if it waits, else at its next step."""
        job = self[number]
        with self._changed:
            job.stopping.set()
            if job.state == "waiting":
                self._waiting.remove(job)
                self._end(job, "cancelled")
        return job

    def close(self, seconds: float = 5) -> None:
        """Cancel everything and wait for the work to end, but not longer than so many seconds."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.stopping.set()
            while self._waiting:
                self._end(self._waiting.popleft(), "cancelled")
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        from optogram.core import film, progress  # with torch, which no page waits for

        while (job := self._next()) is not None:
            job.state, job.started = "running", time.time()
            job.version += 1
            try:
                with progress.listening(job.tell), film.filming(job.show):
                    job.result = job.work(job)
                self._end(job, "done")
            except Cancelled:
                self._end(job, "cancelled")
            except RequestError as problem:
                self._end(job, "failed", str(problem))
            except MemoryError:
                self._end(job, "failed", "there is not enough memory for that")
            except Exception as problem:  # a technique's fault must not stop the queue
                self._end(job, "failed", f"{type(problem).__name__}: {problem}")

    def _next(self) -> Job | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return None if self._closed else self._waiting.popleft()

    def _end(self, job: Job, state: str, error: str | None = None) -> None:
        job.error, job.ended, job.state = error, time.time(), state
        job.version += 1
        with contextlib.suppress(AttributeError):
            del job.work  # what it holds, such as an upload, can go

    def _forget(self) -> None:
        for number in [n for n, job in self._jobs.items() if job.over]:
            if len(self._jobs) <= self.kept:
                return
            del self._jobs[number]
