"""Run every `bench_*.py`, or those named, print a table of each and write build/bench.json."""

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

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
REPORT = HERE.parent / "build" / "bench.json"
TABLES = REPORT.with_suffix(".md")
PACKAGES = ["optogram", "torch", "torchvision", "numpy"]
Row = dict[str, object]


def main(names: list[str]) -> int:
    found = benchmarks()
    unknown = [name for name in names if name not in found]
    if unknown:
        print(f"no benchmark called {unknown[0]!r}; there is {', '.join(found) or 'none yet'}")
        return 2
    console = Console(width=None if sys.stdout.isatty() else 200)
    results = {}
    for name in names or found:
        started = time.perf_counter()
        results[name] = importlib.import_module(f"benchmarks.bench_{name}").run()
        seconds = time.perf_counter() - started
        for drawn in tables(f"{name} ({seconds:.0f} s)", results[name]):
            console.print(drawn)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n")
    TABLES.write_text(markdown(results))
    said = f"{len(results)} benchmarks; the numbers stand in {REPORT} and {TABLES.name} beside it."
    console.print(said, soft_wrap=True)
    return 0


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


def markdown(results: dict[str, list[Row]]) -> str:
    """Every table as Markdown, below where and on what it was measured."""
    facts = ", ".join(f"{name} {value}" for name, value in machine().items() if value is not None)
    parts = [f"Measured on {date.today():%d %B %Y}: {facts}."]
    for name, rows in results.items():
        parts.append(f"## {name}")
        for columns, same in groups(rows).items():
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
