"""Numbers and letters as they stand in pictures: short, and never wider than their place."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

DOTS = "…"
UNDRAWABLE = str.maketrans(
    {"×": "x", "−": "-", "–": "-", "—": "-", "≥": ">=", "≤": "<=", "→": "->"}
)


def brief(value: float, digits: int = 3) -> str:
    """A number in few letters: `4.82`, `-0.0031`, `1.2e-7`, `1250`."""
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e6:
        text = f"{value:.0f}"
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


@lru_cache
def font(size: int) -> "FreeTypeFont":
    """The font that Pillow ships."""
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]


def drawable(text: str) -> str:
    """The text with the signs that the font lacks replaced, on one line."""
    return " ".join(text.translate(UNDRAWABLE).split())


@lru_cache(maxsize=16_384)
def fitted(text: str, width: int, size: int) -> str:
    """The text on one line no wider than `width`; what is left out is left out of its middle.

    An address tells most at its ends: `inception4a….conv:97`.
    """
    text = drawable(text)
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    fewest, most = 0, len(text)
    while fewest < most:
        kept = (fewest + most + 1) // 2
        fewest, most = (
            (kept, most) if letters.getlength(_cut(text, kept)) <= width else (fewest, kept - 1)
        )
    return _cut(text, fewest) if fewest else ""


def wrapped(text: str, width: int, size: int) -> list[str]:
    """The text broken into lines no wider than `width`."""
    lines: list[str] = []
    for word in drawable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(word, width, size))
    return lines


def _cut(text: str, kept: int) -> str:
    head = kept // 2
    return text[:head] + DOTS + text[len(text) - (kept - head) :]
