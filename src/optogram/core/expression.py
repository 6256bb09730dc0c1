"""The small language in which objectives, parameterizations and transforms print and are read back.

What prints as `0.032 * total_variation() + 0.0032 * norm(1)` is read back from that text, in a
recipe, on the command line and in a web form. It is Python's own syntax, restricted to calls of
known names, numbers, strings, lists and + - * /; nothing else is evaluated.
"""

import ast
import difflib
import functools
import json
import math
import operator
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from optogram.pictures.errors import RequestError

P = ParamSpec("P")
T = TypeVar("T")


@runtime_checkable
class Spoken(Protocol):
    """Whatever prints as the text that makes it."""

    text: str


VOCABULARY: dict[str, Callable[..., Any]] = {}


def spoken(function: Callable[P, T]) -> Callable[P, T]:
    """Make a factory's results print as the call that made them, and that text readable."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        made = function(*args, **kwargs)
        object.__setattr__(made, "text", _call(function.__name__, args, kwargs))
        return made

    VOCABULARY[function.__name__] = wrapper
    return wrapper


def parse(text: str) -> Any:
    """The objective, parameterization or transform that a text describes.

    Raises RequestError, in one sentence, for anything that is not in the language.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise RequestError(
            f"cannot read {_cut(text)!r}: write it as in "
            f"'0.03 * total_variation() + 0.003 * norm(1)'"
        ) from problem
    try:
        return _value(tree.body, text)
    except (TypeError, ZeroDivisionError, OverflowError) as problem:
        raise RequestError(f"cannot read {_cut(text)!r}: {_cut(str(problem))}") from problem
    except RecursionError as problem:
        raise RequestError(f"cannot read {_cut(text)!r}: it is nested too deeply") from problem


def spoken_as(kind: type[T], value: T | str | None) -> T:
    """A value as it is, or read from its text; RequestError if that is of another kind."""
    made = parse(value) if isinstance(value, str) else value
    if made is not None and not isinstance(made, kind):
        raise RequestError(f"{value!r} is no {kind.__name__}: it is a {type(made).__name__}")
    return made  # type: ignore[return-value]


def say(value: Any) -> str:
    """A value in the language: the text that `parse` reads back, where there is one."""
    if isinstance(value, Tensor):
        source = getattr(value, "source", None)
        return f"image({json.dumps(source)})" if source else f"<tensor {tuple(value.shape)}>"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(say, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{say(k)}: {say(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool | int | None):
        return repr(value)
    if isinstance(value, float):
        return repr(float(value))  # numpy's own floats print as calls
    if isinstance(value, Spoken):
        return value.text
    return json.dumps(str(value), ensure_ascii=False)


def _call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    said = [say(a) for a in args] + [f"{k}={say(v)}" for k, v in kwargs.items()]
    return f"{name}({', '.join(said)})"


def _value(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() | bool() | None):
            return node.value
        case ast.Name(id="inf"):
            return math.inf
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, text) for part in parts]
        case ast.Dict(keys=keys, values=values) if all(keys):
            return {
                _value(k, text): _value(v, text) for k, v in zip(keys, values, strict=True) if k
            }
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            one, other = _value(left, text), _value(right, text)
            if any(isinstance(side, str | list | dict) for side in (one, other)):
                raise TypeError(f"{ast.unparse(node)!r} is no sum or product of numbers")
            return _OPERATIONS[type(op)](one, other)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if all(
            k.arg for k in keywords
        ):
            if name not in VOCABULARY:
                near = difflib.get_close_matches(name, VOCABULARY, n=3) or sorted(VOCABULARY)
                raise RequestError(f"no {name!r} in {_cut(text)!r}; there is {', '.join(near)}")
            named = {k.arg: _value(k.value, text) for k in keywords if k.arg}
            return VOCABULARY[name](*[_value(a, text) for a in args], **named)
    raise RequestError(
        f"cannot read {_cut(text)!r}: {_cut(ast.unparse(node))!r} is no call, number, string or "
        f"list"
    )


def _cut(text: str) -> str:
    """The text on one line, and of a length that a sentence can hold."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:100] + "..."


_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
