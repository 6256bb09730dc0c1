"""Making a survey: every image is shown once, and no finished shard is done again."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optogram.core.network import Network
from optogram.core.unit import OUTPUT
from optogram.pictures.errors import RequestError
from optogram.pictures.leases import leased
from optogram.survey.archives import from_store, from_tar, is_remote, is_tar
from optogram.survey.datasets import ImageSet
from optogram.survey.dead import triage as looked_into
from optogram.survey.part import Part, Range, merged_parts
from optogram.survey.result import Survey, layer_from
from optogram.survey.scan import Places, Plan, Statistics, chosen, planned, scan
from optogram.survey.sources import from_arrays, from_folder, from_npz, from_torch
from optogram.survey.store import Store, completed
from optogram.version import __version__

SHARD, BATCHES, MOST_SHARDS = 256, 16, 64
POLL = 0.2
"""Seconds between two looks at a shard that somebody else is at."""


def survey(
    network: Network,
    dataset: Any,
    layers: str | Sequence[str] | None = None,
    *,
    k: int = 9,
    places: Places = "strongest",
    statistics: Statistics = "all",
    triage: bool = True,
    batch: int | None = None,
    shard: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    share: tuple[int, int] | None = None,
) -> Survey:
    """Show a data set to a network once and learn what excites every unit of the chosen layers.

    All values are pre-activations: what goes into a ReLU, not what comes out.

    Args:
        network: who is asked.
        dataset: an ImageSet, or what makes one: a folder or `.npz` file, tar files or an address of
            an object store (see `from_tar`, `from_store`), a tensor or array of
            images in [0, 1], a `torch.utils.data.Dataset`, or an iterable of image tensors (kept in
            memory). Images are fitted to the network's shape.
        layers: names and patterns (`*conv*`); None for every convolution and linear layer.
        k: how many of the strongest answers to keep for each unit.
        places: "strongest" counts each image's strongest place (Zeiler & Fergus, 2013), "all" every
            place, so that one image may appear several times.
        statistics: "none" for the strongest alone, "moments" for mean, variance and share active
            too, "all" also for quantiles, classes, sparseness and how units go together.
        triage: look into the units that no image opened (see `optogram.survey.dead`).
        batch: how many images are shown at once; by default what suits their size. It changes
            nothing but the last bits.
        shard: how many images are one piece of work, saved when it is done.
        directory: a folder for the survey. A survey that was interrupted there goes on after its
            last finished shard, and a finished one is opened. Several programs may work on one
            folder, on several machines: each takes the shards that nobody is at.
        share: (i, n): one of n programs; it begins at its own part of the shards, and does not wait
            for those that others are at.

    Returns:
        A Survey.

    Raises:
        RequestError: layers, images or settings do not fit, each in a sentence.
        Unfinished: with `share`, where others are still at some shards.
    """
    images = as_images(dataset).fitted(network.shape)
    plan = planned(
        Plan(chosen(network, layers), k, places, statistics, batch or batch_for(network.shape)),
        len(images),
    )
    step = shard_for(len(images), plan.batch, shard)
    recipe = _recipe(network, images, plan, step, triage)
    store = None if directory is None else Store.at(directory, recipe)
    if store is not None and store.marker() is not None:
        store.forget_parts()
        return opened(store.folder, images)
    if store is None and shard is None:  # nothing can be saved, so nothing is cut up
        spans = [(0, len(images))]
    else:
        spans = [(first, min(first + step, len(images))) for first in range(0, len(images), step)]
    job = _Job(network, images, plan, spans, store)
    if share is not None:
        job.do_share(*share)
    whole: Part | None = None
    for part in job.parts():
        if part is None:  # others were quicker, and the survey is there
            assert store is not None
            return opened(store.folder, images)
        whole = job.seen = part if whole is None else merged_parts([whole, part], spent=True)
    if whole is None or whole.images == 0:
        raise RequestError(
            f"{images.name} has no image that can be read; give a data set with some"
        )
    whole = replace(whole, skipped={**images.skipped, **whole.skipped})
    result = _result(network, images, whole, recipe, triage)
    if store is not None:
        store.complete(whole, result.about(), result.columns())
        store.forget_parts()
    return result


class Unfinished(RuntimeError):
    """Others are still at some of the shards."""


@dataclass(eq=False)
class _Job:
    """The shards of a survey, some of which others may be at.

    `seen` is the part of some of its images: what they beat need not be looked into.
    """

    network: Network
    images: ImageSet
    plan: Plan
    spans: list[Range]
    store: Store | None
    seen: Part | None = None

    def parts(self) -> Iterator[Part | None]:
        """Every shard's part, in order; those of others are waited for, with later ones meanwhile.

        None where they are gone, because somebody finished the survey.
        """
        for number, span in enumerate(self.spans):
            part = None
            while part is None:
                part = (self.store and self.store.finished(span)) or self.attempt(span)
                if part is None:
                    assert self.store is not None
                    if self.store.marker() is not None:
                        yield None
                        return
                    if not any(self.attempt(later, new=True) for later in self.spans[number + 1 :]):
                        time.sleep(POLL)
            yield part

    def attempt(self, span: Range, new: bool = False) -> Part | None:
        """The part of a shard, unless somebody is at it (or, if it is to be `new`, it is there)."""
        if self.store is None:
            return scan(self.network, self.images, self.plan, *span, earlier=self.seen)
        if self.store.marker() is not None or (new and self.store.has(span)):
            return None
        with leased(self.store.lease(span)) as mine:
            if not mine:
                return None
            if found := self.store.finished(span):  # between the look and the lease
                return found
            part = scan(self.network, self.images, self.plan, *span, earlier=self.seen)
            self.store.publish(part)
            return part

    def do_share(self, number: int, of: int) -> None:
        """Do what nobody is at, from one of `of` places on. Raises Unfinished, RequestError."""
        if self.store is None:
            raise RequestError("a share of a survey needs a folder that the others see: directory=")
        if not 0 <= number < of:
            raise RequestError(f"share={number}/{of}: one of 0 to {of - 1}, of at least 1")
        first = number * len(self.spans) // of
        for span in self.spans[first:] + self.spans[:first]:
            self.attempt(span, new=True)
        left = [span for span in self.spans if not self.store.has(span)]
        if left and self.store.marker() is None:
            raise Unfinished(
                f"{len(self.spans) - len(left)} of {len(self.spans)} shards are finished; others "
                f"are at the rest"
            )


def opened(directory: str | os.PathLike[str], dataset: Any = None) -> Survey:
    """A finished survey from its folder. Patches are cut from `dataset`, the same images.

    Raises RequestError where there is no finished survey, it is damaged, or the images are others.
    """
    about, part = completed(directory)
    images = None if dataset is None else as_images(dataset).fitted(tuple(about["shape"]))
    if images is not None and images.digest != about["optogram"]["data"]["digest"]:
        raise RequestError(
            f"the survey in '{directory}' is of other images than {images.name} holds now: give "
            f"those it was made of, or survey again into another folder"
        )
    layers = [layer_from(facts) for facts in about["layers"]]
    return Survey(
        name=about["name"],
        part=part,
        layers={layer.name: layer for layer in layers},
        shape=tuple(about["shape"]),
        classes=tuple(about["classes"]),
        outputs=tuple(about["outputs"]),
        states={name: torch.tensor(states) for name, states in about["states"].items()},
        images=images,
        recipe=about["optogram"],
    )


def as_images(dataset: Any) -> ImageSet:
    """The ImageSet that a data set is or makes, see `survey`.

    Raises RequestError for what is none.
    """
    if isinstance(dataset, ImageSet):
        return dataset
    if isinstance(dataset, str | os.PathLike):
        if (name := os.fspath(dataset)) and (is_tar(name) or is_remote(name)):
            return from_tar(name) if is_tar(name) else from_store(name)
        return from_npz(dataset) if Path(dataset).suffix == ".npz" else from_folder(dataset)
    if isinstance(dataset, Tensor | np.ndarray):
        return from_arrays(dataset)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return from_torch(dataset)
    if isinstance(dataset, Iterable):
        return from_arrays(torch.stack([torch.as_tensor(image) for image in dataset]))
    raise RequestError(
        f"a {type(dataset).__name__} is no data set: give a folder, an .npz file, a tensor of "
        f"images or a torch data set"
    )


def _result(
    network: Network, images: ImageSet, part: Part, recipe: dict[str, Any], triage: bool
) -> Survey:
    maxima = {name: layer.top.values[:, 0] for name, layer in part.layers.items()}
    return Survey(
        name=network.name,
        part=part,
        layers={name: network.layer(name) for name in part.layers},
        shape=network.shape,
        classes=images.classes,
        outputs=tuple(network.label(i) for i in range(network.layer(OUTPUT).units)),
        states=looked_into(network, maxima) if triage else {},
        images=images,
        recipe=recipe,
    )


def _recipe(
    network: Network, images: ImageSet, plan: Plan, shard: int, triage: bool
) -> dict[str, Any]:
    settings = {**asdict(plan), "layers": list(plan.layers), "shard": shard, "triage": triage}
    return {
        "optogram": __version__,
        "torch": str(torch.__version__),
        "survey": settings,
        "network": network.recipe(),
        "data": images.recipe(),
    }


def batch_for(shape: tuple[int, int, int]) -> int:
    """Images shown at once: about two million numbers, 16 of 224 x 224 in colour, 512 digits."""
    pixels = shape[0] * shape[1] * shape[2]
    return min(512, max(8, 2_400_000 // pixels // 8 * 8))


def shard_for(images: int, batch: int, asked: int | None = None) -> int:
    """Images a shard: at least 256 and 16 batches, at most 64 shards, in whole batches."""
    if asked is not None and asked < 1:
        raise RequestError(f"shard={asked}: at least 1 image")
    size = max(SHARD, BATCHES * batch, -(-images // MOST_SHARDS)) if asked is None else asked
    return -(-size // batch) * batch
