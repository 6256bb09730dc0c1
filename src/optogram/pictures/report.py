"""A report is one HTML file: it needs no network, no script and no other file to be read.

Whatever is put into it is escaped: a layer called `<script>` is only an odd name.
"""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .attribution import Attribution, Overlay
from .colour import magnitude, signed
from .contact import Kind, counts, limit_for, limits, longest_sides, of_one_image
from .drawing import as_pil, laid_over
from .errors import RequestError
from .files import write_atomically
from .lettering import brief
from .picture import Picture
from .recipe import script
from .saving import webp_bytes
from .sheet import Sheet

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL.Image import Image as PILImage

SMALL = 112
PAGE, GAP, TICK = 1060, 16, 7
SIDES, SMALL_SIDE = ((4, 224), (24, 168), (200, 112)), 60
MEANING = {
    "excited": "the unit answers to its picture as strongly as to the data, or more",
    "below data": "some image of the data excites the unit more than this picture does",
    "failed": "the picture does not excite the unit: do not read anything into it",
    "dead": "the unit is off on all of the data, and nothing that was tried switched it on",
    "fooled": "the network takes the picture for what it was made to be taken for",
    "natural": "the picture is like the data and the network's answer bears small disturbances",
    "adversarial": "the picture is like the data, but its answer does not bear small disturbances",
    "fooling": "the network is sure of its answer, and the picture is like nothing in the data",
}


@dataclass(frozen=True)
class Shown:
    """One image of the page, ready for its tag."""

    source: str
    width: int
    alt: str
    pixelated: bool


@dataclass(frozen=True)
class Bar:
    """A colour bar of the page: the ramp, and what is written under it."""

    source: str
    ticks: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Figure:
    """Images that belong together, under them a colour bar, a caption and a verdict."""

    images: tuple[Shown, ...]
    lines: tuple[str, ...] = ()
    verdict: str | None = None
    bar: Bar | None = None
    narrowest: int = 112

    @property
    def width(self) -> int:
        """Its width on the page, which also its caption must do with."""
        images = sum(image.width for image in self.images) + 8 * (len(self.images) - 1)
        return max(images, self.narrowest)


@dataclass
class Section:
    """A part of a report: a title, text, and blocks in the order in which they were added."""

    title: str
    paragraphs: list[str]
    blocks: list[dict[str, Any]] = field(default_factory=list)

    def text(self, text: str) -> "Section":
        """Add plain paragraphs, divided by empty lines."""
        return self._add("text", paragraphs=_paragraphs(text))

    def pictures(self, items: Iterable[Any], title: str = "") -> "Section":
        """Add a grid of Pictures, Attributions, Overlays or whole Sheets, each with its caption.

        A pair (image, caption) is shown as it is. Maps of one image stand beside it, shown once.
        """
        items = items if isinstance(items, Sheet) else list(items)
        if any(isinstance(item, Sheet) for item in items):
            for item in items:
                self.pictures(item if isinstance(item, Sheet) else [item])
            return self
        scale, own_title = (
            (items.scale, items.title) if isinstance(items, Sheet) else ("shared", "")
        )
        columns = items.columns if isinstance(items, Sheet) else None
        one_row = columns is None or len(items) <= columns
        figures, title = _figures(list(items), scale, one_row), title or own_title
        present = {figure.verdict for figure in figures}
        meanings = [(verdict, text) for verdict, text in MEANING.items() if verdict in present]
        return self._add(
            "figures",
            figures=figures,
            title=title,
            meanings=meanings,
            columns=None if one_row else _that_fit(columns, figures),
        )

    def image(
        self, picture: Any, caption: str = "", alt: str = "", width: int | None = None
    ) -> "Section":
        """Add one image: a Pillow image, an array (height, width[, 3]) or a tensor in [0, 1].

        `width` in pixels of the page (None: its own, enlarged where it is small).
        """
        picture = _as_pillow(picture)
        shown = _shown(picture, alt or caption or "a figure", width or _natural_width(picture))
        return self._add(
            "figures",
            figures=[Figure((shown,), tuple(_paragraphs(caption)))],
            title="",
            meanings=[],
            columns=None,
        )

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = ""
    ) -> "Section":
        """Add a table; numbers are written in three digits and stand to the right."""
        cells = [[_cell(value) for value in row] for row in rows]
        wrong = next((row for row in cells if len(row) != len(headers)), None)
        if wrong is not None:
            raise RequestError(f"a table of {len(headers)} columns has a row of {len(wrong)} cells")
        return self._add("table", headers=list(headers), rows=cells, caption=caption)

    def curve(self, values: Any, caption: str, alt: str = "") -> "Section":
        """Add a small curve of numbers over their place, such as a score over the steps."""
        numbers = np.asarray(values, dtype=np.float64).reshape(-1)
        numbers = numbers[np.isfinite(numbers)]
        if len(numbers) < 2:
            return self
        low, high = brief(float(numbers.min())), brief(float(numbers.max()))
        alt = alt or f"{caption}: {len(numbers)} values from {low} to {high}"
        return self._add(
            "curve", points=_points(numbers), low=low, high=high, caption=caption, alt=alt
        )

    def _add(self, kind: str, **content: Any) -> "Section":
        self.blocks.append({"kind": kind, **content})
        return self


class Report:
    """A report in the making: add sections, then save it as one HTML file.

    `summary` is plain text, its paragraphs divided by empty lines; `recipe` says how all was made.
    """

    def __init__(
        self, title: str, summary: str = "", recipe: Mapping[str, Any] | None = None
    ) -> None:
        self.title = title
        self.summary = _paragraphs(summary)
        self.recipe = dict(recipe or {})
        self.sections: list[Section] = []

    def __repr__(self) -> str:
        return f"Report({self.title!r}, {len(self.sections)} sections)"

    def section(self, title: str, text: str = "") -> Section:
        """A new section at the end; add to it what it shows."""
        section = Section(title, _paragraphs(text))
        self.sections.append(section)
        return section

    def html(self) -> str:
        """The whole page."""
        return _template().render(
            title=self.title,
            summary=self.summary,
            sections=self.sections,
            recipe=script(self.recipe),
            settings=_settings(self.recipe),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to an .html file."""
        if Path(path).suffix.lower() not in (".html", ".htm"):
            raise RequestError(f"a report is saved as .html, not as '{path}'")
        write_atomically(path, _encoded(self.html()))
        return Path(path)


def one_result(result: Any) -> bytes:
    """The page of a single Picture, Attribution, Overlay or Sheet."""
    if isinstance(result, Sheet):
        report = Report(result.title or "A sheet", counts(result) + ".", result.recipe)
        _add_sheet(report, result)
    elif isinstance(result, Picture):
        report = Report(result.unit, "A picture made to excite this unit.", result.recipe)
        _add_picture(report, result)
    else:
        attribution = result.attribution if isinstance(result, Overlay) else result
        summary = "Which pixels made the network say this."
        report = Report(attribution.target, summary, attribution.recipe)
        _add_attribution(report, result, attribution)
    return _encoded(report.html())


def _add_sheet(report: Report, sheet: Sheet) -> None:
    kind = "Pictures" if any(isinstance(item, Picture) for item in sheet) else "Maps"
    report.section(kind).pictures(sheet)
    rows = [(unit, score) for unit, score in zip(sheet.units, sheet.scores.tolist(), strict=True)]
    if 0 < len(rows) <= 200:
        report.section("Numbers").table(["unit", "score"], rows)


def _add_picture(report: Report, picture: Picture) -> None:
    report.section("Picture").pictures([picture])
    rows = [
        ("score", picture.score),
        ("strongest in the data", picture.best_in_data),
        ("score over that", picture.times_data),
        ("verdict", picture.verdict),
        ("likely cause", picture.cause),
        ("left after a small shift", picture.jitter_survival),
        ("left under a little noise", picture.noise_survival),
        ("length of the last gradient", picture.gradient_norm),
        (f"next unit of the layer, {picture.rival}", picture.rival_score),
    ]
    known = [row for row in rows if row[1] is not None]
    evidence = report.section("Evidence", "How well the picture was made, in the unit's own units.")
    evidence.table(["what", "value"], known).curve(picture.history, "score over the steps")
    if picture.answers:
        answers = report.section("Answers", "What the whole network says about the picture.")
        answers.table(["label", "probability"], picture.answers)


def _add_attribution(report: Report, result: Any, attribution: Attribution) -> None:
    report.section("Map").pictures([result])
    findings = attribution.findings()
    if findings:
        checks = report.section("Checks", "Whether the map can be believed.")
        checks.table(["check", "result"], list(findings.items()))


@lru_cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    text = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    surroundings = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return surroundings.from_string(text)


def _encoded(page: str) -> bytes:
    """Half a character pair, as a broken file name may hold, must not stop a report."""
    return page.encode("utf-8", errors="replace")


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _figures(items: list[Any], scale: str, one_row: bool) -> list[Figure]:
    maps = [item for item in items if isinstance(item, Attribution)]
    among = limits(Sheet(maps, scale=scale))
    longest = longest_sides(items)
    side = next((side for most, side in SIDES if len(items) <= most), None)
    if side is None:
        return [_small_figure(item, among, longest) for item in items]
    figures = [_figure(item, side, among, longest) for item in items]
    if one_row and len(maps) == len(items) > 1 and of_one_image(maps):
        given = replace(figures[0], images=figures[0].images[:1], lines=("the image",), bar=None)
        return [given, *(replace(figure, images=figure.images[1:]) for figure in figures)]
    return figures


def _that_fit(columns: int | None, figures: Sequence[Figure]) -> int | None:
    """The columns that were asked for, where the page is wide enough for them."""
    widest = max((figure.width for figure in figures), default=0)
    return columns if columns is not None and columns * (widest + GAP) <= PAGE + GAP else None


def _small_figure(item: Any, among: dict[Kind, float], longest: dict[str, int]) -> Figure:
    """One of very many: what it is for, and a verdict only where there is doubt."""
    figure = _figure(item, SMALL_SIDE, among, longest)
    lines, doubt = figure.lines[:1], None if figure.verdict == "excited" else figure.verdict
    return replace(figure, lines=lines, verdict=doubt, narrowest=SMALL_SIDE)


def _figure(item: Any, side: int, among: dict[Kind, float], longest: dict[str, int]) -> Figure:
    if isinstance(item, Picture):
        lines = tuple(line for line in item.caption() if line != item.verdict)
        alts = [f"Picture made for {', '.join(item.caption())}"]
        if item.start is not None:
            alts = ["The image that was changed", "The change, amplified", *alts]
        panels = [as_pil(panel) for panel in item.panels]
        longer = longest[item.unit]
        shown = [
            _shown(p, alt, _width(p, side, longer)) for p, alt in zip(panels, alts, strict=True)
        ]
        return Figure(tuple(shown), lines, item.verdict)
    if isinstance(item, tuple):
        picture, caption = _as_pillow(item[0]), str(item[1])
        return Figure((_shown(picture, caption, _width(picture, side)),), (caption,))
    if isinstance(item, Overlay):
        return _map_figure(item.attribution, item.image, side, item.limit)
    if isinstance(item, Attribution):
        return _map_figure(item, item.image, side, limit_for(item, among))
    raise RequestError(
        f"a report shows Pictures, Attributions, Overlays and Sheets, not a {type(item).__name__}"
    )


def _map_figure(item: Attribution, image: Any, side: int, limit: float | None) -> Figure:
    photo = as_pil(image)
    width = _width(photo, side)
    limit = item.limit if limit is None else limit
    low, high = brief(float(item.values.min())), brief(float(item.values.max()))
    alt = f"Map for {item.target}: values from {low} to {high} {item.unit_of_values}".strip()
    images = (
        _shown(photo, "The image that was explained", width),
        _shown(laid_over(item, photo, limit or None), alt, width),
    )
    return Figure(images, item.caption(), None, _bar(item, limit))


def _bar(item: Attribution, limit: float) -> Bar:
    ramp = np.linspace(-limit if item.signed else 0, limit, 256)[None].repeat(2, 0)
    colours = (signed if item.signed else magnitude)(ramp, limit or None, item.floor)
    end = brief(limit)
    end = end if len(end) <= TICK else brief(limit, 2)  # three of them must fit under a small map
    ticks = (f"-{end}", "0", end) if item.signed else ("0", end)
    notes = [item.unit_of_values] if item.unit_of_values else []
    if limit == 0:
        return Bar(_data_uri(_as_pillow(colours)), ("0",), "all values are 0")
    if item.floor > 0:
        notes.append(f"grey: below {brief(item.floor)}")
    return Bar(_data_uri(_as_pillow(colours)), ticks, ", ".join(notes))


def _shown(picture: "PILImage", alt: str, width: int) -> Shown:
    return Shown(_data_uri(picture), width, alt, width > picture.width)


def _width(picture: "PILImage", side: int, longer: int | None = None) -> int:
    """Small images are enlarged by whole numbers, large ones shrink: `longer` pixels must fit."""
    longer = longer or max(picture.size)
    return (
        picture.width * (side // longer)
        if longer <= side
        else max(1, picture.width * side // longer)
    )


def _natural_width(picture: "PILImage") -> int:
    return (
        picture.width * max(1, 224 // max(picture.size))
        if max(picture.size) <= SMALL
        else picture.width
    )


def _data_uri(picture: "PILImage") -> str:
    return "data:image/webp;base64," + base64.b64encode(webp_bytes(picture)).decode()


def _as_pillow(picture: Any) -> "PILImage":
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    if hasattr(picture, "detach"):
        return as_pil(picture.detach().cpu())
    array = np.asarray(picture)
    if array.dtype != np.uint8:
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def _cell(value: Any) -> dict[str, Any]:
    if value is None:
        return {"text": "–", "number": False}
    if isinstance(value, bool):
        return {"text": "yes" if value else "no", "number": False}
    if isinstance(value, int):
        return {"text": str(value), "number": True}
    if isinstance(value, float | np.floating):
        return {"text": brief(float(value)), "number": True}
    return {"text": str(value), "number": False}


def _points(numbers: np.ndarray) -> str:
    """At most 600 points of a line in a box of 600 by 120; sampling keeps the extremes."""
    if len(numbers) > 600:
        edges = np.linspace(0, len(numbers), 301).astype(int)
        parts = [numbers[a:b] for a, b in pairwise(edges)]
        numbers = np.array([value for part in parts for value in (part.min(), part.max())])
    span = float(np.ptp(numbers)) or 1.0
    heights = 116 - 112 * (numbers - numbers.min()) / span
    places = np.linspace(2, 598, len(numbers))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True))


def _settings(recipe: Mapping[str, Any]) -> str:
    """The recipe for human eyes."""
    import json

    return json.dumps(recipe, indent=2, sort_keys=True, ensure_ascii=False) if recipe else ""
