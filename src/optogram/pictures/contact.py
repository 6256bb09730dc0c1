"""A contact sheet: many results on one paper, each with as much caption as its place allows."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw
from PIL.Image import Image as PILImage
from PIL.Image import Resampling

from .attribution import Attribution
from .colour import INK, SOFT, colour_bar
from .drawing import (
    MARGIN,
    as_pil,
    bar_of,
    caption_height,
    in_a_row,
    line_height,
    new_paper,
    write_caption,
)
from .errors import RequestError
from .lettering import fitted, font, wrapped
from .picture import VERDICTS, Picture
from .sheet import Sheet

LONGEST_SIDE = 12_000
MOST_PIXELS = 50_000_000
FEW = 200
SIDES = ((4, 336), (12, 224), (60, 160), (FEW, 128))
NARROWEST_CAPTION = 56
WIDE_AS_HIGH = 1.35


Kind = tuple[str, bool]
"""What maps on one colour scale have in common: their unit, and whether they have signs."""


@dataclass(frozen=True)
class Tile:
    """One place of the sheet: what is drawn and what stands under it."""

    picture: PILImage
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Where the tiles stand: equal cells in rows."""

    columns: int
    rows: int
    cell_width: int
    cell_height: int
    picture_height: int
    gap: int
    letter: int

    @property
    def width(self) -> int:
        """Of all columns and the gaps between them."""
        return self.columns * (self.cell_width + self.gap) - self.gap

    @property
    def height(self) -> int:
        """Of all rows and the gaps between them."""
        return self.rows * (self.cell_height + self.gap) - self.gap


def contact_sheet(sheet: Sheet) -> PILImage:
    """The whole sheet on one paper: title, what it holds in a line, the tiles, the colour bar.

    Few tiles are large with full captions; more than 200 are small with short captions or none.
    """
    tiles = _tiles(sheet)
    grid = _grid(tiles, sheet.columns)
    grey = len(sheet) > FEW and all(tile.picture.mode == "L" for tile in tiles)
    bar = _shared_bar(sheet, grid.width)
    width = max(grid.width, 220)
    head = _head_lines(sheet, width)
    top = MARGIN + sum(line_height(size) for _, size, _ in head) + (10 if head else 0)
    foot = bar.height + grid.gap if bar else 0
    height = top + max(grid.height, 0) + foot + MARGIN
    if max(width + 2 * MARGIN, height) > LONGEST_SIDE:
        raise RequestError(
            f"a sheet of {len(sheet)} in {grid.columns} columns is {width} x {height} pixels, more "
            f"than {LONGEST_SIDE} a side; choose other columns or save parts of it"
        )
    paper = new_paper(width + 2 * MARGIN, height, "L" if grey else "RGB")
    _write_head(paper, head)
    _lay_tiles(paper, tiles, grid, top)
    if bar:
        paper.paste(bar, (MARGIN, top + grid.height + grid.gap))
    return paper


def shared_limit(sheet: Sheet) -> float | None:
    """Where the colours of all maps end; None where they have several scales.

    Maps in different units cannot share one, whatever was asked for.
    """
    maps = [item for item in sheet if isinstance(item, Attribution)]
    one_kind = len({_kind(item) for item in maps}) == 1
    return limits(sheet)[_kind(maps[0])] if one_kind and sheet.scale == "shared" else None


def limits(sheet: Sheet) -> dict[Kind, float]:
    """Where the colours of maps of each kind end; none where every map has its own scale."""
    found: dict[Kind, float] = {}
    for item in sheet:
        if isinstance(item, Attribution) and sheet.scale == "shared":
            found[_kind(item)] = max(item.limit, found.get(_kind(item), 0.0))
    return found


def limit_for(item: Attribution, among: dict[Kind, float]) -> float:
    """Where the colours of a map end, its own limit if it shares none."""
    return among.get(_kind(item), item.limit)


def _kind(item: Attribution) -> Kind:
    return item.unit_of_values, item.signed


def counts(sheet: Sheet) -> str:
    """What a sheet holds, in a line: `12 pictures, 9 excited, 2 below data, 1 failed`."""
    if not len(sheet):
        return "nothing to show"
    kinds = {type(item) for item in sheet}
    noun = "picture" if kinds == {Picture} else "map" if kinds == {Attribution} else "result"
    verdicts = Counter(item.verdict for item in sheet if isinstance(item, Picture))
    known = [f"{verdicts[verdict]:,} {verdict}" for verdict in VERDICTS if verdicts[verdict]]
    return ", ".join([f"{len(sheet):,} {noun}{'' if len(sheet) == 1 else 's'}", *known])


def longest_sides(items: Iterable[Any]) -> dict[str, int]:
    """The longer side of each unit's largest picture, in its own pixels.

    All of a unit are enlarged alike, so that a patch cut by the image's edge looks as small as it
    is; another unit may see a hundred times as much.
    """
    found: dict[str, int] = {}
    for item in items:
        if isinstance(item, Picture):
            longer = max(max(panel.shape[-2:]) for panel in item.panels)
            found[item.unit] = max(longer, found.get(item.unit, 0))
    return found


def _tiles(sheet: Sheet) -> list[Tile]:
    maps = [item for item in sheet if isinstance(item, Attribution)]
    common = len(maps) > 1 and len(maps) == len(sheet) and of_one_image(maps)
    side, among, longest = _side(len(sheet) + common), limits(sheet), longest_sides(sheet)
    small = len(sheet) > FEW
    first = [Tile(_sized(as_pil(maps[0].image), side), ("image",))] if common else []
    draw = _map_alone if common or small else _map_beside_image
    barred = not small and shared_limit(sheet) is None

    def tile(item: Any) -> Tile:
        lines = _short_caption(item) if small else tuple(item.caption())
        if isinstance(item, Picture):
            panels = [_sized(as_pil(panel), side, longest[item.unit]) for panel in item.panels]
            return Tile(in_a_row(panels), lines)
        limit = limit_for(item, among)
        drawn = draw(item, side, limit)
        if barred:
            return Tile(_over_its_bar(drawn, item, limit), lines)
        return Tile(drawn, lines if small or item.limit else (*lines, "all values are 0"))

    return first + [tile(item) for item in sheet]


def of_one_image(maps: list[Attribution]) -> bool:
    """Whether all maps explain the same image."""
    first = maps[0].image
    return all(
        item.image.shape == first.shape and bool((item.image == first).all()) for item in maps
    )


def _side(count: int) -> int:
    """The length that a tile's longer side should have: the more tiles, the smaller."""
    for most, side in SIDES:
        if count <= most:
            return side
    return max(8, min(96, math.isqrt(MOST_PIXELS // count) - 16))


def _sized(picture: PILImage, side: int, longer: int | None = None) -> PILImage:
    """Enlarged by a whole number until `longer` pixels are up to `side`, or shrunk if far more."""
    longer = longer or max(picture.size)
    if longer > side * 1.25:
        share = side / longer
        size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
        return picture.resize(size, Resampling.LANCZOS)
    scale = max(1, side // longer)
    return picture.resize((picture.width * scale, picture.height * scale), Resampling.NEAREST)


def _map_alone(item: Attribution, side: int, limit: float | None) -> PILImage:
    return _outlined(_sized(Image.fromarray(item.heatmap(limit or None)), side))


def _outlined(picture: PILImage) -> PILImage:
    """The white middle of a signed map would else run into the paper."""
    ImageDraw.Draw(picture).rectangle(
        (0, 0, picture.width - 1, picture.height - 1), outline=(214,) * 3
    )
    return picture


def _map_beside_image(item: Attribution, side: int, limit: float | None) -> PILImage:
    image = _sized(as_pil(item.image), side).convert("RGB")
    heat = Image.fromarray(item.heatmap(limit or None)).resize(image.size, Resampling.NEAREST)
    pair = new_paper(2 * image.width + 4, image.height)
    pair.paste(image, (0, 0))
    pair.paste(_outlined(heat), (image.width + 4, 0))
    return pair


def _over_its_bar(drawn: PILImage, item: Attribution, limit: float) -> PILImage:
    """A map with a colour bar of its own, where the sheet's maps do not share one."""
    bar = bar_of(item, max(drawn.width, 120), limit, None)
    both = new_paper(max(drawn.width, bar.width), drawn.height + 6 + bar.height)
    both.paste(drawn, (0, 0))
    both.paste(bar, (0, drawn.height + 6))
    return both


def _short_caption(item: Any) -> tuple[str, ...]:
    """The address, and a word where the picture should not be believed."""
    if isinstance(item, Attribution):
        return (item.target,)
    word = {"below data": "below", "failed": "failed", "dead": "dead"}.get(item.verdict or "", "")
    return (item.unit, word) if word else (item.unit,)


def _grid(tiles: list[Tile], columns: int | None) -> Grid:
    width = max((tile.picture.width for tile in tiles), default=0)
    picture_height = max((tile.picture.height for tile in tiles), default=0)
    letter = 14 if width >= 200 else 12 if width >= 110 else 10
    lines = max((tile.lines for tile in tiles), key=len, default=())
    captions = caption_height(lines, letter) if width >= NARROWEST_CAPTION else 0
    gap = 18 if width >= 110 else 6
    height = picture_height + captions
    columns = columns or _fitting_columns(len(tiles), width + gap, height + gap)
    rows = math.ceil(len(tiles) / columns)
    return Grid(min(columns, len(tiles)), rows, width, height, picture_height, gap, letter)


def _fitting_columns(count: int, width: int, height: int) -> int:
    """A paper a little wider than high, its last row as full as the others where it can be."""
    if count <= 4:
        return max(count, 1)
    columns = min(count, max(1, round(math.sqrt(count * height / width * WIDE_AS_HIGH))))
    return math.ceil(count / math.ceil(count / columns))


def _shared_bar(sheet: Sheet, width: int) -> PILImage | None:
    limit = shared_limit(sheet)
    if limit is None:
        return None
    maps = [item for item in sheet if isinstance(item, Attribution)]
    floor = max(item.floor for item in maps)
    unit = maps[0].unit_of_values
    return colour_bar(
        limit, min(max(width, 220), 340), is_signed=maps[0].signed, unit=unit, floor=floor
    )


Head = list[tuple[str, int, int]]


def _head_lines(sheet: Sheet, width: int) -> Head:
    """(text, size, ink) of each line above the tiles."""
    title = [(line, 20, INK) for line in wrapped(sheet.title, width, 20)]
    judged = any(isinstance(item, Picture) and item.verdict for item in sheet)
    counted = counts(sheet) if judged or len(sheet) > 12 or not len(sheet) else ""
    return title + [(line, 14, SOFT) for line in wrapped(counted, width, 14)]


def _write_head(paper: PILImage, head: Head) -> None:
    pen, y = ImageDraw.Draw(paper), MARGIN
    for text, size, ink in head:
        pen.text((MARGIN, y), text, _ink(paper, ink), font(size), "la")
        y += line_height(size)


def _ink(paper: PILImage, level: int) -> Any:
    return level if paper.mode == "L" else (level,) * 3


def _lay_tiles(paper: PILImage, tiles: list[Tile], grid: Grid, top: int) -> None:
    write: Callable[..., None] = _write_small if grid.letter == 10 else write_caption
    for place, tile in enumerate(tiles):
        row, column = divmod(place, grid.columns)
        x = MARGIN + column * (grid.cell_width + grid.gap)
        y = top + row * (grid.cell_height + grid.gap)
        paper.paste(tile.picture, (x, y))
        if grid.cell_height > grid.picture_height:
            under = (x, y + tile.picture.height + (4 if grid.letter == 10 else 6))
            write(paper, under, grid.cell_width, tile.lines, grid.letter)


def _write_small(
    paper: PILImage, corner: tuple[int, int], width: int, lines: tuple[str, ...], size: int
) -> None:
    pen, (x, y) = ImageDraw.Draw(paper), corner
    for place, line in enumerate(lines):
        spot = (x, y + place * line_height(size))
        pen.text(spot, fitted(line, width, size), _ink(paper, SOFT), font(size), "la")
