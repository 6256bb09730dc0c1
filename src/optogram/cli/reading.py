"""How what is typed becomes what a technique takes: networks, units, images and values."""

import math
from typing import Any

import click
import torch

from optogram.cli.manners import note
from optogram.core.answers import answers
from optogram.core.network import Network
from optogram.core.unit import OUTPUT
from optogram.pictures import read_recipe
from optogram.pictures.errors import RequestError
from optogram.survey.datasets import ImageSet
from optogram.zoo import data as data_set
from optogram.zoo import image_for, load, photograph_for


def network(name: str, weights: str | None, device: str | None) -> Network:
    """The network of that name, where it was asked to be."""
    return load(name, weights=weights, device=None if device is None else usable(device))


def usable(device: str) -> torch.device:
    """The device of that name. Raises RequestError if it cannot be used here."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, NotImplementedError) as problem:
        cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        there = ", ".join(["cpu", *cuda])
        raise RequestError(
            f"no device {device!r} that can be used here; there is {there}"
        ) from problem
    return found


def units(patterns: tuple[str, ...], network: Network) -> str | list[str]:
    """The addresses that patterns name: one of them by itself, several as a list."""
    found = [str(unit) for pattern in patterns for unit in network.units(pattern)]
    return found[0] if len(found) == 1 else found


def units_or_layers(patterns: tuple[str, ...], network: Network) -> str | list[str]:
    """The same, where the name of a layer is left to the technique, which takes some of it."""
    names = {layer.name for layer in network.layers}
    found: list[str] = []
    for pattern in patterns:
        found += [pattern] if pattern in names else [str(u) for u in network.units(pattern)]
    return found[0] if len(found) == 1 else found


def unit(pattern: str, network: Network) -> str:
    """The one address that a pattern names."""
    found = network.units(pattern)
    if len(found) != 1:
        raise RequestError(
            f"{pattern!r} names {len(found)} units and this takes one: give its number, as in "
            f"'{found[0]}'"
        )
    return str(found[0])


def answer(image: torch.Tensor, network: Network) -> str:
    """The output that is strongest for an image, and a note of which that is."""
    if len(network.layer(OUTPUT).shape) != 1:
        raise RequestError(
            f"{network.name} does not answer with one vector of classes: name a UNIT, as in "
            f"'{network.units(OUTPUT)[0]}'"
        )
    with torch.no_grad():
        unit = network.resolve(f"{OUTPUT}:{int(network(image[None])[0].argmax())}")
    ((label, probability), *_), *_ = answers(network, image[None])
    note(f"{network.name} answers {label} with {probability:.0%}: '{unit}' is explained")
    return str(unit)


def layers(names: tuple[str, ...], _: Network) -> str | list[str]:
    """The names of layers as they were typed: one by itself, several as a list."""
    return names[0] if len(names) == 1 else list(names)


def image(source: str, network: Network) -> torch.Tensor:
    """The image in a file or of a data set, in the network's size."""
    found = image_for(network, source)
    _, height, width = network.shape
    if (size := stored_size(source)) and size != (width, height):
        note(
            f"{click.format_filename(source)} has {size[0]}x{size[1]} pixels: its short side was "
            f"resized and the middle {width}x{height} taken"
        )
    return found


def photograph(source: str, network: Network) -> torch.Tensor:
    """The image in a file or of a data set, in its own size."""
    return photograph_for(network, source)


def photographs(sources: tuple[str, ...], network: Network) -> torch.Tensor | list[torch.Tensor]:
    """One image, or several as a list, each of its own size."""
    found = [photograph(source, network) for source in sources]
    return found[0] if len(found) == 1 else found


def moved(source: str, file: str) -> torch.Tensor:
    """The image that a saved result is about, which lies elsewhere now."""
    made_with = read_recipe(file).get("arguments", {}).get("network", {})
    if "name" not in made_with:
        raise RequestError(f"the recipe in '{file}' does not say which network it was made with")
    return image(source, load(made_with["name"], weights=made_with.get("file")))


def stored_size(source: str) -> tuple[int, int] | None:
    """Width and height of an image file as a viewer shows it; None for an image of a data set."""
    from PIL import Image

    try:
        with Image.open(source) as file:
            turned = file.getexif().get(0x0112, 1) >= 5
            return (file.height, file.width) if turned else (file.width, file.height)
    except OSError:
        return None


def data(name: str, network: Network) -> ImageSet:
    """A data set, its images fitted to the network."""
    return data_set(name, shape=network.shape)


class _Number(click.types.FloatParamType):
    """A number; "nan" is none, whatever Python thinks."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a valid float.", param, ctx)
        return float(number)


NUMBER = _Number()
