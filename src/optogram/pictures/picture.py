"""A picture that was made for a unit, with its score and whether it should be believed."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from .errors import RequestError
from .lettering import brief
from .recipe import KEY, canonical, safetensors_bytes
from .saving import picture_forms, save, show
from .tensors import number, own, own_image, plain, settle, shape_text

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

VERDICTS = (
    *("excited", "below data", "failed", "dead"),  # of a picture made for a unit
    "fooled",  # of one made to be mistaken
    *("natural", "adversarial", "fooling"),  # of any image
)


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """A picture made for a unit, and the evidence on how well it was made.

    Attributes:
        image: the picture, (channel, height, width) in [0, 1].
        unit: the address it was made for, such as `fc3:7`.
        score: the target's value on `image`, in the unit's own units.
        history: the score at every step, (steps,).
        verdict: 'excited', 'below data', 'failed', 'dead'; 'fooled' where it was made to be
            mistaken; 'natural', 'adversarial', 'fooling' where any image was judged; else None.
        best_in_data: the strongest score that a data set reached.
        jitter_survival: the share of the score that is left when the picture is shifted a little.
        gradient_norm: the length of the last gradient.
        rival: the address of the layer's next strongest unit on this picture.
        rival_score: that unit's score.
        answers: the whole network's strongest outputs on the picture, (label, probability).
        raw: what the network was really shown, where that is no image in [0, 1].
        measures: what else was measured on it, (name, number).
        start: the image that it was changed from, where that was one; then it is shown beside the
            picture, and between them the change, amplified.
        noise_survival: the share of the score that is left under a little noise.
        opacity: how much each pixel was worked on, (height, width) in [0, 1]; `faded` shows it.
        cause: why the verdict is no better, as far as the numbers tell, in a few words.
        recipe: how it was made.
    """

    image: Float[Tensor, "channel height width"]
    unit: str
    score: float
    history: Float[Tensor, " steps"]
    verdict: str | None = None
    best_in_data: float | None = None
    jitter_survival: float | None = None
    gradient_norm: float | None = None
    rival: str | None = None
    rival_score: float | None = None
    answers: tuple[tuple[str, float], ...] = ()
    raw: Float[Tensor, "raw_channel raw_height raw_width"] | None = None
    measures: tuple[tuple[str, float], ...] = ()
    start: Float[Tensor, "channel height width"] | None = None
    noise_survival: float | None = None
    opacity: Float[Tensor, "height width"] | None = None
    cause: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in (None, *VERDICTS):
            raise RequestError(
                f"there is no verdict {self.verdict!r}; there are {', '.join(VERDICTS)}"
            )
        settle(
            self,
            image=own_image(self.image),
            score=float(self.score),
            history=own(self.history).reshape(-1),
            best_in_data=number(self.best_in_data),
            jitter_survival=number(self.jitter_survival),
            noise_survival=number(self.noise_survival),
            gradient_norm=number(self.gradient_norm),
            rival_score=number(self.rival_score),
            answers=tuple((str(label), float(chance)) for label, chance in self.answers),
            raw=None if self.raw is None else own(self.raw),
            measures=tuple((str(name), float(value)) for name, value in self.measures),
            start=None if self.start is None else own_image(self.start),
            opacity=None if self.opacity is None else own(self.opacity),
        )

    def __repr__(self) -> str:
        verdict = f", {self.verdict}" if self.verdict else ""
        return f"Picture({self.unit}, {shape_text(self.image)}, score {brief(self.score)}{verdict})"

    @property
    def times_data(self) -> float | None:
        """The score over the strongest in the data; None where either is unknown or not above 0."""
        best = self.best_in_data
        return self.score / best if best is not None and best > 0 and self.score > 0 else None

    @property
    def faded(self) -> Float[Tensor, "channel height width"]:
        """The picture on white paper, as opaque as it was worked on (Fel et al., 2023, fig. 1)."""
        return self.image if self.opacity is None else 1 - self.opacity * (1 - self.image)

    @property
    def change(self) -> Float[Tensor, "channel height width"] | None:
        """The picture less its start, (channel, height, width) in [-1, 1]; None without one."""
        return None if self.start is None else self.image - self.start

    @property
    def amplified(self) -> Float[Tensor, "channel height width"] | None:
        """The change, its largest value stretched to black or white, about grey; None without."""
        if self.change is None:
            return None
        return 0.5 + 0.5 * self.change / self.change.abs().max().clamp(min=1e-12)

    @property
    def panels(self) -> tuple[Float[Tensor, "channel height width"], ...]:
        """What is shown side by side: the image, or its start, the amplified change and it."""
        if self.start is None or self.amplified is None:
            return (self.image,)
        return self.start, self.amplified, self.image

    def caption(self) -> tuple[str, ...]:
        """Short lines for under it: unit, score beside the data's, rival, answers, verdict."""
        score, rival, answers = self._score_line(), self._rival_line(), self._answers_line()
        measured = (f"{name} {brief(value)}" for name, value in self.measures)
        change = self._change_line()
        verdict = f"{self.verdict}: {self.cause}" if self.verdict and self.cause else self.verdict
        lines = (self.unit, score, rival, answers, change, verdict, *measured)
        return tuple(line for line in lines if line)

    def _change_line(self) -> str:
        """How far the picture is from its start."""
        if self.change is None:
            return ""
        length, most = float(self.change.norm()), float(self.change.abs().max())
        gain = f", shown x{brief(0.5 / most, 2)}" if most else ""
        return f"changed by {brief(length)} (L2), at most {brief(most, 2)}{gain}"

    def _score_line(self) -> str:
        if self.times_data is not None:
            return f"{brief(self.score)}, {brief(self.times_data, 2)} x data"
        if self.best_in_data is not None:
            return f"{brief(self.score)}, data {brief(self.best_in_data)}"
        return brief(self.score)

    def _rival_line(self) -> str:
        """The next strongest unit and how many times stronger this one is."""
        if self.rival is None or self.rival_score is None:
            return ""
        if self.rival_score > 0 and self.score > 0:
            return f"{brief(self.score / self.rival_score, 2)} x {self.rival}"
        return f"next {self.rival} at {brief(self.rival_score, 2)}"

    def _answers_line(self) -> str:
        """What the whole network makes of the picture, in percent."""
        return ", ".join(f"{label} {100 * share:.0f}%" for label, share in self.answers)

    def facts(self) -> dict[str, Any]:
        """All that is no tensor, as JSON values."""
        return {
            "unit": self.unit,
            "score": self.score,
            "verdict": self.verdict,
            "cause": self.cause,
            "best_in_data": self.best_in_data,
            "jitter_survival": self.jitter_survival,
            "noise_survival": self.noise_survival,
            "gradient_norm": self.gradient_norm,
            "rival": self.rival,
            "rival_score": self.rival_score,
            "answers": [[label, chance] for label, chance in self.answers],
            "measures": [[name, value] for name, value in self.measures],
        }

    def pil(self, scale: int | None = None) -> "PILImage":
        """The bare picture for Pillow, every pixel a square of `scale` pixels (None: as fits)."""
        from .drawing import as_pil, enlarged

        return enlarged(as_pil(self.image), scale)

    def captioned(self, scale: int | None = None) -> "PILImage":
        """The picture with its caption under it; where it has a start, that and the change too."""
        from .drawing import as_pil, captioned, enlarged, in_a_row

        row = in_a_row([enlarged(as_pil(panel), scale) for panel in self.panels])
        return captioned(row, self.caption())

    def show(self) -> None:
        """Show the picture with its caption."""
        show(self.captioned())

    def save(self, path: str | os.PathLike[str], scale: int | None = None) -> Path:
        """Write it as .png, .webp, .jpg, .html, .safetensors (exact) or .json (all but the pixels).

        A small picture is enlarged by a whole number, nearest neighbour; `scale` says by which.
        """
        forms = picture_forms(lambda: self.pil(scale), self.recipe)
        forms |= {".html": self._html, ".safetensors": self._safetensors}
        forms[".json"] = lambda: canonical({KEY: self.recipe, **plain(self.facts())}).encode()
        return save(path, self.recipe, forms)

    def _html(self) -> bytes:
        from .report import one_result

        return one_result(self)

    def _safetensors(self) -> bytes:
        tensors = {"image": self.image, "history": self.history}
        if self.raw is not None:
            tensors["raw"] = self.raw
        if self.start is not None:
            tensors["start"] = self.start
        if self.opacity is not None:
            tensors["opacity"] = self.opacity
        return safetensors_bytes(tensors, self.recipe, {"facts": plain(self.facts())})

    def _repr_png_(self) -> bytes:
        from .recipe import png_bytes

        return png_bytes(self.captioned(), self.recipe)
