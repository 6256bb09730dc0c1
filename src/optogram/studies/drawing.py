"""The figures of the studies: pictures in rows and columns, each with its numbers underneath."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Image as PILImage
from PIL.Image import Resampling

from optogram.pictures.colour import INK, SOFT
from optogram.pictures.drawing import as_pil, line_height, new_paper
from optogram.pictures.lettering import drawable, fitted, font

if TYPE_CHECKING:
    from torch import Tensor

Colour = tuple[int, int, int]
BLACK, GREY, PALE = (INK,) * 3, (SOFT,) * 3, (226, 226, 226)
GREEN, RED = (38, 115, 77), (176, 42, 32)
MARGIN, GAP, SIZE, HEAD = 16, 12, 13, 15
BAR, THIN = 18, 9
LETTERS = 60
"""So many letters stand below an axis side by side."""


@dataclass(frozen=True)
class Line:
    """A line of text; `error` from 0 to 1 is how opaque the red box behind it is."""

    text: str
    colour: Colour = BLACK
    error: float = 0.0


@dataclass(frozen=True)
class Bar:
    """A bar that is filled from the left to `share`, with a text in it where it is not thin."""

    share: float
    colour: Colour
    text: str = ""


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture, (1, height, width) in [0, 1] or None for no picture, and what is under it."""

    image: "Tensor | None"
    under: Sequence[Line | Bar] = ()


def brightened(image: "Tensor", *under: Line | Bar) -> Tile:
    """A tile shown from black to its brightest pixel, whose value stands under it."""
    most = float(image.max())
    shown = image / most if 0 < most < 1 else image
    return Tile(shown, (*under, Line(f"to {most:.2f}", GREY)))


def grid(
    rows: Sequence[Sequence[Tile]],
    *,
    heads: Sequence[str] = (),
    sides: Sequence[str] = (),
    side: int = 112,
    width: int | None = None,
) -> PILImage:
    """Tiles in rows, `heads` above the columns, `sides` before the rows; a pixel is a square."""
    cell = max(side, width or 0)
    under = max((_height(tile.under) for row in rows for tile in row), default=0)
    columns = max(len(row) for row in rows)
    left = MARGIN + (_widest(sides) + GAP if sides else 0)
    top = MARGIN + (line_height(HEAD) + 4 if heads else 0)
    step = side + under + GAP
    paper = new_paper(left + columns * (cell + GAP) - GAP + MARGIN, top + len(rows) * step + 4)
    pen = ImageDraw.Draw(paper)
    for column, head in enumerate(heads):
        middle = left + column * (cell + GAP) + cell // 2
        pen.text((middle, MARGIN), fitted(head, cell + GAP - 2, SIZE), BLACK, font(SIZE), "ma")
    for place, row in enumerate(rows):
        y = top + place * step
        if sides:
            pen.text((MARGIN, y + side // 2), drawable(sides[place]), BLACK, font(SIZE), "lm")
        for column, tile in enumerate(row):
            _lay(paper, tile, (left + column * (cell + GAP), y), side, cell)
    return paper


def stacked(drawings: Sequence[PILImage], titles: Sequence[str]) -> PILImage:
    """Drawings under one another, each with a title."""
    room = line_height(HEAD) + 8
    width = max(drawing.width for drawing in drawings)
    width = max(width, *(round(font(HEAD).getlength(t)) + 2 * MARGIN for t in titles))
    paper = new_paper(width, sum(drawing.height + room for drawing in drawings) + 8)
    pen, y = ImageDraw.Draw(paper), 8
    for drawing, title in zip(drawings, titles, strict=True):
        pen.text((MARGIN, y), drawable(title), BLACK, font(HEAD), "la")
        paper.paste(drawing, (0, y + room - 8))
        y += drawing.height + room
    return paper


def chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str,
    up: str,
    log: bool = False,
    names: Sequence[str] = (),
) -> PILImage | None:
    """Lines over an axis with numbers; None where matplotlib is not installed.

    `names` stand at 0, 1, 2 ... of the axis across where what is there are no numbers.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:  # the extra "figures" was not asked for; the numbers are in the tables
        return None
    figure = Figure(figsize=(6.4, 3.4), dpi=110, layout="constrained")
    axes: Any = figure.add_subplot()
    for name, (x, y) in lines.items():
        axes.plot(x, y, marker="o", markersize=3.5, linewidth=1.4, label=name)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if names:
        long = sum(map(len, names)) > LETTERS
        slant = {"rotation": 20, "ha": "right"} if long else {}
        axes.set_xticks(range(len(names)), names, **slant)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn: Any = canvas.buffer_rgba()
    return Image.fromarray(np.asarray(drawn).copy()).convert("RGB")


def _lay(paper: PILImage, tile: Tile, corner: tuple[int, int], side: int, cell: int) -> None:
    x, y = corner
    if tile.image is None:
        return
    picture = as_pil(tile.image).resize((side, side), Resampling.NEAREST)
    paper.paste(picture, (x + (cell - side) // 2, y))
    y += side + 4
    for under in tile.under:
        if isinstance(under, Bar):
            y += _bar(paper, under, (x, y), cell)
        else:
            y += _line(paper, under, (x, y), cell)


def _line(paper: PILImage, line: Line, corner: tuple[int, int], cell: int) -> int:
    (x, y), height = corner, line_height(SIZE)
    if line.error > 0:
        share = 0.75 * min(1.0, line.error)
        tint = tuple(round(255 + (part - 255) * share) for part in RED)
        ImageDraw.Draw(paper).rectangle((x, y, x + cell, y + height - 2), fill=tint)
    text = fitted(line.text, cell, SIZE)
    ImageDraw.Draw(paper).text((x + cell // 2, y), text, line.colour, font(SIZE), "ma")
    return height


def _bar(paper: PILImage, bar: Bar, corner: tuple[int, int], cell: int) -> int:
    (x, y), height, pen = corner, BAR if bar.text else THIN, ImageDraw.Draw(paper)
    pen.rectangle((x, y, x + cell - 1, y + height - 2), fill=PALE)
    long = round((cell - 1) * min(1.0, max(0.0, bar.share)))
    if long:
        pen.rectangle((x, y, x + long, y + height - 2), fill=bar.colour)
    if bar.text:
        pen.text((x + 4, y + height // 2 - 1), bar.text, (255,) * 3, font(SIZE - 1), "lm")
    return height + 1


def _height(under: Sequence[Line | Bar]) -> int:
    heights = [
        line_height(SIZE) if isinstance(x, Line) else (BAR if x.text else THIN) + 1 for x in under
    ]
    return 4 + sum(heights) if heights else 0


def _widest(texts: Sequence[str]) -> int:
    return max((round(font(SIZE).getlength(drawable(text))) for text in texts), default=0)
