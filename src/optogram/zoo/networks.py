"""Networks by name: the shipped ones, torchvision's, timm's, and your own from a file."""

import contextlib
import difflib
import importlib.util
import io
import json
import os
import pickle
import sys
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optogram.core.network import Network
from optogram.pictures.errors import RequestError
from optogram.zoo.dbn import mnist_dbn
from optogram.zoo.googlenet import googlenet
from optogram.zoo.mnist_mlp import mnist_mlp
from optogram.zoo.patches import GREY, SIDE, STD, patches_dbn, patches_sdae
from optogram.zoo.photonet import alexnet, tiny_alexnet, tiny_zfnet, zfnet
from optogram.zoo.sdae import mnist_sdae
from optogram.zoo.vgg import vgg19_lower

PHOTOGRAPHS = {"mean": (0.4596, 0.4364, 0.3832), "std": (0.2728, 0.2584, 0.2786)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Door:
    """A network of ours by name: how to build it and what is known about it.

    Where `build` takes the number of classes, `classes_of` is the weight whose length tells it.
    """

    description: str
    build: Callable[..., nn.Module]
    settings: Mapping[str, Any]
    shipped: bool = False
    classes_of: str | None = None


DOORS = {
    "mnist-dbn": Door(
        "784-500-500-500-10 on MNIST, a deep belief network, weights shipped",
        mnist_dbn,
        {"shape": (1, 28, 28), "labels": tuple("0123456789")},
        shipped=True,
    ),
    "mnist-dbn-tuned": Door(
        "mnist-dbn after labels have taught all of it, weights shipped",
        mnist_dbn,
        {"shape": (1, 28, 28), "labels": tuple("0123456789")},
        shipped=True,
    ),
    "mnist-mlp": Door(
        "784-1250-1000-750-500-250-100-32-10 on MNIST, weights shipped",
        mnist_mlp,
        {"shape": (1, 28, 28), "labels": tuple("0123456789")},
        shipped=True,
    ),
    "mnist-sdae": Door(
        "784-500-500-500-10 on MNIST, stacked denoising autoencoders, weights shipped",
        mnist_sdae,
        {"shape": (1, 28, 28), "labels": tuple("0123456789")},
        shipped=True,
    ),
    "mnist-sdae-tuned": Door(
        "mnist-sdae after labels have taught all of it, weights shipped",
        mnist_sdae,
        {"shape": (1, 28, 28), "labels": tuple("0123456789")},
        shipped=True,
    ),
    "vgg19-conv3_1": Door(
        "VGG-19 from conv1_1 to conv3_1, normalised for style; needs weights=FILE",
        vgg19_lower,
        {"shape": (3, 224, 224), "labels": (), **IMAGENET},
    ),
    "patches-dbn": Door(
        "144-256-144-100 on whitened patches of photographs, a belief network, weights shipped",
        patches_dbn,
        {"shape": (1, SIDE, SIDE), "mean": (GREY,), "std": (STD,)},
        shipped=True,
    ),
    "patches-sdae": Door(
        "144-256-144-100 on whitened patches of photographs, autoencoders, weights shipped",
        patches_sdae,
        {"shape": (1, SIDE, SIDE), "mean": (GREY,), "std": (STD,)},
        shipped=True,
    ),
    "tiny-alexnet": Door(
        "AlexNet's small brother on 64x64 photographs of 20 kinds, weights shipped",
        tiny_alexnet,
        {"shape": (3, 64, 64), **PHOTOGRAPHS},
        shipped=True,
        classes_of="fc8.bias",
    ),
    "tiny-zfnet": Door(
        "the same with the first layer of Zeiler and Fergus, weights shipped",
        tiny_zfnet,
        {"shape": (3, 64, 64), **PHOTOGRAPHS},
        shipped=True,
        classes_of="fc8.bias",
    ),
    "alexnet": Door(
        "AlexNet as published (Krizhevsky et al., 2012); needs weights=FILE",
        alexnet,
        {"shape": (3, 224, 224), **IMAGENET},
        classes_of="fc8.bias",
    ),
    "zfnet": Door(
        "the network of Zeiler & Fergus (2014); needs weights=FILE",
        zfnet,
        {"shape": (3, 224, 224), **IMAGENET},
        classes_of="fc8.bias",
    ),
    "googlenet-bvlc": Door(
        "the original GoogLeNet with contrast normalisation; needs weights=FILE",
        googlenet,
        {"shape": (3, 224, 224), **IMAGENET},
    ),
}


def load(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
) -> Network:
    """A network by name, with its weights, labels and normalisation.

    Args:
        name: one of `networks()`, `torchvision:NAME`, `timm:NAME`, or `FILE.py:FUNCTION`, a
            function that returns an `optogram.Network`, or a module that has a `shape` (channel,
            height, width).
        weights: a file of weights, `.safetensors` or a state dict that
            `torch.load(weights_only=True)` reads; "random" for untrained ones, the same each time.
            By default the published weights, from the package, torch's cache or their publisher.
        device: where to run; by default the CPU.

    Raises RequestError, in a sentence, for names and files that are not there, weights that do not
    fit, hold NaN, or are a pickle that would run code, and for downloads that cannot be made.
    """
    kind, colon, rest = name.partition(":")
    if name in DOORS:
        network = _ours(name, weights)
    elif kind == "torchvision" and rest:
        network = _torchvision(rest, weights)
    elif kind == "timm" and rest:
        network = _timm(rest, weights)
    elif colon and kind.endswith(".py"):
        network = _from_file(Path(kind), rest, weights)
    else:
        near = difflib.get_close_matches(name, DOORS, n=3)
        raise RequestError(
            f"no network called {name!r}; there is {', '.join(near or DOORS)}, torchvision:NAME, "
            f"timm:NAME and FILE.py:FUNCTION"
        )
    if device is not None:
        network = network.to(device)
    network.check_weights()
    network.name = name
    network.weights_file = None if weights is None else os.fspath(weights)
    return network


def networks() -> list[tuple[str, str]]:
    """The names that `load` takes, with a description each."""
    return [(name, door.description) for name, door in DOORS.items()] + [
        ("torchvision:NAME", "any classifier of torchvision, as in torchvision:resnet18"),
        ("timm:NAME", "any model of timm (pip install 'optogram[timm]')"),
        (
            "FILE.py:FUNCTION",
            "your own: a function that returns a Network, or a module with a shape",
        ),
    ]


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a weights file by name, half precision widened to float32.

    Raises RequestError for files that are missing, broken, hold no tensors or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"no weights file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise RequestError(
            f"{str(path)!r} is no plain state dict: to read it would run code from it; save "
            f"module.state_dict(), best as .safetensors"
        ) from problem
    except Exception as problem:
        raise RequestError(
            f"cannot read the weights in {str(path)!r}: {_first_line(problem)}"
        ) from problem
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise RequestError(f"{str(path)!r} holds no state dict, a dict of tensors by name")
    halves = (torch.float16, torch.bfloat16)
    return {
        k.removeprefix("module."): t.float() if t.dtype in halves else t for k, t in state.items()
    }


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 class names in the standard order, as torchvision carries them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])


def shipped(file: str) -> Path:
    """Where a file that came with the package lies."""
    return Path(str(resources.files("optogram.zoo") / "shipped" / file))


def _ours(name: str, weights: str | os.PathLike[str] | None) -> Network:
    door = DOORS[name]
    settings = dict(door.settings)
    if settings["shape"] == IMAGENET_SHAPE and "labels" not in settings:
        settings["labels"] = imagenet_labels()
    if weights is None and not door.shipped:
        raise RequestError(f"{name} comes without weights: give weights=FILE, or weights='random'")
    file = shipped(f"{name}.safetensors") if weights is None else weights
    module = _seeded(door.build)
    if door.classes_of is not None and file != "random":
        outputs = read_weights(file).get(door.classes_of, torch.empty(0))
        if len(outputs) not in (0, len(module.state_dict()[door.classes_of])):
            module = _seeded(partial(door.build, len(outputs)))
            settings["labels"] = None
        known = _classes(file)
        settings["labels"] = known if len(known) == len(outputs) else settings.get("labels")
    if weights is None:
        settings["records"] = read_weights(shipped(f"{name}.records.safetensors"))
    if file != "random":
        _fill(module, file)
    return Network(module, name=name, **settings)


def _classes(file: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the classes, where `optogram train` wrote them down beside the weights."""
    try:
        account = json.loads(Path(file).with_suffix(".json").read_text("utf-8"))
        return tuple(str(name) for name in account["data"]["training"]["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _torchvision(name: str, weights: str | os.PathLike[str] | None) -> Network:
    from torchvision import models

    if name not in models.list_models(module=models):
        near = difflib.get_close_matches(name, models.list_models(module=models), n=4, cutoff=0.4)
        raise RequestError(
            f"torchvision has no classifier {name!r}; nearest: {', '.join(near) or 'none'}"
        )
    known = models.get_model_weights(name)
    published = known.DEFAULT if len(known) else None
    # GoogLeNet and Inception v3 re-normalise their input when built for the published weights;
    # other weights take our normalisation, and nobody here needs their auxiliary heads.
    quirks: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        quirks = {"init_weights": True}
        quirks |= {"aux_logits": False, "transform_input": weights is None}
    module = _seeded(lambda: models.get_model(name, weights=None, **quirks))
    if weights is None:
        if published is None:
            raise RequestError(
                f"torchvision has no weights for {name}: give weights=FILE, or 'random'"
            )
        state = _download(lambda: published.get_state_dict(progress=False), name)
        module.load_state_dict({k: v for k, v in state.items() if not k.lower().startswith("aux")})
    elif weights != "random":
        _fill(module, weights)
    size = published.transforms().crop_size[0] if published is not None else 224
    labels = published.meta.get("categories") if published is not None else None
    preset = IMAGENET if published is None else vars(published.transforms())
    mean, std = tuple(preset["mean"]), tuple(preset["std"])
    return Network(module, (3, size, size), mean=mean, std=std, labels=labels, name=name)


def _timm(name: str, weights: str | os.PathLike[str] | None) -> Network:
    try:
        import timm
    except ImportError as problem:
        raise RequestError("timm is not installed: pip install 'optogram[timm]'") from problem

    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        raise RequestError(f"timm has no model {name!r}; nearest: {', '.join(near) or 'none'}")
    if weights is None:
        module = _download(lambda: timm.create_model(name, pretrained=True), name)
    else:
        module = _seeded(lambda: timm.create_model(name, pretrained=False))
        if weights != "random":
            _fill(module, weights)
    data = timm.data.resolve_model_data_config(module)
    outputs = module.num_classes
    return Network(
        module,
        tuple(data["input_size"]),
        mean=data["mean"],
        std=data["std"],
        labels=imagenet_labels() if outputs == 1000 else None,
        name=f"timm:{name}",
    )


def _from_file(path: Path, function: str, weights: str | os.PathLike[str] | None) -> Network:
    if not path.is_file():
        raise RequestError(f"no file {str(path)!r} to take {function!r} from")
    spec = importlib.util.spec_from_file_location(f"optogram_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    home = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(home)
        build = getattr(home, function, None)
        if not callable(build):
            there = [n for n, v in vars(home).items() if callable(v) and not n.startswith("_")]
            raise RequestError(
                f"{str(path)!r} has no function {function!r}; it has {', '.join(there) or 'none'}"
            )
        built = _seeded(build)
    except RequestError:
        raise
    except Exception as problem:
        raise RequestError(
            f"{path}:{function} failed: {type(problem).__name__}: {_first_line(problem)}"
        ) from problem
    finally:
        sys.path.remove(str(path.parent.resolve()))
    network = built if isinstance(built, Network) else None
    module = network.module if network else built
    if not isinstance(module, nn.Module):
        raise RequestError(
            f"{path}:{function} returned a {type(built).__name__}, not a Network or a module"
        )
    if weights is not None and weights != "random":
        _fill(module, weights)
    shape = getattr(module, "shape", None)
    if network is None and not isinstance(shape, list | tuple):
        raise RequestError(
            f"{path}:{function} returned a module without a `shape`: return "
            f"optogram.Network(module, shape=...)"
        )
    return network or Network(module, tuple(shape))  # type: ignore[arg-type]


def _fill(module: nn.Module, path: str | os.PathLike[str]) -> None:
    state = read_weights(path)
    try:
        module.load_state_dict(state)
    except RuntimeError as problem:
        ours, theirs = set(module.state_dict()), set(state)
        if missing := sorted(ours - theirs):
            what = f"it lacks {missing[0]!r} and {len(missing) - 1} more of {len(ours)}"
        elif extra := sorted(theirs - ours):
            what = f"it has {extra[0]!r} and {len(extra) - 1} more that the network has not"
        else:
            what = str(problem).split("\n\t", 1)[-1].strip().splitlines()[0]
        raise RequestError(
            f"the weights in {os.fspath(path)!r} are for another network: {what}"
        ) from problem


def _seeded(build: Callable[[], Any]) -> Any:
    """Build with fixed random weights, and leave torch's global generator as it was."""
    state = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        return build()
    finally:
        torch.set_rng_state(state)


def _download(fetch: Callable[[], Any], name: str) -> Any:
    try:
        # torch says where it downloads from; we say it where it fails.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return fetch()
    except (OSError, urllib.error.URLError, RuntimeError, json.JSONDecodeError) as problem:
        raise RequestError(
            f"cannot download the weights of {name} ({_first_line(problem)}): give weights=FILE "
            f"with a copy, or weights='random' for an untrained network"
        ) from problem


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip()
    return text.splitlines()[0] if text else type(problem).__name__


IMAGENET_SHAPE = (3, 224, 224)
