"""What a network said about a batch of images, and how one asks about a unit of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.rules import before
from optogram.core.unit import Direction, Place, Target, Targetlike
from optogram.pictures.errors import RequestError

if TYPE_CHECKING:
    from optogram.core.network import Network

PerImage = Float[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class Activations:
    """What the layers of a network answered to a batch, and the image they were asked about.

    `layers[name]` is a layer's answer as the network made it, batch first; no in-place operation
    overwrites it. `image` is (batch, channel, height, width) in [0, 1], before normalisation: for
    an image that is being painted it is the canvas, which the paper modes let leave that range.
    """

    network: "Network"
    image: Float[Tensor, "batch channel height width"]
    layers: dict[str, Tensor]

    def __getitem__(self, target: Targetlike) -> PerImage:
        """One number per image: the unit's value, averaged over the places it has.

        `layer:17` of a convolution is the mean over its map; `@3,5` one place, `@strongest` the
        largest; a bare layer is the mean over its units and places.
        """
        return at_place(self.map(target), self.network.resolve(target).place)

    def map(self, target: Targetlike) -> Float[Tensor, " batch *places"]:
        """The unit's value at every place it has: (batch, row, column), (batch, token) or (batch,).

        A bare layer's map is the mean over its units. A place in the address is ignored.
        """
        target = self.network.resolve(target)
        channels_last = self._channels_last(target.layer)
        if isinstance(target, Direction):
            return channels_last @ target.vector.to(channels_last)
        if target.index is None:
            return channels_last.mean(-1)
        return channels_last[..., int(target.index)]

    def each(self, targets: Sequence[Target]) -> PerImage:
        """Image i asked about unit i, as `self[unit]` would, in one indexing operation a layer.

        Raises RequestError unless there are as many units as images.
        """
        plan = self.network.plan(targets)
        if len(targets) != len(self.image):
            raise RequestError(f"{len(targets)} units for {len(self.image)} images: give one each")
        if plan.single:
            layer, place, _, columns = plan.groups[0]
            return at_place(_Column.apply(self._channels_last(layer), columns), place)
        values: list[PerImage] = [self.image.new_empty(0)] * len(targets)
        for layer, place, rows, columns in plan.groups:
            answers = at_place(self._channels_last(layer)[rows, ..., columns], place)
            for row, answer in zip(rows.tolist(), answers.unbind(), strict=True):
                values[row] = answer
        for row, target in plan.singular:
            values[row] = self._row(row)[target][0]
        return torch.stack(values)

    @property
    def before(self) -> "Activations":
        """The same with pre-activations: what was given to the ReLU that made a layer's answer.

        A layer that no ReLU made (a convolution, a linear layer, a sum) is its own pre-activation.
        """
        return replace(self, layers={name: before(answer) for name, answer in self.layers.items()})

    def _channels_last(self, layer: str) -> Tensor:
        answer = self.layers[layer]
        if answer.dim() == 1:
            return answer[:, None]
        return answer.movedim(self.network.layer(layer).axis, -1)

    def _row(self, position: int) -> "Activations":
        layers = {name: answer[position : position + 1] for name, answer in self.layers.items()}
        return replace(self, image=self.image[position : position + 1], layers=layers)


@dataclass(frozen=True, eq=False)
class Plan:
    """Which image asks which unit: `groups` of (layer, place, image numbers, unit numbers).

    `singular` are the images that ask a direction or a whole layer; `single` says that one group
    holds all images in order.
    """

    groups: tuple[tuple[str, Place, Tensor, Tensor], ...]
    singular: tuple[tuple[int, Target], ...]
    single: bool

    @classmethod
    def of(cls, targets: Sequence[Target], device: torch.device) -> "Plan":
        """The plan for image i asking `targets[i]`, which are resolved."""
        members: dict[tuple[str, Place], list[tuple[int, int]]] = {}
        singular = []
        for row, target in enumerate(targets):
            if isinstance(target.index, int):
                members.setdefault((target.layer, target.place), []).append((row, target.index))
            else:
                singular.append((row, target))
        groups = []
        for (layer, place), pairs in members.items():
            rows, columns = (
                torch.tensor(column, device=device) for column in zip(*pairs, strict=True)
            )
            groups.append((layer, place, rows, columns))
        return cls(tuple(groups), tuple(singular), len(groups) == 1 and not singular)


class _Column(torch.autograd.Function):
    """Row i's column i; autograd's indexing sums gradients one by one, this writes them once."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, values: Tensor, columns: Tensor
    ) -> Tensor:
        ctx.save_for_backward(columns)
        ctx.shape = values.shape  # type: ignore[attr-defined]
        # A gradient that lies in memory as the values do costs the layers below no rearranging.
        dense = torch.ops.aten.is_non_overlapping_and_dense(values)
        ctx.strides = values.stride() if dense else None  # type: ignore[attr-defined]
        return values[torch.arange(len(columns), device=values.device), ..., columns]

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        (columns,) = ctx.saved_tensors  # type: ignore[attr-defined]
        shape, strides = ctx.shape, ctx.strides  # type: ignore[attr-defined]
        if strides is None:
            back = gradients[0].new_zeros(shape)
        else:
            back = gradients[0].new_empty_strided(shape, strides).zero_()
        back[torch.arange(len(columns), device=back.device), ..., columns] = gradients[0]
        return back, None


def at_place(values: Float[Tensor, " batch *places"], place: Place) -> PerImage:
    """One number an image: a unit's map at a place, at its strongest place, or its mean (None)."""
    if values.dim() == 1:
        return values
    if place is None:
        return values.flatten(1).mean(1)
    if place == "strongest":
        # amax would share the gradient among equal places; one place alone is what was asked for.
        return values.flatten(1).max(1).values
    assert isinstance(place, tuple)
    here: tuple[Any, ...] = (slice(None), *place)
    return values[here]
