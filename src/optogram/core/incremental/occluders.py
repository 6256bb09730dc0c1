"""What is hidden of an image, where, and what is shown in its place."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optogram.pictures.errors import RequestError

Side = int | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Occluders:
    """Occluders of one image, each hiding one box of it, or the part of the box that a mask tells.

    `boxes` are (top, left, bottom, right) in pixels, ends excluded. `content` is what is seen where
    something is hidden: an image of the same size, so that a colour, a blurred copy and another
    photograph are all the same thing. `masks` are true where something is hidden; None: all of
    the box.
    """

    boxes: Int[Tensor, "occluder 4"]
    content: Float[Tensor, "channel height width"]
    masks: Bool[Tensor, "occluder height width"] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def apply(
        self, image: Float[Tensor, "channel height width"], which: Int[Tensor, " some"]
    ) -> Float[Tensor, "some channel height width"]:
        """The image under some of the occluders, one copy each."""
        content = self.content.to(image)
        if self.masks is not None:
            hidden = self.masks[which.to(self.masks.device)].to(image.device)
            return torch.where(hidden[:, None], content, image)
        occluded = image.expand(len(which), *image.shape).clone()
        for copy, (top, left, bottom, right) in zip(
            occluded, self.boxes[which].tolist(), strict=True
        ):
            copy[:, top:bottom, left:right] = content[:, top:bottom, left:right]
        return occluded

    def some(self, which: Int[Tensor, " some"]) -> "Occluders":
        """A part of the occluders."""
        masks = None if self.masks is None else self.masks[which]
        return Occluders(self.boxes[which], self.content, masks)


def grid(height: int, width: int, patch: Side, stride: Side) -> Int[Tensor, "rows columns 4"]:
    """The boxes of an occluder slid over an image: (top, left, bottom, right), ends excluded.

    Every `stride` pixels from the top left, and once more flush with the right and the lower edge,
    so that every pixel is hidden at least once where the stride is at most the patch. An occluder
    larger than the image is cut to it. Raises RequestError for a side or a stride below 1.
    """
    sides, steps = _pair(patch, "patch"), _pair(stride, "stride")
    tops, lefts = (_starts(n, p, s) for n, p, s in zip((height, width), sides, steps, strict=True))
    top, left = torch.meshgrid(tops, lefts, indexing="ij")
    bottom, right = top + min(sides[0], height), left + min(sides[1], width)
    return torch.stack([top, left, bottom, right], -1)


def hull(masks: Bool[Tensor, "occluder height width"]) -> Int[Tensor, "occluder 4"]:
    """The smallest box around what each mask hides. Raises RequestError for a mask of nothing."""
    if not bool(masks.flatten(1).any(1).all()):
        raise RequestError("a mask hides nothing: give each at least one true pixel")
    sides = []
    for seen in (masks.any(2), masks.any(1)):
        places = torch.arange(seen.shape[1], device=masks.device)
        first = torch.where(seen, places, seen.shape[1]).amin(1)
        sides.append((first, torch.where(seen, places, -1).amax(1) + 1))
    (top, bottom), (left, right) = sides
    return torch.stack([top, left, bottom, right], 1).cpu()


def _starts(length: int, patch: int, stride: int) -> Int[Tensor, " place"]:
    last = max(length - patch, 0)
    starts = list(range(0, last + 1, stride))
    return torch.tensor(starts if starts[-1] == last else [*starts, last])


def _pair(side: Side, what: str) -> tuple[int, int]:
    pair = (side, side) if isinstance(side, int) else tuple(side)
    if len(pair) != 2 or any(not isinstance(n, int) or n < 1 for n in pair):
        raise RequestError(
            f"{what}={side!r}: give pixels, one number or (height, width), each >= 1"
        )
    return pair[0], pair[1]
