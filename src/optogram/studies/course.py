"""What all studies do alike: parts in order, each stored when finished, numbers and a report."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from optogram.core import progress
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically
from optogram.pictures.report import Section
from optogram.version import __version__
from optogram.zoo.networks import shipped

from .found import Found
from .shelf import Shelf

PathLike = str | os.PathLike[str]
Accounts = dict[str, dict[str, Any]]
Bench = TypeVar("Bench")
VERDICTS = ("confirmed", "not confirmed", "opposite")


def folder_for(directory: PathLike) -> Path:
    """The folder that a study is written into, made where it is not there."""
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RequestError(
            f"the study cannot be written into '{directory}' ({problem.strerror}): name a folder"
        ) from problem
    return folder


def finished(
    parts: Mapping[str, Callable[[Bench], Found]],
    bench: Bench,
    shelf: Shelf,
    *,
    told: str = "",
    before: str = "",
) -> Accounts:
    """What every part found; those that are not on the shelf are made and put there, in order.

    `told` is what progress says, by default the part's name; `before` begins a part's name on the
    shelf, where several subjects share it.
    """
    accounts: Accounts = {}
    for done, (name, part) in enumerate(parts.items()):
        key = f"{before}{name}"
        progress.tell(f"study: {told or name}", done, len(parts))
        if not shelf.has(key):
            began = time.process_time()
            shelf.keep(key, part(bench), time.process_time() - began)
        accounts[name] = shelf.account(key) or {}
    progress.tell(f"study: {told or 'report'}", len(parts), len(parts))
    return accounts


def claims_of(accounts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All claims of the parts, each with the name of its part."""
    return [claim | {"part": name} for name, each in accounts.items() for claim in each["claims"]]


def write_numbers(folder: Path, **told: Any) -> None:
    """Write `numbers.json`."""
    text = json.dumps({"optogram": __version__, **told}, indent=1)
    write_atomically(folder / "numbers.json", text.encode())


def account_of(name: str, weights: PathLike | None) -> dict[str, Any]:
    """What was written down when a network was trained; {} where that is not beside its weights."""
    file = shipped(f"{name}.json") if weights is None else Path(weights).with_suffix(".json")
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def counted(claims: Sequence[Mapping[str, str]]) -> str:
    """How many claims got which verdict, as words."""
    counts = Counter(claim["verdict"] for claim in claims)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)


def show(section: Section, account: Mapping[str, Any], folder: Path, says: str = "claim") -> None:
    """Add a part's claims and figures to a section of the report; `says` heads the claims."""
    claims = account["claims"]
    if claims:
        rows = [[c["says"], c["measured"], c["verdict"], c["shown_by"] or "–"] for c in claims]
        section.table([says, "measured here", "verdict", "shown by"], rows)
    if "skipped" in account["numbers"]:
        section.text(f"Left out: {account['numbers']['skipped']}.")
    for figure in account["figures"]:
        with Image.open(folder / figure["file"]) as drawing:
            drawing.load()
        name = figure["name"].replace("-", " ").capitalize()
        section.image(drawing, f"{name}. {figure['caption']}", width=drawing.width)
