"""Images from tar files as webdataset lays them out, and from object stores.

A tar file is read once for where its members lie; from then on an image is a range of bytes that
any worker fetches by number, in any order. Whatever fsspec reaches (s3, gs, http, memory, files)
will do. webdataset itself hands samples out as a stream, which no shard of work can begin in the
middle of, so of it we keep the layout.
"""

import glob
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import torch
from fsspec.core import split_protocol, url_to_fs

from optogram.pictures.errors import RequestError
from optogram.pictures.files import image as read_image

from .datasets import UNKNOWN, Image, ImageSet, Shape
from .sources import SUFFIXES

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST = 100_000
"""Tar files that one pattern may mean."""


@dataclass(frozen=True)
class _Place:
    """Where an image lies: a file of a store, and in a tar file from which byte to which."""

    path: str
    name: str
    start: int | None = None
    end: int | None = None


def is_remote(name: str) -> bool:
    """Whether a name is an address that fsspec takes, such as `s3://bucket/photos`."""
    protocol, _ = split_protocol(name)
    return protocol is not None and "://" in name


def is_tar(name: str) -> bool:
    """Whether a name means tar files."""
    return name.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"))


def is_there(pattern: str) -> bool:
    """Whether tar files of this machine match."""
    return any(glob.glob(one) for one in _counted(pattern))


def from_tar(pattern: str, *, name: str | None = None, shape: Shape | None = None) -> ImageSet:
    """Images in tar files of webdataset's layout, on this machine or in an object store.

    Members that share a path up to the first dot of its last part are a sample: its image is the
    first that is one, and a `.cls` beside it holds its label as a number. Samples are in the order
    of the files and of the members in them.

    Args:
        pattern: a path or address; `{000..010}` counts, `*` and `?` match.
        name: what to call the set, by default the pattern.
        shape: what to fit the images to.

    Raises:
        RequestError: there is no such file, it is compressed or broken, or holds no image.
    """
    places: list[_Place] = []
    labels: list[int] = []
    store: Any = None
    for url in _counted(pattern):
        store, paths = _matched(url, pattern)
        for path in paths:
            for place, label in _samples(store, path):
                places.append(place)
                labels.append(label)
    if not places:
        raise RequestError(f"'{pattern}' holds no image; give tar files with PNG or JPEG in them")
    classes = tuple(str(number) for number in range(max(labels) + 1))
    return _set(store, places, torch.tensor(labels), classes, name or pattern, shape)


def from_store(url: str, *, name: str | None = None, shape: Shape | None = None) -> ImageSet:
    """All image files below an address such as `s3://bucket/photos`, in the order of their paths.

    If there are folders in it, each is a class.

    Raises:
        RequestError: the address cannot be reached, or there is no image at it.
    """
    store, root = _opened(url)
    try:
        found = sorted(path for path in store.find(root) if path.lower().endswith(SUFFIXES))
    except Exception as problem:  # each store fails in its own way
        raise RequestError(f"'{url}' cannot be listed: {_said(problem)}") from problem
    if not found:
        raise RequestError(f"there is no image at '{url}'; give PNG or JPEG files")
    below = [path[len(root) :].lstrip("/") for path in found]
    classes = tuple(sorted({one.split("/")[0] for one in below if "/" in one}))
    numbers = {one: number for number, one in enumerate(classes)}
    labels = torch.tensor([numbers.get(one.split("/")[0], UNKNOWN) for one in below])
    places = [_Place(path, one) for path, one in zip(found, below, strict=True)]
    return _set(store, places, labels, classes, name or url, shape)


def _set(
    store: Any,
    places: Sequence[_Place],
    labels: torch.Tensor,
    classes: tuple[str, ...],
    name: str,
    shape: Shape | None,
) -> ImageSet:
    def fetched(some: Sequence[_Place]) -> list[Any]:
        paths, starts = [one.path for one in some], [one.start for one in some]
        return store.cat_ranges(paths, starts, [one.end for one in some], on_error="return")

    def read(numbers: Sequence[int]) -> list[Image]:
        some = [places[number] for number in numbers]
        return [_decoded(place, held) for place, held in zip(some, fetched(some), strict=True)]

    def content() -> Iterator[bytes]:
        for place in places:
            (held,) = fetched([place])
            if isinstance(held, BaseException):
                raise RequestError(f"{place.name} of {name} cannot be read: {_said(held)}")
            yield f"file;{place.name};{len(held)};".encode()
            yield held

    def caption(number: int) -> str:
        return places[number].name

    return ImageSet(name, classes, labels, read, content, caption, shape)


def _decoded(place: _Place, held: Any) -> Image:
    if isinstance(held, BaseException):
        raise RequestError(f"{place.name} cannot be read: {_said(held)}") from held
    try:
        return read_image(held)
    except RequestError as problem:
        raise RequestError(f"{place.name} cannot be read: {problem}") from problem


def _samples(store: Any, path: str) -> Iterator[tuple[_Place, int]]:
    """The images of a tar file, with their labels."""
    short = path.rsplit("/", 1)[-1]
    if not path.endswith(".tar"):
        raise RequestError(
            f"'{path}' is compressed, so that no image can be had without all before it: unpack it "
            f"to a plain .tar"
        )
    key: str | None = None
    image: _Place | None = None
    label = UNKNOWN
    try:
        with store.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, slash, last = member.name.rpartition("/")
                if not member.isfile() or last.startswith("."):
                    continue
                stem, _, kind = last.partition(".")
                if key != (mine := f"{folder}{slash}{stem}"):
                    if image is not None:
                        yield image, label
                    key, image, label = mine, None, UNKNOWN
                if image is None and f".{kind}".lower().endswith(SUFFIXES):
                    end = member.offset_data + member.size
                    image = _Place(path, f"{short}/{member.name}", member.offset_data, end)
                elif kind == "cls":
                    label = _label(tar, member, short)
            if image is not None:
                yield image, label
    except FileNotFoundError as problem:
        raise RequestError(f"there is no file '{path}'; give tar files of images") from problem
    except (OSError, tarfile.TarError, EOFError) as problem:
        raise RequestError(
            f"'{path}' is no whole tar file ({_said(problem)}); if it was downloaded, do so again"
        ) from problem


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, short: str) -> int:
    held = tar.extractfile(member)
    text = held.read().decode("utf-8", "replace").strip() if held else ""
    if not text.isdecimal():
        raise RequestError(f"{short}/{member.name} should hold a label's number, not {text[:20]!r}")
    return int(text)


def _counted(pattern: str) -> list[str]:
    """What `{000..010}` counts: 000, 001 ... 010; several are combined."""
    match = RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MOST:
        raise RequestError(f"'{pattern}': {{{match[1]}..{match[2]}}} should count up")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    numbers = (str(number).zfill(len(match[1])) for number in range(first, last + 1))
    return [one for number in numbers for one in _counted(f"{head}{number}{tail}")]


def _matched(url: str, pattern: str) -> tuple[Any, list[str]]:
    """The store of an address, and the paths in it that match, in order."""
    store, path = _opened(url)
    if not glob.has_magic(path):
        return store, [path]
    try:
        found = sorted(store.glob(path))
    except Exception as problem:  # each store fails in its own way
        raise RequestError(f"'{url}' cannot be listed: {_said(problem)}") from problem
    if not found:
        raise RequestError(f"no file matches '{pattern}'; give tar files of images")
    return store, found


def _opened(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return url_to_fs(url)
    except ImportError as missing:
        raise RequestError(f"'{url}' needs what is not installed: {_said(missing)}") from missing
    except Exception as problem:  # unknown protocols, addresses and credentials
        raise RequestError(f"'{url}' cannot be reached: {_said(problem)}") from problem


def _said(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(problem).__name__
