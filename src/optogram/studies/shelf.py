"""Where finished parts of a study lie, so that a run that was stopped goes on where it was.

A part is a JSON file, its figures as PNG and its tensors as safetensors. The JSON is written last
and names the settings that it was made with: without it, or with others, the part is made again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from optogram.pictures.files import write_atomically

if TYPE_CHECKING:
    from .found import Found


@dataclass(frozen=True)
class Shelf:
    """A folder of finished parts; `settings` is everything that all of them depend on."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A short name for the settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def has(self, part: str) -> bool:
        """Whether a part is finished, and was made with the same settings."""
        return self.account(part) is not None

    def account(self, part: str) -> dict[str, Any] | None:
        """What a finished part found; None where it is not finished, broken, or made otherwise."""
        try:
            found = json.loads(self._file(part, "json").read_bytes())
            whole = found["key"] == self.key
            whole &= all((self.folder / figure["file"]).is_file() for figure in found["figures"])
            if found["tensors"]:
                self.arrays(part)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None
        return found if whole else None

    def arrays(self, part: str) -> dict[str, Tensor]:
        """The tensors of a finished part."""
        return load(self._file(part, "safetensors").read_bytes())

    def keep(self, part: str, found: "Found", seconds: float) -> None:
        """Store a part: its figures and tensors first, last the JSON that vouches for them."""
        for folder in ("parts", "figures"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        figures = []
        for figure in found.figures:
            content = BytesIO()
            figure.drawing.save(content, "PNG", optimize=True)
            file = f"figures/{figure.name}.png"
            write_atomically(self.folder / file, content.getvalue())
            figures.append({"file": file, "name": figure.name, "caption": figure.caption})
        if found.arrays:
            tensors = {name: tensor.contiguous() for name, tensor in found.arrays.items()}
            write_atomically(self._file(part, "safetensors"), save(tensors))
        account = {
            "part": part,
            "key": self.key,
            "cpu_seconds": round(seconds, 1),
            "numbers": found.numbers,
            "claims": [asdict(claim) for claim in found.claims],
            "figures": figures,
            "tensors": sorted(found.arrays),
        }
        write_atomically(self._file(part, "json"), json.dumps(account, indent=1).encode())

    def _file(self, part: str, suffix: str) -> Path:
        return self.folder / "parts" / f"{part}.{suffix}"
