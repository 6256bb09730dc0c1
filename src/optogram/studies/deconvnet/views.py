"""Which images the study looks into: those that are there, or else what came with the package."""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from optogram.core.network import Network
from optogram.pictures.errors import RequestError
from optogram.survey.datasets import ImageSet
from optogram.survey.sources import from_arrays
from optogram.zoo.data import PHOTOS, data

from .bench import Faces

Root = str | os.PathLike[str] | None
TWENTY = "tinyimagenet20/tinyimagenet20.npz"
THOUSAND = "imagenet_samples"
SCALES = (1.25, 2.0, 3.0)
# Where the parts of a face are in all of scikit-image's 25x25 faces, which are aligned.
LFW = {"left eye": (6, 3, 12, 10), "right eye": (6, 14, 12, 21), "nose": (10, 9, 16, 16)}
FACES = 8
# Dogs that look into the camera, by their place among the validation images of 64x64, and the
# centres (row, column) of the eye on the left, the eye on the right and the nose.
DOGS: dict[int, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    200: ((12, 30), (12, 46), (22, 41)),
    201: ((12, 18), (12, 32), (23, 22)),
    206: ((25, 23), (25, 35), (41, 30)),
    207: ((19, 26), (18, 50), (42, 43)),
    213: ((20, 25), (21, 40), (34, 28)),
    226: ((17, 22), (17, 43), (26, 32)),
    247: ((16, 29), (20, 47), (34, 38)),
}
PART = 12


def views(
    network: Network, root: Root, name: str | os.PathLike[str] | None
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """The images to look into, and labelled ones to train and to test probes on."""
    try:
        train, test = (
            data(TWENTY, root=root, split=s, shape=network.shape) for s in ("train", "test")
        )
    except RequestError:
        train, test = crops(network.shape, "left"), crops(network.shape, "right")
    if name is not None:
        return data(name, root=root, split="test", shape=network.shape), train, test
    if len(network.labels) == 1000:
        try:
            return data(THOUSAND, root=root, shape=network.shape), train, test
        except RequestError:
            pass
    if train.classes != PHOTOS:
        return test, train, test
    return crops(network.shape, "both"), train, test


def thinned(images: ImageSet, most: int) -> ImageSet:
    """At most so many of the images, evenly spread."""
    if len(images) <= most:
        return images
    kept = torch.linspace(0, len(images) - 1, most).round().long()

    def read(numbers: Sequence[int]) -> Tensor | Sequence[Tensor]:
        return images.read(kept[list(numbers)].tolist())

    return replace(
        images,
        labels=images.labels[kept],
        read=read,
        content=lambda: (*images.content(), kept.numpy().tobytes()),
        caption=lambda number: images.caption(int(kept[number])),
        origin=None,
    )


def crops(shape: tuple[int, int, int], half: str) -> ImageSet:
    """Windows of the ten embedded photographs at three sizes, which photograph as the label.

    `half` is "left" or "right", for two sets that share no pixel, or "both".
    """
    side = shape[-1]
    photos = data("photos")
    windows: list[Tensor] = []
    labels: list[int] = []
    for number in range(len(photos)):
        photo = photos[number][0]
        for scale in SCALES:
            short = round(scale * side)
            height, width = photo.shape[-2:]
            size = (
                (short, round(short * width / height))
                if height < width
                else (round(short * height / width), short)
            )
            small = F.interpolate(photo[None], size, mode="bilinear", antialias=True)[0]
            for part in _halves(small, half):
                windows += _windows(part, side)
            labels += [number] * (len(windows) - len(labels))
    stored = (torch.stack(windows).clamp(0, 1) * 255).round().to(torch.uint8)
    return from_arrays(
        stored, labels, name=f"windows of photographs/{half}", classes=PHOTOS, shape=shape
    )


def _halves(photo: Tensor, half: str) -> list[Tensor]:
    middle = photo.shape[-1] // 2
    left, right = photo[..., :middle], photo[..., middle:]
    return {"left": [left], "right": [right], "both": [left, right]}[half]


def _windows(photo: Tensor, side: int) -> list[Tensor]:
    """Squares of `side` pixels, three quarters of that apart; a narrow half gives one, padded."""
    height, width = photo.shape[-2:]
    if width < side:
        photo = F.pad(photo[None], (0, side - width, 0, 0), mode="replicate")[0]
        width = side
    step = max(1, 3 * side // 4)
    return [
        photo[:, top : top + side, left : left + side]
        for top in range(0, height - side + 1, step)
        for left in range(0, width - side + 1, step)
    ]


def faces(network: Network, test: ImageSet) -> Faces:
    """Dogs among the validation images, where these are there; else faces of scikit-image."""
    shape = network.shape
    scale = shape[-1] / 64
    if test.name.startswith("tinyimagenet20"):
        numbers = torch.tensor(list(DOGS))
        images = test.take(numbers)[0]
        half = round(PART * scale / 2)
        parts = {}
        for place, part in enumerate(("left eye", "right eye", "nose")):
            centres = [tuple(round(c * scale) for c in DOGS[n][place]) for n in numbers.tolist()]
            parts[part] = torch.tensor([_box(c, half, shape[-1]) for c in centres])
        return Faces("dogs of the validation images", images, parts)
    import skimage.data

    side = shape[-1]
    grey = torch.from_numpy(skimage.data.lfw_subset()[:FACES]).float()[:, None]
    large = F.interpolate(grey, (side, side), mode="bilinear", align_corners=False)
    boxes = {
        part: torch.tensor([[round(edge * side / 25) for edge in box]] * FACES)
        for part, box in LFW.items()
    }
    return Faces("faces of scikit-image", large.clamp(0, 1).expand(-1, 3, -1, -1).clone(), boxes)


def _box(centre: tuple[int, ...], half: int, side: int) -> tuple[int, int, int, int]:
    top, left = (min(max(c - half, 0), side - 2 * half) for c in centre)
    return top, left, top + 2 * half, left + 2 * half
