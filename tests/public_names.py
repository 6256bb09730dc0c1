"""The names that `optogram` exports, with the arguments that they take; `make names` records them.

The names are read from the table of contents; the arguments from the objects themselves, with those
of the functions that a module of the table offers.
"""

import ast
import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType

CONTENTS = Path(__file__).parent.parent / "src" / "optogram" / "__init__.pyi"
RECORD = Path(__file__).with_name("public_names.json")
Names = dict[str, list[str]]


def listed() -> list[str]:
    """The names that `src/optogram/__init__.pyi` imports as themselves: `from .x import y as y`."""
    tree = ast.parse(CONTENTS.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    return sorted({alias.name for alias in aliases if alias.name == alias.asname})


def exported() -> Names:
    """Each name and, where it can be called, its arguments: `objective.norm` for a module's."""
    optogram = importlib.import_module("optogram")
    found: Names = {}
    for name in listed():
        thing = getattr(optogram, name)
        found[name] = arguments(thing)
        if isinstance(thing, ModuleType):
            found |= {f"{name}.{part}": arguments(getattr(thing, part)) for part in offered(thing)}
    return found


def offered(module: ModuleType) -> list[str]:
    """The functions and classes of ours that a module offers, whatever was loaded before."""
    names = [name for name in dir(module) if not name.startswith("_")]
    things = {name: getattr(module, name) for name in names}
    return sorted(
        name
        for name, thing in things.items()
        if callable(thing)
        and not isinstance(thing, ModuleType)
        and str(getattr(thing, "__module__", "")).startswith("optogram")
    )


def arguments(thing: object) -> list[str]:
    """The names of the arguments, those by name alone after a `*`."""
    if not callable(thing) or isinstance(thing, ModuleType):
        return []
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except ValueError:
        return []
    names = [p.name for p in parameters if p.kind != p.KEYWORD_ONLY]
    keywords = sorted(p.name for p in parameters if p.kind == p.KEYWORD_ONLY)
    return names + (["*", *keywords] if keywords else [])


def recorded() -> Names:
    """What was there when `make names` last ran."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def lost(before: Names, now: Names) -> list[str]:
    """What could be typed before and no longer can: names, and arguments of those that are left.

    An argument by position that another stands in the place of is lost too.
    """
    gone = [name for name in before if name not in now]
    for name in before.keys() & now.keys():
        (old, _, old_words), (new, _, new_words) = (split(names[name]) for names in (before, now))
        gone += [f"{name}({word})" for word in old_words if word not in new + new_words]
        gone += [f"{name}({word})" for at, word in enumerate(old) if new[at : at + 1] != [word]]
    return sorted(gone)


def split(names: list[str]) -> tuple[list[str], str, list[str]]:
    at = names.index("*") if "*" in names else len(names)
    return names[:at], "*", names[at + 1 :]


if __name__ == "__main__":
    lines = [f"  {json.dumps(name)}: {json.dumps(takes)}" for name, takes in exported().items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} public names stand in {RECORD}.")
