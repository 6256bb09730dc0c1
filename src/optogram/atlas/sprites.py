"""Sprite sheets: the pictures of 256 units as one WebP file, 16 in a row."""

import io
from collections.abc import Mapping
from typing import Any

COLUMNS = 16
LARGEST = 112
"""Pixels a side of the largest tile of a sheet."""

GREY = (128, 128, 128)


def tile_webp(image: Any) -> bytes:
    """A Pillow image as WebP: exact while it is small, quality 85 beyond 64 pixels a side."""
    file = io.BytesIO()
    small = max(image.size) <= 64
    if small:
        image.save(file, "WEBP", lossless=True, quality=20, method=0)
    else:
        image.save(file, "WEBP", quality=85, method=2)
    return file.getvalue()


def sheet_webp(tiles: Mapping[int, bytes], side: int) -> bytes:
    """A sheet with tiles at their places, 0 to 255; places without a tile are transparent."""
    from PIL import Image

    sheet = Image.new("RGBA", (COLUMNS * side, COLUMNS * side), (0, 0, 0, 0))
    for place, content in tiles.items():
        with Image.open(io.BytesIO(content)) as stored:
            tile = stored.convert("RGB")
        if max(tile.size) != side:
            scale = side / max(tile.size)
            size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
            smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
            tile = tile.resize(size, smooth)
        square = Image.new("RGB", (side, side), GREY)
        square.paste(tile, ((side - tile.width) // 2, (side - tile.height) // 2))
        row, column = divmod(place, COLUMNS)
        sheet.paste(square, (column * side, row * side))
    file = io.BytesIO()
    if side <= 32:
        sheet.save(file, "WEBP", lossless=True, quality=20, method=0)
    else:
        sheet.save(file, "WEBP", quality=80, method=2)
    return file.getvalue()
