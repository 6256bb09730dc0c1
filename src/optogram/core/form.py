"""What a technique asks for, read from its signature, so that every door asks in the same words."""

import ast
import inspect
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

from torch import Tensor

from optogram.core.expression import parse
from optogram.pictures.errors import RequestError

IMAGES = ("image", "images")
UNITS = ("unit", "units", "target", "targets")
Kind = Literal[
    "image", "photograph", "unit", "layer", "switch", "choice", "whole", "number", "text"
]


@dataclass(frozen=True)
class Field:
    """One parameter of a technique as a form shows it.

    `kind` is what is entered: an image, a photograph (which keeps its own size), a unit or a layer
    of the network, a switch, one of `choices` (text -> value), a whole number, a number, or text;
    `several` that there may be many of them. `read` turns what was entered into the value, except
    for images and units; the `choices` of an image are words that may stand for it.
    """

    parameter: inspect.Parameter
    kind: Kind
    explanation: str = ""
    several: bool = False
    choices: dict[str, Any] = field(default_factory=dict)
    reader: Callable[[Any], Any] = field(default=lambda value: value, repr=False)

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.parameter.name

    @property
    def required(self) -> bool:
        """Whether the technique has no default for it."""
        return self.parameter.default is self.parameter.empty

    @property
    def optional(self) -> bool:
        """Whether None is among its values."""
        return types.NoneType in members(self.parameter.annotation)

    @property
    def positional(self) -> bool:
        """Whether it is what the technique is about, and no option."""
        return self.parameter.kind is not self.parameter.KEYWORD_ONLY

    def read(self, entered: Any) -> Any:
        """The value of what was entered; "none" is None where that is a value.

        Raises RequestError for what cannot be read.
        """
        if self.optional and isinstance(entered, str) and entered.casefold() == "none":
            return None
        return self.reader(entered)


def fields(function: Callable[..., Any]) -> list[Field]:
    """All that a technique asks for after the network; not what nobody can type, such as masks."""
    _, explained = described(inspect.getdoc(function) or "")
    asked = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    return [f for p in asked if (f := field_of(p, explained.get(p.name, "")))]


def field_of(parameter: inspect.Parameter, explanation: str = "") -> Field | None:
    """A parameter as a form shows it; None for what nobody can type, such as masks."""
    kinds = kinds_of(parameter)
    option = parameter.kind is parameter.KEYWORD_ONLY
    several = any(map(_is_sequence, kinds))
    if any(map(_is_photograph, kinds)):
        return Field(parameter, "photograph", explanation, several and not option)
    if (parameter.name in IMAGES and not option) or any(map(_is_image, kinds)):
        words = {w: w for kind in kinds if get_origin(kind) is Literal for w in get_args(kind)}
        return Field(parameter, "image", explanation, choices=words if option else {})
    if parameter.name not in IMAGES and all(map(_is_tensor, kinds)):
        return None
    if not option and parameter.name in UNITS:
        return Field(parameter, "unit", explanation, several)
    if parameter.name == "layer" and not option:
        return Field(parameter, "layer", explanation, several)
    if option and all(get_origin(kind) is Literal for kind in kinds):
        values = {str(value): value for kind in kinds for value in get_args(kind)}
        return Field(parameter, "choice", explanation, choices=values, reader=_one_of(values))
    kind: Kind = "text"
    if option and set(kinds) <= {bool, int, float}:
        kind = "switch" if set(kinds) == {bool} else "whole" if set(kinds) == {int} else "number"
    return Field(parameter, kind, explanation, reader=_text(kinds) if kind == "text" else _as_is)


def kinds_of(parameter: inspect.Parameter) -> list[Any]:
    """The kinds of value that a parameter takes, None aside."""
    return [kind for kind in members(parameter.annotation) if kind is not types.NoneType]


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


def numbers(text: str) -> Any:
    """A number, a pair such as `8,6`, or a list such as `[8, 6]`."""
    value = _literal(text)
    if isinstance(value, int | float | tuple | list):
        return value
    raise RequestError(f"{text!r} is no number: write 8, or 8,6 for a pair, or [8,6] for a list")


def number_or_text(text: str) -> Any:
    """A number or several, `0.5` or `0.4,0.5,0.6`; what is neither stays text."""
    value = _literal(text)
    return text if value is None else value


def words(text: str) -> list[str]:
    """Words with commas between them."""
    return [word.strip() for word in text.split(",")]


def _literal(text: str) -> Any:
    """The value that Python would read; None for what it would not."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _one_of(values: dict[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in values:
            raise RequestError(f"{text!r} is none of {', '.join(values)}")
        return values[text]

    return read


def _text(kinds: list[Any]) -> Callable[[str], Any]:
    """How a text is read that stands for one of some kinds of value."""
    inner = [part for kind in kinds if _is_sequence(kind) for part in get_args(kind)]
    if inner and set(inner) <= {str, Tensor}:
        return words
    if str in kinds:
        return number_or_text if inner or {int, float} & set(kinds) else _as_is
    return numbers if all(map(_is_numeric, kinds)) else parse


def _as_is(value: Any) -> Any:
    return value


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


def _is_tensor(kind: Any) -> bool:
    """Whether an annotation is for a tensor that is no image."""
    shows = _is_image(kind) or _is_photograph(kind)
    return kind is Tensor or (hasattr(kind, "dim_str") and not shows)
