"""The documentation builds without a warning, and its pages load nothing from outside."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from optogram.core import techniques

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = sorted((DOCS.parent / "examples").glob("*.py"))
PAGES = sorted((DOCS / "methods").glob("*.md"))
LOADED = {
    "audio": "src", "embed": "src", "iframe": "src", "image": "href", "img": "src",
    "link": "href", "script": "src", "source": "src", "use": "href", "video": "src",
}  # fmt: skip


class Loads(HTMLParser):
    """Collects the addresses that a browser fetches by itself to show a page."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        address = dict(attributes).get(LOADED.get(tag, ""))
        if address:
            self.addresses.append(address)


def fetched(page: str) -> list[str]:
    parser = Loads()
    parser.feed(page)
    return parser.addresses + re.findall(r"url\(['\"]?([^'\")]+)", page)


def is_outside(address: str) -> bool:
    return bool(re.match(r"(?:[a-z]+:)?//", address))


@pytest.mark.slow
def test_the_pages_build_without_a_warning_and_load_nothing_from_outside(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    folders = ["-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")]
    built = subprocess.run(
        command + folders, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert built.returncode == 0, built.stderr
    pages = [*(tmp_path / "html").rglob("*.html"), *(tmp_path / "html").rglob("*.css")]
    assert {"index.html", "all-of-optogram.html", "slips.html"} <= {page.name for page in pages}
    for example in EXAMPLES:
        page = (tmp_path / "html" / "examples" / f"{example.stem}.html").read_text(encoding="utf-8")
        assert f"{example.stem}.ipynb" in page, "an example that the pages do not run"
    outside = [
        (page.name, address)
        for page in pages
        for address in fetched(page.read_text(encoding="utf-8"))
        if is_outside(address)
    ]
    assert outside == []


@pytest.mark.parametrize(
    "page",
    [
        '<script async src="https://example.com/a.js"></script>',
        '<link rel="stylesheet" href="//example.com/a.css">',
        "@font-face { src: url('http://example.com/a.woff2') }",
    ],
)
def test_a_page_that_loads_from_outside_is_noticed(page):
    assert [address for address in fetched(page) if is_outside(address)]


def test_a_link_to_follow_loads_nothing():
    assert fetched('<a href="https://example.com/">there</a>') == []


def test_every_technique_has_a_page_that_names_it_in_its_title():
    titles = [page.read_text(encoding="utf-8").splitlines()[0] for page in PAGES]
    told = {word for title in titles for word in re.findall(r"[a-z_]+", title)}
    assert [name for name in techniques() if name not in told] == []


def test_every_slip_is_told_once_and_in_order():
    told = re.findall(r"^\| E(\d+) \|", (DOCS / "slips.md").read_text(encoding="utf-8"), re.M)
    assert [int(number) for number in told] == list(range(1, 54))
