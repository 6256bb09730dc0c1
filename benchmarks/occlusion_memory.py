"""What an occlusion takes in memory beside its network, at several bounds (Linux).

    .venv/bin/python -m benchmarks.occlusion_memory resnet18 1.0 0.2

Each in a process of its own: the highest resident memory while it runs, less what was resident
before. What the bound is not about is in it too: the pass in which the network is written down.
"""

import subprocess
import sys
from pathlib import Path

SIDE, PATCH, STRIDE = 224, 16, 16


def main() -> None:
    """A line a bound, in gigabytes."""
    name, *bounds = sys.argv[1:]
    if len(bounds) == 2 and bounds[0] == "alone":
        print(
            f"{bounds[1]} GB: {peak(name, float(bounds[1])):.2f} GB above the network", flush=True
        )
        return
    for bound in bounds:
        subprocess.run([sys.executable, "-m", __spec__.name, name, "alone", bound], check=True)


def peak(name: str, bound: float) -> float:
    """Gigabytes above what was resident before, at most, for a network of torchvision."""
    import torch
    import torchvision

    import optogram as og

    torch.manual_seed(0)
    net = og.Network(getattr(torchvision.models, name)(weights=None), (3, SIDE, SIDE))
    image = torch.rand(3, SIDE, SIDE)
    net(image[None])
    Path("/proc/self/clear_refs").write_text("5")  # the highest begins anew
    before = resident("VmRSS")
    og.occlusion(net, image, "output:0", patch=PATCH, stride=STRIDE, memory=bound)
    return resident("VmHWM") - before


def resident(what: str) -> float:
    """A line of the process's own status, in gigabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1e6


if __name__ == "__main__":
    main()
