"""Directions as units of the atlas: a matrix whose rows are vectors in a layer's channel space."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optogram.atlas.layout import LayerInfo, short
from optogram.core import progress
from optogram.core.layout import laid_out
from optogram.core.network import Layer, Network
from optogram.core.prepared import for_many
from optogram.core.unit import OUTPUT
from optogram.core.visit import visit
from optogram.pictures.errors import RequestError
from optogram.survey import ImageSet, Survey
from optogram.survey.part import LayerPart, Part
from optogram.survey.reduce import heard
from optogram.survey.scan import WIDEST
from optogram.survey.statistics import Answers, Moments
from optogram.survey.topk import TopK, challenge

Matrix = Float[Tensor, "direction unit"]
BATCH = 64


def read(path: str | os.PathLike[str]) -> Matrix:
    """The matrix in a `.npy` or `.safetensors` file; `FILE#NAME` chooses one of several tensors.

    Raises RequestError where there is no such file or matrix, or it holds what is no number.
    """
    text, _, name = os.fspath(path).partition("#")
    file = Path(text)
    if not file.is_file():
        raise RequestError(f"there is no file '{file}' of directions")
    try:
        if file.suffix == ".npy":
            found = torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
        elif file.suffix == ".safetensors":
            found = _tensor(file, name)
        else:
            raise RequestError(f"'{file}' is no .npy or .safetensors file of directions")
    except RequestError:
        raise
    except Exception as problem:  # each reader fails in its own way on broken files
        raise RequestError(f"'{file}' cannot be read: {problem}") from problem
    return checked(found, str(file))


def checked(matrix: Any, what: str) -> Matrix:
    """The matrix as float32. Raises RequestError where it is none, or a row is 0 or not finite."""
    found = torch.as_tensor(matrix).detach().cpu().float()
    if found.dim() != 2 or not len(found):
        raise RequestError(
            f"{what}: directions are a matrix, a row each; this is {tuple(found.shape)}"
        )
    wrong = ~torch.isfinite(found).all(1) | ~found.any(1)
    if bool(wrong.any()):
        raise RequestError(f"{what}: row {int(wrong.nonzero()[0])} is 0 or not finite")
    return found.contiguous()


def layer_of(network: Network, base: str, matrix: Matrix, name: str, number: int) -> LayerInfo:
    """The layer of the atlas that a matrix makes. Raises RequestError where it does not fit."""
    layer = network.layer(base)
    if matrix.shape[1] != layer.units:
        raise RequestError(
            f"the directions {name!r} have {matrix.shape[1]} numbers each; {base!r} has "
            f"{layer.units} units"
        )
    digest = short(matrix.numpy().tobytes().hex())
    places = layer.places
    return LayerInfo(
        number, name, "directions", len(matrix), places, layer.field.size, base, False, digest
    )


def surveyed(
    network: Network, images: ImageSet, info: LayerInfo, matrix: Matrix, k: int, recipe: Any
) -> Survey:
    """What a data set does to directions: their values are dot products with pre-activations."""
    layer = network.layer(info.base)
    ear = _Ear(layer, matrix, k, len(images.classes))
    ready = for_many(network, (layer.name,), len(images))
    for numbers, shown, labels in images.batches(BATCH):
        ear.listen(ready, laid_out(shown), numbers, labels)
        progress.tell("survey of directions", int(numbers[-1]) + 1, len(images))
    made = _pseudo(layer, info)
    layers = {info.name: LayerPart(ear.top, ear.moments, ear.answers)}
    outputs = network.layer(OUTPUT)
    return Survey(
        name=network.name,
        part=Part(((0, len(images)),), ear.seen, layers, dict(images.skipped)),
        layers={info.name: made},
        shape=network.shape,
        classes=images.classes,
        outputs=tuple(network.label(i) for i in range(outputs.units)),
        states={},
        images=images,
        recipe=recipe,
    )


class _Ear:
    """What directions have said so far."""

    def __init__(self, layer: Layer, matrix: Matrix, k: int, classes: int) -> None:
        self.layer, self.matrix, self.classes = layer, matrix, classes
        self.top, self.moments = TopK.empty(len(matrix), k), Moments.empty(len(matrix))
        self.answers: Answers | None = None
        self.seen = 0

    def listen(self, network: Network, shown: Tensor, numbers: Tensor, labels: Tensor) -> None:
        said: list[Tensor] = []

        def hear(_: str, answer: Tensor) -> None:
            maps = answer.movedim(self.layer.axis, -1) @ self.matrix.T.to(answer)
            taken = heard(maps, maps.dim() - 1)
            self.top = challenge(self.top, taken.strongest, numbers, taken.find)
            if taken.moments is not None:
                self.moments = self.moments.merge(taken.moments)
            said.append(taken.strongest)

        visit(network, shown, (self.layer.name,), hear)
        pairs = len(self.matrix) <= WIDEST
        more = Answers.of(said[0], numbers, labels, classes=self.classes, pairs=pairs)
        self.answers = more if self.answers is None else self.answers.merge(more)
        self.seen += len(numbers)


def _tensor(file: Path, name: str) -> Tensor:
    from safetensors.torch import load_file

    held = load_file(file)
    if name not in held and not (name == "" and len(held) == 1):
        raise RequestError(
            f"'{file}' holds {', '.join(held)}: say which, as in '{file}#{next(iter(held), 'W')}'"
        )
    return held[name] if name else next(iter(held.values()))


def _pseudo(layer: Layer, info: LayerInfo) -> Layer:
    """The layer that the directions would be, units first."""
    return replace(
        layer,
        name=info.name,
        kind="directions",
        shape=(info.units, *layer.places),
        axis=1,
        rectified=False,
        switchable=False,
        same_as=None,
        relus=(),
    )
