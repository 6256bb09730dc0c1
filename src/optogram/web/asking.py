"""Forms of techniques, and the arguments in what comes back; both follow from the signature."""

import math
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from optogram.pictures.errors import RequestError

LARGEST = 1_000_000
MOST = {"facets": 16, "steps": 20_000, "samples": 20_000, "draws": 64}
LONGEST = 500
HIDDEN = ("seed", "batch", "memory", "engine")
FIRST = ("preset", "steps", "facets", "sweeps", "generations", "seed")
WORDS = {"true": True, "false": False}


def visual() -> dict[str, Any]:
    """The techniques that make pictures of a unit and ask for nothing else."""
    return _known(("network", "unit"), "Picture")


def explaining() -> dict[str, Any]:
    """The techniques that make a map of one image for one unit."""
    found = _known(("network", "image", "unit"), "Attribution")
    return {name: one for name, one in found.items() if name != "explain"}


def form(technique: Any, entered: Mapping[str, str], without: tuple[str, ...] = ()) -> list[dict]:
    """The options of a technique as fields of a form, filled with what was entered."""
    return [
        _field(each, entered)
        for each in _options(technique)
        if each.kind not in ("image", "unit") and each.name not in without
    ]


def arguments(technique: Any, entered: Mapping[str, str]) -> dict[str, Any]:
    """What was entered as the technique takes it; what was left empty is left to the technique.

    Raises RequestError, in a sentence, for what cannot be read or is too much for a web form.
    """
    given: dict[str, Any] = {}
    for each in _options(technique):
        text = entered.get(each.name, "").strip()
        if text and each.kind != "image" and text != _default(each):
            given[each.name] = _read(each, text)
    return given


def loaded() -> bool:
    """Whether the techniques are there already: to import them takes seconds, for torch."""
    return "optogram.techniques" in sys.modules and "optogram.core.form" in sys.modules


def summary(technique: Any) -> str:
    """The first sentence of a technique's docstring, without its marks of code."""
    return str(technique.summary).replace("`", "")


def _known(takes: tuple[str, ...], gives: str) -> dict[str, Any]:
    from optogram.core.technique import techniques

    found = {}
    for name, technique in techniques().items():
        signature = technique.signature
        asked = [n for n, p in signature.parameters.items() if p.kind is not p.KEYWORD_ONLY]
        if tuple(asked) == takes and gives in str(signature.return_annotation):
            found[name] = technique
    return found


def _options(technique: Any) -> list[Any]:
    return [each for each in _fields(technique.function) if not each.positional]


@lru_cache
def _fields(function: Any) -> list[Any]:
    from optogram.core.form import fields

    return fields(function)


def _field(each: Any, entered: Mapping[str, str]) -> dict[str, Any]:
    default, blank = _default(each), "" if each.required else "as the technique has it"
    kind, choices = each.kind, list(each.choices)
    if kind == "switch" and default not in WORDS:
        kind, choices = "choice", list(WORDS)
    if each.parameter.default is None:
        blank = "left open"
    return {
        "name": each.name,
        "title": each.name.replace("_", " "),
        "kind": kind,
        "choices": choices,
        "value": entered.get(each.name, default)[:LONGEST],
        "blank": "" if kind == "choice" and default else blank,
        "explanation": each.explanation.replace("`", ""),
    }


def _default(each: Any) -> str:
    default = each.parameter.default
    if isinstance(default, bool):
        return "true" if default else "false"
    return str(default) if isinstance(default, int | float | str) else ""


def _read(each: Any, text: str) -> Any:
    if len(text) > LONGEST:
        raise RequestError(f"{each.name} has {len(text)} letters; at most {LONGEST} are read")
    if each.kind == "switch":
        if text not in WORDS:
            raise RequestError(f"{each.name} is true or false, not {text!r}")
        return WORDS[text]
    value = _number(each, text) if each.kind in ("whole", "number") else each.read(text)
    most = MOST.get(each.name, LARGEST)
    if isinstance(value, int | float) and abs(value) > most:
        raise RequestError(f"{each.name}={text}: at most {most} here")
    return value


def _number(each: Any, text: str) -> float | None:
    if each.optional and text.casefold() == "none":
        return None
    try:
        value = int(text) if each.kind == "whole" else float(text)
    except ValueError as problem:
        a = "a whole number" if each.kind == "whole" else "a number"
        raise RequestError(f"{each.name} is {a}, not {text[:80]!r}") from problem
    if not math.isfinite(value):
        raise RequestError(f"{each.name} is a number, not {text[:80]!r}")
    return value
