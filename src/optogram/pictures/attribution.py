"""Which pixels made the network say this: a map of values in their own units."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .errors import RequestError
from .lettering import brief
from .recipe import KEY, canonical, png_bytes, safetensors_bytes
from .saving import picture_forms, save, show
from .tensors import own, own_image, plain, settle

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PILImage


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """A value for every pixel, or for every place of a grid, in raw units.

    Attributes:
        values: (rows, columns), negative too where `signed`.
        image: what was explained, (channel, height, width) in [0, 1].
        target: the address of the unit that was explained, such as `output:Pomeranian`.
        score: the target's value on `image`.
        raw: (channel, height, width) before the channels were reduced to one, where there is such.
        boxes: (rows, columns, 4), the (top, left, bottom, right) in pixels, ends excluded, that
            each place of the grid speaks of; None where the places are the pixels.
        checks: what is known of its trustworthiness, by name; None until asked for. A number called
            `floor` is the noise floor: smaller values are drawn as nothing.
        recipe: how it was made.
        unit_of_values: what the values are measured in, such as `probability` or `logit per unit`.
        signed: whether a negative value means something: then drawn in red and blue about 0.
    """

    values: Float[Tensor, "rows columns"]
    image: Float[Tensor, "channel height width"]
    target: str
    score: float
    raw: Float[Tensor, "raw_channel raw_height raw_width"] | None = None
    boxes: Int[Tensor, "rows columns 4"] | None = None
    checks: dict[str, Any] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    unit_of_values: str = ""
    signed: bool = True

    def __post_init__(self) -> None:
        settle(
            self,
            values=own(self.values),
            image=own_image(self.image),
            score=float(self.score),
            raw=None if self.raw is None else own(self.raw),
            boxes=None if self.boxes is None else own(self.boxes, torch.int64),
        )
        if self.values.ndim != 2 or self.values.numel() == 0:
            raise RequestError(
                f"a map has the shape (rows, columns); this one has {tuple(self.values.shape)}"
            )
        if self.boxes is not None and self.boxes.shape != (*self.values.shape, 4):
            raise RequestError(
                f"a map of {tuple(self.values.shape)} needs boxes of {(*self.values.shape, 4)}; "
                f"these are {tuple(self.boxes.shape)}"
            )

    def __repr__(self) -> str:
        rows, columns = self.values.shape
        unit = f" {self.unit_of_values}" if self.unit_of_values else ""
        low, high = brief(float(self.values.min())), brief(float(self.values.max()))
        return (
            f"Attribution({self.target}, {rows}x{columns}, {low} to {high}{unit}, "
            f"score {brief(self.score)})"
        )

    @property
    def limit(self) -> float:
        """Where the colours end unless another limit is given: the largest |value|, or nearly.

        Of more than 200 values other than 0 the strongest half percent is left out.
        """
        from .colour import limit_of

        return limit_of(self.values)

    @property
    def floor(self) -> float:
        """The noise floor that the checks found, else 0."""
        return float((self.checks or {}).get("floor") or 0)

    def spread(self) -> Float[Tensor, "rows columns"]:
        """The values over the image: for a pixel the mean of the places whose boxes cover it.

        NaN where no box lies. Without boxes the values are returned as they are.
        """
        if self.boxes is None:
            return self.values
        return spread(self.values, self.boxes, self.image.shape[1], self.image.shape[2])

    def heatmap(
        self, limit: float | None = None, floor: float | None = None
    ) -> 'UInt8[np.ndarray, "height width 3"]':
        """The map in colour, one pixel a value: (height, width, 3), 0 to 255.

        `limit` is the |value| of the strongest colour (None: the map's own `limit`), `floor` the
        |value| under which there is only grey (None: the checks' noise floor).
        """
        from .colour import magnitude, signed

        paint = signed if self.signed else magnitude
        limit = (self.limit or None) if limit is None else limit
        return paint(self.spread(), limit, self.floor if floor is None else floor)

    def over(self, image: Any = None, limit: float | None = None) -> "Overlay":
        """The map over the greyed image, beside the image and a colour bar; shows and saves itself.

        `image` is a tensor in [0, 1], a path or a Pillow image (None: the one that was explained).
        """
        from .files import image as read

        if image is None:
            image = self.image
        return Overlay(self, image if isinstance(image, Tensor) else read(image), limit)

    def caption(self) -> tuple[str, ...]:
        """Short lines for under the map: the target, its score, what the checks found."""
        method = str(self.recipe.get("technique") or "").replace("_", " ")
        findings = [
            f"{name} {finding if isinstance(finding, str) else brief(finding, 2)}"
            for name, finding in self.findings().items()
        ]
        lines = [method, self.target, f"score {brief(self.score)}", *findings]
        return tuple(line for line in lines if line)

    def findings(self) -> dict[str, str | float]:
        """The checks that are a word or a number, their names as people write them; no floor."""
        return {
            name.replace("_", " "): value if isinstance(value, str) else float(value)
            for name, value in (self.checks or {}).items()
            if isinstance(value, str | float | int) and name != "floor"
        }

    def facts(self) -> dict[str, Any]:
        """All that is no tensor, as JSON values."""
        return {
            "target": self.target,
            "score": self.score,
            "unit_of_values": self.unit_of_values,
            "signed": self.signed,
            "limit": self.limit,
            "checks": self.checks,
        }

    def pil(
        self, scale: int | None = None, limit: float | None = None, floor: float | None = None
    ) -> "PILImage":
        """The map in colour above its colour bar."""
        from .drawing import map_with_bar

        return map_with_bar(self, scale, limit, floor)

    def show(self) -> None:
        """Show the map with its colour bar."""
        show(self.pil())

    def save(self, path: str | os.PathLike[str], scale: int | None = None) -> Path:
        """Write it as .png, .webp, .jpg, .html, .safetensors (exact) or .json (all but the map)."""
        forms = picture_forms(lambda: self.pil(scale), self.recipe)
        forms |= {".html": self._html, ".safetensors": self._safetensors}
        forms[".json"] = lambda: canonical({KEY: self.recipe, **plain(self.facts())}).encode()
        return save(path, self.recipe, forms)

    def _html(self) -> bytes:
        from .report import one_result

        return one_result(self)

    def _safetensors(self) -> bytes:
        tensors = {"values": self.values, "image": self.image, "raw": self.raw, "boxes": self.boxes}
        there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return safetensors_bytes(there, self.recipe, {"facts": plain(self.facts())})

    def _repr_png_(self) -> bytes:
        return png_bytes(self.pil(), self.recipe)


@dataclass(frozen=True, eq=False, repr=False)
class Overlay:
    """An image, beside it the same image in grey under a map, and the map's colour bar."""

    attribution: Attribution
    image: Float[Tensor, "channel height width"]
    limit: float | None = None

    def __post_init__(self) -> None:
        settle(self, image=own_image(self.image))
        shape, expected = self.image.shape[1:], self.attribution.image.shape[1:]
        if shape != expected:
            raise RequestError(
                f"the map was made for an image of {tuple(expected)} pixels; "
                f"this one has {tuple(shape)}"
            )

    def __repr__(self) -> str:
        return f"Overlay({self.attribution!r})"

    def pil(self, scale: int | None = None) -> "PILImage":
        """The drawing for Pillow, every pixel of the image a square of `scale` pixels."""
        from .drawing import overlay

        return overlay(self.attribution, self.image, self.limit, scale)

    def show(self) -> None:
        """Show the drawing."""
        show(self.pil())

    def save(self, path: str | os.PathLike[str], scale: int | None = None) -> Path:
        """Write the drawing as .png, .webp or .jpg, or the whole result as .html."""
        recipe = self.attribution.recipe
        forms = picture_forms(lambda: self.pil(scale), recipe)
        return save(path, recipe, forms | {".html": self._html})

    def _html(self) -> bytes:
        from .report import one_result

        return one_result(self)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.pil(), self.attribution.recipe)


def spread(
    values: Float[Tensor, "rows columns"],
    boxes: Int[Tensor, "rows columns 4"],
    height: int,
    width: int,
) -> Float[Tensor, "height width"]:
    """For every pixel the mean of the values whose box covers it, NaN where none does.

    A box is (top, left, bottom, right), ends excluded; what lies outside the image does not count.
    """
    total = torch.zeros(height, width, dtype=torch.float64)
    covers = torch.zeros(height, width, dtype=torch.float64)
    corners = boxes.reshape(-1, 4).clamp(min=0).tolist()
    for value, (top, left, bottom, right) in zip(values.flatten().tolist(), corners, strict=True):
        total[top:bottom, left:right] += value
        covers[top:bottom, left:right] += 1
    return (total / covers).float()
