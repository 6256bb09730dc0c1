"""Where every page and picture is: in the running explorer, and in a folder on a disk.

The same templates serve both, so an address is never written in a template.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

Layer = Mapping[str, Any]


@dataclass(frozen=True)
class Links:
    """Addresses of the running explorer; `prefix` is what stands before them for a second atlas.

    `mark` is a part of the addresses of pictures that never change, so that a browser does not show
    those of another atlas that was served here before.
    """

    prefix: str = ""
    live: bool = True
    mark: str = ""

    def home(self) -> str:
        """The network."""
        return f"{self.prefix}/"

    def layer(self, layer: Layer, **query: Any) -> str:
        """A layer's page, with how it is sorted and filtered."""
        return f"{self.prefix}/layer/{quote(layer['name'], safe=':')}{_query(query)}"

    def unit(self, layer: Layer, unit: int) -> str:
        """A unit's page: its address."""
        return f"{self.prefix}/unit/{quote(address(layer, unit), safe=':')}"

    def tile(self, recipe: str, layer: Layer, unit: int, kind: str) -> str:
        """One picture of a unit."""
        return f"{self.prefix}/media/{recipe}/{layer['id']}/{unit}/{kind}.webp?{self.mark}"

    def sheet(self, recipe: str, layer: Layer, block: int) -> str:
        """The sprite sheet of 256 units."""
        return f"{self.prefix}/sheets/{recipe}/{layer['id']}/{block}.webp"

    def data_image(self, data: int, number: int) -> str:
        """A whole image of a data set."""
        return f"{self.prefix}/media/data/{data}/{number}.webp?{self.mark}"

    def image_media(self, ref: str) -> str:
        """The image of an image page."""
        return f"{self.prefix}/media/image/{ref}.webp"

    def images(self, **query: Any) -> str:
        """Where an image is chosen or sent."""
        return f"{self.prefix}/images{_query(query)}"

    def image(self, ref: str, **query: Any) -> str:
        """What the network makes of an image."""
        return f"{self.prefix}/image/{ref}{_query(query)}"

    def compare(self, **query: Any) -> str:
        """Two units, or two networks, side by side."""
        return f"{self.prefix}/compare{_query(query)}"

    def search(self, **query: Any) -> str:
        """What is found for some words."""
        return f"{self.prefix}/search{_query(query)}"

    def notes(self) -> str:
        """All notes."""
        return f"{self.prefix}/notes"

    def note(self, key: str) -> str:
        """Where a note is taken away."""
        return f"{self.prefix}/notes/{quote(key, safe='')}/remove"

    def jobs(self) -> str:
        """What is being worked on."""
        return f"{self.prefix}/jobs"

    def job(self, number: int) -> str:
        """One job."""
        return f"{self.prefix}/jobs/{number}"

    def job_events(self, number: int) -> str:
        """What a job says, as it says it."""
        return f"{self.prefix}/jobs/{number}/events"

    def job_preview(self, number: int) -> str:
        """The picture that a job works on."""
        return f"{self.prefix}/jobs/{number}/preview.webp"

    def job_media(self, number: int, name: str) -> str:
        """A picture that a job made."""
        return f"{self.prefix}/jobs/{number}/{name}.webp"

    def job_cancel(self, number: int) -> str:
        """Where a job is cancelled."""
        return f"{self.prefix}/jobs/{number}/cancel"

    def static(self, name: str) -> str:
        """A file of the explorer's own."""
        return f"/static/{name}"

    def json(self, here: str) -> str:
        """The twin of a page."""
        path, mark, query = here.partition("?")
        path = f"{path}index" if path.endswith("/") else path
        return f"{path}.json{mark}{query}"


@dataclass(frozen=True)
class FileLinks:
    """Addresses in a folder, relative to a page `depth` folders below its top.

    The pictures of one unit are in its page: `embed(recipe, layer id, unit, kind)` is such a WebP.
    """

    depth: int = 0
    embed: Callable[[str, int, int, str], bytes] | None = None
    live: bool = False

    def home(self) -> str:
        """The network."""
        return self._up("index.html")

    def layer(self, layer: Layer, **_: Any) -> str:
        """A layer's page, in the order of its numbers."""
        return self._up(f"layers/{layer['id']}.html")

    def unit(self, layer: Layer, unit: int) -> str:
        """A unit's page."""
        return self._up(f"units/{layer['id']}/{unit}.html")

    def tile(self, recipe: str, layer: Layer, unit: int, kind: str) -> str:
        """One picture of a unit, itself."""
        content = self.embed(recipe, layer["id"], unit, kind) if self.embed else b""
        return "data:image/webp;base64," + base64.b64encode(content).decode()

    def sheet(self, recipe: str, layer: Layer, block: int) -> str:
        """The sprite sheet of 256 units."""
        return self._up(f"sheets/{recipe}/{layer['id']}-{block}.webp")

    def data_image(self, data: int, number: int) -> str:
        """A whole image of a data set."""
        return self._up(f"media/data/{data}-{number}.webp")

    def notes(self) -> str:
        """All notes."""
        return self._up("notes.html")

    def static(self, name: str) -> str:
        """A file of the explorer's own."""
        return self._up(f"static/{name}")

    def _up(self, path: str) -> str:
        return str(PurePosixPath(*[".."] * self.depth, path))


def address(layer: Layer, unit: int) -> str:
    """A unit's address, as `str(optogram.Unit(layer, unit))` writes it."""
    name = str(layer["name"])
    escaped = (quote(c, safe="") if c in ":%" or not c.isprintable() else c for c in name)
    return f"{''.join(escaped)}:{unit}"


def _query(query: dict[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""
