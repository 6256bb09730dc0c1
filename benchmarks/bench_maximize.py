"""Activation maximisation of units of the MNIST network, against the arithmetic it needs.

The floor of a pass is its matrix products alone: forwards to the unit's layer and backwards to the
image, for the same batch, nothing else. `OPTOGRAM_BENCH=all` also runs all 3,892 units for 100
steps once, and reports seconds; the other rows are a batch of 256 units of three layers for 20
steps, in turn with the floor.
"""

import os
import time
from collections.abc import Callable

import torch

import optogram as og
from benchmarks.paired import paired

STEPS = 20


def run() -> list[dict[str, object]]:
    """A row a layer: the ratio of `maximize` to its matrix products."""
    network = og.load("mnist-mlp")
    rows = [_ratio(network, layer) for layer in ("fc1", "fc3", "fc7")]
    return rows + ([_everything(network)] if os.environ.get("OPTOGRAM_BENCH") == "all" else [])


def _ratio(network: og.Network, layer: str) -> dict[str, object]:
    units = list(network.units(layer))[:256]
    units += units[: 256 - len(units)] * (256 // len(units))
    floor = _floor(network, layer, len(units[:256]), STEPS)
    measured = paired(lambda: og.maximize(network, units[:256], steps=STEPS), floor, 5)
    return {"what": f"256 units of {layer}, 20 steps / their matrix products", **measured.row()}


def _everything(network: og.Network) -> dict[str, object]:
    layers = [f"fc{n}" for n in range(1, 8)] + ["output"]
    units = [unit for layer in layers for unit in network.units(layer)]
    start, cpu = time.perf_counter(), time.process_time()
    og.maximize(network, units, steps=100)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    start, cpu = time.perf_counter(), time.process_time()
    for layer in layers:
        _floor(network, layer, network.layer(layer).units, 100)()
    floor, cpu_floor = time.perf_counter() - start, time.process_time() - cpu
    return {
        "what": f"all {len(units)} units, 100 steps",
        "seconds": seconds,
        "floor seconds": floor,
        "ratio": seconds / floor,
        "CPU seconds": cpu_seconds,
        "CPU ratio": cpu_seconds / cpu_floor,
    }


def _floor(network: og.Network, layer: str, batch: int, steps: int) -> Callable[[], None]:
    """The matrix products of `steps` passes to a layer and back, in batches of at most 256."""
    depth = 8 if layer == "output" else int(layer[2:])
    weights = [network.module.get_submodule(f"fc{n}").weight.detach() for n in range(1, depth + 1)]

    def products() -> None:
        for first in range(0, batch, 256):
            image = torch.rand(min(256, batch - first), 784)
            for _ in range(steps):
                x = image
                for weight in weights:
                    x = x @ weight.T
                for weight in reversed(weights):
                    x = x @ weight

    return products
