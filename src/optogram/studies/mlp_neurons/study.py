"""The whole study: its parts in order, each stored when it is finished, and the report."""

import os
from collections.abc import Callable
from pathlib import Path

from optogram.core.network import Network
from optogram.pictures.errors import RequestError
from optogram.studies.course import account_of, claims_of, finished, folder_for, write_numbers
from optogram.studies.found import Found
from optogram.studies.shelf import Shelf
from optogram.survey.datasets import ImageSet
from optogram.zoo import data, load

from . import adversaries, company, everyone, hidden, outputs, robust, training
from .bench import LAYERS, Bench
from .report import write

Part = Callable[[Bench], Found]
EDITION = 1
"""To be raised when a part would find other numbers: what older editions stored is made again."""

PARTS: dict[str, Part] = {
    "survey": everyone.survey,
    "training": training.training,
    "noise": outputs.noise,
    "adversaries": adversaries.adversaries,
    "smoothing": outputs.smoothing,
    "sparsity": outputs.sparsity,
    "one-unit": hidden.one_unit,
    "chosen": hidden.chosen,
    "jitter": robust.jittering,
    "starts": robust.starts,
    "penalties": robust.penalties,
    **{f"units-{layer}": everyone.pictures_of(layer) for layer in LAYERS},
    "roles": everyone.roles,
    "dead": company.dead,
    "clusters": company.groups,
    "places": company.places,
}


def mlp_neurons(
    directory: str | os.PathLike[str],
    *,
    data_root: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Path:
    """Repeat the study of a network's hidden neurons and write `index.html` into `directory`.

    A part that is finished is stored there at once; a run that was stopped, with Ctrl-C or worse,
    goes on after the last finished part, and a finished one only writes its report again.

    Args:
        directory: gets `index.html`, `units.html` (all units to browse), `numbers.json`, the
            figures and the parts.
        data_root: where MNIST lies; else `$OPTOGRAM_DATA`. Where it is not, the digits that came
            with scikit-learn stand in, and the report says so.
        weights: of a freshly trained network, from `optogram train mnist-mlp`; by default the
            shipped ones.
        quick: fewer pairs, fewer steps of training, and a sample of the units.
        seed: decides every random number.

    Returns the path of the report. Raises RequestError for a folder that cannot be written.
    """
    folder = folder_for(directory)
    network = load("mnist-mlp", weights=weights)
    training_set, test_set = _data(network, data_root)
    settings = {
        "edition": EDITION,
        "network": network.fingerprint,
        "training": training_set.digest,
        "test": test_set.digest,
        "quick": quick,
        "seed": seed,
    }
    account = account_of("mnist-mlp", weights)
    bench = Bench(network, training_set, test_set, Shelf(folder, settings), account, quick, seed)
    accounts = finished(PARTS, bench, bench.shelf)
    write_numbers(
        folder,
        settings=settings,
        claims=claims_of(accounts),
        numbers={name: each["numbers"] for name, each in accounts.items()},
    )
    return write(bench, accounts, settings)


def _data(network: Network, root: str | os.PathLike[str] | None) -> tuple[ImageSet, ImageSet]:
    """MNIST to train and to test on, or else the embedded digits."""
    try:
        return _split("mnist", network, root)
    except RequestError:
        return _split("digits", network, root)


def _split(
    name: str, network: Network, root: str | os.PathLike[str] | None
) -> tuple[ImageSet, ImageSet]:
    first, second = (
        data(name, root=root, split=split, shape=network.shape) for split in ("train", "test")
    )
    return first, second
