"""The tour: one file with pictures of every kind, that asks nothing of the network outside."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from optogram.core.technique import techniques
from optogram.pictures import Overlay, Sheet
from optogram.pictures.report import Section
from optogram.studies import tour


class Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(values.get("src") or "")
        self.links += [v for k, v in attrs if k in ("href", "src") and v]


def test_the_tour_is_one_file_with_a_picture_for_every_unit_that_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: set[str] = set()
    add = Section.pictures

    def noting(section: Section, items: Any, title: str = "") -> Section:
        items = items if isinstance(items, Sheet) else list(items)
        shown.update(_made_by([items]))
        return add(section, items, title)

    monkeypatch.setattr(Section, "pictures", noting)
    report = tour(tmp_path / "tour")
    own = {n for n, t in techniques().items() if t.function.__module__.startswith("optogram.")}
    assert own <= shown, "techniques that the tour does not show"
    assert [p.name for p in report.parent.iterdir()] == ["index.html"]
    page = Sources()
    text = report.read_text()
    page.feed(text)
    assert len(page.images) >= 10 + 7 * 10 + 5 * 10 + 2 * 2 * 10 + 2 * 6 + 10 + 10 + 3 * 10 + 4
    assert all(link.startswith(("data:", "#")) for link in page.links)
    for word in ("output:9", "fc1:1125", "x data", "excited", "100%", "fooled", "AUC of fooling"):
        assert word in text


def _made_by(results: Any) -> Iterator[str]:
    """The techniques that made results, however nested."""
    for result in results:
        kept = result.attribution if isinstance(result, Overlay) else result
        if recipe := getattr(kept, "recipe", None):
            yield recipe["technique"]
        if isinstance(result, Sheet | list):
            yield from _made_by(result)
