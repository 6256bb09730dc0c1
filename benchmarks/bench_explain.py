"""What guided backpropagation costs, beside a bare pass, Captum and (if installed) grad-cam."""

import os
import resource
import sys
import warnings
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

import optogram as og
from benchmarks.paired import paired

BATCH, SIZE, UNIT, CALLS = 64, 96, 5, 200


def run() -> list[dict[str, object]]:
    rows = []
    for name in ("squeezenet1_1", "resnet18"):
        module = torchvision.models.get_model(name, weights=None).eval()
        hooked = torchvision.models.get_model(name, weights=None).eval()
        hooked.load_state_dict(module.state_dict())
        for part in hooked.modules():
            if isinstance(part, nn.ReLU):
                part.inplace = False  # hooks cannot go back through in-place ReLUs
        images = torch.rand(BATCH, 3, SIZE, SIZE)
        network = og.Network(module, (3, SIZE, SIZE), name=name)

        def ours(network: og.Network = network, images: Tensor = images) -> og.Sheet:
            return og.guided_backprop(network, images, f"output:{UNIT}")

        ways = {"bare forward + backward": bare(module, images), "captum": captums(hooked, images)}
        if (theirs := grad_cams(hooked, images)) is not None:
            ways["grad-cam"] = theirs
        check(ours(), ways["captum"]())
        for way, call in ways.items():
            row = {"what": f"guided backprop, {BATCH} images, {way} / ours", "network": name}
            rows.append(row | paired(call, ours, repeats=5).row())
    rows.append(memory())
    return rows


def bare(module: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        asked = images.clone().requires_grad_()
        return torch.autograd.grad(module(asked)[:, UNIT].sum(), asked)[0]

    return call


def captums(module: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    from captum.attr import GuidedBackprop

    def call() -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return GuidedBackprop(module).attribute(images.clone().requires_grad_(), UNIT)

    return call


def grad_cams(module: nn.Module, images: Tensor) -> Callable[[], object] | None:
    """Its guided backpropagation takes one image at a time; None where it is not installed."""
    if (folder := os.environ.get("OPTOGRAM_PEERS")) and folder not in sys.path:
        sys.path.append(folder)
    try:
        from pytorch_grad_cam import GuidedBackpropReLUModel
    except ImportError as error:
        print(f"grad-cam is not compared ({error}): see benchmarks/peers/README.md.")
        return None
    model = GuidedBackpropReLUModel(module, "cpu")
    return lambda: [model(image[None].clone(), UNIT) for image in images]


def check(ours: og.Sheet, theirs: Tensor) -> None:
    found = torch.stack([item.raw for item in ours])
    if float((found - theirs).abs().max() / theirs.abs().max()) > 1e-5:
        raise AssertionError("Captum and optogram disagree: their times cannot be compared")


def memory() -> dict[str, object]:
    """How much larger the process is at its largest after many calls, in MiB."""
    module = torchvision.models.squeezenet1_1(weights=None).eval()
    network, image = og.Network(module, (3, 64, 64)), torch.rand(3, 64, 64)
    for _ in range(10):
        og.guided_backprop(network, image, f"output:{UNIT}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(CALLS):
        og.guided_backprop(network, image, f"output:{UNIT}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {
        "what": f"guided backprop, {CALLS} calls, MiB grown",
        "network": "squeezenet1_1",
        "b": grown,
    }
