"""Making a result again from the recipe in its file, and saying whether it is the same."""

import importlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.expression import parse
from optogram.core.network import Network
from optogram.core.technique import call, techniques
from optogram.core.unit import Direction
from optogram.pictures import Attribution, Picture, Sheet, digest, read_recipe
from optogram.pictures import image as read_image
from optogram.pictures.errors import RequestError
from optogram.survey import Survey, make
from optogram.survey.datasets import fit
from optogram.survey.store import completed
from optogram.zoo.data import data
from optogram.zoo.networks import load

Image = Float[Tensor, "channel height width"]


@dataclass(frozen=True, eq=False)
class Replay:
    """A result made again.

    `identical` says that every number has the same bits. `difference` is the largest difference
    between the pixels of the old file and the new picture, as a share of their range; None where
    the old file holds no picture.
    """

    result: Picture | Attribution | Sheet | Survey
    identical: bool
    difference: float | None

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        if self.identical:
            return "identical"
        if self.difference is None:
            return "not the same numbers"
        if self.difference == 0:
            return "the same picture; its numbers differ in bits that no pixel shows"
        return f"not identical: pixels differ by up to {self.difference:.4f} of their range"


def replay(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    image: Image | None = None,
    device: str | torch.device | None = None,
) -> Replay:
    """Make a result again from its file or its recipe.

    Args:
        source: a file that a result was saved as, the folder of a survey, or a recipe.
        image: the image that it was about, where the recipe does not say where that lies.
        device: where to run; by default the CPU.

    Raises RequestError where there is no recipe, where the network has other weights than then, or
    the image or data other content.
    """
    if not isinstance(source, Mapping) and Path(source).is_dir():
        return _surveyed(Path(source), device)
    recipe = dict(source) if isinstance(source, Mapping) else read_recipe(source)
    name, given = recipe.get("technique"), recipe.get("arguments")
    if name not in techniques() or not isinstance(given, Mapping):
        raise RequestError(f"the recipe names no technique that is here: {name!r}")
    network = _network(given.get("network", {}), device)
    arguments = {
        key: _decode(value, network, image if key in ("image", "images") else None)
        for key, value in given.items()
        if key != "network"
    }
    result = call(name, network=network, **arguments)
    identical = result.recipe["result"] == recipe.get("result")
    difference = None if isinstance(source, Mapping) else _difference(Path(source), result)
    return Replay(result, identical, 0.0 if identical else difference)


def _surveyed(folder: Path, device: str | torch.device | None) -> Replay:
    """A survey made again, in a folder that is thrown away; it is the same if its files are."""
    about, _ = completed(folder)
    recipe = about["optogram"]
    network = _network(recipe["network"], device)
    images = data(recipe["data"]["data"], split=recipe["data"]["split"], shape=network.shape)
    if images.digest != recipe["data"]["digest"]:
        raise RequestError(
            f"{recipe['data']['data']!r} holds other images now than when '{folder}' was made"
        )
    asked = {key: value for key, value in recipe["survey"].items() if key != "share"}
    with tempfile.TemporaryDirectory() as again:
        result = make(network, images, directory=Path(again) / "survey", **asked)
        found, _ = completed(Path(again) / "survey")
    return Replay(result, found["files"] == about["files"], None)


def image_for(network: Network, source: str | os.PathLike[str]) -> Image:
    """The image that a name or a path means, fitted to the network's input.

    `digits:3` is number 3 of a data set; anything else is a file. The short side is resized to the
    network's and the middle is cut out. The tensor's `source` is the name, for recipes.

    Raises RequestError for what is not there or has the wrong channels.
    """
    return _named(network, source, fitted=True)


def photograph_for(network: Network, source: str | os.PathLike[str]) -> Image:
    """The same image in its own size, with as many channels as the network takes."""
    return _named(network, source, fitted=False)


def _named(network: Network, source: str | os.PathLike[str], fitted: bool) -> Image:
    text = os.fspath(source)
    name, colon, number = text.partition(":")
    if colon and number.isdigit() and not Path(text).exists():
        images = data(name, shape=network.shape if fitted else None, split="test")
        if int(number) >= len(images):
            raise RequestError(
                f"{name!r} has images 0 to {len(images) - 1}, so there is no {text!r}"
            )
        found = images[int(number)][0]
    else:
        found = read_image(text, channels=network.shape[0])
        found = fit(found, network.shape) if fitted else found
    found.source = text  # type: ignore[attr-defined]
    return found


def _network(recipe: Mapping[str, Any], device: str | torch.device | None) -> Network:
    if "name" not in recipe:
        raise RequestError("the recipe does not say which network it was made with")
    network = load(recipe["name"], weights=recipe.get("file"), device=device)
    if network.fingerprint != recipe.get("weights"):
        raise RequestError(f"{recipe['name']} has other weights now than when the file was made")
    return network.with_pooling("average") if recipe.get("pooling") == "average" else network


def _decode(value: Any, network: Network, image: Image | None) -> Any:
    if isinstance(value, list):
        return [_decode(part, network, image) for part in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(value["tuple"])
    if "says" in value:
        return parse(value["says"])
    if "direction" in value:
        place = tuple(value["place"]) if isinstance(value["place"], list) else value["place"]
        return Direction(value["layer"], torch.tensor(value["vector"]), value["direction"], place)
    if "data" in value:
        return data(value["data"], split=value.get("split", "train"), shape=network.shape)
    if "function" in value:
        home, _, name = value["function"].rpartition(".")
        if home != "optogram.core.rules":
            raise RequestError(
                f"the recipe names a function of its own, {value['function']!r}: use Python"
            )
        return getattr(importlib.import_module(home), name)
    if "image" in value:
        return _image(value, network, image)
    raise RequestError(f"the recipe holds something that cannot be made again: {value}")


def _image(value: Mapping[str, Any], network: Network, image: Image | None) -> Image:
    if image is None and not value["image"]:
        raise RequestError("the recipe does not say where its image lies: give image=...")
    ways = (image_for, photograph_for)  # most techniques fit an image to the network, some do not
    found = [image] if image is not None else (way(network, value["image"]) for way in ways)
    for one in found:
        if digest(one) == value["sha256"]:
            return one
    raise RequestError(
        f"the image {value['image'] or 'given'!r} is not the one that the file was made from"
    )


def _difference(path: Path, result: Any) -> float | None:
    """The largest difference between the pixels of a file and of the result drawn anew."""
    if path.suffix.lower() not in (".png", ".webp", ".jpg", ".jpeg"):
        return None
    old, new = read_image(path, channels=3), read_image(result.pil(), channels=3)
    return float((old - new).abs().max()) if old.shape == new.shape else 1.0
