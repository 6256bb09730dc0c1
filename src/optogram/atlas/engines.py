"""Where work is done: here, in several processes, as one job of many, or on a Ray cluster.

Workers do not talk to each other, nor to whoever started them. Each is given the same work, on a
folder that all of them see, and takes what nobody else has taken (`optogram.pictures.leases`). So
an engine holds nothing that matters: a worker, a node or the program that started them may die at
any moment, and the same command, with this engine or another, goes on from what was published.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, runtime_checkable

from optogram.pictures.errors import RequestError

ENGINES = ("serial", "processes", "ray")
POLL = 0.2
"""Seconds between two looks at the workers."""

LIVES = 3
"""Workers that may be lost one after the other while nothing gets done."""


@dataclass(frozen=True)
class Work:
    """What every worker does: `function`, as "module:name", with plain arguments.

    Workers are also told `device`, `threads` and `share`: which of how many they are.
    """

    function: str
    arguments: Mapping[str, Any]

    def do(self, **more: Any) -> Any:
        """Do it here."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(**self.arguments, **more)

    def text(self, **more: Any) -> str:
        """As JSON, for another process."""
        return json.dumps({"function": self.function, "arguments": {**self.arguments, **more}})


Progress = Callable[[], int]


@runtime_checkable
class Executor(Protocol):
    """Whatever can have work done until nothing is left of it."""

    def run(self, work: Work, done: Progress) -> None:
        """Have the work done; `done` counts finished shards and is asked now and then."""


@dataclass(frozen=True)
class Serial:
    """Here, in this process."""

    def run(self, work: Work, done: Progress) -> None:
        """Do it."""
        work.do()
        done()


@dataclass(frozen=True)
class Processes:
    """In processes of this machine, one a device: `threads` bounds each of them on the CPU.

    A worker that dies is replaced while shards get finished. Workers end with the program that
    started them.
    """

    workers: int
    devices: tuple[str, ...] = ("cpu",)
    threads: int | None = None

    def run(self, work: Work, done: Progress) -> None:
        """Start the workers and wait for them.

        Raises:
            RequestError: what a worker refused, in its words.
            RuntimeError: workers died three times while no shard was finished.
        """
        if self.workers < 1:
            raise RequestError(f"workers={self.workers}: at least 1")
        running = {turn: self._started(work, turn) for turn in range(self.workers)}
        patience = Patience(done)
        try:
            while running:
                time.sleep(POLL)
                done()
                for turn, worker in list(running.items()):
                    ended = worker.process.poll()
                    if ended is None:
                        continue
                    words = running.pop(turn).ended()
                    if ended == 2:
                        raise RequestError(words)
                    if ended != 0:
                        patience.lost(f"a worker ended with {ended}: {words}")
                        running[turn] = self._started(work, turn)
        finally:
            for worker in running.values():
                worker.process.kill()
            for worker in running.values():
                worker.ended()
        done()

    def _started(self, work: Work, turn: int) -> "_Worker":
        threads = self.threads or max(1, _cores() // self.workers)
        # What mathematics libraries read when they are loaded.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        said = tempfile.TemporaryFile()  # noqa: SIM115 - the process keeps it
        process = subprocess.Popen(
            [sys.executable, "-m", "optogram.atlas.worker"],
            stdin=subprocess.PIPE,
            stderr=said,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the program, which then ends its workers
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(self._told(work, turn, threads).encode() + b"\n")
            process.stdin.flush()  # and stays open: it closes when this program ends, however
        return _Worker(process, said)

    def _told(self, work: Work, turn: int, threads: int) -> str:
        device = self.devices[turn % len(self.devices)]
        return work.text(device=device, threads=threads, share=(turn, self.workers))


@dataclass(frozen=True, eq=False)
class _Worker:
    """A process, and the file that takes what it says."""

    process: "subprocess.Popen[bytes]"
    said: IO[bytes]

    def ended(self) -> str:
        """The last line that it said."""
        self.process.wait()
        assert self.process.stdin is not None
        with self.said, suppress(BrokenPipeError), self.process.stdin:
            self.said.seek(0)
            lines = self.said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@dataclass(frozen=True)
class Ray:
    """On a Ray cluster: workers spread over its nodes, one a GPU or `threads` CPUs.

    `address` is the cluster's; None starts one on this machine. Nodes need optogram and the folder.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = 1

    def run(self, work: Work, done: Progress) -> None:
        """Start the workers and wait; those lost with a process or a node are started elsewhere.

        Raises:
            RequestError: Ray is not installed or cannot be reached, or what a worker refused.
            RuntimeError: workers were lost three times while no shard was finished.
        """
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        try:
            self._work(ray, work, done)
        finally:
            if ours:
                ray.shutdown()

    def _work(self, ray: Any, work: Work, done: Progress) -> None:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        count = self.workers or gpus or max(1, int(there.get("CPU", 1)) // self.threads)
        needs = {"num_gpus": 1} if gpus else {"num_cpus": self.threads}
        task = ray.remote(max_retries=0, scheduling_strategy="SPREAD", **needs)(_on_a_node)
        device = "cuda" if gpus else "cpu"

        def start(turn: int) -> Any:
            told = work.text(device=device, threads=self.threads, share=(turn, count))
            return task.remote(told)

        turns = {start(turn): turn for turn in range(count)}
        running = list(turns)
        patience = Patience(done)
        while running:
            ready, running = ray.wait(running, timeout=POLL)
            done()
            for one in ready:
                try:
                    refused = ray.get(one)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError as problem:
                    patience.lost(f"a worker was lost: {type(problem).__name__}")
                    turns[again := start(turns[one])] = turns[one]
                    running.append(again)
                    continue
                if refused is not None:
                    for other in running:
                        ray.cancel(other, force=True)
                    raise RequestError(refused)
        done()


@dataclass
class Patience:
    """Workers may be lost as long as shards get finished in between."""

    done: Progress
    deaths: int = 0
    before: int = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.done()

    def lost(self, how: str) -> None:
        """Take note of a loss. Raises RuntimeError where it is one too many."""
        now = self.done()
        self.deaths = 1 if now > self.before else self.deaths + 1
        self.before = now
        if self.deaths >= LIVES:
            raise RuntimeError(f"{how}; {LIVES} in a row, and no shard was finished in between")


def engine(
    name: str,
    *,
    workers: int | None = None,
    threads: int | None = None,
    devices: tuple[str, ...] = (),
    address: str | None = None,
) -> Executor:
    """An engine by name: "serial" (or "local"), "processes" or "ray".

    Args:
        name: which.
        workers: how many; by default one a device, on the CPU one a core.
        threads: of each worker on the CPU.
        devices: for "processes"; by default every GPU of this machine, else the CPU.
        address: of a Ray cluster; None starts one here.

    Raises RequestError for an engine that is not there.
    """
    if name in ("serial", "local"):
        return Serial()
    if name == "processes":
        chosen = devices or _devices()
        each = len(chosen) if chosen != ("cpu",) else _cores()
        return Processes(workers or each, chosen, threads)
    if name == "ray":
        _ray()
        return Ray(address, workers, threads or 1)
    raise RequestError(f"no engine called {name!r}; there is {', '.join(ENGINES)}")


def from_a_pipe() -> int:
    """What a worker process does: read its work, do it, and say with its exit code how it ended.

    When the pipe closes, the program that started it is gone, and so does it.
    """
    told = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_pipe, daemon=True).start()
    try:
        Work(told["function"], told["arguments"]).do()
    except RequestError as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


def _end_with_the_pipe() -> None:
    while os.read(0, 1):  # not by `sys.stdin`, whose lock a thread must not hold at the end
        pass
    os.kill(os.getpid(), signal.SIGKILL)  # half-done work leaves nothing behind but a free lease


def _on_a_node(text: str) -> str | None:
    """What a Ray worker does; a refusal comes back as its sentence."""
    told = json.loads(text)
    try:
        Work(told["function"], told["arguments"]).do()
    except RequestError as refusal:
        return str(refusal)
    return None


def _ray() -> Any:
    # Nobody is told who uses it, and what it prints is not about the work.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
    except ImportError as missing:
        raise RequestError(
            "the engine 'ray' needs Ray, which is not installed: pip install 'optogram[ray]'"
        ) from missing
    return ray


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as problem:
        where = address or "this machine"
        raise RequestError(
            f"no Ray cluster answers at {where}: {str(problem).splitlines()[0]}"
        ) from problem


def _devices() -> tuple[str, ...]:
    import torch

    return tuple(f"cuda:{n}" for n in range(torch.cuda.device_count())) or ("cpu",)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
