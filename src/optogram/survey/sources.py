"""Where the images of a set come from: arrays, a folder, an `.npz` file, a data set of torch's."""

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from optogram.pictures.errors import RequestError
from optogram.pictures.files import image as read_image

from .datasets import UNKNOWN, Image, ImageSet, Shape

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SPLITS = {"train": 0, "test": 1, "val": 1}
TAIL = 64


def from_arrays(
    images: Any,
    labels: Any = None,
    *,
    name: str = "arrays",
    classes: Sequence[str] = (),
    shape: Shape | None = None,
) -> ImageSet:
    """A set held in memory: (image, height, width) or (image, channel, height, width).

    Bytes stay bytes, 0 to 255, until a batch is handed out; floating-point values are kept as
    float32 and must lie in [0, 1]. Neither is copied where that can be helped, so leave the array
    as it is.

    Raises:
        RequestError: another number of axes, another type or range, or labels that do not match.
    """
    stored = _tensor(images)
    stored = stored[:, None] if stored.ndim == 3 else stored
    if stored.ndim != 4 or 0 in stored.shape:
        raise RequestError(
            "images in memory are an array of (image, height, width) or (image, channel, height, "
            f"width), none of them 0; this one is {tuple(stored.shape)}"
        )
    stored = _bytes_or_unit(stored, name)

    def read(numbers: Sequence[int]) -> Tensor:
        return _unit(stored[torch.tensor(list(numbers), dtype=torch.int64)])

    def content() -> Iterator[bytes]:
        yield f"arrays;{stored.dtype};{tuple(stored.shape)};".encode()
        for part in stored.split(4096):
            yield part.contiguous().numpy().tobytes()

    known = _labels(len(stored), labels, classes, name)
    return ImageSet(
        name, tuple(classes), known, read, content, lambda i: f"image {i} of {name}", shape
    )


def from_folder(
    path: str | os.PathLike[str], *, name: str | None = None, shape: Shape | None = None
) -> ImageSet:
    """All image files in a folder and the folders in it, in the order of their paths.

    If there are sub-folders, each is a class, and an image outside them has none. Hidden files and
    files of other kinds do not count; images that are cut short or unreadable are named in
    `skipped`.

    Raises:
        RequestError: there is no such folder, or no readable image in it.
    """
    root = Path(path)
    if not root.is_dir():
        raise RequestError(f"there is no folder '{root}'; give one with images in it")
    found = _image_files(root)
    skipped = {file: why for file in found if (why := _unreadable(root / file))}
    files = [file for file in found if file not in skipped]
    if not files:
        broken = f" that can be read, only {len(skipped)} broken ones" if skipped else ""
        raise RequestError(
            f"the folder '{root}' has no image in it{broken}; give PNG or JPEG files"
        )
    classes = tuple(sorted({file.split("/")[0] for file in found if "/" in file}))
    numbers = {one: number for number, one in enumerate(classes)}
    labels = torch.tensor([numbers.get(file.split("/")[0], UNKNOWN) for file in files])

    def read(some: Sequence[int]) -> list[Image]:
        return [read_image(root / files[i]) for i in some]

    def content() -> Iterator[bytes]:
        for file in files:
            inside = (root / file).read_bytes()
            yield f"file;{file};{len(inside)};".encode()
            yield inside

    return ImageSet(
        name or root.name, classes, labels, read, content, files.__getitem__, shape, skipped
    )


def from_npz(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    name: str | None = None,
    shape: Shape | None = None,
) -> ImageSet:
    """A set in one file: the images as they came, JPEG or PNG, end to end, decoded when asked for.

    The file holds `jpeg` uint8, all files joined; `offset` (images + 1), where each begins and the
    last ends; `label` and `split` (images), 0 for training and 1 for validation; `classes`, their
    names. Nothing in it is unpickled. All images are handed out in colour.

    Args:
        path: the file.
        split: "train"; "test" or "val", which are the same; None takes all.
        name: what to call the set, by default as the file.
        shape: what to fit the images to.

    Raises:
        RequestError: there is no such file, split or image, or the file is broken or of another
            form.
    """
    path = Path(path)
    packed = _checked(_arrays_of(path), path)
    if split not in (None, *SPLITS):
        raise RequestError(f"'{path}' has no split {split!r}; there is {', '.join(SPLITS)}")
    chosen = np.arange(len(packed["label"]))
    if split is not None:
        chosen = np.flatnonzero(packed["split"] == SPLITS[split])
    if not len(chosen):
        raise RequestError(f"'{path}' has no image in its split {split!r}; ask for another")
    name = name or (path.stem if split is None else f"{path.stem}/{split}")
    whole, offset = packed["jpeg"], packed["offset"]

    def stored(number: int) -> bytes:
        place = chosen[number]
        return whole[offset[place] : offset[place + 1]].tobytes()

    def caption(number: int) -> str:
        return f"image {chosen[number]} of {path.name}"

    def read(numbers: Sequence[int]) -> list[Image]:
        return [_decoded(stored(number), caption(number)) for number in numbers]

    def content() -> Iterator[bytes]:
        for number in range(len(chosen)):
            inside = stored(number)
            yield f"packed;{len(inside)};".encode()
            yield inside

    labels = torch.from_numpy(packed["label"][chosen].astype(np.int64))
    classes = tuple(str(one) for one in packed["classes"])
    return ImageSet(name, classes, labels, read, content, caption, shape)


def from_torch(dataset: Any, *, name: str | None = None, shape: Shape | None = None) -> ImageSet:
    """A data set of torch's or torchvision's.

    For an index it gives an image, or a tuple that begins with an image and its label.
    An image is a Pillow image, or a tensor or array of (channel, height, width) or (height, width),
    bytes or in [0, 1]. Labels are taken from `targets` or `labels` where the set has them, else by
    going through it once; what is no whole number becomes -1.

    Raises:
        RequestError: the set has no length, is empty, or gives something else.
    """
    name = name or type(dataset).__name__
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise RequestError(
            f"{name} cannot be asked for its n-th image; give a data set with a length"
        )
    if not len(dataset):
        raise RequestError(f"{name} is empty; give a data set with images in it")

    def caption(number: int) -> str:
        return f"image {number} of {name}"

    def read(numbers: Sequence[int]) -> list[Image]:
        return [_from_item(dataset[number], caption(number)) for number in numbers]

    def content() -> Iterator[bytes]:
        for number in range(len(dataset)):
            image = read([number])[0]
            yield f"float32;{tuple(image.shape)};".encode()
            yield image.contiguous().numpy().tobytes()

    classes = tuple(str(one) for one in getattr(dataset, "classes", None) or ())
    return ImageSet(name, classes, _torch_labels(dataset), read, content, caption, shape)


def _tensor(values: Any) -> Tensor:
    """Torch warns of arrays that it could write into but should not; those are copied."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"a {type(values).__name__} cannot be read as an array: {error}"
        ) from error


def _bytes_or_unit(stored: Tensor, name: str) -> Tensor:
    if stored.dtype == torch.uint8:
        return stored
    if not stored.is_floating_point():
        raise RequestError(
            f"the values of {name} are {str(stored.dtype).removeprefix('torch.')}; "
            "give uint8, or floats in [0, 1]"
        )
    if not bool(((stored >= 0) & (stored <= 1)).all()):
        raise RequestError(
            f"the values of {name} reach from {stored.min():.4g} to {stored.max():.4g}; "
            "images are in [0, 1] here, and normalising them is left to the Network"
        )
    return stored.float()


def _unit(stored: Tensor) -> Tensor:
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored


def _labels(count: int, labels: Any, classes: Sequence[str], name: str) -> Int64[Tensor, " image"]:
    if labels is None:
        return torch.full((count,), UNKNOWN)
    known = _tensor(labels)
    if known.shape != (count,) or known.is_floating_point():
        raise RequestError(
            f"{name} has {count} images; its labels are {count} whole numbers, "
            f"not {str(known.dtype).removeprefix('torch.')} of shape {tuple(known.shape)}"
        )
    known = known.to(torch.int64)
    if classes and not UNKNOWN <= int(known.min()) <= int(known.max()) < len(classes):
        raise RequestError(
            f"{name} has {len(classes)} classes, and labels from {known.min()} to {known.max()}; "
            f"they go from 0 to {len(classes) - 1}, and -1 is not known"
        )
    return known


def _image_files(root: Path) -> list[str]:
    """Paths below `root`, with slashes on every system; no folder is entered twice by links."""
    found, been = [], set()
    for folder, inside, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in been:
            inside.clear()
            continue
        been.add(os.path.realpath(folder))
        inside[:] = [one for one in inside if not one.startswith(".")]
        found += [
            (Path(folder) / file).relative_to(root).as_posix()
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        ]
    return sorted(found)


def _unreadable(path: Path) -> str | None:
    """Why a file is no image; None if it begins and ends as one or, where unsure, decodes."""
    try:
        if _begins_and_ends_well(path):
            return None
        read_image(path)
    except (OSError, RequestError) as error:
        return str(error)
    return None


def _begins_and_ends_well(path: Path) -> bool:
    """A download that was cut short shows at its end, which is a thousand times quicker to read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    if head.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in tail
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" in tail
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return size >= int.from_bytes(head[4:8], "little") + 8
    return False


def _arrays_of(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise ValueError("one array, not several by name")
            return {key: found[key] for key in found.files}
    except FileNotFoundError as error:
        raise RequestError(f"there is no file '{path}'; give an .npz of images") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RequestError(
            f"'{path}' is no whole .npz of plain arrays; if it was downloaded, do so again"
        ) from error


def _checked(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    missing = [key for key in ("jpeg", "offset", "label", "split", "classes") if key not in arrays]
    if missing:
        raise RequestError(
            f"'{path}' lacks {', '.join(missing)}; a file of images has the arrays jpeg, offset, "
            "label, split and classes"
        )
    jpeg, offset, label, split = (arrays[key] for key in ("jpeg", "offset", "label", "split"))
    images = offset.size - 1
    sound = (
        jpeg.dtype == np.uint8
        and {jpeg.ndim, offset.ndim, label.ndim, split.ndim, arrays["classes"].ndim} == {1}
        and {offset.dtype.kind, label.dtype.kind, split.dtype.kind} <= {"i", "u"}
        and images > 0
        and (label.size, split.size) == (images, images)
    )
    if not sound:
        raise RequestError(
            f"'{path}' is of another form: jpeg is a row of bytes, offset has one number more than "
            "there are images, label and split have one for each"
        )
    offset = offset.astype(np.int64)
    if offset[0] < 0 or offset[-1] > jpeg.size or (np.diff(offset) <= 0).any():
        raise RequestError(
            f"the offsets in '{path}' do not divide its {jpeg.size} bytes into images"
        )
    if label.min() < 0 or label.max() >= arrays["classes"].size:
        raise RequestError(f"'{path}' has labels outside its {arrays['classes'].size} classes")
    return arrays | {"offset": offset}


def _decoded(content: bytes, caption: str) -> Image:
    try:
        return read_image(content, channels=3)
    except RequestError as error:
        raise RequestError(f"{caption} cannot be read: {error}") from error


def _from_item(item: Any, caption: str) -> Image:
    image = item[0] if isinstance(item, tuple | list) else item
    if not isinstance(image, Tensor | np.ndarray):
        try:
            return read_image(image)
        except RequestError as error:
            raise RequestError(f"{caption} cannot be read: {error}") from error
    stored = _tensor(image)
    stored = stored[None] if stored.ndim == 2 else stored
    if stored.ndim != 3 or 0 in stored.shape:
        raise RequestError(
            f"{caption} has the shape {tuple(stored.shape)}; "
            "an image is (channel, height, width) or (height, width)"
        )
    return _unit(_bytes_or_unit(stored, caption))


def _torch_labels(dataset: Any) -> Int64[Tensor, " image"]:
    for key in ("targets", "labels"):
        given = getattr(dataset, key, None)
        if given is not None and len(given) == len(dataset):
            return torch.tensor([_label(one) for one in given])
    return torch.tensor([_label_of(dataset[number]) for number in range(len(dataset))])


def _label_of(item: Any) -> int:
    return _label(item[1]) if isinstance(item, tuple | list) and len(item) > 1 else UNKNOWN


def _label(value: Any) -> int:
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    return int(value) if isinstance(value, int | np.integer) else UNKNOWN
