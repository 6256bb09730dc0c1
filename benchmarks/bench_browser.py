"""The explorer in a real browser: 4,096 tiles, and an atlas of a million units.

Chromium opens a layer of 4,096 tiles: seconds until all that can be seen is there, for the first
visitor (whose sprite sheets are made as they are asked for) and for the next, then seconds after a
fast scroll (36,000 pixels in about 4 seconds) until all is there again, and how many requests that
took. The server is a program of its own, as `optogram serve` starts it. OPTOGRAM_BENCH=million
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
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import benchmarks.bench_atlas as million

TILES, SCROLL, STEPS, CALLS = 4096, 36_000, 40, 50
PROGRAM = [sys.executable, "-c", "from optogram.cli import main; main()", "serve"]
CALM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SEEN = """() => {
  const cells = [...document.querySelectorAll('.tile i')].filter((cell) => {
    const box = cell.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  });
  const loaded = new Set(performance.getEntriesByType('resource')
    .filter((entry) => entry.responseEnd > 0).map((entry) => entry.name));
  const sheet = (cell) => getComputedStyle(cell).backgroundImage.slice(5, -2);
  return cells.length > 0 && cells.every((cell) => loaded.has(sheet(cell)));
}"""
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
    rows: list[Row] = []
    with served(folder) as address, browsing() as browser:
        for who in ("first visitor", "next visitor"):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            begun = time.perf_counter()
            page.goto(f"{address}layer/conv1", wait_until="commit")
            page.wait_for_function(SEEN)
            first = time.perf_counter() - begun
            at_first = len(asked)
            for _ in range(STEPS):
                page.mouse.wheel(0, SCROLL // STEPS)
                page.wait_for_timeout(100)
            begun = time.perf_counter()
            page.wait_for_function(SEEN)
            rows.append(
                {
                    "what": f"{TILES} tiles, {who}",
                    "first view, seconds": first,
                    "requests at first view": at_first,
                    "after a fast scroll, seconds": time.perf_counter() - begun,
                    "requests in all": len(asked),
                }
            )
            page.close()
    return rows


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
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=found, args=CALM)
        yield browser
        browser.close()
