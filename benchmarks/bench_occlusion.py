"""Occlusion against Captum's: 16x16 pixels, stride 8, 224x224, one place against one place.

Ours is always the whole map of 729 places with its planning (plans are forgotten before each call;
the memory to work in stays with the network, so the first of the pairs is the slowest). Captum's is
given the `perturbations_per_eval` that suits it best here, found first, and times 16 larger
occluders side by side, whose cost a place is the same; the clean pass it makes is counted as one
more place. Both maps are compared on those 16 before.

`OPTOGRAM_BENCH_NETWORKS` names networks of torchvision, `OPTOGRAM_BENCH_THREADS` one or several
numbers of threads (1), `OPTOGRAM_BENCH_SCORE` our score: a "logit" needs one channel of
SqueezeNet's classifier, a "probability" all of them, as Captum computes.
"""

import os

import torch

import optogram as og
from benchmarks.paired import paired, timed
from optogram.core.incremental import Occluders, grid, plan
from optogram.core.incremental.answers import prepared
from optogram.core.incremental.plan import flops, groups, least_flops, whole_flops

SIDE, PATCH, STRIDE, COARSE = 224, 16, 8, 56
PAIRS = 5


def run() -> list[dict[str, object]]:
    """A row a network: ratios a place, by clock and by CPU time, and ratios of the arithmetic."""
    networks = os.environ.get("OPTOGRAM_BENCH_NETWORKS", "vgg11 squeezenet1_1 resnet18").split()
    before, rows = torch.get_num_threads(), []
    try:
        for threads in map(int, os.environ.get("OPTOGRAM_BENCH_THREADS", "1").split()):
            torch.set_num_threads(threads)
            rows += [{"network": name, "threads": threads, **_compared(name)} for name in networks]
    finally:
        torch.set_num_threads(before)
    return rows


def _compared(name: str) -> dict[str, object]:
    import torchvision

    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    net = og.Network(getattr(torchvision.models, name)(weights=None, **options), (3, SIDE, SIDE))
    image = torch.rand(3, SIDE, SIDE)
    score = os.environ.get("OPTOGRAM_BENCH_SCORE", "logit")
    coarse = grid(SIDE, SIDE, COARSE, COARSE).flatten(0, 1)
    fine = grid(SIDE, SIDE, PATCH, STRIDE).flatten(0, 1)
    _same(net, image)
    batch = min((1, 4, 8, 16), key=lambda n: timed(lambda: _captum(net, image, n)).cpu)

    def ours() -> object:
        plan._kept.clear()
        return og.occlusion(net, image, "output:0", patch=PATCH, stride=STRIDE, score=score)

    measured = paired(
        lambda: _captum(net, image, batch),
        ours,
        PAIRS,
        warm_up=0,
    ).row()
    scale = len(fine) / (len(coarse) + 1)
    ratios = {key: value * scale for key, value in measured.items() if "seconds" not in key}
    steps = prepared(net, image, Occluders(fine, image), ("output",))
    narrow = prepared(net, image, Occluders(fine, image), ("output",), (0,))
    chosen = narrow if score == "logit" else steps
    whole = whole_flops(steps, len(fine))
    return {
        "score": score,
        **ratios,
        "captum batch": batch,
        "captum ms": 1e3 * measured["a seconds"] / (len(coarse) + 1),
        "our ms": 1e3 * measured["b seconds"] / len(fine),
        "flop ratio": whole / flops(chosen, groups(chosen, fine)),
        "its bound": whole / least_flops(chosen, fine),
    }


def _captum(net: og.Network, image: torch.Tensor, batch: int) -> torch.Tensor:
    from captum.attr import Occlusion

    with torch.no_grad():
        answer: torch.Tensor = Occlusion(net.module.eval()).attribute(
            image[None],
            (3, COARSE, COARSE),
            strides=(3, COARSE, COARSE),
            baselines=0.5,
            target=0,
            perturbations_per_eval=batch,
        )
    return answer[0, 0]


def _same(net: og.Network, image: torch.Tensor) -> None:
    ours = og.occlusion(net, image, "output:0", patch=COARSE, stride=COARSE).spread()
    theirs = _captum(net, image, 8)
    covered = ~ours.isnan()
    miss, scale = float((ours - theirs)[covered].abs().max()), float(theirs.abs().max())
    if miss > 1e-3 * scale + 1e-6:
        raise AssertionError(f"the maps of {net.name} differ by {miss:.2g} of {scale:.2g}")
