"""Feature visualisation against Lucent and against the bare passes of the truncated network.

Same network (random weights), same pixels, 128x128, Adam, Fourier parameters, moving views; the
cost of a step of one unit, in optogram's default precision (bfloat16 where the processor has it)
and with float32. Lucent and the bare passes are float32, as the network is. Lucent lives in a
folder of its own (benchmarks/peers/README.md); without it only the bare passes are compared.
OPTOGRAM_BENCH names a family or a layer, "all" takes all layers.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision

import optogram as og
from benchmarks.paired import Paired, paired
from optogram.ascent.cropping import crop_for, margin_for, window
from optogram.ascent.presets import PRESETS
from optogram.core.prepared import Precision, resolved

SIZE, STEPS, PAIRS = 128, 16, 3
LAYERS = [("resnet18", "layer1.0", True), ("resnet18", "layer2.0", True)]
MORE = [
    ("resnet18", "layer3.0", False),
    ("resnet18", "layer4.0", False),
    ("vgg16", "features.7", True),
    ("vgg16", "features.16", True),
    ("vgg16", "features.29", False),
]


def run() -> list[dict[str, object]]:
    """A row a layer and comparison: how many times cheaper a unit's step is with optogram."""
    rows: list[dict[str, object]] = []
    lucent = _lucent()
    wanted = os.environ.get("OPTOGRAM_BENCH", "")
    layers = LAYERS + MORE if wanted else LAYERS
    for family, layer, crop in [row for row in layers if wanted in ("", "all", *row[:2])]:
        torch.manual_seed(0)
        module = getattr(torchvision.models, family)().eval()
        network = og.Network(module, (3, SIZE, SIZE), mean=(0.485, 0.456, 0.406), std=(0.25,) * 3)
        many, one = (4 if family == "vgg16" else 16), 1
        theirs = _lucents(lucent, module, layer) if lucent else None
        for precision in (resolved(network, (layer,), "auto"), "float32"):
            cases = [(one, False), (many, False), *([(many, True)] if crop else [])]
            for units, cropped in cases:
                what = f"{family} {layer}, {units} unit(s){' on their field' if cropped else ''}"
                ours = _ours(network, layer, units, cropped, precision)
                if theirs:
                    measured = paired(theirs, ours, PAIRS)
                    rows.append(_row(what, precision, "Lucent", measured, units))
                if not cropped:
                    measured = paired(_bare(network, layer, units), ours, PAIRS)
                    rows.append(_row(what, precision, "bare passes", measured, 1))
    return rows


def _row(
    what: str, precision: str, against: str, measured: Paired, units: int
) -> dict[str, object]:
    row = measured.row()
    keys = ("wall ratio", "wall min", "wall max", "cpu ratio", "cpu min", "cpu max")
    named = {"what": what, "precision": precision, "against": against}
    return {**named, **{key: row[key] * units for key in keys}}


def _ours(
    network: og.Network, layer: str, units: int, crop: bool, precision: Precision
) -> Callable[[], None]:
    settings = PRESETS["optogram"].options(output=False)
    transforms = og.parse(settings["transforms"])
    found = crop_for(network, layer) if crop else None
    shape = network.shape
    if found is not None:
        margin = margin_for(found, transforms, shape)
        shape = (3, found.size[0] + 2 * margin, found.size[1] + 2 * margin)
        transforms = [*transforms, window(margin)]
    place = None if found is None else found.place
    wanted = [og.Unit(layer, n, place) for n in range(units)]

    def climb() -> None:
        for _ in og.ascend(
            network,
            og.objective.activation(wanted),
            og.parse(settings["param"]),
            steps=STEPS,
            optimizer=settings["optimizer"],
            transforms=transforms,
            shape=shape,
            owners=[str(n) for n in range(units)],
            precision=precision,
        ):
            pass

    return climb


def _bare(network: og.Network, layer: str, units: int) -> Callable[[], None]:
    """Forward to the layer and back to the pixels, as many times, and nothing else."""
    image = torch.rand(units, 3, SIZE, SIZE, requires_grad=True)
    heard: list[torch.Tensor] = []

    class Enough(Exception):
        pass

    def stop(_: Any, __: Any, answer: torch.Tensor) -> None:
        heard[:] = [answer]
        raise Enough

    def passes() -> None:
        handle = network.module.get_submodule(layer).register_forward_hook(stop)
        for step in range(STEPS + 1):
            try:
                with torch.set_grad_enabled(step < STEPS):
                    network.module(image)
            except Enough:
                pass
            if step < STEPS:
                torch.autograd.grad(heard[0][:, 0].mean((1, 2)).sum(), image)
        handle.remove()

    return passes


def _lucents(lucent: Any, module: torch.nn.Module, layer: str) -> Callable[[], None]:
    render, param, objectives = lucent

    def climb() -> None:
        render.render_vis(
            module,
            objectives.channel(layer.replace(".", "_"), 0),
            lambda: param.image(SIZE),
            thresholds=(STEPS,),
            progress=False,
            show_image=False,
            fixed_image_size=SIZE,
        )

    return climb


def _lucent() -> Sequence[Any] | None:
    if folder := os.environ.get("OPTOGRAM_PEERS"):
        sys.path.append(folder)
    try:
        with warnings.catch_warnings():  # its kornia is of 2020
            warnings.simplefilter("ignore")
            names = ("render", "param", "objectives")
            return [importlib.import_module(f"lucent.optvis.{name}") for name in names]
    except ImportError as error:
        print(f"Lucent is not compared ({error}): see benchmarks/peers/README.md.")
        return None
