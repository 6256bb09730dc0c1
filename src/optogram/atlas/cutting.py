"""Patches, projections and whole images of a shard."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optogram.atlas.layout import LayerInfo
from optogram.atlas.painting import targets
from optogram.atlas.sprites import tile_webp
from optogram.atlas.store import NOWHERE, Pack
from optogram.core import rules
from optogram.core.memory import Room
from optogram.core.network import Network
from optogram.core.unit import Target
from optogram.pictures.drawing import as_pil
from optogram.survey import ImageSet
from optogram.survey.patches import Found
from optogram.techniques.top_patches import Project, contrasted, crop, projected

PIXELS = 1_200_000
"""About so many numbers of images are sent back together."""


def patches(
    network: Network,
    images: ImageSet,
    layer: LayerInfo,
    units: Sequence[int],
    stats: Mapping[int, Mapping[str, Any]],
    vectors: Tensor | None,
    project: Project,
    k: int,
    whole: bool,
) -> tuple[list[dict[str, Any]], Pack]:
    """Rows and pictures of the strongest answers of some units, which `stats` knows.

    `whole` says that whole images are kept, so that a patch that is one need not be.
    """
    found = [
        (unit, rank, answer)
        for unit, target in zip(units, targets(layer, units, 1, vectors), strict=True)
        for rank, answer in enumerate(_answers(target, stats[unit], layer, k))
    ]
    shape = network.shape
    everything = (0, 0, shape[1], shape[2])
    seen: dict[int, bytes] = {}
    sent: dict[int, bytes] = {}
    needed = [
        place
        for place, (_, _, answer) in enumerate(found)
        if project != "none" or not (whole and answer.box == everything)
    ]
    # By image, so that one that many units like is read and decoded once.
    needed.sort(key=lambda place: found[place][2].image)
    size = max(4, PIXELS // (shape[0] * shape[1] * shape[2]))
    room = Room("images", size)

    def look(some: Sequence[int]) -> None:
        answers = [found[place][2] for place in some]
        shown = _shown(images, [answer.image for answer in answers])
        for place, image, answer in zip(some, shown, answers, strict=True):
            if not (whole and answer.box == everything):
                seen[place] = _tile(crop(image, answer))
        if project != "none":
            slopes = projected(network, shown, answers, project, len(some))
            for place, slope, answer in zip(some, slopes, answers, strict=True):
                sent[place] = _tile(contrasted(crop(slope, answer).float().cpu()))

    for _ in room.each(needed, look):
        pass
    pack = Pack()
    rows: list[dict[str, Any]] = []
    for place, (unit, rank, answer) in enumerate(found):
        about = {"unit": unit, "rank": rank, "image": answer.image, "value": answer.value}
        where = pack.add(seen[place]) if place in seen else NOWHERE
        rows.append({**about, "kind": f"patch{rank}", **where})
        if place in sent:
            rows.append({**about, "kind": f"projection{rank}", **pack.add(sent[place])})
    return rows, pack


def _shown(images: ImageSet, numbers: list[int]) -> Tensor:
    """Images by number, some more than once; each is read once."""
    once = sorted(set(numbers))
    places = torch.tensor([once.index(number) for number in numbers])
    return images.take(torch.tensor(once, dtype=torch.int64))[0][places]


def whole_images(images: ImageSet, numbers: Sequence[int]) -> tuple[list[dict[str, Any]], Pack]:
    """Rows and pictures of a run of images; one that cannot be read is left out."""
    pack = Pack()
    rows = []
    for some, shown, labels in images.batches(64, start=numbers[0], stop=numbers[-1] + 1):
        for number, image, label in zip(some.tolist(), shown, labels.tolist(), strict=True):
            about = {"unit": number, "kind": "image", "label": label}
            caption = images.caption(number)
            rows.append({**about, "caption": caption, **pack.add(_tile(image))})
    return rows, pack


def projection_for(network: Network) -> Project:
    """What projections suit a network: deconvnet where it has ReLUs, else the plain gradient."""
    with rules.ActivationMode() as mode:
        network(torch.full((1, *network.shape), 0.5))
    return "deconvnet" if mode.relus and not mode.others else "gradient"


def _answers(target: Target, held: Mapping[str, Any], layer: LayerInfo, k: int) -> list[Found]:
    found = []
    for rank in range(min(k, len(held["values"]))):
        spot = (held["rows"][rank], held["columns"][rank])[: len(layer.places)]
        top, left, bottom, right = held["boxes"][4 * rank : 4 * rank + 4]
        at = _placed(target, spot) if spot else target
        box = (top, left, bottom, right)
        found.append(Found(held["values"][rank], held["images"][rank], at, box))
    return found


def _placed(target: Target, spot: tuple[int, ...]) -> Target:
    from dataclasses import replace

    return replace(target, place=spot)


def _tile(image: Tensor) -> bytes:
    return tile_webp(as_pil(image.clamp(0, 1)))
