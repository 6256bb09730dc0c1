"""Images that visitors send: checked before they are decoded, and kept by the hash of their bytes.

The hash is the address: whoever has the image has the page, and two visitors never meet.
"""

import hashlib
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from optogram.pictures.errors import RequestError

FORMATS = ("PNG", "JPEG", "WEBP")
LONGEST = 1024


@dataclass(frozen=True)
class Upload:
    """An image that was sent: its key, its name, size, and itself as a visitor sees it (WebP)."""

    key: str
    name: str
    width: int
    height: int
    webp: bytes
    content: bytes


class Uploads:
    """The last so many images that were sent, in memory alone."""

    def __init__(self, most: int, pixels: int) -> None:
        self.most, self.pixels = most, pixels
        self._held: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, content: bytes, name: str) -> Upload:
        """Keep an image. Raises RequestError for what is none, too large, or of another kind."""
        key = hashlib.sha256(content).hexdigest()[:32]
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        upload = read(content, name, key, self.pixels)
        with self._lock:
            self._held[key] = upload
            while len(self._held) > self.most:
                self._held.popitem(last=False)
        return upload

    def __getitem__(self, key: str) -> Upload:
        """The image of that key. Raises RequestError where it is no longer there."""
        with self._lock:
            if key not in self._held:
                raise RequestError("that image is no longer here: send it once more")
            self._held.move_to_end(key)
            return self._held[key]


def read(content: bytes, name: str, key: str, pixels: int) -> Upload:
    """An image from its bytes; its size is judged from the header, before anything is decoded.

    Raises RequestError for what is no whole PNG, JPEG or WebP of at most so many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    from optogram.pictures.drawing import as_pil
    from optogram.pictures.files import image as whole

    kinds = "send a PNG, JPEG or WebP"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content), formats=FORMATS) as picture:
                width, height = picture.size
    except UnidentifiedImageError as problem:
        raise RequestError(f"that is no image that can be read here: {kinds}") from problem
    except Image.DecompressionBombError as problem:
        raise _too_large(pixels) from problem
    except Exception as problem:  # each of Pillow's readers fails in its own way on broken bytes
        raise RequestError(f"that image is broken: {kinds}") from problem
    if width * height > pixels:
        raise _too_large(pixels)
    try:
        shown: Any = as_pil(whole(content))
    except RequestError as problem:
        raise RequestError(f"that image is broken or ends too early: {kinds}") from problem
    shown.thumbnail((LONGEST, LONGEST))
    file = BytesIO()
    shown.save(file, "WEBP", quality=88)
    return Upload(key, name[:80], width, height, file.getvalue(), content)


def _too_large(pixels: int) -> RequestError:
    return RequestError(
        f"that image has more than {pixels // 1_000_000} million pixels: make it smaller first"
    )
