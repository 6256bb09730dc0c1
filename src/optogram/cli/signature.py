"""A technique's command, built from the one place where it is described: its signature."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click

from optogram.ascent import ascend
from optogram.cli import catalogue, reading
from optogram.cli.manners import note, working
from optogram.cli.options import (
    DEBUG,
    DEVICE,
    JSON,
    MOVIE,
    OUTPUT,
    TARGET,
    VERBOSE,
    WEIGHTS,
    checked_output,
    seed,
)
from optogram.cli.results import FORMS, report
from optogram.core.film import filming
from optogram.core.form import Field, described, field_of, fields, kinds_of
from optogram.core.network import Network
from optogram.core.technique import Technique, call, techniques
from optogram.pictures.movie import Film, checked_movie
from optogram.survey.datasets import ImageSet

Read = Callable[[Any, Network], Any]


@dataclass(frozen=True)
class Slot:
    """A parameter of a technique: what stands for it in the shell, and how that is read."""

    parameter: click.Parameter
    read: Read

    @property
    def name(self) -> str:
        """The parameter's name in the signature."""
        return str(self.parameter.name)


def command_of(name: str) -> click.Command | None:
    """The command of a technique; None if there is none of that name."""
    technique = techniques().get(name.replace("-", "_"))
    if technique is None:
        if name in catalogue.added():
            raise click.UsageError(f"the add-on {name!r} brings no technique of that name")
        return None
    about, _ = described(inspect.getdoc(technique.function) or "")
    slots = [_slot(each) for each in fields(technique.function)]
    if "sample" in technique.options:  # it says itself which units stand for a layer
        read = {"unit": reading.units_or_layers}
        slots = [replace(each, read=read.get(each.name, each.read)) for each in slots]
    explains = {"image", "unit"} <= {slot.name for slot in slots}
    for slot in slots if explains else []:
        # Of an image the network's own answer may be meant.
        slot.parameter.required = slot.parameter.required and slot.name != "unit"
    start = technique.options["seed"].default if "seed" in technique.options else 0
    return click.Command(
        name,
        help=about,
        epilog="What a NET, an IMAGE and a UNIT can be: see 'optogram --help'.",
        callback=partial(run, technique, slots),
        params=[
            click.Argument(["net"], metavar="NET"),
            *(each.parameter for each in slots if each.name != "seed"),
            *([TARGET] if explains else []),
            *([MOVIE] if _ascends(technique) else []),
            *(OUTPUT, WEIGHTS, DEVICE, seed(start), JSON, VERBOSE, DEBUG),
        ],
    )


def run(
    technique: Technique,
    slots: Sequence[Slot],
    *,
    net: str,
    output: str | None,
    as_json: bool,
    weights: str | None,
    device: str | None,
    movie: str | None = None,
    target: tuple[str, ...] = (),
    **typed: Any,
) -> None:
    """Read what was typed, call the technique, save and report what it made."""
    if output is None and not as_json:
        raise click.UsageError("nothing says where the result goes: give -o FILE, or --json")
    if output is not None:
        checked_output(output, FORMS)
    film = None if movie is None else Film()
    if movie is not None:
        checked_movie(movie)
    with working(), filming(film):
        network = reading.network(net, weights, device)
        if isinstance(typed.get("unit"), tuple):
            typed["unit"] += target
        given = {each: typed[each.name] for each in slots if typed.get(each.name) not in (None, ())}
        arguments = {each.name: each.read(text, network) for each, text in given.items()}
        if typed.get("unit") == ():
            arguments["unit"] = reading.answer(arguments["image"], network)
        first = next(iter(technique.signature.parameters))
        if isinstance(name := arguments.get("preset"), str):
            from optogram.ascent import preset

            note(str(preset(name)))
        result = call(technique.name, **{first: network}, **arguments)
        if output is not None:
            result.save(output)
        if film is not None and movie is not None:
            film.save(movie, result.recipe)
    report(result, output, as_json)


def _ascends(technique: Technique) -> bool:
    """Whether it moves images uphill by `ascend`, every step of which can be filmed."""
    return getattr(sys.modules[technique.function.__module__], "ascend", None) is ascend


def slot(parameter: inspect.Parameter, explanation: str) -> Slot | None:
    """What stands for a parameter in the shell; None for what nobody can type, such as masks."""
    found = field_of(parameter, explanation)
    return None if found is None else _slot(found)


def _slot(asked: Field) -> Slot:
    if not asked.positional:
        return _option(asked)
    metavar, read = _meaning(asked)
    argument = click.Argument(
        [asked.name],
        metavar=f"{metavar}..." if asked.several else metavar,
        nargs=-1 if asked.several else 1,
        required=asked.required,
    )
    return Slot(argument, partial(_or_none, read) if asked.optional else read)


def _meaning(asked: Field) -> tuple[str, Read]:
    """What an argument is called, and how it is read."""
    if asked.kind == "photograph":
        return "IMAGE", reading.photographs if asked.several else reading.photograph
    if asked.kind == "image":
        return "IMAGE", reading.image
    if asked.kind == "unit":
        return "UNIT", reading.units if asked.several else reading.unit
    if asked.kind == "layer":
        return "LAYER", reading.layers if asked.several else _entered(asked)
    if ImageSet in kinds_of(asked.parameter):
        return "DATA", reading.data
    return asked.name.upper(), _entered(asked)


def _option(asked: Field) -> Slot:
    """An option has no default of its own: what is not typed is left to the technique."""
    flag = catalogue.command(asked.name)
    option = click.Option(
        [f"--{flag}/--no-{flag}" if asked.kind == "switch" else f"--{flag}"],
        type=click.Choice(list(asked.choices)) if asked.kind == "choice" else _TYPES[asked.kind],
        default=None,
        required=asked.required,
        metavar="IMAGE" if asked.kind in ("image", "photograph") else None,
        help=asked.explanation + _otherwise(asked.parameter),
    )
    if asked.kind not in ("image", "photograph"):
        return Slot(option, _entered(asked))
    read = reading.photograph if asked.kind == "photograph" else _image_or_word(asked)
    return Slot(option, partial(_or_none, read) if asked.optional else read)


def _image_or_word(asked: Field) -> Read:
    """An image, but for the words that the annotation allows beside it."""
    return lambda text, network: text if text in asked.choices else reading.image(text, network)


def _otherwise(parameter: inspect.Parameter) -> str:
    """The default as the shell would have it."""
    default = parameter.default
    if isinstance(default, bool):
        return f"  [default: {'' if default else 'no-'}{catalogue.command(parameter.name)}]"
    return f"  [default: {default}]" if isinstance(default, int | float | str) else ""


def _entered(asked: Field) -> Read:
    return lambda text, _: asked.read(text)


def _or_none(read: Read, value: Any, network: Network) -> Any:
    """What may be None is so when "none" is typed."""
    return None if isinstance(value, str) and value.casefold() == "none" else read(value, network)


_TYPES: dict[str, click.ParamType] = {
    "switch": click.BOOL,
    "whole": click.INT,
    "number": reading.NUMBER,
    "image": click.STRING,
    "photograph": click.STRING,
    "text": click.STRING,
}
