"""An atlas of a real network, once in peace and once with `kill -9` at random moments.

    .venv/bin/python -m benchmarks.kills FOLDER googlenet-bvlc PHOTOS --weights FILE [--kills 10] \
        [--layers '*.conv'] [--project none] [--pictures conv2.conv:0-3 ...] [--steps 64]

It builds statistics and patches of the layers, then pictures of the `--pictures` units, into
FOLDER/whole; it does the same in FOLDER/killed with programs that are killed at moments drawn from
5 to 25 % of the time that the first took, and a last one that may finish. Both are verified, and
their manifests compared; the exit code is 1 unless they are the same and whole. The log is one line
an event.
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from optogram.atlas import Verified, verify
from optogram.atlas.store import markers

PROGRAM = [sys.executable, "-c", "from optogram.cli import main; main()"]


def main() -> int:
    asked = _arguments()
    begun = time.monotonic()
    run_all(asked, asked.folder / "whole", None)
    took = time.monotonic() - begun
    say(f"in peace: {took:.0f} s")
    chance, left = random.Random(asked.seed), asked.kills
    moments = [took * chance.uniform(0.05, 0.25) for _ in range(asked.kills)]
    for moment in moments:
        if run_all(asked, asked.folder / "killed", moment):
            break
        left -= 1
        done = sum(1 for _ in markers(asked.folder / "killed"))
        say(f"killed after {moment:.0f} s, {done} shards are there")
    run_all(asked, asked.folder / "killed", None)
    whole, killed = verify(asked.folder / "whole"), verify(asked.folder / "killed")
    for name, found in (("whole", whole), ("killed", killed)):
        say(f"{name}: {told(found)}")
    say(f"{asked.kills - left} kills; the manifests are {agree(whole, killed)}")
    return 0 if whole.clean and killed.clean and whole.manifest == killed.manifest else 1


def run_all(asked: argparse.Namespace, folder: Path, seconds: float | None) -> bool:
    """Build it, in two commands; False where time was up and what ran was killed."""
    end = None if seconds is None else time.monotonic() + seconds
    for command in commands(asked, folder):
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            code = program.wait(None if end is None else max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGKILL)
            program.wait()
            return False
        if code:
            raise SystemExit(f"the build ended with {code}")
    return True


def commands(asked: argparse.Namespace, folder: Path) -> list[list[str]]:
    """Everything's statistics and patches, and then some units' pictures."""
    build = [*PROGRAM, "atlas", "build", asked.network, asked.data, "-o", str(folder)]
    build += ["--project", asked.project, "--k", str(asked.k)]
    build += ["--weights", asked.weights] if asked.weights else []
    for layer in asked.layers:
        build += ["--layers", layer]
    found = [[*build, "--pictures", "none"]]
    if asked.pictures:
        recipe = asked.folder / "recipe.json"
        recipe.write_text(
            '{"name": "positive", "technique": "maximize", "sign": 1, '
            f'"arguments": {{"steps": {asked.steps}}}}}'
        )
        few = [*build, "--pictures", "none", "--recipe", str(recipe)]
        for units in asked.pictures:
            few += ["--units", units]
        found.append(few)
    return found


def told(found: Verified) -> str:
    state = "clean" if found.clean and not found.litter else "not clean"
    return f"{found.shards} shards, {state}, manifest {found.manifest}"


def agree(one: Verified, other: Verified) -> str:
    return "the same" if one.manifest == other.manifest else "different"


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("network")
    parser.add_argument("data")
    parser.add_argument("--weights")
    parser.add_argument("--layers", action="append", default=[])
    parser.add_argument("--project", default="none")
    parser.add_argument("--pictures", action="append", default=[], metavar="UNITS")
    parser.add_argument("--k", type=int, default=9)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    found = parser.parse_args()
    found.folder.mkdir(parents=True, exist_ok=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
