"""How a result leaves the program: into a file whose suffix chooses its form, or onto a screen."""

import os
import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RequestError
from .files import write_atomically
from .recipe import beside, beside_bytes, png_bytes

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

BESIDE = (".webp", ".jpg", ".jpeg")
LOSSLESS_SIDE = 512
WIDEST_WEBP = 16_383


def save(
    path: str | os.PathLike[str],
    recipe: Mapping[str, Any],
    forms: Mapping[str, Callable[[], bytes]],
) -> Path:
    """Write the form that the suffix of `path` asks for; `forms` makes the bytes of each.

    A picture that cannot hold its recipe (.webp, .jpg) gets it beside: `why.webp.json`.

    Raises:
        RequestError: the suffix is none of those in `forms`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in forms:
        raise RequestError(
            f"'{path}' cannot be saved as '{suffix}'; choose one of {', '.join(forms)}"
        )
    content = forms[suffix]()
    if suffix in BESIDE:
        write_atomically(beside(path), beside_bytes(recipe, content))
    write_atomically(path, content)
    return path


def picture_forms(
    draw: "Callable[[], PILImage]", recipe: Mapping[str, Any]
) -> dict[str, Callable[[], bytes]]:
    """The forms that every drawing has: .png with its recipe inside, .webp and .jpg."""
    return {
        ".png": lambda: png_bytes(draw(), recipe),
        ".webp": lambda: webp_bytes(draw()),
        ".jpg": lambda: jpg_bytes(draw()),
        ".jpeg": lambda: jpg_bytes(draw()),
    }


def webp_bytes(picture: "PILImage") -> bytes:
    """A Pillow image as WebP: lossless while it is small, quality 90 beyond 512 pixels a side."""
    if max(picture.size) > WIDEST_WEBP:
        raise RequestError(f"a .webp has at most {WIDEST_WEBP} pixels a side; save it as .png")
    file = BytesIO()
    small = max(picture.size) <= LOSSLESS_SIDE
    picture.save(
        file, "WEBP", lossless=small, quality=80 if small else 90, method=4 if small else 2
    )
    return file.getvalue()


def jpg_bytes(picture: "PILImage") -> bytes:
    """A Pillow image as JPEG of quality 92, its colours at full resolution."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def show(picture: "PILImage") -> None:
    """Show a Pillow image: in the notebook if this is one, else in the desktop's viewer."""
    if _in_notebook():
        sys.modules["IPython"].display.display(picture)
        return
    from PIL import ImageShow

    if not ImageShow.show(picture):
        raise RequestError(
            "this machine has no viewer for pictures; use .save('picture.png') instead"
        )


def _in_notebook() -> bool:
    """In a notebook IPython is loaded before us, so there is no need to import it."""
    python = sys.modules.get("IPython")
    return python is not None and hasattr(python.get_ipython(), "kernel")
