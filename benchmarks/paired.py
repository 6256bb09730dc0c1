"""Two ways of doing the same, timed in turn, and how many times cheaper the second is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

PAUSE = 0.05
"""Seconds before each call, in which the other way's idle threads stop waiting for work by turning
in circles: next to them a call on all cores takes half as long again."""


@dataclass(frozen=True)
class Time:
    """What one call took, in seconds: on the clock, and on all cores of this process together."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Paired:
    """The calls of `a` and `b`, pair by pair; ratios are a / b: 2 says `b` is twice as fast."""

    a: tuple[Time, ...]
    b: tuple[Time, ...]

    @property
    def wall_ratios(self) -> list[float]:
        return [first.wall / second.wall for first, second in zip(self.a, self.b, strict=True)]

    @property
    def cpu_ratios(self) -> list[float]:
        return [first.cpu / second.cpu for first, second in zip(self.a, self.b, strict=True)]

    def row(self) -> dict[str, float]:
        """Median, lowest and highest ratio, by clock and by CPU time, and the median seconds."""
        return {
            "wall ratio": median(self.wall_ratios),
            "wall min": min(self.wall_ratios),
            "wall max": max(self.wall_ratios),
            "cpu ratio": median(self.cpu_ratios),
            "cpu min": min(self.cpu_ratios),
            "cpu max": max(self.cpu_ratios),
            "a seconds": median(time.wall for time in self.a),
            "b seconds": median(time.wall for time in self.b),
        }


def paired(
    a: Callable[[], object], b: Callable[[], object], repeats: int = 7, warm_up: int = 1
) -> Paired:
    """Time `a` and `b` in turn, `repeats` pairs, every second pair the other way round.

    Both are called `warm_up` times first. On a GPU the callables wait for it themselves
    (`torch.cuda.synchronize()`). Threads of this process count towards CPU time, child processes
    do not. ValueError for fewer than one pair.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: at least one pair is needed")
    for _ in range(warm_up):
        a()
        b()
    pairs = [timed_pair(a, b, turned=index % 2 == 1) for index in range(repeats)]
    return Paired(a=tuple(pair[0] for pair in pairs), b=tuple(pair[1] for pair in pairs))


def timed_pair(a: Callable[[], object], b: Callable[[], object], turned: bool) -> tuple[Time, Time]:
    if turned:
        second = timed(b)
        return timed(a), second
    return timed(a), timed(b)


def timed(call: Callable[[], object]) -> Time:
    time.sleep(PAUSE)
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    call()
    wall_spent, cpu_spent = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    # A call shorter than the CPU clock's step still took something.
    return Time(wall=max(wall_spent, 1) / 1e9, cpu=max(cpu_spent, 1) / 1e9)
