"""A recipe says how a result was made; it travels inside the result's file or beside it.

It is a plain dict of JSON values. PNG files hold it in a text chunk, safetensors in their metadata,
HTML in a script that does nothing, and every other kind of picture has a JSON file beside it:
`why.webp` and `why.webp.json`.
"""

import hashlib
import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from torch import Tensor

KEY = "optogram"
SCRIPT_ID = "optogram-recipe"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST = 64 * 2**20
READABLE = (".png", ".safetensors", ".html", ".json", ".webp", ".jpg")


def canonical(recipe: Mapping[str, Any]) -> str:
    """The one way to write a recipe: sorted keys, no spaces, letters as they are, no NaN."""
    return _json(recipe)


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """`sha256:` and the hash of the canonical text in UTF-8: equal recipes, equal digests."""
    return _named(hashlib.sha256(canonical(recipe).encode()))


def digest(tensor: "Tensor") -> str:
    """`sha256:` and the hash of a tensor's dtype, shape and little-endian bytes."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = ",".join(str(size) for size in tensor.shape)
    content = hashlib.sha256(f"{dtype};{shape};".encode())
    content.update(_little_endian(tensor))
    return _named(content)


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The recipe inside a .png, .safetensors, .html or .json file, or in the JSON beside a picture.

    Raises:
        RequestError: there is no such file, or no recipe in it or beside it.
    """
    path = Path(path)
    content = _content(path)
    reader = {
        ".png": _from_png,
        ".safetensors": _from_safetensors,
        ".html": _from_html,
        ".htm": _from_html,
        ".json": _from_json,
    }.get(path.suffix.lower())
    text = reader(content) if reader else _from_beside(path, content)
    if text is None and reader is _from_png and beside(path).is_file():
        text = _from_beside(path, content)
    if text is None:
        raise RequestError(
            f"'{path}' holds no recipe of optogram; recipes are in files it has saved"
        )
    return _parsed(text, path)


def beside(path: str | os.PathLike[str]) -> Path:
    """Where the recipe of a picture stands that cannot hold one: `why.webp.json`."""
    return Path(f"{os.fspath(path)}.json")


def beside_bytes(recipe: Mapping[str, Any], content: bytes) -> bytes:
    """The JSON to put beside a picture of these bytes: its recipe, and the hash of what it made."""
    return _json({KEY: recipe, "file": _named(hashlib.sha256(content))}).encode()


def png_bytes(picture: "PILImage", recipe: Mapping[str, Any] | None = None) -> bytes:
    """A Pillow image as a PNG file, the recipe in a compressed iTXt chunk called `optogram`."""
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    if recipe is not None:
        notes.add_itxt(KEY, canonical(recipe), zip=True)
    file = BytesIO()
    picture.save(file, "PNG", pnginfo=notes, compress_level=6 if _is_small(picture) else 3)
    return file.getvalue()


def safetensors_bytes(
    tensors: "Mapping[str, Tensor]", recipe: Mapping[str, Any], facts: Mapping[str, Any]
) -> bytes:
    """Exact numbers in one file: named tensors, the recipe and the other facts as JSON metadata."""
    from safetensors.torch import save

    metadata = {KEY: canonical(recipe)} | {name: _json(value) for name, value in facts.items()}
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return _with_sorted_header(save(whole, metadata))


def script(recipe: Mapping[str, Any]) -> str:
    """The recipe as text for a `<script>` of JSON, which no `<` may end early."""
    return canonical(recipe).replace("<", "\\u003c")


def _with_sorted_header(content: bytes) -> bytes:
    """The library writes metadata in an order that changes from run to run; ours never does."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the numbers after it must lie at a multiple of 8
    return len(header).to_bytes(8, "little") + header + content[end:]


def _json(value: Any) -> str:
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(
            "a recipe holds JSON values only: texts, finite numbers, true, false, null, lists and "
            f"dicts; this one does not ({error})"
        ) from error
    _check_keys(value)
    return text


def _check_keys(value: Any) -> None:
    """json would turn the key 1 into "1" without a word, and another recipe would be read back."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            wrong = [key for key in value if not isinstance(key, str)]
            if wrong:
                raise RequestError(f"the keys of a recipe are texts; {wrong[0]!r} is none")
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def _named(content: Any) -> str:
    return f"sha256:{content.hexdigest()}"


def _little_endian(tensor: "Tensor") -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    octets = flat.view(torch.uint8).reshape(len(flat), flat.element_size())
    if sys.byteorder == "big":
        octets = octets.flip(1)
    return octets.numpy().tobytes()


def _is_small(picture: "PILImage") -> bool:
    return picture.width * picture.height < 4_000_000


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RequestError(
            f"there is no file '{path}'; give one that optogram has saved"
        ) from error
    except IsADirectoryError as error:
        raise RequestError(f"'{path}' is a folder; give a file in it") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"'{path}' cannot be read: {error}") from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the recipe in '{path}' is broken; make the file again") from error
    if not isinstance(recipe, dict):
        raise RequestError(f"'{path}' holds no recipe of optogram; a recipe is a JSON object")
    return recipe


def _from_png(content: bytes) -> str | None:
    """Read here rather than by Pillow, which would refuse the long recipe of a large sheet."""
    for kind, body in _chunks(content):
        if kind == b"iTXt" and body.startswith(KEY.encode() + b"\0"):
            return _international_text(body)
    return None


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG_SIGNATURE)
    if not content.startswith(PNG_SIGNATURE):
        return
    while place + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        yield kind, content[place + 8 : place + 8 + length]
        place += 12 + length


def _international_text(body: bytes) -> str | None:
    """keyword 0 compressed? method language 0 translated-keyword 0 text (PNG 1.2, 4.2.3.3)."""
    try:
        compressed, rest = body[len(KEY) + 1], body[len(KEY) + 3 :]
        _language, _translated, text = rest.split(b"\0", 2)
        if compressed:
            text = zlib.decompressobj().decompress(text, LONGEST)
        return text.decode()
    except (IndexError, ValueError, zlib.error):
        return None


def _from_safetensors(content: bytes) -> str | None:
    if len(content) < 8:
        return None
    length = int.from_bytes(content[:8], "little")
    try:
        return json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(KEY)
    except (ValueError, AttributeError):
        return None


def _from_html(content: bytes) -> str | None:
    finder = _RecipeFinder()
    finder.feed(content.decode("utf-8", errors="replace"))
    return finder.text


class _RecipeFinder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: str | None = None
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and dict(attrs).get("id") == SCRIPT_ID

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text = (self.text or "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def _from_json(content: bytes) -> str | None:
    """Our own files hold the recipe under `optogram`; a file that is a recipe itself counts too."""
    try:
        found = json.loads(content)
    except ValueError:
        return None
    if isinstance(found, dict) and isinstance(found.get(KEY), dict):
        found = found[KEY]
    return json.dumps(found) if isinstance(found, dict) else None


def _from_beside(path: Path, content: bytes) -> str | None:
    note = beside(path)
    if not note.is_file():
        return None
    text = note.read_bytes()
    found = _parsed(text.decode("utf-8", errors="replace"), note)
    made = found.get("file")
    if made is not None and made != _named(hashlib.sha256(content)):
        raise RequestError(f"'{note}' is the recipe of another picture than '{path}'")
    return _from_json(text)
