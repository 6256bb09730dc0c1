"""Work for the tests of engines: numbered files in a folder, each made by one worker."""

import os
import signal
import time
from pathlib import Path

from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically
from optogram.pictures.leases import leased


def chore(
    folder, count, device="", threads=0, share=(), pause=0.0, kill=False, refuse="", always=False
):
    """Make the files that nobody has made; `kill` lets the first who comes die in the middle."""
    if refuse:
        raise RequestError(refuse)
    place = Path(folder)
    waiting = list(range(count))
    while waiting:
        for number in waiting:
            made = place / f"{number}.txt"
            with leased(place / f"{number}.lease") as mine:
                if not mine or made.exists():
                    continue
                (place / f"{number}.begun-{os.getpid()}").touch()
                if always or (kill and number == 2 and first_to_die(place)):
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(pause)
                write_atomically(made, f"{device} {threads} {number}".encode())
        waiting = [n for n in waiting if not (place / f"{n}.txt").exists()]
        time.sleep(0.01)


def first_to_die(place):
    try:
        (place / "died").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
