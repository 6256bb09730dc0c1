"""The same ratios on a GPU: each technique beside the bare passes that it cannot do without.

No rows where there is no CUDA device; `OPTOGRAM_BENCH_DEVICE=cpu` runs the table without one. The
network is ResNet-18 with random weights at 224x224, whole, in float32. Every call waits for the
device before its time is taken, and every result is fetched, as a user would have it.
"""

import os
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor

import optogram as og
from benchmarks.paired import paired

SIZE, BATCH, STEPS, UNITS, PATCH, STRIDE = 224, 64, 8, 16, 16, 8


def run() -> list[dict[str, object]]:
    """A row a technique."""
    device = os.environ.get("OPTOGRAM_BENCH_DEVICE", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        return []
    torch.manual_seed(0)
    module = torchvision.models.resnet18(weights=None).eval().to(device)
    network = og.Network(module, (3, SIZE, SIZE), name="resnet18")
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    shown = images.to(device)
    units = [f"layer3:{number}" for number in range(UNITS)]
    places = -((-SIZE // STRIDE) ** 2)
    ways = {
        f"guided backprop, {BATCH} images / forward + backward": (
            lambda: backward(module, shown, BATCH),
            lambda: og.guided_backprop(network, images, "output:5"),
        ),
        f"maximize, {UNITS} units, {STEPS} steps / as many forward + backward": (
            lambda: [backward(module, shown[:UNITS], UNITS) for _ in range(STEPS)],
            lambda: og.maximize(network, units, preset="plain", steps=STEPS),
        ),
        f"occlusion, {places} places / as many forward": (
            lambda: [forward(module, shown) for _ in range(-(-places // BATCH))],
            lambda: og.occlusion(network, images[0], "output:5", patch=PATCH, stride=STRIDE),
        ),
    }
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return [
        {"what": what, "device": name, **paired(waited(bare), waited(ours), 5).row()}
        for what, (bare, ours) in ways.items()
    ]


def waited(call: Callable[[], object]) -> Callable[[], None]:
    def wait() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return wait


def forward(module: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return module(images)[:, 5].cpu()


def backward(module: torch.nn.Module, images: Tensor, count: int) -> Tensor:
    asked = images[:count].clone().requires_grad_()
    return torch.autograd.grad(module(asked)[:, 5].sum(), asked)[0].cpu()
