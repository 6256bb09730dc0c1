"""What the drawing of a unit's page needs beside what the page says."""

from typing import Any

from optogram.pictures.errors import RequestError
from optogram.web import pages
from optogram.web.drawing import as_text


def extras(atlas: Any, record: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """Names, neighbours by number, recipes as text, and which images there are to show."""
    shape = atlas.network["shape"]
    names = [note.text for note in record.notes if note.kind == "label"]
    recipes = [
        (f"{made['recipe_name']}, {made['recipe']}", as_text(recipe))
        for made in facts["pictures"]
        if (recipe := _replayable(atlas, made["recipe"], record)) is not None
    ]
    whole = [0, 0, shape[1], shape[2]]
    return {
        "label": record.label,
        "given_name": names[-1] if names else "",
        "previous": record.previous,
        "next": record.next,
        "recipes": recipes,
        "whole_images": bool(atlas.datasets) and bool(atlas.has_images(atlas.datasets[0].id)),
        "whole_field": all(list(patch.box) == whole for patch in record.patches),
        "has_projections": any(patch.projection for patch in record.patches),
        "data_number": 0,
    }


def _replayable(atlas: Any, recipe: str, record: Any) -> Any:
    try:
        return pages.plain(atlas.replayable(recipe, record.layer.id, record.unit))
    except RequestError:
        return None
