"""Images to practise on, by name: digits and photographs that are embedded, MNIST, or your own.

Nothing is fetched from a network but what is asked for by name and not found: MNIST and the data
sets of torchvision, by torchvision's own loader.
"""

import gzip
import inspect
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from optogram.pictures.errors import RequestError
from optogram.survey.archives import from_store, from_tar, is_remote, is_tar, is_there
from optogram.survey.datasets import UNKNOWN, Image, ImageSet, Shape
from optogram.survey.sources import from_arrays, from_folder, from_npz, from_torch

from .patches import patches

DIGITS = tuple("0123456789")
DIGITS_TO_TRAIN = 1297
BOX = 20
CONTRAST = (0.4, 0.8)
"""What becomes 0 and 1: as much is then ink as in MNIST (18 % above 0.1, 9 % above 0.9)."""
PHOTOS = (
    "astronaut",
    "chelsea",
    "coffee",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
    "stereo_motorcycle",
    "china.jpg",
    "flower.jpg",
)
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST_FOLDERS = ("", "mnist", "MNIST/raw")


def data(
    spec: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    shape: Shape | None = None,
) -> ImageSet:
    """A set of images by name.

    Args:
        spec: `digits`, `photos` or `patches` of photographs, which are embedded; `mnist`; a folder
            of images; an `.npz`, see `optogram.survey.from_npz`; tar files as webdataset lays them
            out, `shards-{000..010}.tar` or `shards-*.tar`, here or in an object store; an address
            that fsspec takes, `s3://bucket/photos`; or `torchvision:NAME`, a data set of
            torchvision.
        root: where files are looked for, before `$OPTOGRAM_DATA` and, for paths, after the path
            itself; what is downloaded goes there.
        split: "train" or "test" ("val" is the same, but for torchvision, which is asked for what
            you say). A folder is taken whole, unless it has a folder `train` and one `test` or
            `val`; `photos` has one split.
        shape: (channels, height, width) that images are resized and cropped to; None leaves them.

    Raises:
        RequestError: there is nothing of this name, or it is broken or cannot be downloaded.
    """
    name = os.fspath(spec)
    return replace(_named(name, root, split, shape), origin=(name, split))


def digits(split: str = "train", shape: Shape | None = None) -> ImageSet:
    """1,797 handwritten digits of scikit-learn (Alpaydin & Kaynak, 1998), made to look like MNIST.

    They are 8 x 8 counts from 0 to 16 that fill the height. Each is resized (bicubic) to 20 x 20
    and placed in 28 x 28 with its centre of mass in the middle, which is how MNIST was made, and
    its contrast is raised until as much of it is ink. The first 1,297 are for training, the last
    500 for testing.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = slice(None, DIGITS_TO_TRAIN) if split == "train" else slice(DIGITS_TO_TRAIN, None)
    drawn = _as_mnist(torch.from_numpy(images[chosen]).float().reshape(-1, 8, 8) / 16)
    return from_arrays(drawn, labels[chosen], name=f"digits/{split}", classes=DIGITS, shape=shape)


def photos(shape: Shape | None = None) -> ImageSet:
    """Ten colour photographs that come with scikit-image and scikit-learn, each of its own size."""

    def read(numbers: Sequence[int]) -> list[Image]:
        return [torch.from_numpy(_photo(PHOTOS[i])).permute(2, 0, 1).float() / 255 for i in numbers]

    def content() -> Iterator[bytes]:
        for name in PHOTOS:
            photo = _photo(name)
            yield f"photo;{name};{photo.shape};".encode()
            yield photo.tobytes()

    def caption(number: int) -> str:
        return PHOTOS[number].removesuffix(".jpg")

    return ImageSet(
        "photos", (), torch.full((len(PHOTOS),), UNKNOWN), read, content, caption, shape
    )


def mnist(
    split: str = "train",
    shape: Shape | None = None,
    root: str | os.PathLike[str] | None = None,
) -> ImageSet:
    """MNIST (LeCun et al., 1998): 60,000 handwritten digits to train on, 10,000 to test, 28 x 28.

    Its IDX files, packed (.gz) or not, are looked for in `root` and `$OPTOGRAM_DATA`, in the
    folders `mnist` and `MNIST/raw` of these, and else downloaded by torchvision.

    Raises:
        RequestError: they are not there and cannot be downloaded, or are broken.
    """
    folder = _mnist_folder(root, split) or _downloaded_mnist(root, split)
    images, labels = (
        _idx(_packed_or_not(folder / name), axes)
        for name, axes in zip(MNIST_FILES[split], (3, 1), strict=True)
    )
    if len(images) != len(labels):
        raise RequestError(
            f"the files in '{folder}' hold {len(images)} images, {len(labels)} labels"
        )
    return from_arrays(images, labels, name=f"mnist/{split}", classes=DIGITS, shape=shape)


NAMED = {
    "digits": lambda root, split, shape: digits(split, shape),
    "photos": lambda root, split, shape: photos(shape),
    "mnist": lambda root, split, shape: mnist(split, shape, root),
    "patches": lambda root, split, shape: patches(split, shape),
}


def _named(
    name: str, root: str | os.PathLike[str] | None, split: str, shape: Shape | None
) -> ImageSet:
    if name.startswith("torchvision:"):
        return _torchvision(name, root, split, shape)
    if is_remote(name) and not is_tar(name):
        return from_store(name, shape=shape)
    if is_tar(name):
        place = name if is_remote(name) else _rooted(name, root)
        return from_tar(place, name=name, shape=shape)
    if split not in ("train", "test", "val"):
        raise RequestError(f"{name} has no split {split!r}; there is train and test, or val")
    if name in NAMED:
        return NAMED[name](root, "train" if split == "train" else "test", shape)
    for path in _places(name, root):
        if path.is_dir():
            return _folder(path, split, shape)
        if path.is_file() and path.suffix == ".npz":
            return from_npz(path, split=split, shape=shape)
    there = f"{', '.join(NAMED)}, torchvision:NAME, a folder of images, .npz or .tar files of them"
    raise RequestError(f"no data called {name!r}; there is {there}")


def _roots(root: str | os.PathLike[str] | None) -> list[Path]:
    given = [root, os.environ.get("OPTOGRAM_DATA")]
    return [Path(one).expanduser() for one in given if one]


def _home(root: str | os.PathLike[str] | None) -> Path:
    """Where a download goes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return next(iter(_roots(root)), cache / "optogram")


def _places(name: str, root: str | os.PathLike[str] | None) -> list[Path]:
    return [Path(name).expanduser(), *(one / name for one in _roots(root))] if name else []


def _rooted(name: str, root: str | os.PathLike[str] | None) -> str:
    """Where tar files lie: at their path, or below a root that has something there."""
    places = [str(path) for path in _places(name, root)]
    return next((one for one in places if is_there(one)), name)


def _folder(path: Path, split: str, shape: Shape | None) -> ImageSet:
    other = next((one for one in ("test", "val") if (path / one).is_dir()), None)
    if other is None or not (path / "train").is_dir():
        return from_folder(path, shape=shape)
    if split != "train" and not (path / split).is_dir():
        split = other
    return from_folder(path / split, name=f"{path.name}/{split}", shape=shape)


def _as_mnist(glyphs: Float[Tensor, "image 8 8"]) -> UInt8[Tensor, "image 28 28"]:
    size = (BOX, BOX)
    large = torch.nn.functional.interpolate(glyphs[:, None], size, mode="bicubic")[:, 0]
    paper, ink = CONTRAST
    large = ((large - paper) / (ink - paper)).clamp(0, 1)
    drawn = torch.zeros(len(glyphs), 28, 28)
    for canvas, glyph in zip(drawn, large, strict=True):
        top, left = _offset(glyph.sum(1)), _offset(glyph.sum(0))
        canvas[top : top + BOX, left : left + BOX] = glyph
    return (drawn * 255).round().to(torch.uint8)


def _offset(profile: Float[Tensor, " place"]) -> int:
    """Where the box begins along one side, so that its centre of mass is in the middle of 28."""
    centre = float((profile * torch.arange(BOX)).sum() / profile.sum())
    return min(max(round(13.5 - centre), 0), 28 - BOX)


def _photo(name: str) -> UInt8[np.ndarray, "height width 3"]:
    if name.endswith(".jpg"):
        from sklearn.datasets import load_sample_image

        return np.array(load_sample_image(name))
    import skimage.data

    found = getattr(skimage.data, name)()
    left = found[0] if isinstance(found, tuple) else found
    return np.array(left[..., :3])


def _packed_or_not(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() else path


def _mnist_folder(root: str | os.PathLike[str] | None, split: str) -> Path | None:
    for base in _roots(root):
        for folder in (base / inside for inside in MNIST_FOLDERS):
            if all(_packed_or_not(folder / name).is_file() for name in MNIST_FILES[split]):
                return folder
    return None


def _downloaded_mnist(root: str | os.PathLike[str] | None, split: str) -> Path:
    from torchvision import datasets

    home = _home(root)
    try:
        with _silence():
            datasets.MNIST(home, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        files = ", ".join(f"{name}.gz" for name in (*MNIST_FILES["train"], *MNIST_FILES["test"]))
        raise RequestError(
            f"MNIST is not under '{home}' and cannot be downloaded ({_first_line(error)}); put its "
            f"four files {files} into '{home / 'mnist'}', or name their folder with --data-root "
            "or $OPTOGRAM_DATA"
        ) from error
    return home / "MNIST" / "raw"


def _idx(path: Path, axes: int) -> np.ndarray:
    """An array of bytes in the IDX form: 0, 0, 8, the number of axes, big-endian sizes, values."""
    content = _unpacked(path)
    head = 4 + 4 * axes
    if len(content) < head or content[:4] != bytes((0, 0, 8, axes)):
        raise RequestError(f"'{path}' is no IDX file of bytes with {axes} axes; download it again")
    sizes = np.frombuffer(content, ">u4", axes, 4).astype(np.int64)
    if len(content) - head != sizes.prod():
        raise RequestError(
            f"'{path}' promises {' x '.join(map(str, sizes))} bytes and has {len(content) - head}; "
            "download it again"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(*sizes).copy()


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise RequestError(
            f"'{path}' is cut short or broken ({error}); download it again"
        ) from error


def _torchvision(
    spec: str, root: str | os.PathLike[str] | None, split: str, shape: Shape | None
) -> ImageSet:
    from torchvision import datasets

    name = spec.removeprefix("torchvision:")
    if name not in datasets.__all__ or not isinstance(getattr(datasets, name), type):
        raise RequestError(
            f"torchvision has no data set {name!r}; there is {', '.join(datasets.__all__)}"
        )
    kind = getattr(datasets, name)
    takes = inspect.signature(kind).parameters
    known = {"root": _home(root), "train": split == "train", "split": split, "image_set": split}
    chosen = {key: value for key, value in known.items() if key in takes}
    try:
        with _silence():
            found = _made(kind, chosen, "download" in takes)
        return from_torch(found, name=f"{spec}/{split}", shape=shape)
    except RequestError:
        raise
    except Exception as error:  # each of torchvision's sets fails in its own way
        raise RequestError(
            f"{spec} cannot be had with split={split!r} from '{_home(root)}': {_first_line(error)}"
        ) from error


def _made(kind: Any, chosen: dict[str, Any], can_download: bool) -> Any:
    """What is there is used as it is; only then is it downloaded."""
    if not can_download:
        return kind(**chosen)
    try:
        return kind(**chosen, download=False)
    except RuntimeError:
        return kind(**chosen, download=True)


@contextmanager
def _silence() -> Iterator[None]:
    """Torchvision prints while it downloads; here nothing below the doors does."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__
