"""One result becomes one drawing: enlarged pixels, a caption, a map over an image, a colour bar."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Image as PILImage
from PIL.Image import Resampling
from torch import Tensor

from .attribution import Attribution
from .colour import INK, PAPER, SOFT, colour_bar
from .errors import RequestError
from .lettering import fitted, font
from .picture import VERDICTS

LEAST_SIDE, LARGEST_SIDE = 224, 1024
MARGIN, GAP = 16, 20
GREEN, AMBER, RED, GREY = (38, 115, 77), (148, 94, 0), (176, 42, 32), (96, 96, 96)
VERDICT_INKS = dict(zip(VERDICTS, (GREEN, AMBER, RED, GREY, AMBER, GREEN, AMBER, RED), strict=True))


def as_pil(image: Tensor) -> PILImage:
    """An image in [0, 1] for Pillow: 1 channel is grey, 3 are colour, of others the mean."""
    values = (image.numpy() * 255).round().astype(np.uint8)
    if len(values) == 3:
        return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))
    return Image.fromarray(
        values[0] if len(values) == 1 else values.mean(0).round().astype(np.uint8)
    )


def enlarged(picture: PILImage, scale: int | None = None) -> PILImage:
    """Every pixel a square of `scale` pixels; None makes the shorter side about 224."""
    if scale is None:
        scale = _fitting_scale(picture)
    if scale != int(scale) or scale < 1:
        raise RequestError(f"a picture is enlarged by a whole number from 1, not by {scale!r}")
    size = (picture.width * int(scale), picture.height * int(scale))
    return picture if scale == 1 else picture.resize(size, Resampling.NEAREST)


def in_a_row(pictures: Sequence[PILImage]) -> PILImage:
    """Pictures of one size side by side, with a little paper between them."""
    if len(pictures) == 1:
        return pictures[0]
    width, height = pictures[0].size
    row = new_paper(len(pictures) * (width + 4) - 4, height, pictures[0].mode)
    for place, picture in enumerate(pictures):
        row.paste(picture, (place * (width + 4), 0))
    return row


def captioned(picture: PILImage, lines: Sequence[str]) -> PILImage:
    """A picture on paper with its caption under it."""
    size = 14 if picture.width >= 160 else 12
    paper = new_paper(
        picture.width + 2 * MARGIN, picture.height + 2 * MARGIN + caption_height(lines, size)
    )
    paper.paste(picture, (MARGIN, MARGIN))
    write_caption(paper, (MARGIN, MARGIN + picture.height + 6), picture.width, lines, size)
    return paper


def map_with_bar(
    attribution: Attribution, scale: int | None, limit: float | None, floor: float | None
) -> PILImage:
    """A map in colour, its colour bar under it, then its caption."""
    heat = enlarged(Image.fromarray(attribution.heatmap(limit, floor)), scale)
    bar = bar_of(attribution, max(heat.width, 140), limit, floor)
    lines = attribution.caption()
    width = max(heat.width, bar.width)
    height = heat.height + 8 + bar.height + caption_height(lines, 14)
    paper = new_paper(width + 2 * MARGIN, height + 2 * MARGIN)
    paper.paste(heat, (MARGIN, MARGIN))
    paper.paste(bar, (MARGIN, MARGIN + heat.height + 8))
    write_caption(paper, (MARGIN, MARGIN + heat.height + 8 + bar.height), width, lines, 14)
    return paper


def overlay(
    attribution: Attribution, image: Tensor, limit: float | None, scale: int | None
) -> PILImage:
    """The image and its caption; beside it the map over the image in grey, and the colour bar."""
    photo = enlarged(as_pil(image), scale)
    laid = laid_over(attribution, photo, limit)
    bar = bar_of(attribution, max(photo.width, 140), limit, None)
    lines = attribution.caption()
    width = max(photo.width, 140)
    below = max(bar.height + 8, caption_height(lines, 14))
    paper = new_paper(2 * width + GAP + 2 * MARGIN, photo.height + below + 2 * MARGIN)
    right = MARGIN + width + GAP
    paper.paste(photo, (MARGIN, MARGIN))
    paper.paste(laid, (right, MARGIN))
    paper.paste(bar, (right, MARGIN + photo.height + 8))
    write_caption(paper, (MARGIN, MARGIN + photo.height + 6), width, lines, 14)
    return paper


def laid_over(attribution: Attribution, photo: PILImage, limit: float | None = None) -> PILImage:
    """The map over the photograph in pale grey: the stronger a value, the more it covers."""
    limit = attribution.limit if limit is None else limit
    heat = attribution.heatmap(limit or None)
    values = np.abs(np.nan_to_num(attribution.spread().numpy()))
    cover = 0.92 * np.sqrt(np.clip(values / (limit or 1), 0, 1))
    cover[values < attribution.floor] = 0
    colours = Image.fromarray(heat).resize(photo.size, Resampling.NEAREST)
    mask = Image.fromarray((cover * 255).round().astype(np.uint8)).resize(
        photo.size, Resampling.NEAREST
    )
    grey = photo.convert("L").point([int(70 + level * 0.68) for level in range(256)])
    return Image.composite(colours, grey.convert("RGB"), mask)


def bar_of(
    attribution: Attribution, width: int, limit: float | None, floor: float | None
) -> PILImage:
    """The colour bar that belongs to a map."""
    return colour_bar(
        attribution.limit if limit is None else limit,
        width,
        is_signed=attribution.signed,
        unit=attribution.unit_of_values,
        floor=attribution.floor if floor is None else floor,
    )


def new_paper(width: int, height: int, mode: str = "RGB") -> PILImage:
    """An empty sheet of paper."""
    return Image.new(mode, (width, height), PAPER if mode == "L" else (PAPER,) * 3)


def caption_height(lines: Sequence[str], size: int) -> int:
    """The room that a caption takes, with the air above it."""
    return 6 + len(lines) * line_height(size) if lines else 0


def line_height(size: int) -> int:
    """From one line of text to the next."""
    return round(size * 1.3)


def write_caption(
    paper: PILImage, corner: tuple[int, int], width: int, lines: Sequence[str], size: int
) -> None:
    """The first line in ink, the others softer, a verdict in its own ink after a dot."""
    pen, (left, top) = ImageDraw.Draw(paper), corner
    for place, line in enumerate(lines):
        y = top + place * line_height(size)
        ink, indent = INK if place == 0 else SOFT, 0
        colour: Any = ink if paper.mode == "L" else (ink,) * 3
        if place and line in VERDICT_INKS and paper.mode == "RGB":
            colour, indent, radius = VERDICT_INKS[line], round(size * 0.8), round(size * 0.22)
            middle = y + round(size * 0.6)
            pen.ellipse((left, middle - radius, left + 2 * radius, middle + radius), fill=colour)
        pen.text((left + indent, y), fitted(line, width - indent, size), colour, font(size), "la")


def _fitting_scale(picture: PILImage) -> int:
    """A long thin picture is not blown up beyond 1,024 pixels for the sake of its short side."""
    shorter, longer = sorted(picture.size)
    return max(1, min(round(LEAST_SIDE / shorter), LARGEST_SIDE // longer))
