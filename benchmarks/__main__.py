"""Run every `bench_*.py`, or those named, print tables and write build/bench.json after each.

    python -m benchmarks [--quick | --all] [--publish] [NAME ...]

--quick runs a part of them, in under five minutes; --all adds the networks and sizes that take
long. --publish also puts what was run into docs/measured.md, which the page of benchmarks shows.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
REPORT = HERE.parent / "build" / "bench.json"
PUBLISHED = HERE.parent / "docs" / "measured.md"
# What the benchmarks read from the environment; those that --quick does not name it leaves out.
QUICK = {
    "dream": {},
    "explain": {},
    "feature_visualisation": {},
    "maximize": {},
    "occlusion": {"OPTOGRAM_BENCH_NETWORKS": "squeezenet1_1"},
    "rbm": {},
    "survey": {"OPTOGRAM_BENCH": "mnist-mlp"},
}
NETWORKS = "vgg11 vgg16 squeezenet1_1 resnet18 googlenet alexnet mobilenet_v2 densenet121"
ALL = {
    "dream": {"OPTOGRAM_BENCH": "all"},
    "feature_visualisation": {"OPTOGRAM_BENCH": "all"},
    "fooling": {"OPTOGRAM_BENCH": "all"},
    "maximize": {"OPTOGRAM_BENCH": "all"},
    "occlusion": {"OPTOGRAM_BENCH_NETWORKS": NETWORKS},
}
PACKAGES = ["optogram", "torch", "torchvision", "numpy"]
Row = dict[str, object]


def main(words: list[str]) -> int:
    asked = _arguments(words)
    found = benchmarks()
    unknown = [name for name in asked.names if name not in found]
    if unknown:
        print(f"no benchmark called {unknown[0]!r}; there is {', '.join(found) or 'none yet'}")
        return 2
    size: dict[str, dict[str, str]] = QUICK if asked.quick else ALL if asked.all else {}
    console = Console(width=None if sys.stdout.isatty() else 200)
    names = asked.names or list(QUICK if asked.quick else found)
    for name in names:
        started = time.perf_counter()
        os.environ.update(size.get(name, {}))
        rows = importlib.import_module(f"benchmarks.bench_{name}").run()
        for variable in size.get(name, {}):
            del os.environ[variable]
        seconds = time.perf_counter() - started
        for drawn in tables(f"{name} ({seconds:.0f} s)", rows):
            console.print(drawn)
        report(name, rows)
    if asked.publish:
        publish(names)
    said = f"{len(names)} benchmarks; the numbers stand in {REPORT} and, as tables, beside it."
    console.print(said, soft_wrap=True)
    return 0


def report(name: str, rows: list[Row]) -> None:
    """Put a benchmark's rows in the place of those of its last run; the others' stay."""
    REPORT.parent.mkdir(exist_ok=True)
    results = json.loads(REPORT.read_text(encoding="utf-8")) if REPORT.exists() else {}
    results[name] = {"machine": machine(), "date": f"{date.today():%d %B %Y}", "rows": rows}
    results = dict(sorted(results.items()))
    REPORT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    REPORT.with_suffix(".md").write_text(markdown(results), encoding="utf-8")


def publish(names: list[str]) -> None:
    """Put these benchmarks' tables into docs/measured.md; what others measured there stays."""
    told = PUBLISHED.read_text(encoding="utf-8") if PUBLISHED.exists() else ""
    parts = {part.partition("\n")[0]: part.strip() for part in f"\n{told}".split("\n### ")[1:]}
    results = json.loads(REPORT.read_text(encoding="utf-8"))
    for name in names:
        parts[name] = markdown({name: results[name]}).removeprefix("### ").strip()
    text = "\n\n".join(f"### {parts[name]}" for name in sorted(parts) if parts[name])
    PUBLISHED.write_text(text + "\n", encoding="utf-8")


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a part, in under five minutes")
    size.add_argument("--all", action="store_true", help="also what takes long")
    parser.add_argument("--publish", action="store_true", help="write docs/measured.md too")
    return parser.parse_args(words)


def benchmarks() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def tables(title: str, rows: list[Row]) -> Iterator[Table]:
    for columns, same in groups(rows).items():
        drawn = Table(*columns, title=title)
        for row in same:
            drawn.add_row(*(shown(row[name]) for name in columns))
        yield drawn


def groups(rows: list[Row]) -> dict[tuple[str, ...], list[Row]]:
    """The rows with the same columns, together."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row), []).append(row)
    return found


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """Every benchmark's tables as Markdown, below where, when and on what it was measured."""
    parts = []
    for name, result in results.items():
        if not result["rows"]:
            continue  # a table for a device that is not here
        known = {key: value for key, value in result["machine"].items() if value is not None}
        facts = ", ".join(f"{key} {shown(value)}" for key, value in known.items())
        parts.append(f"### {name}\n\n{result['date']}: {facts}.")
        for columns, same in groups(result["rows"]).items():
            lines = [list(columns), ["---"] * len(columns)]
            lines += [[shown(row[column]) for column in columns] for row in same]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def machine() -> Row:
    """Where and on what the rows were measured."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "commit": commit(),
        **{name: installed(name) for name in PACKAGES},
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit, with `-dirty` after it when files were changed since; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    return run.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
