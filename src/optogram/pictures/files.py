"""Images come in from files here, and files go out whole or not at all."""

import hashlib
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RequestError
from .leases import alive, host

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from PIL.Image import Image as PILImage
    from torch import Tensor

MOST_PIXELS = 100_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
ORIENTATION = 0x0112
WHITE = 1.0
FORGOTTEN = 3600.0


def write_atomically(
    path: str | os.PathLike[str], content: bytes | Callable[[BufferedIOBase], Any]
) -> None:
    """Write a file so that readers see the old one or the new one, never a part of it.

    `content` is the bytes, or a function that writes them to the open binary file it is given.
    They go to a hidden `.tmp` file in the same folder, which is flushed to the disk and then
    renamed; it is removed when anything goes wrong. (Only a killed process can leave it behind.)
    A symbolic link is followed, not replaced.

    Raises:
        RequestError: `path` is a folder, or its folder is not there or allows no new files.
    """
    target = Path(os.path.realpath(path))
    _check_target(path, target)
    owner = f"{os.getpid()}-{_machine()}{secrets.token_hex(4)}"
    draft = target.with_name(f".{target.name[:80]}.{owner}.tmp")
    try:
        with _opened_draft(draft, path) as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:  # Ctrl-C too must leave no litter
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def is_abandoned(draft: Path) -> bool:
    """Whether who wrote a `.tmp` file of `write_atomically` is dead.

    Of one that another machine writes nothing is known, and it counts as dead after an hour.
    """
    number, _, token = draft.name.split(".")[-2].partition("-")
    if not token.startswith(_machine()):
        with suppress(FileNotFoundError):
            return time.time() - draft.stat().st_mtime > FORGOTTEN
    return not alive(number)


@lru_cache(1)
def _machine() -> str:
    return hashlib.sha256(host().encode()).hexdigest()[:6]


def image(
    source: "str | os.PathLike[str] | bytes | PILImage", *, channels: int | None = None
) -> 'Float[Tensor, "channel height width"]':
    """An image as float32 values in [0, 1], upright, on white where it was transparent.

    `source` is a path, the bytes of a file, or a Pillow image. A grey image has 1 channel, any
    other 3; 16-bit grey keeps its full range. `channels=3` repeats a grey image; `channels=1`
    accepts a colour file only if its three channels are equal. Of an animation the first frame
    counts. The tensor carries where it came from in its attribute `source`.

    Raises:
        RequestError: there is no such file, it is no image, is broken, has no pixels or more than
            100 million (then it is not even decoded), or colours where one channel was asked for.
    """
    import torch

    if channels not in (None, 1, 3):
        raise RequestError(f"an image has 1 or 3 channels, not {channels!r}; say 1, 3 or nothing")
    with _opened_image(source) as (picture, name):
        _check_size(picture, name)
        pixels = _as_channels(_pixels(picture, name), channels, name)
    result = torch.from_numpy(pixels)
    result.source = name  # type: ignore[attr-defined]
    return result


def _check_target(path: Any, target: Path) -> None:
    if target.is_dir():
        raise RequestError(f"'{path}' is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise RequestError(
            f"there is no folder '{target.parent}' to write '{path}' into; make it first"
        )


def _opened_draft(draft: Path, path: Any) -> BufferedIOBase:
    try:
        return draft.open("xb")
    except PermissionError as error:
        raise RequestError(f"'{path}' cannot be written: its folder allows no new files") from error


def _sync_folder(folder: Path) -> None:
    """The rename itself must survive a power cut; not every file system offers this."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _opened_image(source: Any) -> "Iterator[tuple[PILImage, str]]":
    """The Pillow image, its pixels not yet decoded, and what to call it."""
    from PIL import Image

    if isinstance(source, Image.Image):
        yield source, str(getattr(source, "filename", "") or "a Pillow image")
    elif isinstance(source, bytes):
        with _recognized(BytesIO(source), f"these {len(source)} bytes") as picture:
            yield picture, f"these {len(source)} bytes"
    elif isinstance(source, str | os.PathLike):
        with _opened_file(source) as file, _recognized(file, f"'{source}'") as picture:
            yield picture, str(source)
    else:
        raise RequestError(
            "an image is a path, the bytes of a file or a Pillow image, "
            f"not a {type(source).__name__}"
        )


def _opened_file(path: str | os.PathLike[str]) -> BufferedIOBase:
    if os.path.isdir(path):
        raise RequestError(f"'{path}' is a folder; give an image file in it")
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise RequestError(f"there is no file '{path}'; give the path of an image") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"'{path}' cannot be read: {error}") from error


def _recognized(file: BufferedIOBase, name: str) -> "PILImage":
    from PIL import Image, UnidentifiedImageError

    kinds = "PNG, JPEG, WebP, BMP, TIFF or GIF"
    try:
        with warnings.catch_warnings():  # our own limit is checked next, from the header alone
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(file, formats=FORMATS)  # type: ignore[arg-type]
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise RequestError(f"{name} is no image that can be read; give a {kinds} file") from error
    except Exception as error:  # each of Pillow's readers fails in its own way on broken bytes
        raise RequestError(f"{name} is a broken image file; give a whole {kinds} file") from error


def _too_large(name: str) -> RequestError:
    return RequestError(
        f"{name} has more than {MOST_PIXELS // 1_000_000} million pixels; make it smaller first"
    )


def _check_size(picture: "PILImage", name: str) -> None:
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise _too_large(name)
    if width * height == 0:
        raise RequestError(
            f"{name} has no pixels ({width} x {height}); give an image that has some"
        )


def _pixels(picture: "PILImage", name: str) -> "np.ndarray":
    """(height, width, channel) in [0, 1], decoded, upright and opaque."""
    try:
        picture.load()
        upright = _upright(picture)
    except MemoryError:
        raise
    except Exception as error:  # as above: OSError, SyntaxError, EOFError, struct.error ...
        raise RequestError(f"{name} is broken or ends too early; give a whole file") from error
    if upright.mode.startswith("I;16"):
        return _sixteen_bit(upright)
    if upright.mode in ("I", "F"):
        return _wide(upright, name)
    if upright.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in upright.info:
        return _flattened(upright)
    try:
        return _scaled(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))
    except ValueError as error:
        raise RequestError(
            f"{name} has pixels of kind {upright.mode}; save it as RGB first"
        ) from error


def _upright(picture: "PILImage") -> "PILImage":
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    orientation = 1
    with suppress(Exception):  # a camera's broken notes are no reason to refuse its photograph
        orientation = picture.getexif().get(ORIENTATION, 1)
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def _sixteen_bit(picture: "PILImage") -> "np.ndarray":
    import numpy as np

    values = np.asarray(picture).astype(np.float32)
    clear = picture.info.get("transparency")
    pixels = values / np.float32(65535)
    if isinstance(clear, int):
        pixels[values == clear] = WHITE
    return pixels[..., None]


def _wide(picture: "PILImage", name: str) -> "np.ndarray":
    """32-bit pixels have no range of their own: only a PNG's and [0, 1] are understood."""
    import numpy as np

    values = np.asarray(picture)
    if picture.mode == "I" and picture.format == "PNG":
        return (values / 65535).astype(np.float32)[..., None]
    if picture.mode == "F" and values.min() >= 0 and values.max() <= 1:
        return values.astype(np.float32)[..., None]
    raise RequestError(f"{name} has 32-bit pixels of no known range; save it with 8 or 16 bits")


def _flattened(picture: "PILImage") -> "np.ndarray":
    grey = picture.mode in ("1", "L", "LA", "La")
    pixels = _scaled(picture.convert("RGBA"))
    colour, opacity = pixels[..., : 1 if grey else 3], pixels[..., 3:]
    return colour * opacity + WHITE * (1 - opacity)


def _scaled(picture: "PILImage") -> "np.ndarray":
    import numpy as np

    values = np.asarray(picture, dtype=np.float32) / np.float32(255)
    return values if values.ndim == 3 else values[..., None]


def _as_channels(pixels: "np.ndarray", channels: int | None, name: str) -> "np.ndarray":
    import numpy as np

    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if channels is None or channels == len(planes):
        return planes
    if channels == 3:
        return planes.repeat(3, axis=0)
    if (planes == planes[:1]).all():
        return planes[:1].copy()
    raise RequestError(f"{name} is in colour, and a grey image was asked for; convert it first")
