"""A data set is a row of numbered images, a label for each, and a hash that says which set it is.

There is one kind, `ImageSet`; where its images come from is a function inside it, and `sources`
makes them from arrays, folders, `.npz` files and torch's own data sets.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import index as whole_number
from typing import SupportsIndex

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from optogram.pictures.errors import RequestError

Image = Float[Tensor, "channel height width"]
Images = Float[Tensor, "batch channel height width"]
Shape = tuple[int, int, int]
Batch = tuple[Int64[Tensor, " batch"], Images, Int64[Tensor, " batch"]]

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images to show to a network, all in [0, 1], each with a number and a label.

    `labels` index `classes`; -1 is "not known". `shape` (channel, height, width) is what every
    image is fitted to, see `fit`; None hands them out as they are stored. `read` fetches stored
    images by their numbers, `content` yields the bytes that identify the set, `caption` says what
    an image is called. `skipped` names the images that cannot be read, each with the reason; one
    that is found broken only when it is decoded is added then. `origin` is the name and the split
    by which `optogram.data` finds the set again, where it came from there.
    """

    name: str
    classes: tuple[str, ...]
    labels: Int64[Tensor, " image"]
    read: Callable[[Sequence[int]], Tensor | Sequence[Tensor]]
    content: Callable[[], Iterable[bytes]]
    caption: Callable[[int], str]
    shape: Shape | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    origin: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.shape is not None and (len(self.shape) != 3 or min(self.shape) < 1):
            raise RequestError(
                f"an image's shape is (channels, height, width), each at least 1, not {self.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> tuple[Image, int]:
        """One image and its label; a negative index counts from the end.

        Raises:
            IndexError: there is no such image.
            RequestError: it cannot be read, or not be fitted to the shape.
        """
        number = whole_number(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, and no number {number}")
        images, labels = self.take(torch.tensor([number % len(self)]))
        return images[0], int(labels[0])

    def take(self, indices: Int64[Tensor, " batch"]) -> tuple[Images, Int64[Tensor, " batch"]]:
        """The images of these numbers, in this order, and their labels.

        Raises:
            RequestError: one cannot be read, or they differ in shape and none was asked for.
        """
        numbers = indices.tolist()
        return self._fitted(self.read(numbers), numbers), self.labels[indices]

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """(indices, images, labels) from `start` until before `stop`, `size` at a time.

        An image that cannot be read is left out, and named in `skipped`.
        """
        if size < 1:
            raise RequestError(f"a batch holds at least 1 image, not {size}")
        stop = len(self) if stop is None else min(stop, len(self))
        for first in range(start, stop, size):
            numbers, images = self._readable(range(first, min(first + size, stop)))
            if numbers:
                indices = torch.tensor(numbers)
                yield indices, self._fitted(images, numbers), self.labels[indices]

    @cached_property
    def digest(self) -> str:
        """`sha256:` and the hash of all that is handed out: classes, shape, labels and images.

        The first call reads every image's stored bytes; the name of the set does not count.
        """
        head = {"classes": self.classes, "shape": self.shape, "images": len(self)}
        content = hashlib.sha256(json.dumps(head).encode())
        content.update(self.labels.numpy().astype("<i8").tobytes())
        for part in self.content():
            content.update(part)
        return f"sha256:{content.hexdigest()}"

    def recipe(self) -> dict[str, str]:
        """What to write into a result's recipe: how to find the set, and what must be found."""
        name, split = self.origin or (self.name, "")
        return {"data": name, "split": split, "digest": self.digest}

    def fitted(self, shape: Shape | None) -> "ImageSet":
        """The same set with its images fitted to another shape."""
        return replace(self, shape=shape)

    def _readable(self, numbers: Sequence[int]) -> tuple[Sequence[int], Tensor | Sequence[Tensor]]:
        try:
            return numbers, self.read(numbers)
        except RequestError:
            pass
        whole: dict[int, Tensor] = {}
        for number in numbers:
            try:
                whole[number] = self.read([number])[0]
            except RequestError as error:
                self.skipped[self.caption(number)] = str(error)
        return list(whole), list(whole.values())

    def _fitted(self, images: Tensor | Sequence[Tensor], numbers: Sequence[int]) -> Images:
        if isinstance(images, Tensor):
            return images if self.shape is None else fit(images, self.shape)
        alike = [self._fitted_one(x, n) for x, n in zip(images, numbers, strict=True)]
        for image, number in zip(alike, numbers, strict=True):
            if image.shape != alike[0].shape:
                raise RequestError(
                    f"the images of {self.name} differ in shape: {self.caption(numbers[0])} is "
                    f"{tuple(alike[0].shape)}, {self.caption(number)} is {tuple(image.shape)}; "
                    "ask for one shape=(channels, height, width)"
                )
        return torch.stack(alike)

    def _fitted_one(self, image: Tensor, number: int) -> Image:
        if self.shape is None:
            return image
        try:
            return fit(image, self.shape)
        except RequestError as error:
            raise RequestError(f"{self.caption(number)}: {error}") from error


def fit(
    image: Float[Tensor, "*batch channel height width"], shape: Shape
) -> Float[Tensor, "*batch channels rows columns"]:
    """An image in the shape that a network wants, nothing stretched.

    It is resized (bilinear, antialiased) until it just covers height and width, and its centre is
    kept, as torchvision's Resize and CenterCrop do. A grey image's channel is repeated; of a
    colour image one channel can only be had where all are equal.

    Raises:
        RequestError: the channels cannot be had.
    """
    channels, height, width = shape
    image = _with_channels(image, channels)
    rows, columns = image.shape[-2:]
    if height * columns >= width * rows:
        size = (height, height * columns // rows)
    else:
        size = (width * rows // columns, width)
    if size != (rows, columns):
        flat = image.reshape(-1, channels, rows, columns)
        flat = torch.nn.functional.interpolate(flat, size, mode="bilinear", antialias=True)
        image = flat.clamp(0, 1).reshape(*image.shape[:-2], *size)
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return image[..., top : top + height, left : left + width].contiguous()


def _with_channels(image: Tensor, channels: int) -> Tensor:
    have = image.shape[-3]
    if have == channels:
        return image
    if have == 1:
        return image.expand(*image.shape[:-3], channels, *image.shape[-2:])
    if channels == 1 and bool((image == image[..., :1, :, :]).all()):
        return image[..., :1, :, :]
    raise RequestError(
        f"an image of {have} channels cannot be shown where {channels} "
        f"{'is' if channels == 1 else 'are'} wanted; convert it first"
    )
