"""What a survey costs over the bare forward passes it cannot do without, and its memory."""

import copy
import subprocess
import sys
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from benchmarks.paired import paired
from optogram.core import Network
from optogram.survey import ImageSet, from_arrays
from optogram.survey.run import _batch
from optogram.survey.scan import Plan, planned, scan
from optogram.zoo.mnist_mlp import mnist_mlp

PHOTOS, DIGITS, REPEATS = 400, 60_000, 2


def run() -> list[dict[str, object]]:
    rows = []
    torch.manual_seed(0)
    photos = from_arrays(torch.randint(0, 256, (PHOTOS, 3, 224, 224), dtype=torch.uint8))
    for name in ("resnet18", "googlenet"):
        options = {} if name == "resnet18" else {"init_weights": False, "aux_logits": False}
        module = getattr(torchvision.models, name)(weights=None, **options).eval()
        for statistics in ("none", "moments", "all"):
            rows.append(row(name, module, photos, nn.Conv2d, statistics))
    digits = from_arrays(torch.randint(0, 256, (DIGITS, 1, 28, 28), dtype=torch.uint8))
    for statistics in ("none", "moments", "all"):
        rows.append(row("mnist-mlp", mnist_mlp().eval(), digits, nn.Linear, statistics))
    return rows + [remembered(count) for count in (1_000, 10_000)]


def row(
    name: str, module: nn.Module, images: ImageSet, kind: type[nn.Module], statistics: str
) -> dict[str, object]:
    shape = images.take(torch.tensor([0]))[0].shape[1:]
    network = Network(module, tuple(shape))
    layers = tuple(n for n, part in module.named_modules() if isinstance(part, kind))
    plan = planned(Plan(layers, statistics=statistics, batch=_batch(network.shape)), len(images))  # type: ignore[arg-type]
    bare = fastest(module, images, plan.batch)
    ratio = paired(lambda: scan(network, images, plan, 0, len(images)), bare, repeats=REPEATS)
    return {
        "what": f"survey of {len(layers)} layers / bare passes",
        "network": name,
        "statistics": statistics,
        "images": len(images),
        **ratio.row(),
    }


def fastest(module: nn.Module, images: ImageSet, batch: int) -> Callable[[], None]:
    """The forward passes alone, with channels last in memory where that is faster."""
    bare = copy.deepcopy(module).to(memory_format=torch.channels_last)

    def go() -> None:
        with torch.no_grad():
            for _, shown, _ in images.batches(batch):
                bare(shown.contiguous(memory_format=torch.channels_last))

    return go


CHILD = """
import sys, resource, torch, torchvision
from optogram.core import Network
from optogram.survey import ImageSet, make
count = int(sys.argv[1])
def read(numbers):
    chance = torch.Generator().manual_seed(int(numbers[0]))
    return torch.rand(len(numbers), 3, 64, 64, generator=chance)
images = ImageSet("noise", (), torch.full((count,), -1), read, lambda: [b"noise"], str)
net = Network(torchvision.models.squeezenet1_1(weights=None).eval(), (3, 64, 64))
make(net, images, statistics="all", triage=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def remembered(count: int) -> dict[str, object]:
    """The peak memory of a process that surveys images which exist only while they are shown."""
    child = [sys.executable, "-c", CHILD, str(count)]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    peak = float(done.stdout.split()[-1])
    return {"what": "peak memory, MB", "network": "squeezenet1_1", "images": count, "MB": peak}
