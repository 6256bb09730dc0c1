"""Where in a data set a few units answer most strongly, without surveying their whole layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core import progress
from optogram.core.field import Box
from optogram.core.layout import laid_out
from optogram.core.network import Layer, Network
from optogram.core.prepared import for_many
from optogram.core.unit import Direction, Target
from optogram.core.visit import visit
from optogram.pictures.errors import RequestError
from optogram.survey.datasets import ImageSet
from optogram.survey.reduce import heard
from optogram.survey.topk import NOBODY, TopK, challenge, challenge_everywhere


@dataclass(frozen=True, eq=False)
class Found:
    """One strong answer: its value, the image's number, the unit at that place, what it sees."""

    value: float
    image: int
    target: Target
    box: Box


def strongest(
    network: Network,
    images: ImageSet,
    targets: Sequence[Target],
    *,
    k: int = 9,
    everywhere: bool = False,
    batch: int = 16,
) -> list[list[Found]]:
    """The k strongest answers of each target, in falling order, in one pass over the images.

    A target is a unit, a direction, or a whole layer, whose value is the mean over its units; one
    with a place is asked there alone. Equal values stand in the order of images and places.
    `everywhere` lets one image appear several times.
    """
    if k < 1 or batch < 1:
        raise RequestError(f"k={k}, batch={batch}: both are at least 1")
    wanted = [network.resolve(target) for target in targets]
    layers = {target.layer: network.layer(target.layer) for target in wanted}
    # Targets that are asked everywhere and those with a place of their own have other maps.
    groups: dict[tuple[str, bool], list[int]] = {}
    for number, target in enumerate(wanted):
        groups.setdefault((target.layer, isinstance(target.place, tuple)), []).append(number)
    lists = {group: TopK.empty(len(members), k) for group, members in groups.items()}
    ready, seen = for_many(network, tuple(layers), len(images)), 0
    for numbers, shown, _ in images.batches(batch):

        def hear(name: str, answer: Tensor, numbers: Tensor = numbers) -> None:
            for group, members in groups.items():
                if group[0] == name:
                    maps = _maps(answer, layers[name], [wanted[m] for m in members])
                    said = heard(maps, 1, with_moments=False)
                    if not bool(torch.isfinite(said.strongest).all()):
                        raise RequestError(f"{images.name} makes {name!r} answer NaN or infinity")
                    if everywhere:
                        args = lists[group], said.strongest, numbers, said.look
                        lists[group] = challenge_everywhere(*args)
                    else:
                        args = lists[group], said.strongest, numbers, said.find
                        lists[group] = challenge(*args)

        visit(ready, laid_out(shown), tuple(layers), hear)
        seen += len(numbers)
        progress.tell("top patches", seen, len(images))
    return _in_order(network, wanted, groups, lists)


def _maps(
    answer: Tensor, layer: Layer, targets: list[Target]
) -> Float[Tensor, "batch target *places"]:
    """The targets' maps, those with a place cut down to it."""
    last = answer[..., None] if layer.axis == 0 else answer.movedim(layer.axis, -1)
    if all(isinstance(target.index, int) for target in targets):
        units = torch.tensor([target.index for target in targets], device=last.device)
        maps = last.index_select(-1, units).movedim(-1, 1)
    else:
        maps = torch.stack([_map(last, target) for target in targets], 1)
    if not isinstance(targets[0].place, tuple):
        return maps
    spots: list[Any] = [(slice(None), i, *_spot(target)) for i, target in enumerate(targets)]
    return torch.stack([maps[spot] for spot in spots], 1)


def _map(last: Float[Tensor, "batch *places units"], target: Target) -> Tensor:
    if isinstance(target, Direction):
        return last @ target.vector.to(last)
    return last.mean(-1) if target.index is None else last[..., int(target.index)]


def _spot(target: Target) -> tuple[int, ...]:
    return target.place if isinstance(target.place, tuple) else ()


def _in_order(
    network: Network,
    wanted: list[Target],
    groups: dict[tuple[str, bool], list[int]],
    lists: dict[tuple[str, bool], TopK],
) -> list[list[Found]]:
    found: list[list[Found]] = [[] for _ in wanted]
    for group, members in groups.items():
        layer = network.layer(group[0])
        for row, member in enumerate(members):
            entries = [
                part[row].tolist()
                for part in (lists[group].values, lists[group].images, lists[group].places)
            ]
            for value, image, place in zip(*entries, strict=True):
                if image != NOBODY:
                    found[member].append(
                        _found(network, layer, wanted[member], value, image, place)
                    )
    return found


def _found(
    network: Network, layer: Layer, target: Target, value: float, image: int, place: int
) -> Found:
    spot: tuple[int, ...] | None = target.place if isinstance(target.place, tuple) else None
    if spot is None and layer.places:
        rest = torch.tensor(place)
        spot = tuple(int(i) for i in torch.unravel_index(rest, layer.places))
    box = (0, 0, *network.shape[1:])
    if spot is not None and len(spot) == 2:
        box = layer.field.box(spot[0], spot[1], *network.shape[1:])
    at = target if spot is None or _is_layer(target) else replace(target, place=spot)
    return Found(value, image, at, box)


def _is_layer(target: Target) -> bool:
    """Whether a target is a whole layer, which has no place of its own."""
    return not isinstance(target, Direction) and target.index is None
