"""Leases: a small file says that somebody works on something, so that nobody else begins it.

A lease is made by creating a file that must not exist yet, which works on every file system that
several machines share, and kept alive by touching it. It is free again when its owner let go of it,
is known to have died, or has been silent for two minutes. A race costs work done twice and no more:
what is worked on is published under one name with one content.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

STALE, BEAT = 120.0, 10.0
"""Seconds after which a silent lease is free, and between two signs of life."""


@contextmanager
def leased(path: Path) -> Iterator[bool]:
    """Whether this process alone holds what a lease stands for, for the length of a `with`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _claim(path):
        yield False
        return
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, done), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        done.set()
        beat.join()
        path.unlink(missing_ok=True)


def _claim(path: Path) -> bool:
    me = json.dumps({"pid": os.getpid(), "host": host(), "born": _born(os.getpid())})
    for _ in range(2):
        with suppress(FileExistsError):
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            with os.fdopen(handle, "w") as file:
                file.write(me)
            return True
        if not is_free(path):
            return False
        # Of several that see the same stale lease one moves it away; the others find it gone.
        away = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        with suppress(FileNotFoundError):
            os.replace(path, away)
            away.unlink(missing_ok=True)
    return False


def is_free(path: Path) -> bool:
    """Whether the owner of a lease is known to be dead, or has been silent for long."""
    try:
        silent = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return silent > BEAT  # somebody was killed between making and writing it
    if owner["host"] == host():
        return not alive(owner["pid"], owner["born"])
    return silent > STALE


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with suppress(OSError):
            os.utime(path)


def alive(pid: int | str, born: str | None = None) -> bool:
    """Whether a process of this machine runs; `born` tells it from a later one of its number."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return born is None or born == _born(int(pid))


def _born(pid: int) -> str:
    """When a process began, so that a number that is used again is not taken for it."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


@lru_cache(1)
def host() -> str:
    """This machine since it was last started."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}"
    return socket.gethostname()
