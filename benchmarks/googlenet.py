"""Contact sheets of the original GoogLeNet, and whether its pictures excite as much as photographs.

    cd FOLDER_OF_WEIGHTS; python -m benchmarks.googlenet PHOTOS [--to FOLDER] [--layers 3b,4c,5b]

Twenty channels each of `inception3b`, `4c` and `5b`, drawn by chance, and twenty classes, 128x128
pixels, everything else as the default preset has it. `reached` is the share of them whose picture
excites the unit, at its strongest place, at least as much as any of the photographs (224x224) does;
AUC is that of `benchmarks.agreement`. With `--to` the sheets are written there, with recipes.
"""

import argparse
import random
import time
from pathlib import Path

import torch

import optogram as og
from optogram.survey.agreement import agreement
from optogram.zoo import data

EARLIER = {
    "inception3b": "conv3",
    "inception4c": "inception4a",
    "inception5b": "inception4c",
    "output": "inception5b",
}
CLASSES = (
    1, 9, 76, 99, 130, 207, 281, 292, 301, 323, 340, 387, 407, 437, 483, 620, 717, 812, 933, 980
)  # fmt: skip


def main() -> None:
    asked = _arguments()
    network = og.load("googlenet-bvlc", weights=asked.weights)
    photos = data(asked.data, split="test", shape=network.shape)
    numbers = sorted(random.Random(1).sample(range(len(photos)), min(asked.images, len(photos))))
    shown = photos.take(torch.tensor(numbers))[0]
    print(f"{len(shown)} photographs; {asked.steps or 'the preset’s'} steps")
    print("| layer | reached | least | median | most | AUC | seconds a picture |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for layer in [name for name in EARLIER if name.removeprefix("inception") in asked.layers]:
        units = [f"{layer}:{n}" for n in chosen(network, layer)]
        started = time.process_time()
        options = {"steps": asked.steps} if asked.steps else {}
        if asked.precision:
            options["precision"] = asked.precision
        sheet = og.maximize(network, units, param="fourier(shape=[3, 128, 128])", **options)
        seconds = (time.process_time() - started) / len(units)
        if asked.to:
            sheet.save(asked.to / f"googlenet-{layer}.webp")
        found = agreement(network, units, sheet.images, shown, at=EARLIER[layer])
        reached = found.reached[~found.reached.isnan()].sort().values
        share = int((reached >= 1).sum())
        print(
            f"| {layer} | {share} of {len(reached)} | {float(reached[0]):.2f} | "
            f"{float(reached.median()):.2f} | {float(reached[-1]):.2f} | "
            f"{float(found.auc.mean()):.3f} | {seconds:.1f} |",
            flush=True,
        )
        short = [f"{u} {float(r):.2f}" for u, r in zip(units, found.reached, strict=True) if r < 1]
        if short:
            print(f"  below the photographs: {', '.join(short)}", flush=True)


def chosen(network: og.Network, layer: str) -> list[int]:
    """Which units of a layer: the classes, or as many channels drawn by chance."""
    if layer == "output":
        return list(CLASSES)
    return sorted(random.Random(0).sample(range(network.layer(layer).units), len(CLASSES)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--weights", default="googlenet_bvlc.safetensors")
    parser.add_argument("--to", type=Path)
    parser.add_argument(
        "--layers", type=lambda text: text.split(","), default=["3b", "4c", "5b", "output"]
    )
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--precision")
    return parser.parse_args()


if __name__ == "__main__":
    main()
