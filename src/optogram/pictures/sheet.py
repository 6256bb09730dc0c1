"""Many pictures, or many maps, side by side."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from .attribution import Attribution
from .errors import RequestError
from .picture import Picture
from .recipe import KEY, canonical, png_bytes, safetensors_bytes
from .saving import picture_forms, save, show
from .tensors import plain, settle

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

SCALES = ("shared", "each")


@dataclass(frozen=True, eq=False, repr=False)
class Sheet(Sequence[Any]):
    """An unchangeable sequence of Pictures or Attributions that shows and saves itself.

    Attributes:
        items: the results, in order.
        title: what stands above them.
        recipe: how the sheet was made.
        columns: how many stand in a row (None: as fits).
        scale: 'shared': one colour scale for all maps that are measured in the same unit;
            'each': every map its own, with its limit in its caption.
    """

    items: Sequence[Picture | Attribution]
    title: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    columns: int | None = None
    scale: str = "shared"

    def __post_init__(self) -> None:
        settle(self, items=tuple(self.items))
        for item in self.items:
            if not isinstance(item, Picture | Attribution):
                raise RequestError(
                    f"a sheet holds Pictures or Attributions, not a {type(item).__name__}"
                )
        if self.columns is not None and self.columns < 1:
            raise RequestError(f"a sheet has 1 column or more, not {self.columns}")
        if self.scale not in SCALES:
            raise RequestError(
                f"there is no colour scale {self.scale!r}; there are 'shared' and 'each'"
            )

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> "Sheet": ...
    def __getitem__(self, place: int | slice) -> Any:
        """The result at a place, or a Sheet of those in a slice."""
        if isinstance(place, slice):
            return replace(self, items=self.items[place])
        return self.items[place]

    def __repr__(self) -> str:
        kinds = {type(item).__name__ for item in self.items}
        kind = f"{kinds.pop()}s" if len(kinds) == 1 else "results"
        title = f" {self.title!r}" if self.title else ""
        return f"Sheet({len(self)} {kind}{title})"

    @property
    def images(self) -> Float[Tensor, "item channel height width"]:
        """All images in one tensor; RequestError where their shapes differ."""
        return _stacked([item.image for item in self.items], "images")

    @property
    def values(self) -> Float[Tensor, "item rows columns"]:
        """All maps in one tensor; RequestError where their shapes differ or there are none."""
        maps = [item.values for item in self.items if isinstance(item, Attribution)]
        if len(maps) < len(self):
            raise RequestError("only Attributions have values; this sheet holds Pictures")
        return _stacked(maps, "maps")

    @property
    def scores(self) -> Float[Tensor, " item"]:
        """The score of each, in its unit's own units."""
        return torch.tensor([item.score for item in self.items], dtype=torch.float32)

    @property
    def units(self) -> tuple[str, ...]:
        """The address of each: the unit of a Picture, the target of an Attribution."""
        return tuple(i.unit if isinstance(i, Picture) else i.target for i in self.items)

    def pil(self) -> "PILImage":
        """The contact sheet for Pillow, under 12,000 pixels a side."""
        from .contact import contact_sheet

        return contact_sheet(self)

    def show(self) -> None:
        """Show the contact sheet."""
        show(self.pil())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as .png, .webp, .jpg, .html, .safetensors (exact tensors) or .json (numbers)."""
        forms: dict[str, Callable[[], bytes]] = picture_forms(self.pil, self.recipe)
        forms |= {".html": self._html, ".safetensors": self._safetensors, ".json": self._json}
        return save(path, self.recipe, forms)

    def _html(self) -> bytes:
        from .report import one_result

        return one_result(self)

    def _safetensors(self) -> bytes:
        tensors = {"scores": self.scores}
        tensors |= _packed("images", [item.image for item in self.items])
        maps = {i: x.values for i, x in enumerate(self.items) if isinstance(x, Attribution)}
        if len(maps) == len(self.items):
            tensors |= _packed("values", list(maps.values()))
        else:
            tensors |= {f"values.{place}": values for place, values in maps.items()}
        return safetensors_bytes(tensors, self.recipe, {"units": list(self.units), **self._facts()})

    def _json(self) -> bytes:
        return canonical({KEY: self.recipe, **self._facts()}).encode()

    def _facts(self) -> dict[str, Any]:
        return {"title": self.title, "items": [plain(item.facts()) for item in self.items]}

    def _repr_png_(self) -> bytes:
        return png_bytes(self.pil(), self.recipe)


def _stacked(tensors: list[Tensor], what: str) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1:
        raise RequestError(
            f"the {what} of this sheet cannot be stacked, their shapes are {sorted(shapes)}; "
            "take them one by one"
        )
    return torch.stack(tensors)


def _packed(name: str, tensors: list[Tensor]) -> dict[str, Tensor]:
    """One tensor where shapes allow, else one for each: `images.0`, `images.1` ..."""
    if len({tensor.shape for tensor in tensors}) == 1:
        return {name: torch.stack(tensors)}
    return {f"{name}.{place}": tensor for place, tensor in enumerate(tensors)}
