"""How one names what is asked about: a unit of a layer, by one string used everywhere.

`layer`, `layer:17`, `layer:17@3,5`, `layer:17@strongest`, `output:Pomeranian`: the same address in
Python, in the shell, in a URL, in a file name and in a recipe.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.pictures.errors import RequestError

OUTPUT = "output"
Place = Literal["strongest"] | tuple[int, ...] | None


@dataclass(frozen=True)
class Unit:
    """An address: a whole layer, one of its channels or neurons, or one place of a channel.

    `index` is a channel or neuron number, a label of the output, or None for the whole layer;
    `place` is a position in the layer's map (row, column; a single number for tokens),
    "strongest" for wherever the channel is most active, or None for all of it.
    """

    layer: str
    index: int | str | None = None
    place: Place = None

    def __post_init__(self) -> None:
        if not self.layer:
            raise RequestError(
                "a unit's address starts with a layer, as in 'fc7:1'; this one is empty"
            )
        if isinstance(self.index, str) and (not self.index or re.fullmatch("[0-9]+", self.index)):
            raise RequestError(
                f"the label {self.index!r} reads as a number; address it by its index"
            )
        if isinstance(self.index, int) and self.index < 0:
            raise RequestError(f"unit {self.index} of {self.layer!r}: numbers start at 0")
        if self.place is not None and self.index is None:
            raise RequestError(f"a place needs a unit, as in '{self.layer}:17@3,5'")
        if self.place == ():
            raise RequestError(f"an empty place in {self.layer!r}: write row,column or 'strongest'")
        if isinstance(self.place, tuple) and min(self.place) < 0:
            raise RequestError(f"the place {self.place} in {self.layer!r}: numbers start at 0")

    def __str__(self) -> str:
        address = _escape(self.layer, ":%")
        if self.index is not None:
            address += ":" + _escape(str(self.index), "@%")
        if self.place is not None:
            address += "@" + (
                self.place if isinstance(self.place, str) else ",".join(map(str, self.place))
            )
        return address

    @property
    def url(self) -> str:
        """The address as one segment of a URL path; `Unit.from_url` reads it back."""
        return quote(str(self), safe="")

    @classmethod
    def from_url(cls, segment: str) -> "Unit":
        """The unit that a URL segment made by `url` names."""
        return _read(unquote(segment))

    @property
    def filename(self) -> str:
        """The address as a file name (without suffix) that every file system takes."""
        name = quote(str(self).replace(":", "\0"), safe="@,# ()'+").replace("%00", "=")
        return "%2E" + name[1:] if name.startswith(".") else name

    @classmethod
    def from_filename(cls, name: str) -> "Unit":
        """The unit that a file name made by `filename` names."""
        return _read(unquote(name.replace("=", ":")))


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit that is no axis: a vector in a layer's channel space.

    A concept vector, a principal component, a feature of a sparse autoencoder. Its value at a place
    is the dot product of the layer's channels there with `vector` (units,), in the layer's units.
    Whatever takes a unit takes a direction.
    """

    layer: str
    vector: Float[Tensor, " units"]
    name: str = "direction"
    place: Place = None
    index: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        vector = torch.as_tensor(self.vector, dtype=torch.float32).detach().cpu().flatten()
        if not bool(torch.isfinite(vector).all()) or not bool(vector.any()):
            raise RequestError(f"the direction {self.name!r} is zero or not finite")
        object.__setattr__(self, "vector", vector)

    def __str__(self) -> str:
        place = self.place if isinstance(self.place, str | None) else ",".join(map(str, self.place))
        return f"{_escape(self.layer, ':%')}:<{self.name}>" + (f"@{place}" if place else "")


Target = Unit | Direction
Targetlike = Unit | Direction | str


def unit(address: Targetlike) -> Target:
    """The unit that an address names; units and directions pass through.

    Raises RequestError, in one sentence, for an address that cannot be read.
    """
    return _read(address) if isinstance(address, str) else address


def units(addresses: Targetlike | Iterable[Targetlike]) -> tuple[Target, ...]:
    """One or many addresses as a tuple of units."""
    if isinstance(addresses, str | Unit | Direction):
        return (unit(addresses),)
    return tuple(unit(address) for address in addresses)


def _read(address: str) -> Unit:
    layer, colon, rest = address.partition(":")
    if not colon:
        return Unit(unquote(layer))
    if not rest:
        raise RequestError(
            f"{address!r} ends after the colon: write a number or a label, as in '{layer}:17'"
        )
    body, place = _split_place(rest)
    index = int(body) if re.fullmatch(_NUMBER, body) else unquote(body)
    return Unit(unquote(layer), index, place)


def _split_place(rest: str) -> tuple[str, Place]:
    found = re.fullmatch(f"(.+)@(strongest|{_NUMBER}(?:,{_NUMBER})*)", rest, flags=re.DOTALL)
    if found:
        place = found[2]
        return found[1], "strongest" if place == "strongest" else tuple(map(int, place.split(",")))
    if re.match("[0-9]+@", rest):
        raise RequestError(
            f"the place in {rest!r} is neither 'strongest' nor row,column such as '3,5'"
        )
    return rest, None


def _escape(text: str, special: str) -> str:
    """Percent-escape what carries meaning, and what no shell line should hold."""
    return "".join(quote(c, safe="") if c in special or not c.isprintable() else c for c in text)


_NUMBER = "[0-9]{1,18}"
