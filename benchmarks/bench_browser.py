"""The explorer in a real browser: 4,096 tiles, and an atlas of a million units.

Chromium opens a layer of 4,096 tiles: seconds until all that can be seen is there, for the first
visitor (whose sprite sheets are made as they are asked for) and for the next, then seconds after a
fast scroll (36,000 pixels in about 4 seconds) until all is there again, and how many requests that
took. A first view ends when every tile in the window is painted. The server is a program of its
own, as `optogram serve` has just started it; the browser runs already and has cached nothing. Its
processes are given this program's priority, or beside other work they would wait behind it, which
says nothing about a page. OPTOGRAM_BENCH=million
measures pages of an atlas of a million made-up units instead: the server's time, asked 50 times,
and the browser's until the page is loaded; its pages are kept as pictures in build/browser.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import benchmarks.bench_atlas as million

TILES, SCROLL, STEPS, CALLS, VISITS = 4096, 36_000, 40, 50, 5
FIRST = "first view, seconds"
PROGRAM = [sys.executable, "-c", "from optogram.cli import main; main()", "serve"]
CALM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
Row = dict[str, object]


def run() -> list[Row]:
    if shutil.which("chromium") is None:
        return [{"what": "no chromium here"}]
    with tempfile.TemporaryDirectory(prefix="optogram-bench-") as place:
        if "million" in os.environ.get("OPTOGRAM_BENCH", ""):
            million.write(Path(place))
            return pages(Path(place))
        from tests.atlas.synthetic import write_atlas

        layers = {"conv1": TILES, "fc": 20}
        write_atlas(Path(place), layers=layers, patches=False)
        return tiles(Path(place))


def tiles(folder: Path) -> list[Row]:
    first: list[Row] = []
    later: list[Row] = []
    with browsing() as browser:
        with served(folder) as address:  # so that the browser has started too
            visited(browser, address)
        for _ in range(VISITS):
            shutil.rmtree(folder / "sheets", ignore_errors=True)
            with served(folder) as address:
                first.append(visited(browser, address))
                later.append(visited(browser, address))
    return [
        {"what": f"{TILES} tiles, {who}"}
        | {name: median(float(str(visit[name])) for visit in visits) for name in visits[0]}
        | {"slowest first view": max(float(str(visit[FIRST])) for visit in visits)}
        for who, visits in (("first visitor", first), ("next visitor", later))
    ]


def visited(browser: Any, address: str) -> Row:
    from tests.web.looking import PAINTED, SEEN

    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    begun = time.perf_counter()
    page.goto(f"{address}layer/conv1", wait_until="commit")
    page.wait_for_function(SEEN)
    page.evaluate(PAINTED)
    first, at_first = time.perf_counter() - begun, len(asked)
    for _ in range(STEPS):
        page.mouse.wheel(0, SCROLL // STEPS)
        page.wait_for_timeout(100)
    begun = time.perf_counter()
    page.wait_for_function(SEEN)
    page.evaluate(PAINTED)
    rest = time.perf_counter() - begun
    assert page.locator(".tile").count() == TILES, "a fast scroll ended before the page was whole"
    page.close()
    found = {FIRST: first, "requests at first view": at_first}
    return {**found, "after a fast scroll, seconds": rest, "requests in all": len(asked)}


def pages(folder: Path) -> list[Row]:
    shots = Path("build/browser")
    shots.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    some = f"unit/layer{chance.randrange(million.LAYERS)}:{chance.randrange(million.UNITS)}"
    places = {
        "network": "",
        "unit": some,
        "top of a layer": "layer/layer3?sort=selectivity",
        "search": "search?q=layer3:777",
    }
    rows: list[Row] = []
    with served(folder) as address, browsing() as browser:
        for name, path in places.items():
            times = []
            for _ in range(CALLS):
                if name == "unit":
                    path = f"unit/layer{chance.randrange(10)}:{chance.randrange(million.UNITS)}"
                begun = time.perf_counter()
                with urllib.request.urlopen(address + path, timeout=60) as answer:
                    size = len(answer.read())
                times.append(time.perf_counter() - begun)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            begun = time.perf_counter()
            page.goto(address + path)
            loaded = time.perf_counter() - begun
            page.screenshot(path=shots / f"{name.replace(' ', '-')}.png")
            page.close()
            rows.append(
                {
                    "what": f"{name}, of a million units",
                    "server, seconds": median(times),
                    "worst": max(times),
                    "kB": size / 1000,
                    "browser, seconds": loaded,
                }
            )
    return rows


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an explorer of a folder, a program of its own that ends with the block."""
    command = [*PROGRAM, str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            yield json.loads(running.stdout.readline())["address"]
        finally:
            running.kill()


@contextmanager
def browsing() -> Iterator[Any]:
    """Chromium, all of it with this program's priority."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=found, args=CALM)
        over = threading.Event()
        raising = threading.Thread(target=_raised, args=(_groups(os.getpid()), over), daemon=True)
        raising.start()
        yield browser
        over.set()
        raising.join()
        browser.close()


def _raised(groups: set[int], over: threading.Event) -> None:
    """Again and again, for a page's own process comes with it, and Chromium puts it at nice 5.

    Elsewhere than on Linux, or without the right to, Chromium's choice stands.
    """
    while not over.wait(0.01):
        for group in groups:
            with suppress(OSError):
                os.setpriority(os.PRIO_PGRP, group, os.getpriority(os.PRIO_PROCESS, 0))


def _groups(program: int) -> set[int]:
    """The groups of the processes below a program that are not its own; Linux says in /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            told = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            parents[int(path.parent.name)] = (int(told[1]), int(told[2]))
    found, below = set(), {program}
    while below:
        below = {one for one, (parent, _) in parents.items() if parent in below}
        found |= {parents[one][1] for one in below}
    return found - {os.getpgid(program)}
