"""The whole study: every network, its parts in order, each stored when finished, and the report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optogram.core.network import Network
from optogram.pictures import Report
from optogram.pictures.errors import RequestError
from optogram.studies.course import (
    account_of,
    counted,
    finished,
    folder_for,
    show,
    write_numbers,
)
from optogram.studies.shelf import Shelf
from optogram.survey.datasets import ImageSet
from optogram.version import __version__
from optogram.zoo import data, load

from .parts import parts_of
from .subject import Subject

EDITION = 2
NETWORKS = {
    "mnist-dbn": "A deep belief network on digits",
    "mnist-sdae": "A stacked denoising autoencoder on digits",
    "patches-dbn": "A deep belief network on patches of photographs",
    "patches-sdae": "A stacked denoising autoencoder on patches of photographs",
}
TITLE = "What the units of higher layers stand for"
SUMMARY = """Erhan, Bengio, Courville and Vincent (2009) asked what a unit of a second or third
layer responds to, in networks that learnt without labels. They compared three techniques:
maximising the unit on the sphere of images as bright as the data; combining the filters below it
linearly; and sampling from a belief network whose unit is held at 1, for which an autoencoder has
no distribution.

This asks the same of the networks that came with optogram: the same units by each technique, from
nine starts, in their surroundings, and beside the training images. The paper has no table to
repeat: its claims are pictures and sentences, and each has a row here.

"""


def higher_layers(
    directory: str | os.PathLike[str],
    *,
    data_root: str | os.PathLike[str] | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Path:
    """Repeat the comparison of Erhan et al. (2009) and write `index.html` into `directory`.

    A part that is finished is stored there at once; a run that was stopped goes on after it.

    Args:
        directory: gets `index.html`, `numbers.json`, the figures and the parts.
        data_root: where MNIST lies; else `$OPTOGRAM_DATA`. Where it is not, the digits that came
            with scikit-learn stand in, and the report says so.
        quick: fewer units, fewer images and shorter chains.
        seed: decides every random number.

    Returns the path of the report. Raises RequestError for a folder that cannot be written.
    """
    folder, everything, shelves = folder_for(directory), {}, {}
    for name in NETWORKS:
        network = load(name)
        subject = Subject(network, _data(network, data_root), quick, seed)
        shelf = Shelf(folder, _settings(subject))
        parts, before = parts_of(subject), f"{network.name}-"
        everything[name] = finished(parts, subject, shelf, told=network.name, before=before)
        shelves[name] = dict(shelf.settings)
    accounts = [account for parts in everything.values() for account in parts.values()]
    claims = [claim for account in accounts for claim in account["claims"]]
    numbers = {
        name: {part: account["numbers"] for part, account in parts.items()}
        for name, parts in everything.items()
    }
    write_numbers(folder, settings=shelves, claims=claims, numbers=numbers)
    return _report(folder, everything, shelves, claims)


def _settings(subject: Subject) -> dict[str, Any]:
    return {
        "edition": EDITION,
        "network": subject.network.fingerprint,
        "data": subject.data.digest,
        "name": subject.data.name,
        "quick": subject.quick,
        "seed": subject.seed,
    }


def _data(network: Network, root: str | os.PathLike[str] | None) -> ImageSet:
    """What the network was trained on, or the embedded digits in place of MNIST."""
    if "patches" in network.name:
        return data("patches")
    try:
        return data("mnist", root=root, shape=network.shape)
    except RequestError:
        return data("digits", shape=network.shape)


def _report(
    folder: Path,
    everything: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
    claims: Sequence[Mapping[str, str]],
) -> Path:
    names = sorted({str(each["name"]) for each in settings.values()})
    about = f"Of {len(claims)} rows: {counted(claims)}. Data: {' and '.join(names)}."
    if not any("mnist" in name for name in names):
        about += " MNIST was not found, so the digits that came with scikit-learn stand in for it."
    if any(each["quick"] for each in settings.values()):
        about += " This was a quick run: fewer units and images, shorter chains."
    recipe = {"optogram": __version__, "study": "higher-layers", **settings}
    report = Report(TITLE, SUMMARY + about, recipe)
    for name, title in NETWORKS.items():
        section = report.section(title, _shipped(name))
        for account in everything[name].values():
            show(section, account, folder, "the document says")
    return report.save(folder / "index.html")


def _shipped(name: str) -> str:
    """What was measured when the network was trained."""
    account = account_of(name, None)["shipped"]
    rows = (f"{key.replace('_', ' ')} {value:.4g}" for key, value in account.items() if _is(value))
    return f"{name}, as shipped: {', '.join(rows)}."


def _is(value: object) -> bool:
    return isinstance(value, int | float)
