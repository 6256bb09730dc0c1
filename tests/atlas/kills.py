"""A build that is killed again and again, by the tenth of a second or by the file it just wrote.

    python -m tests.atlas.kills FOLDER SEED KILLS

Run as a program: it forks a build that kills itself with SIGKILL in the middle of writing, so many
times, and at last one that may finish; it prints how many were killed.
"""

import os
import random
import signal
import sys
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    deaths = sum(killed(place, chance.randint(1, 14)) for _ in range(int(sys.argv[3])))
    print(deaths, build(place))
