"""A build that is killed again and again, by the tenth of a second or by the file it just wrote.

    python -m tests.atlas.kills FOLDER SEED KILLS [WORKERS]

Run as a program: it forks a build that kills itself with SIGKILL in the middle of writing, so many
times, and at last one that may finish; it prints how many were killed. With WORKERS so many builds
share the folder; one of them is killed at a random moment and another takes its place, so many
times.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import optogram as og
from tests.survey.small import images, network

ASKED = {"layers": ["conv1", "conv2", "fc1"], "pictures": []}
RECIPES = [{"name": "quick", "arguments": {"steps": 4}}]


def build(folder: Path) -> str:
    made = og.atlas.build(network(), images(30), folder, recipes=RECIPES, **ASKED)
    return made.manifest


def killed(folder: Path, after: int) -> bool:
    """Build in a child that is killed at its n-th flush to the disk; whether it came to that."""
    child = os.fork()
    if child == 0:
        count, flush = [0], os.fsync

        def fatal(handle: int) -> None:
            count[0] += 1
            if count[0] == after:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(handle)

        os.fsync = fatal
        build(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a build failed")
    return os.WIFSIGNALED(status)


def together(folder: Path, chance: random.Random, kills: int, workers: int) -> int:
    """Build in so many children at once, some killed; how many were at work when it hit them."""
    running = [_slow_build(folder) for _ in range(workers)]
    deaths = 0
    for _ in range(kills):
        time.sleep(chance.uniform(0.02, 0.2))
        victim = running.pop(chance.randrange(workers))
        os.kill(victim, signal.SIGKILL)
        deaths += os.WIFSIGNALED(os.waitpid(victim, 0)[1])
        running.append(_slow_build(folder))
    for child in running:
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("a build failed")
    return deaths


def _slow_build(folder: Path) -> int:
    """A child whose every flush to the disk takes a moment, so that it can be hit in the middle."""
    child = os.fork()
    if child == 0:
        flush = os.fsync

        def slowly(handle: int) -> None:
            time.sleep(0.05)
            flush(handle)

        os.fsync = slowly
        build(folder)
        os._exit(0)
    return child


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    if len(sys.argv) > 4:
        deaths = together(place, chance, int(sys.argv[3]), int(sys.argv[4]))
        print(deaths, build(place))
        sys.exit()
    deaths = sum(killed(place, chance.randint(1, 14)) for _ in range(int(sys.argv[3])))
    print(deaths, build(place))
