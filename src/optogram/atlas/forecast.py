"""What work on many workers will take, from the times of some shards: a simulation.

A fake clock runs in place of the machines.
The workers behave as `optogram.atlas.engines` has them: each takes the next shard that nobody has;
one that dies loses the shard it was at, which is free again when its lease has gone stale; another
is started in its place. Files are written one after the other, since all go to one folder.
"""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

from optogram.pictures.errors import RequestError
from optogram.pictures.leases import STALE


@dataclass(frozen=True)
class Conditions:
    """What may go wrong, and what workers have in common.

    Attributes:
        start: seconds until a worker that was started takes its first shard.
        spread: how unevenly shards take: the standard deviation of the logarithm of their seconds.
        stragglers: share of the workers that are slow, and how many times as long they take.
        deaths: workers lost an hour, of each.
        writing: seconds that publishing a shard keeps the shared folder busy.
    """

    start: float = 20.0
    spread: float = 0.1
    stragglers: tuple[float, float] = (0.0, 1.0)
    deaths: float = 0.0
    writing: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """How it went: seconds from the first start to the last shard, and what was lost.

    `efficiency` is the work there is, in seconds of one undisturbed worker, over what all workers
    together had time for.
    """

    workers: int
    seconds: float
    efficiency: float
    shards: int
    lost: int


def forecast(
    shards: Sequence[float], workers: int, conditions: Conditions = Conditions(), seed: int = 0
) -> Forecast:
    """Simulate so many workers on shards of so many seconds each.

    Raises RequestError for no worker and for negative times.
    """
    if workers < 1 or min([*shards, conditions.start, conditions.writing], default=0) < 0:
        raise RequestError("a forecast needs at least 1 worker and no negative times")
    chance = random.Random(seed)
    slow, factor = conditions.stragglers
    pace = [factor if chance.random() < slow else 1.0 for _ in range(workers)]
    # What can be taken, from when on; and what happens next to whom: a worker without a shard comes
    # to take one, a worker with one is through with it.
    waiting = [(0.0, number) for number in range(len(shards))]
    events: list[tuple[float, int, int | None]] = [
        (conditions.start, w, None) for w in range(workers)
    ]
    heapq.heapify(events)
    folder, end, lost = 0.0, 0.0, 0
    while events:
        now, worker, finished = heapq.heappop(events)
        if finished is not None:
            folder = end = max(folder, now) + conditions.writing
            heapq.heappush(events, (folder, worker, None))
            continue
        if not waiting:
            continue
        since, number = heapq.heappop(waiting)
        begin = max(now, since)
        seconds = shards[number] * pace[worker] * chance.lognormvariate(0, conditions.spread)
        died = chance.expovariate(conditions.deaths / 3600) if conditions.deaths else seconds
        if died < seconds:
            lost += 1
            heapq.heappush(waiting, (begin + died + STALE, number))
            heapq.heappush(events, (begin + died + conditions.start, worker, None))
        else:
            heapq.heappush(events, (begin + seconds, worker, number))
    work = sum(shards)
    return Forecast(workers, end, work / (workers * end) if end else 1.0, len(shards), lost)
