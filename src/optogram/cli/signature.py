"""A technique's command, built from the one place where it is described: its signature."""

import inspect
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin

import click
from torch import Tensor

from optogram.cli import catalogue, reading
from optogram.cli.manners import note, working
from optogram.cli.options import DEBUG, DEVICE, JSON, OUTPUT, WEIGHTS, checked_output, seed
from optogram.cli.results import FORMS, report
from optogram.core.network import Network
from optogram.core.technique import Technique, call, techniques
from optogram.survey.datasets import ImageSet

IMAGES = ("image", "images")
UNITS = ("unit", "units", "target", "targets")
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
    about, explained = described(inspect.getdoc(technique.function) or "")
    signature = inspect.signature(technique.function, eval_str=True)
    asked = list(signature.parameters.values())[1:]
    slots = [s for p in asked if (s := slot(p, explained.get(p.name, "")))]
    start = technique.options["seed"].default if "seed" in technique.options else 0
    return click.Command(
        name,
        help=about,
        epilog="What a NET, an IMAGE and a UNIT can be: see 'optogram --help'.",
        callback=partial(run, technique, slots),
        params=[
            click.Argument(["net"], metavar="NET"),
            *(each.parameter for each in slots if each.name != "seed"),
            *(OUTPUT, WEIGHTS, DEVICE, seed(start), JSON, DEBUG),
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
    **typed: Any,
) -> None:
    """Read what was typed, call the technique, save and report what it made."""
    if output is None and not as_json:
        raise click.UsageError("nothing says where the result goes: give -o FILE, or --json")
    if output is not None:
        checked_output(output, FORMS)
    with working():
        network = reading.network(net, weights, device)
        given = {each: typed[each.name] for each in slots if typed.get(each.name) is not None}
        arguments = {each.name: each.read(text, network) for each, text in given.items()}
        first = next(iter(technique.signature.parameters))
        if isinstance(name := arguments.get("preset"), str):
            from optogram.ascent import preset

            note(str(preset(name)))
        result = call(technique.name, **{first: network}, **arguments)
        if output is not None:
            result.save(output)
    report(result, output, as_json)


def slot(parameter: inspect.Parameter, explanation: str) -> Slot | None:
    """What stands for a parameter in the shell; None for what nobody can type, such as masks."""
    kinds = [k for k in members(parameter.annotation) if k is not types.NoneType]
    if parameter.name not in IMAGES and all(map(_is_tensor, kinds)):
        return None
    if parameter.kind is parameter.KEYWORD_ONLY:
        return _option(parameter, kinds, explanation)
    metavar, several, read = _meaning(parameter, kinds)
    argument = click.Argument(
        [parameter.name],
        metavar=f"{metavar}..." if several else metavar,
        nargs=-1 if several else 1,
        required=parameter.default is parameter.empty,
    )
    can_be_none = types.NoneType in members(parameter.annotation)
    return Slot(argument, partial(_or_none, read) if can_be_none else read)


def members(annotation: Any) -> tuple[Any, ...]:
    """The kinds that an annotation allows: those of a union, else itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for part in get_args(annotation) for kind in members(part))
    return (annotation,)


def described(docstring: str) -> tuple[str, dict[str, str]]:
    """What a docstring says before its sections, and about each argument."""
    about, _, rest = docstring.partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", f"\n{section}"):
        names, colon, text = entry.strip().partition(":")
        if colon:
            found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return re.split(r"\n(?:Returns|Raises)\b", about)[0].strip(), found


def _meaning(parameter: inspect.Parameter, kinds: list[Any]) -> tuple[str, bool, Read]:
    """What an argument is called, whether it can be several, and how it is read."""
    several = any(map(_is_sequence, kinds))
    if any(map(_is_photograph, kinds)):
        return "IMAGE", several, reading.photographs if several else reading.photograph
    if parameter.name in IMAGES or any(map(_is_image, kinds)):
        return "IMAGE", False, reading.image
    if parameter.name in UNITS:
        return "UNIT", several, reading.units if several else reading.unit
    if parameter.name == "layer":
        return "LAYER", several, reading.layers if several else _as_it_is
    if ImageSet in kinds:
        return "DATA", False, reading.data
    return parameter.name.upper(), False, _text(kinds)


def _option(parameter: inspect.Parameter, kinds: list[Any], explanation: str) -> Slot:
    """An option has no default of its own: what is not typed is left to the technique."""
    flag = catalogue.command(parameter.name)
    kind, read = _kind(kinds)
    switch = kind is click.BOOL
    option = click.Option(
        [f"--{flag}/--no-{flag}" if switch else f"--{flag}"],
        type=kind,
        default=None,
        required=parameter.default is parameter.empty,
        metavar="IMAGE" if any(map(_shows, kinds)) else None,
        help=explanation + _otherwise(parameter),
    )
    can_be_none = types.NoneType in members(parameter.annotation)
    return Slot(option, partial(_or_none, read) if can_be_none else read)


def _otherwise(parameter: inspect.Parameter) -> str:
    """The default as the shell would have it."""
    default = parameter.default
    if isinstance(default, bool):
        return f"  [default: {'' if default else 'no-'}{catalogue.command(parameter.name)}]"
    return f"  [default: {default}]" if isinstance(default, int | float | str) else ""


def _kind(kinds: list[Any]) -> tuple[click.ParamType, Read]:
    """The type of what is typed for one of some kinds of value, and how it is read."""
    if any(map(_is_photograph, kinds)):
        return click.STRING, reading.photograph
    if any(map(_is_image, kinds)):
        return click.STRING, _image_or_word(kinds)
    if all(get_origin(kind) is Literal for kind in kinds):
        values = {str(value): value for kind in kinds for value in get_args(kind)}
        return click.Choice(list(values)), lambda text, _: values[text]
    if set(kinds) == {bool}:
        return click.BOOL, _as_it_is
    if set(kinds) == {int}:
        return click.INT, _as_it_is
    if set(kinds) <= {int, float}:
        return reading.NUMBER, _as_it_is
    return click.STRING, _text(kinds)


def _text(kinds: list[Any]) -> Read:
    """How a text is read that stands for one of some kinds of value."""
    inner = [part for kind in kinds if _is_sequence(kind) for part in get_args(kind)]
    if inner == [str]:
        return reading.words
    if str in kinds:
        return reading.number_or_text if inner or {int, float} & set(kinds) else _as_it_is
    return reading.numbers if all(map(_is_numeric, kinds)) else reading.expression


def _image_or_word(kinds: list[Any]) -> Read:
    """An image, but for the words that the annotation allows beside it."""
    words = {word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)}
    if not words:
        return reading.image
    return lambda text, network: text if text in words else reading.image(text, network)


def _as_it_is(value: Any, _: Network) -> Any:
    return value


def _or_none(read: Read, value: Any, network: Network) -> Any:
    """What may be None is so when "none" is typed."""
    return None if isinstance(value, str) and value.casefold() == "none" else read(value, network)


def _is_sequence(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _is_numeric(kind: Any) -> bool:
    """Whether a kind is a number, or numbers inside each other."""
    if _is_sequence(kind):
        return all(_is_numeric(part) for part in get_args(kind) if part is not ...)
    return all(part in (int, float) for part in members(kind))


def _is_image(kind: Any) -> bool:
    """Whether an annotation is jaxtyping's for an image or a batch of them."""
    return str(getattr(kind, "dim_str", "")).endswith("channel height width")


def _is_photograph(kind: Any) -> bool:
    """Whether an annotation is for an image of a size of its own."""
    return str(getattr(kind, "dim_str", "")) == "channel _ _"


def _shows(kind: Any) -> bool:
    """Whether an annotation is for an image, of the network's size or of its own."""
    return _is_image(kind) or _is_photograph(kind)


def _is_tensor(kind: Any) -> bool:
    """Whether an annotation is for a tensor that is no image."""
    return kind is Tensor or (hasattr(kind, "dim_str") and not _shows(kind))
