"""What techniques there are, read from their source: to import them would take seconds, for torch.

A name and a sentence are all that a list needs. Whoever runs a technique, or asks for its options,
has it imported, and then its signature decides.
"""

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

HOME = Path(__file__).parent.parent / "techniques"
GROUP = "optogram.techniques"  # as in optogram.core.technique, which would load torch


@cache
def ours() -> dict[str, str]:
    """Our own techniques: the command of each and the first paragraph of its docstring."""
    found = [each for file in HOME.glob("*.py") for each in _techniques(file.read_text("utf-8"))]
    return dict(sorted(found))


@cache
def added() -> dict[str, str]:
    """What others have added by an entry point: its name and where it is from."""
    others = [entry for entry in entry_points(group=GROUP) if _is_foreign(entry)]
    return {command(entry.name): f"Added by {_origin(entry)}." for entry in others}


def command(technique: str) -> str:
    """What a technique is called in the shell: `guided_backprop` is `guided-backprop`."""
    return technique.replace("_", "-")


def _techniques(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and any(map(_marks, node.decorator_list)):
            paragraph = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")[0]
            yield command(node.name), paragraph.replace("\n", " ")


def _marks(decorator: ast.expr) -> bool:
    """Whether a decorator is `@technique`, or `@something.technique`."""
    return ast.unparse(decorator).rpartition(".")[2] == "technique"


def _is_foreign(entry: EntryPoint) -> bool:
    return entry.module.partition(".")[0] != "optogram"


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module
