"""Values become colours: one scale for magnitudes, one for what has a sign, grey for nothing.

The strongest colour stands for an explicit `limit` in the values' own unit, and what lies under the
`floor` is grey: no picture is stretched until noise looks like a finding. The tables are samples of
matplotlib's `magma` (Smith & van der Walt, CC0) and of ColorBrewer's `RdBu`, reversed (Brewer).
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from .errors import RequestError
from .lettering import brief, fitted, font

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

MAGMA = (
    "000004 030311 0a0822 130d33 1d1146 28115a 36106a 430f76 50127c 5d177f 691c81 762181 "
    "822681 8f2a81 9c2e7f a9327d b63779 c33b75 cf4170 db486a e65163 ee5c5e f5695c f9785d "
    "fb8761 fd9668 fea571 feb47b fec387 fed194 fde0a2 fceeb0 fcfdbf"
)
RED_BLUE = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"
ALL_BUT = 0.995
BELOW_FLOOR = (176, 176, 176)
PAPER, INK, SOFT = 250, 34, 112


def magnitude(
    values: Any, limit: float | None = None, floor: float | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """How much, whatever the sign: from black at 0 over violet to pale yellow at `limit`.

    `values` is (height, width) in its own unit, a tensor or an array. `limit` None is `limit_of`
    the values; stronger values get the colour of the limit. |value| < `floor`, and what is no
    number, is drawn in grey; so is a map of zeros alone.
    """
    values, limit = _values(values), _limit(values, limit)
    return _painted(np.abs(values) / (limit or 1), MAGMA, _is_nothing(values, floor))


def signed(
    values: Any, limit: float | None = None, floor: float | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Against or for: blue at -`limit`, white at 0, red at `limit`; all else as in `magnitude`."""
    values, limit = _values(values), _limit(values, limit)
    return _painted(values / (limit or 1) / 2 + 0.5, RED_BLUE, _is_nothing(values, floor))


def limit_of(values: Any) -> float:
    """The |value| that the strongest half percent of all that are not 0 reach; 0 if there is none.

    One pixel of a hundred thousand would else leave all others black. Up to 200 values it is the
    largest.
    """
    values = np.abs(_array(values))
    values = np.sort(values[np.isfinite(values) & (values > 0)])
    return float(values[math.ceil(ALL_BUT * (len(values) - 1))]) if len(values) else 0.0


def colour_bar(
    limit: float, width: int, *, is_signed: bool = True, unit: str = "", floor: float = 0
) -> "PILImage":
    """A bar of the colours with its limits and unit under it, for Pillow; about 50 pixels high."""
    from PIL import Image, ImageDraw

    thick, size = 10, 12
    picture = Image.new("RGB", (width, thick + 38), (PAPER,) * 3)
    ramp = np.linspace(-limit if is_signed else 0, limit, width)[None].repeat(thick, 0)
    bar = (signed if is_signed else magnitude)(ramp, limit or None, floor)
    picture.paste(Image.fromarray(bar), (0, 0))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, width - 1, thick - 1), outline=(SOFT + 60,) * 3)
    for share, text in _ticks(limit, is_signed):
        anchor = "la" if share == 0 else "ra" if share == 1 else "ma"
        pen.text((share * (width - 1), thick + 5), text, (INK,) * 3, font(size), anchor)
    note = _bar_note(limit, unit, floor)
    pen.text((width / 2, thick + 22), fitted(note, width, size), (SOFT,) * 3, font(size), "ma")
    return picture


def _ticks(limit: float, is_signed: bool) -> list[tuple[float, str]]:
    if limit == 0:
        return [(0.5, "0")]
    low = [(0.0, brief(-limit)), (0.5, "0")] if is_signed else [(0.0, "0")]
    return [*low, (1.0, brief(limit))]


def _bar_note(limit: float, unit: str, floor: float) -> str:
    if limit == 0:
        return "all values are 0"
    if floor > 0:
        unit = f"{unit}, " if unit else ""
        return f"{unit}grey: below {brief(floor)}" + (" (all)" if floor > limit else "")
    return unit


def _array(values: Any) -> Float[np.ndarray, "..."]:
    """An array of doubles from whatever holds numbers, a tensor too."""
    return np.asarray(
        values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64
    )


def _values(values: Any) -> Float[np.ndarray, "height width"]:
    values = _array(values)
    if values.ndim != 2:
        raise RequestError(f"a map has the shape (rows, columns); this one has {values.shape}")
    return values


def _limit(values: Any, limit: float | None) -> float:
    if limit is None:
        return limit_of(values)
    if not 0 < limit < np.inf:
        raise RequestError(f"the limit of a colour map is a finite number above 0, not {limit!r}")
    return float(limit)


def _is_nothing(values: np.ndarray, floor: float | None) -> np.ndarray:
    return np.isnan(values) | (np.abs(values) < (floor or 0)) | (not values.any())


def _painted(
    places: np.ndarray, anchors: str, nothing: np.ndarray
) -> UInt8[np.ndarray, "height width 3"]:
    table = _table(anchors)
    steps = np.clip(np.nan_to_num(places, posinf=1, neginf=0), 0, 1) * (len(table) - 1)
    picture = table[np.rint(steps).astype(np.intp)]
    picture[nothing] = BELOW_FLOOR
    return picture


@lru_cache
def _table(anchors: str) -> UInt8[np.ndarray, "step 3"]:
    """1,025 colours: straight lines between the anchors, with an exact middle."""
    given = np.array([[int(word[i : i + 2], 16) for i in (0, 2, 4)] for word in anchors.split()])
    places = np.linspace(0, len(given) - 1, 1025)
    lines = [np.interp(places, np.arange(len(given)), given[:, channel]) for channel in range(3)]
    return np.rint(np.stack(lines, axis=1)).astype(np.uint8)
