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
    size = max(4, PIXELS // (shape[0] * shape[1] * shape[2]))
    everything = (0, 0, shape[1], shape[2])
    pack = Pack()
    rows: list[dict[str, Any]] = []
    for first in range(0, len(found), size):
        some = found[first : first + size]
        numbers = torch.tensor([answer.image for _, _, answer in some], dtype=torch.int64)
        shown = images.take(numbers)[0]
        answers = [answer for _, _, answer in some]
        slopes = None
        if project != "none":
            slopes = projected(network, shown, answers, project, len(some))
        for place, (unit, rank, answer) in enumerate(some):
            about = {"unit": unit, "rank": rank, "image": answer.image, "value": answer.value}
            kept = whole and answer.box == everything
            seen = NOWHERE if kept else pack.add(_tile(crop(shown[place], answer)))
            rows.append({**about, "kind": f"patch{rank}", **seen})
            if slopes is not None:
                taken = contrasted(crop(slopes[place], answer).float().cpu())
                rows.append({**about, "kind": f"projection{rank}", **pack.add(_tile(taken))})
    return rows, pack


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
