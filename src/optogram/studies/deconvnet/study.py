"""The whole study: its parts in order, each stored when it is finished, and the report."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from optogram.core.network import Network
from optogram.pictures.errors import RequestError
from optogram.studies.course import (
    PathLike,
    account_of,
    claims_of,
    finished,
    folder_for,
    write_numbers,
)
from optogram.studies.found import Found
from optogram.studies.shelf import Shelf
from optogram.zoo import load
from optogram.zoo.networks import read_weights, shipped

from . import architecture, features, hiding, invariance, layers, matrix, pooling
from .bench import Bench
from .report import write
from .views import faces, thinned, views

Part = Callable[[Bench], Found]
EDITION = 2
"""To be raised when a part would find other numbers: what older editions stored is made again."""

PARTS: dict[str, Part] = {
    "matrix": matrix.matrix,
    "features": features.features,
    "evolution": features.evolution,
    "invariance": invariance.invariance,
    "architecture": architecture.architecture,
    "occlusion": hiding.hiding,
    "correspondence": hiding.corresponding,
    "probes": layers.probes,
    "ablation": layers.ablation,
    "pooling": pooling.pooling,
}
FEW = 200
"""So many images a quick run is about."""
BROTHERS = {"tiny-zfnet": "tiny-alexnet", "tiny-alexnet": "tiny-zfnet"}


def deconvnet_study(
    directory: PathLike,
    *,
    network: str = "tiny-zfnet",
    weights: PathLike | None = None,
    images: PathLike | None = None,
    checkpoints: PathLike | None = None,
    data_root: PathLike | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Path:
    """Look into a convolutional network as Zeiler & Fergus (2014) did; writes `index.html`.

    A part that is finished is stored in `directory` at once; a run that was stopped goes on after
    the last finished part, and a finished one only writes its report again.

    Args:
        directory: gets `index.html`, `numbers.json`, the figures and the parts.
        network: what is looked into, see `optogram.load`; it must have convolutions and ReLUs.
        weights: its weights, as `load` takes them.
        images: what it is shown, see `optogram.data`. By default the validation images of
            tinyimagenet20 for networks of its classes, the 1,000 of imagenet_samples for networks
            of ImageNet's, where these lie under `data_root` or `$OPTOGRAM_DATA`; else windows of
            the embedded photographs.
        checkpoints: the network after some epochs: a folder of weights with the epoch in their
            names, or the file `NAME.epochs.safetensors` that `optogram train` wrote. Layers that
            are not in them, as those above the convolutions of the small networks, are the trained
            ones. By default what came with the shipped weights, or what lies beside `weights`.
        data_root: where data lie; else `$OPTOGRAM_DATA`.
        quick: fewer units, images and steps.
        seed: decides every random number.

    Returns the path of the report. Raises RequestError for a folder that cannot be written, and for
    networks, weights and images that cannot be had.
    """
    folder = folder_for(directory)
    asked = load(network, weights=weights)
    other = BROTHERS.get(network)
    brother = load(other) if other is not None and weights is None else None
    shown, training, test = views(asked, data_root, images)
    shown = thinned(shown, FEW) if quick else shown
    kept = _checkpoints(asked, network, weights, checkpoints)
    accounts = _accounts(network, weights)
    settings = {
        "edition": EDITION,
        "network": asked.fingerprint,
        "other": None if brother is None else brother.fingerprint,
        "images": shown.digest,
        "training": training.digest,
        "test": test.digest,
        "checkpoints": {str(epoch): each.fingerprint for epoch, each in kept.items()},
        "accounts": accounts,
        "quick": quick,
        "seed": seed,
    }
    bench = Bench(
        asked, brother, shown, training, test, kept, accounts, faces(asked, test),
        Shelf(folder, settings), quick, seed,
    )  # fmt: skip
    parts = finished(PARTS, bench, bench.shelf)
    write_numbers(
        folder,
        settings=settings,
        claims=claims_of(parts),
        numbers={name: each["numbers"] for name, each in parts.items()},
        cpu_seconds={name: each["cpu_seconds"] for name, each in parts.items()},
    )
    return write(bench, parts)


def _checkpoints(
    network: Network, name: str, weights: PathLike | None, given: PathLike | None
) -> dict[int, Network]:
    """The network after some epochs, by their number, without the last one."""
    source = Path(given) if given is not None else None
    if source is not None and not source.exists():
        raise RequestError(f"no checkpoints at {str(source)!r}: give a folder or a file of them")
    if source is None:
        beside = shipped(f"{name}.safetensors") if weights is None else Path(weights)
        source = beside.with_suffix(".epochs.safetensors")
        if weights == "random" or not source.is_file():
            return {}
    states = _folder_of(source) if source.is_dir() else _split(read_weights(source))
    found: dict[int, Network] = {}
    for epoch, state in sorted(states.items()):
        twin = network.with_pooling("max")
        try:
            twin.module.load_state_dict(network.module.state_dict() | state)
        except RuntimeError as problem:
            raise RequestError(
                f"the checkpoint of epoch {epoch} is of another network"
            ) from problem
        if twin.fingerprint != network.fingerprint:
            found[epoch] = twin
    return found


def _folder_of(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Files of weights, `zfnet-epoch05.pt` say, by the last number in their names."""
    files = {
        int(numbers[-1]): path
        for path in sorted(folder.iterdir())
        if path.suffix in (".safetensors", ".pt", ".pth")
        and (numbers := re.findall(r"\d+", path.stem))
    }
    if not files:
        raise RequestError(f"no weights with an epoch's number in their names in '{folder}'")
    return {epoch: read_weights(path) for epoch, path in files.items()}


def _split(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """`4/conv1.weight` is conv1.weight after epoch 4."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        epoch, slash, rest = name.partition("/")
        if not slash or not epoch.isdigit():
            raise RequestError(
                f"the checkpoints hold {name!r}, which names no epoch, as in '4/fc8.bias'"
            )
        states.setdefault(int(epoch), {})[rest] = value
    return states


def _accounts(name: str, weights: PathLike | None) -> dict[str, Any]:
    """What was written down when the networks were trained and compared."""
    found = {"own": account_of(name, weights), "comparison": account_of("photonets", None)}
    if not found["comparison"] and name in BROTHERS and weights is None:
        found |= _one_seed(name)
    return {key: account for key, account in found.items() if account}


def _one_seed(name: str) -> dict[str, Any]:
    """The comparison that the two shipped networks are, where both saw as many epochs."""
    accounts = {
        each: json.loads(shipped(f"{each}.json").read_text("utf-8"))
        for each in (BROTHERS[name], name)
    }
    epochs = {len(account["curves"]) for account in accounts.values()}
    if len(epochs) != 1:
        return {}
    right = {each: [a["shipped"]["test_accuracy"]] for each, a in accounts.items()}
    return {"comparison": {"epochs": epochs.pop(), "seeds": [0], "accuracy": right}}
