"""An atlas of a real network, once in peace and once with `kill -9` at random moments.

    .venv/bin/python -m benchmarks.kills FOLDER googlenet-bvlc PHOTOS --weights FILE [--kills 10] \
        [--layers '*.conv'] [--project none] [--pictures conv2.conv:0-3 ...] [--steps 64] \
        [--publish]

It builds statistics and patches of the layers, then pictures of the `--pictures` units, into
FOLDER/whole; it does the same in FOLDER/killed with programs that are killed at random moments, and
a last one that may finish. A moment is a share of the processor's time that the first took, so that
ten of them are spread over the build however busy the machine is (Linux: it reads /proc). Both are
verified, and their manifests compared; the exit code is 1 unless they are the same and whole. The
log is one line an event; the result is a row of build/bench.json and, with --publish, of
docs/measured.md.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.__main__ import publish, report
from optogram.atlas import Verified, verify
from optogram.atlas import open as opened
from optogram.atlas.store import markers

PROGRAM = [sys.executable, "-c", "from optogram.cli import main; main()"]


def main() -> int:
    asked = _arguments()
    begun = time.monotonic()
    run_all(asked, asked.folder / "whole", None)
    took = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    work = used.ru_utime + used.ru_stime
    say(f"in peace: {took:.0f} s, of the processor {work:.0f} s")
    chance, kills, seen = random.Random(asked.seed), 0, []
    for _ in range(asked.kills):
        moment = work * chance.uniform(0.2, 1.4) / asked.kills
        if run_all(asked, asked.folder / "killed", moment):
            break
        kills += 1
        seen.append(sum(1 for _ in markers(asked.folder / "killed")))
        parts = len(list((asked.folder / "killed").glob("scan/*/scan/*/part-*.json")))
        there = f"{seen[-1]} shards and {parts} parts of a survey are there"
        say(f"killed after {moment:.0f} s of the processor, {there}")
    run_all(asked, asked.folder / "killed", None)
    whole, killed = verify(asked.folder / "whole"), verify(asked.folder / "killed")
    for name, found in (("whole", whole), ("killed", killed)):
        say(f"{name}: {told(found)}")
    same = whole.manifest == killed.manifest
    say(f"{kills} kills; the manifests are {'the same' if same else 'different'}")
    layers = [layer for layer in opened(asked.folder / "whole").layers if not layer.directions]
    row = {
        "what": f"{asked.network}, {len(layers)} layers, k={asked.k}",
        "units": sum(layer.units for layer in layers),
        "images": opened(asked.folder / "whole").datasets[0].images,
        "pictures": sum(int(layer.counts.get("pictures") or 0) for layer in layers),
        "seconds": took,
        "cpu seconds": work,
        "kills": kills,
        "shards at each": " ".join(map(str, seen)),
        "shards": killed.shards,
        "verify": "clean" if clean(whole) and clean(killed) else "not clean",
        "manifest": f"{'the same' if same else 'different'}, {killed.manifest[:12]}",
    }
    report("kills", [row])
    if asked.publish:
        publish(["kills"])
    return 0 if clean(whole) and clean(killed) and same else 1


def run_all(asked: argparse.Namespace, folder: Path, seconds: float | None) -> bool:
    """Build it, in two commands; False where so much work was done and what ran was killed."""
    left = seconds
    for command in commands(asked, folder):
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        used = 0.0
        while program.poll() is None:
            time.sleep(0.02)
            used = max(used, worked(program.pid))
            if left is not None and used > left:
                program.send_signal(signal.SIGKILL)
                program.wait()
                return False
        left = None if left is None else left - used
        if program.returncode:
            raise SystemExit(f"the build ended with {program.returncode}")
    return True


def worked(program: int) -> float:
    """The processor's seconds that a program has used; 0 for one that has ended."""
    try:
        told = Path(f"/proc/{program}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


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


def clean(found: Verified) -> bool:
    return bool(found.clean) and not found.litter


def told(found: Verified) -> str:
    state = "clean" if clean(found) else "not clean"
    return f"{found.shards} shards, {state}, manifest {found.manifest}"


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
    parser.add_argument("--publish", action="store_true")
    found = parser.parse_args()
    found.folder.mkdir(parents=True, exist_ok=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
