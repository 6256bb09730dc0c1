"""What is said about a result: lines for people, or JSON for programs."""

import json
from collections import Counter
from typing import Any

import click

from optogram.cli.manners import say
from optogram.pictures import Attribution, Picture, Sheet
from optogram.pictures.tensors import plain

FORMS = (".png", ".webp", ".jpg", ".jpeg", ".html", ".safetensors", ".json")
MOST_LINES = 20


def report(result: Picture | Attribution | Sheet, path: str | None, as_json: bool) -> None:
    """Print what was made and where it is."""
    text = json.dumps(as_data(result, path), allow_nan=False) if as_json else as_text(result, path)
    say(text)


def as_data(result: Picture | Attribution | Sheet, path: str | None) -> dict[str, Any]:
    """A result as JSON values; `results` is a list, also of one."""
    return {
        "technique": result.recipe.get("technique"),
        "path": path,
        "results": [plain(item.facts()) for item in _items(result)],
        "recipe": result.recipe,
    }


def as_text(result: Picture | Attribution | Sheet, path: str | None) -> str:
    """A line for each picture or map, or their number where they are many."""
    items = _items(result)
    lines = ["  ".join(item.caption()) for item in items]
    if len(items) > MOST_LINES:
        verdicts = Counter(
            item.verdict for item in items if isinstance(item, Picture) and item.verdict
        )
        counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        lines = [f"{len(items)} results{': ' if counts else ''}{counts}"]
    return "\n".join([*lines, *([click.format_filename(path)] if path else [])])


def _items(result: Picture | Attribution | Sheet) -> list[Any]:
    return list(result) if isinstance(result, Sheet) else [result]
