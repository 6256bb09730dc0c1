"""What a survey costs over the bare forward passes it cannot do without, and its memory.

One run over all images, shard by shard, in turn with bare passes over the images of the same shard:
the ratio is of the whole run's time, the extremes are those of its shards. OPTOGRAM_BENCH takes one
or several, with commas: "resnet18", "googlenet none,memory", "mnist-mlp".
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import get_args

import torch
import torchvision
from torch import nn

from benchmarks.paired import Paired, Time, timed, timed_pair
from optogram.core import Network
from optogram.survey import ImageSet, from_arrays
from optogram.survey.part import merged_parts
from optogram.survey.run import batch_for, shard_for
from optogram.survey.scan import Plan, Statistics, planned, scan
from optogram.zoo.mnist_mlp import mnist_mlp

PHOTOS, DIGITS = 1_000, 60_000
STATISTICS: tuple[Statistics, ...] = get_args(Statistics)


def run() -> list[dict[str, object]]:
    rows, wanted = [], {*filter(None, os.environ.get("OPTOGRAM_BENCH", "").split(","))}
    torch.manual_seed(0)
    for name in ("resnet18", "googlenet"):
        if kinds := _kinds(name, wanted):
            photos = from_arrays(torch.randint(0, 256, (PHOTOS, 3, 224, 224), dtype=torch.uint8))
            options = {} if name == "resnet18" else {"init_weights": False, "aux_logits": False}
            module = getattr(torchvision.models, name)(weights=None, **options).eval()
            rows += [row(name, module, photos, nn.Conv2d, kind) for kind in kinds]
    if kinds := _kinds("mnist-mlp", wanted):
        digits = from_arrays(
            torch.randint(0, 256, (DIGITS, 1, 28, 28), dtype=torch.uint8),
            torch.randint(0, 10, (DIGITS,)),
            classes=[str(digit) for digit in range(10)],
        )
        rows += [row("mnist-mlp", mnist_mlp().eval(), digits, nn.Linear, n) for n in kinds]
    if not wanted or "memory" in wanted:
        kinds_of_run = ("survey", "bare passes")
        rows += [remembered(count, what) for what in kinds_of_run for count in (1_000, 10_000)]
    return rows


def _kinds(name: str, wanted: set[str]) -> list[Statistics]:
    """The statistics that are to be measured with a network: all, unless some are wanted alone."""
    return [kind for kind in STATISTICS if not wanted or wanted & {name, f"{name} {kind}"}]


def row(
    name: str, module: nn.Module, images: ImageSet, kind: type[nn.Module], statistics: Statistics
) -> dict[str, object]:
    shape = images.take(torch.tensor([0]))[0].shape[1:]
    network = Network(module, tuple(shape))
    layers = tuple(n for n, part in module.named_modules() if isinstance(part, kind))
    plan = planned(Plan(layers, statistics=statistics, batch=batch_for(network.shape)), len(images))
    size = shard_for(len(images), plan.batch)
    spans = [(first, min(first + size, len(images))) for first in range(0, len(images), size)]
    bare = fastest(module, images, plan.batch)
    scan(network, images, plan, 0, 4 * plan.batch)
    bare(0, 4 * plan.batch)
    pairs, part = [], None
    for number, span in enumerate(spans):

        def survey(span: tuple[int, int] = span) -> None:
            nonlocal part
            more = scan(network, images, plan, *span, earlier=part)
            part = more if part is None else merged_parts([part, more], spent=True)

        bare_span = partial(bare, *span)
        pairs.append(timed_pair(survey, bare_span, turned=number % 2 == 1))
    ratio = Paired(*zip(*pairs, strict=True))
    whole, passes = (
        Time(sum(time.wall for time in times), sum(time.cpu for time in times))
        for times in (ratio.a, ratio.b)
    )
    return {
        "what": f"survey of {len(layers)} layers / bare passes",
        "network": name,
        "statistics": statistics,
        "images": len(images),
        **ratio.row(),
        **Paired((whole,), (passes,)).row(),
        "wall min": min(ratio.wall_ratios), "wall max": max(ratio.wall_ratios),
        "cpu min": min(ratio.cpu_ratios), "cpu max": max(ratio.cpu_ratios),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def fastest(module: nn.Module, images: ImageSet, batch: int) -> Callable[[int, int], None]:
    """The forward passes alone, in whichever memory format is faster for this module."""
    shown = next(images.batches(batch))[1]
    candidates = {
        layout: copy.deepcopy(module).to(memory_format=layout)
        for layout in (torch.channels_last, torch.contiguous_format)
    }

    def seconds(layout: torch.memory_format) -> float:
        laid = shown.contiguous(memory_format=layout)
        with torch.no_grad():
            return min(timed(partial(candidates[layout], laid)).cpu for _ in range(4))

    best = min(candidates, key=seconds)
    bare = candidates[best]

    def go(start: int, stop: int) -> None:
        with torch.no_grad():
            for _, shown, _ in images.batches(batch, start=start, stop=stop):
                bare(shown.contiguous(memory_format=best))

    return go


CHILD = """
import sys, torch, torchvision
from optogram.core import Network
from optogram.survey import ImageSet, make
from optogram.survey.run import batch_for
count = int(sys.argv[1])
def read(numbers):
    chance = torch.Generator().manual_seed(int(numbers[0]))
    return torch.rand(len(numbers), 3, 64, 64, generator=chance)
images = ImageSet("noise", (), torch.full((count,), -1), read, lambda: [b"noise"], str)
net = Network(torchvision.models.squeezenet1_1(weights=None).eval(), (3, 64, 64))
if sys.argv[2] == "survey":
    make(net, images, statistics="all", triage=False)
else:
    module = net.module.to(memory_format=torch.channels_last)
    with torch.no_grad():
        for _, shown, _ in images.batches(batch_for(net.shape)):
            module(shown.contiguous(memory_format=torch.channels_last))
with open("/proc/self/status") as lines:
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
"""


def remembered(count: int, what: str) -> dict[str, object]:
    """The peak memory of a process that surveys images which exist only while they are shown.

    Or of one that only shows them: its peak rises too, as the allocator's heap goes to pieces.
    """
    child = [sys.executable, "-c", CHILD, str(count), what]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    peak = float(done.stdout.split()[-1])
    network = "squeezenet1_1"
    return {"what": f"peak memory, {what}, MB", "network": network, "images": count, "MB": peak}
