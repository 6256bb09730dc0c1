"""What makes a function a technique: a signature from which command, form and recipe follow.

A technique is a plain function `(network, [image,] unit, *, options) -> Picture | Attribution |
Sheet`. `@technique` makes it known by name and writes its bound arguments on what it returns.
Third parties add theirs by an entry point of the group `optogram.techniques` that names the module
to import.
"""

import functools
import hashlib
import importlib.metadata
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.expression import Spoken, say
from optogram.core.network import Network
from optogram.core.unit import Direction, Unit
from optogram.pictures import Attribution, Picture, Sheet
from optogram.pictures.errors import RequestError
from optogram.pictures.recipe import digest
from optogram.version import __version__

P = ParamSpec("P")
R = TypeVar("R", bound=Picture | Attribution | Sheet)
# An image of a size of its own, which the shell does not fit to the network's.
Photograph = Float[Tensor, "channel _ _"]
ENTRY_POINTS = "optogram.techniques"


@dataclass(frozen=True)
class Technique:
    """A technique as the doors see it: its name, its function and what its signature says."""

    name: str
    function: Callable[..., Any]

    @property
    def signature(self) -> inspect.Signature:
        """The signature of the function as it was written."""
        return inspect.signature(self.function)

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return (inspect.getdoc(self.function) or "").strip().split("\n\n")[0].replace("\n", " ")

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters, in the order in which one would turn the knobs."""
        return {n: p for n, p in self.signature.parameters.items() if p.kind is p.KEYWORD_ONLY}


def technique(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function known as a technique and write its recipe on what it returns."""
    signature = inspect.signature(function)
    name = function.__name__

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        result = function(*args, **kwargs)
        recipe = {"optogram": __version__, "technique": name, "torch": str(torch.__version__)}
        recipe["arguments"] = {key: encode(value) for key, value in bound.arguments.items()}  # type: ignore[assignment]
        given = [bound.arguments.get(key) for key in ("image", "start")]
        batch = any(isinstance(image, Tensor) and image.dim() == 4 for image in given)
        return with_recipe(result, recipe, batch=batch)

    if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
        raise RequestError(
            f"two techniques are called {name!r}: {function.__module__} adds a second one"
        )
    _REGISTRY[name] = Technique(name, function)
    wrapper.technique = _REGISTRY[name]  # type: ignore[attr-defined]
    _WRAPPED[name] = wrapper
    return wrapper


def techniques() -> dict[str, Technique]:
    """Every technique by name, those of installed third parties included."""
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as problem:  # somebody else's package must not take ours down with it
            if entry.name == "optogram":
                raise
            warnings.warn(f"the techniques of {entry.name!r} are left out: {problem}", stacklevel=2)
    return dict(sorted(_REGISTRY.items()))


def call(name: str, **arguments: Any) -> Any:
    """Call a technique by its name. Raises RequestError for one that is not there."""
    known = techniques()
    if name not in known:
        raise RequestError(f"no technique called {name!r}; there is {', '.join(known)}")
    return _WRAPPED[name](**arguments)


def with_recipe(result: R, recipe: dict[str, Any], *, batch: bool = False) -> R:
    """The result with its recipe and a hash of its numbers; in a sheet each item gets its own.

    `batch` says that the recipe's image is several, of which each item has one. An item that
    another technique made, and that says so, keeps its recipe: it is made again alone. A recipe
    that a technique wrote on its result without naming a technique is notes: they are added, their
    `arguments` in the place of those that were left open.
    """
    notes = {} if "technique" in result.recipe else result.recipe
    arguments = {**recipe["arguments"], **notes.get("arguments", {})}
    recipe = {**recipe, **notes, "arguments": arguments}
    if isinstance(result, Sheet):
        items = tuple(item if item.recipe else _item(item, recipe, batch) for item in result)
        return replace(
            result,
            items=items,
            recipe={**recipe, "result": _joint([digest(_numbers(i)) for i in items])},
        )
    return replace(result, recipe={**recipe, "result": digest(_numbers(result))})


def encode(value: Any) -> Any:
    """An argument as JSON values; what cannot be written down is named by its hash."""
    if isinstance(value, Network):
        return value.recipe()
    if isinstance(value, Tensor):
        source = getattr(value, "source", None)
        return {"image": source, "sha256": digest(value)}
    if isinstance(value, Direction):
        return {
            "direction": value.name,
            "layer": value.layer,
            "vector": value.vector.tolist(),
            "place": value.place,
        }
    if isinstance(value, tuple) and all(isinstance(part, int | float) for part in value):
        return {"tuple": list(value)}  # a size or a place, which a list of sizes is not
    if isinstance(value, list | tuple):
        return [encode(part) for part in value]
    if isinstance(value, Unit):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Spoken):
        return {"says": say(value)}
    if callable(getattr(value, "recipe", None)):  # a data set, or whatever else describes itself
        return value.recipe()
    if inspect.isfunction(value):
        return {"function": f"{value.__module__}.{value.__qualname__}"}
    return {"object": str(value)}


def _item(item: Any, recipe: dict[str, Any], batch: bool) -> Any:
    arguments = dict(recipe["arguments"])
    if batch and isinstance(item, Attribution | Picture) and "image" in arguments:
        arguments["image"] = encode(item.image)
    if batch and isinstance(item, Picture) and item.start is not None:
        arguments["start"] = encode(item.start)
    for several, one in (("units", item), ("unit", item), ("target", item), ("targets", item)):
        if isinstance(arguments.get(several), list):
            arguments[several] = getattr(one, "unit", None) or getattr(one, "target", None)
    return with_recipe(item, {**recipe, "arguments": arguments})


def _joint(digests: list[str]) -> str:
    return "sha256:" + hashlib.sha256("".join(digests).encode()).hexdigest()


def _numbers(result: Any) -> Tensor:
    if isinstance(result, Attribution):
        return result.values
    return result.image if result.raw is None else result.raw


_REGISTRY: dict[str, Technique] = {}
_WRAPPED: dict[str, Callable[..., Any]] = {}
