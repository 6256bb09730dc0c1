"""What a part of a study hands back: numbers, claims with their verdicts, figures and tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Verdict = Literal["confirmed", "not confirmed", "opposite"]


@dataclass(frozen=True)
class Claim:
    """One sentence of the document, what was measured here, and whether they agree."""

    says: str
    measured: str
    verdict: Verdict
    shown_by: str = ""


@dataclass(frozen=True, eq=False)
class Figure:
    """A drawing, the name of its file, and what is to be seen."""

    name: str
    caption: str
    drawing: "PILImage"


@dataclass(frozen=True, eq=False)
class Found:
    """What a part of the study found: numbers as JSON values, claims, figures and tensors."""

    numbers: dict[str, Any]
    claims: tuple[Claim, ...] = ()
    figures: tuple[Figure, ...] = ()
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
