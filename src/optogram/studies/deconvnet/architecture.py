"""Section 5: the first layer of the old and the new architecture, and what the change bought."""

import re
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.network import Network
from optogram.core.unit import Unit
from optogram.pictures import Sheet
from optogram.studies.drawing import Line, Tile, grid, stacked
from optogram.studies.found import Claim, Figure, Found
from optogram.survey.datasets import Images
from optogram.survey.patches import strongest
from optogram.techniques import top_patches

from .bench import Bench, convolutions
from .tiles import squared

SPECTRUM = 64
LOW, HIGH = 0.1, 0.25
FAINT = 0.1
SEEDS = 3


def architecture(bench: Bench) -> Found:
    """Figure 6: dead filters, frequencies and aliasing of the first layer, and what is above."""
    networks = [n for n in (bench.other, bench.network) if n is not None]
    images = bench.images.take(torch.arange(min(len(bench.images), 50 if bench.quick else 200)))[0]
    found = {network.name: _measured(bench, network, images) for network in networks}
    figures = []
    for network in networks:
        first, second = convolutions(network)[:2]
        chosen = list(
            range(0, network.layer(second).units, max(1, network.layer(second).units // 8))
        )[:8]
        sheet = top_patches(
            network, bench.images, [Unit(second, u) for u in chosen], k=1, project="deconvnet"
        )
        assert isinstance(sheet, Sheet)
        tiles = [
            Tile(squared(p.image), (Line(f"{second}:{u}"),))
            for u, p in zip(chosen, list(sheet)[1::2], strict=True)
        ]
        patches = [Tile(squared(p.image)) for p in list(sheet)[::2]]
        drawing = stacked(
            [_filters(network), grid([tiles, patches], side=84)],
            [
                f"{network.name}: {first}",
                f"{second}: projection of the strongest patch, and the patch",
            ],
        )
        figures.append(
            Figure(
                f"architecture-{re.sub(r'[^A-Za-z0-9_.-]+', '-', network.name)}", _CAPTION, drawing
            )
        )
    comparison = bench.accounts.get("comparison")
    numbers: dict[str, Any] = {"networks": found, "comparison": comparison}
    claims = () if bench.other is None else _claims(bench, found, comparison)
    return Found(numbers, claims, tuple(figures))


_CAPTION = (
    "Above all filters of the first layer, contrast raised filter by filter; under each the share "
    "of "
    "its spectrum that its stride aliases, and its norm over the median. Below what some units of "
    "the "
    "second layer took from their strongest patch."
)


def aliased_share(
    weight: Float[Tensor, "filter channel row column"], stride: int
) -> Float[Tensor, " filter"]:
    """The share of each filter's spectral power above the Nyquist frequency of a stride.

    After sampling every `stride` pixels, frequencies above 1 / (2 stride) in either direction look
    like lower ones. For stride 1 there are none. The mean over pixels (frequency 0) counts.
    """
    power = torch.fft.fft2(weight, s=(SPECTRUM, SPECTRUM)).abs().square().sum(1)
    return _above(power, stride)


def _above(power: Float[Tensor, "map row column"], stride: int) -> Float[Tensor, " map"]:
    rows, columns = power.shape[-2:]
    far = torch.maximum(
        torch.fft.fftfreq(rows).abs()[:, None], torch.fft.fftfreq(columns).abs()[None]
    )
    over = far > 1 / (2 * stride) + 1e-9
    return (power * over).sum((1, 2)) / power.sum((1, 2)).clamp(min=1e-30)


def _measured(bench: Bench, network: Network, images: Images) -> dict[str, Any]:
    first = convolutions(network)[0]
    conv = dict(network.module.named_modules())[first]
    assert isinstance(conv, nn.Conv2d)
    weight, stride = conv.weight.detach().float().cpu(), conv.stride[0]
    answers = _map_aliasing(network, conv, images)
    units = [Unit(first, i) for i in range(len(weight))]
    best = [lists[0].value for lists in strongest(network, bench.images, units, k=1, batch=50)]
    norms = weight.flatten(1).norm(dim=1)
    peak = _peaks(weight)
    return {
        "first": first,
        "filters": len(weight),
        "size": weight.shape[-1],
        "stride": stride,
        "aliased_in_filters": float(aliased_share(weight, stride).mean()),
        "aliased_in_answers": answers,
        "off_on_all_images": sum(value <= 0 for value in best),
        "faint": int((norms < FAINT * norms.median()).sum()),
        "norm_spread": float(norms.max() / norms.median()),
        "peaks": {
            "low": float((peak < LOW).float().mean()),
            "middle": float(((peak >= LOW) & (peak < HIGH)).float().mean()),
            "high": float((peak >= HIGH).float().mean()),
        },
    }


def _map_aliasing(network: Network, conv: nn.Conv2d, images: Images) -> float:
    """Of what the filters answer at every pixel, the share that sampling by the stride aliases."""
    with torch.no_grad():
        dense = F.conv2d(
            network.normalized(images.to(network.device, network.dtype)),
            conv.weight,
            None,
            1,
            conv.padding,
        )
    dense = dense.flatten(0, 1).float().cpu()
    rows, columns = dense.shape[-2:]
    fade = torch.hann_window(rows)[:, None] * torch.hann_window(columns)[None]
    power = torch.fft.fft2((dense - dense.mean((1, 2), keepdim=True)) * fade).abs().square()
    per_filter = power.reshape(len(images), -1, rows, columns).mean(0)
    return float(_above(per_filter, conv.stride[0]).mean())


def _peaks(weight: Tensor) -> Float[Tensor, " filter"]:
    """The frequency, in cycles a pixel, at which each filter answers most."""
    power = torch.fft.fft2(weight, s=(SPECTRUM, SPECTRUM)).abs().square().sum(1)
    frequency = torch.fft.fftfreq(SPECTRUM)
    radius = (frequency.square()[:, None] + frequency.square()[None]).sqrt().flatten()
    return radius[power.flatten(1).argmax(1)]


def _filters(network: Network) -> Any:
    first = convolutions(network)[0]
    conv = dict(network.module.named_modules())[first]
    assert isinstance(conv, nn.Conv2d)
    weight = conv.weight.detach().float().cpu()
    share = aliased_share(weight, conv.stride[0])
    norms = weight.flatten(1).norm(dim=1)
    tiles = [
        Tile(
            0.5 + 0.5 * w / w.abs().max().clamp(min=1e-12),
            (Line(f"{s:.0%}"), Line(f"{n:.2f}")),
        )
        for w, s, n in zip(weight, share.tolist(), (norms / norms.median()).tolist(), strict=True)
    ]
    shown = tiles[:96]
    return grid([shown[i : i + 8] for i in range(0, len(shown), 8)], side=84)


def _claims(bench: Bench, found: dict[str, Any], comparison: Any) -> tuple[Claim, ...]:
    old, new = found["tiny-alexnet"], found["tiny-zfnet"]
    shown = "architecture-tiny-alexnet"
    claims = [
        Claim(
            "A large stride aliases: what it sees above its Nyquist frequency shows as artefacts.",
            f"aliased share of the filters' answers to images: {old['aliased_in_answers']:.0%} "
            "with "
            f"stride {old['stride']}, {new['aliased_in_answers']:.0%} with stride {new['stride']} "
            f"(of the filters themselves {old['aliased_in_filters']:.0%} and "
            f"{new['aliased_in_filters']:.0%})",
            "confirmed" if new["aliased_in_answers"] < old["aliased_in_answers"] else "opposite",
            shown,
        ),
        Claim(
            "The old first layer mixes very high and very low frequencies and lacks the middle "
            "ones.",
            f"filters whose spectrum peaks between {LOW} and {HIGH} cycles a pixel: "
            f"{old['peaks']['middle']:.0%} and {new['peaks']['middle']:.0%}; below "
            f"{old['peaks']['low']:.0%} and {new['peaks']['low']:.0%}",
            "confirmed" if old["peaks"]["middle"] < new["peaks"]["middle"] else "not confirmed",
            shown,
        ),
        Claim(
            "The new first layer has fewer dead filters.",
            f"off on all images or a tenth of the median norm: "
            f"{old['off_on_all_images'] + old['faint']} of {old['filters']} and "
            f"{new['off_on_all_images'] + new['faint']} of {new['filters']}",
            "confirmed"
            if new["off_on_all_images"] + new["faint"] < old["off_on_all_images"] + old["faint"]
            else "not confirmed",
            shown,
        ),
    ]
    if comparison:
        claims.append(_bought(comparison))
    return tuple(claims)


def _bought(comparison: Any) -> Claim:
    """What the new first layer gained, over seeds."""
    said, means = [], {}
    for name, runs in comparison["accuracy"].items():
        values = torch.tensor(runs, dtype=torch.float64)
        means[name] = float(values.mean())
        spread = f" ± {float(values.std()):.1%}" if len(runs) > 1 else ""
        said.append(f"{name} {means[name]:.1%}{spread}")
    pairs = [
        new - old
        for old, new in zip(
            comparison["accuracy"]["tiny-alexnet"],
            comparison["accuracy"]["tiny-zfnet"],
            strict=True,
        )
    ]
    gain = sum(pairs) / len(pairs)
    return Claim(
        "The smaller filters and stride classify better.",
        f"{' and '.join(said)} of the validation images after {comparison['epochs']} epochs, "
        f"{len(pairs)} seed(s), mean and standard deviation: {gain * 100:+.1f} points, seed by "
        f"seed {', '.join(f'{pair * 100:+.1f}' for pair in pairs)}",
        "confirmed"
        if len(pairs) >= SEEDS and min(pairs) > 0
        else "opposite"
        if len(pairs) >= SEEDS and max(pairs) < 0
        else "not confirmed",
        "",
    )
