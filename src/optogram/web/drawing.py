"""Pages become HTML: one set of templates, for the running explorer and for the static export."""

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optogram.pictures.lettering import brief
from optogram.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

HERE = Path(__file__).parent
STATIC = HERE / "static"
PIECE = 24_000
"""Of a page that comes in pieces, about so many letters are sent together."""


def drawn(template: str, to: Any, network: dict[str, Any], facts: dict[str, Any]) -> str:
    """A page: what it says, where its links lead, and the network that it is about."""
    return "".join(streamed(template, to, network, facts))


def streamed(
    template: str, to: Any, network: dict[str, Any], facts: dict[str, Any]
) -> Iterator[str]:
    """The same in pieces, as what it says becomes known."""
    around = {"to": to, "network": network, "version": __version__, "here": "/", "nonce": ""}
    held: list[str] = []
    size = 0
    for text in environment().get_template(template).generate({**around, "sheets": {}, **facts}):
        held.append(text)
        size += len(text)
        if size > PIECE:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


def in_chunks(
    to: Any, layer: Any, parts: Iterable[list[dict[str, Any]]]
) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """A layer's tiles for its page: what its head needs of the first of them, and then all.

    A part comes with the sheets that none before it needed.
    """
    coming = iter(parts)
    first = next(coming, [])
    known = sheets_of(to, {"layer": layer, "tiles": first})
    row = sheets_of(to, {"layer": layer, "tiles": first[:16]})
    head = {"sheets": dict(known), "first": list(row.values())}

    def chunks() -> Iterator[dict[str, Any]]:
        yield {"tiles": first, "sheets": {}}
        for tiles in coming:
            sheets = sheets_of(to, {"layer": layer, "tiles": tiles})
            new = {name: address for name, address in sheets.items() if name not in known}
            known.update(new)
            yield {"tiles": tiles, "sheets": new}

    return head, chunks()


def sheets_of(to: Any, facts: Any) -> dict[str, str]:
    """The sprite sheets that the tiles of a page are cells of: class -> address."""
    found: dict[str, str] = {}

    def look(layer: Any, tiles: Any) -> None:
        for tile in tiles or ():
            if tile["recipe"]:
                name = tile["cell"].partition(" ")[0]
                if name not in found:
                    found[name] = to.sheet(tile["recipe"], layer, tile["block"])

    for layer in facts.get("layers") or ():
        look(layer, layer.get("tiles"))
    for tiles in ("tiles", "neighbours", "members"):
        look(facts.get("layer"), facts.get(tiles))
    for each in facts.get("unusual") or ():
        look(each["layer"], [each["tile"]])
    for each in (*(facts.get("hits") or ()), *(facts.get("notes") or ())):
        if each.get("tile"):
            look({"id": each["layer"], "name": each["layer_name"]}, [each["tile"]])
    return found


@lru_cache
def environment() -> "Environment":
    """The templates, which escape whatever they are given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"brief": _brief, "percent": _percent, "day": _day, "dotted": _dotted}
    return made


def as_text(recipe: Any) -> str:
    """A recipe for human eyes."""
    return json.dumps(recipe, indent=1, ensure_ascii=False, sort_keys=True)


def _brief(value: Any) -> str:
    if value is None:
        return "–"
    return brief(float(value)) if isinstance(value, int | float) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 or share == 0 else "under 0.1%"


def _dotted(name: str) -> "Markup":
    """A name that may be broken after its dots."""
    from markupsafe import Markup, escape

    return Markup(".<wbr>").join(escape(part) for part in str(name).split("."))


def _day(time: str) -> str:
    return time[:16].replace("T", " ")
