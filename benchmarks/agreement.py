"""Which preset's pictures say most about the data: METHODS C18, for every preset in one table.

    .venv/bin/python -m benchmarks.agreement googlenet-bvlc PHOTOS inception4c --at inception4a \
        --weights FILE [--units 8] [--seed 0] [--size 128] [--steps 128] \
        [--presets optogram,olah2017]

A picture of each of some fairly drawn units is made by each preset; AUC is the chance that one of
the unit's strongest photographs is more like its picture than another photograph, in the eyes of
the earlier layer `--at`; "reached" the share of units that their picture excites at least as much
as any photograph. "grey" pictures and "noise" are what knows nothing: AUC 0.5 but for chance.
"""

import argparse
import random
import time

import torch

import optogram as og
from optogram.survey.agreement import agreement
from optogram.zoo import data

PRESETS = "optogram,plain,olah2017,simonyan2013,erhan2009,yosinski2015-3"


def main() -> None:
    asked = _arguments()
    loaded = og.load(asked.network, weights=asked.weights)
    size = (asked.size,) * 2 if asked.size else loaded.shape[1:]
    normal = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    colour = normal if loaded.shape[0] == 3 else {}
    network = og.Network(loaded.module, (loaded.shape[0], *size), **colour)
    images = data(asked.data, split=asked.split, shape=network.shape)
    numbers = sorted(random.Random(1).sample(range(len(images)), min(asked.images, len(images))))
    shown = images.take(torch.tensor(numbers))[0]
    count = network.layer(asked.layer).units
    units = [
        f"{asked.layer}:{n}"
        for n in sorted(random.Random(asked.seed).sample(range(count), asked.units))
    ]
    pictures, seconds = {}, {}
    for name in asked.presets.split(","):
        started = time.process_time()
        options = {} if asked.steps is None else {"steps": asked.steps}
        pictures[name] = og.maximize(network, units, preset=name, **options).images
        seconds[name] = (time.process_time() - started) / len(units)
    chance = torch.Generator().manual_seed(0)
    pictures["noise"] = torch.rand(next(iter(pictures.values())).shape, generator=chance)
    together = torch.cat(list(pictures.values()))
    found = agreement(network, units * len(pictures), together, shown, at=asked.at)
    print(
        f"{asked.network} {asked.layer} seen by {asked.at}: {len(units)} units, {len(shown)} photos"
    )
    print(
        "| preset | AUC, mean | AUC, least | reached | seconds a unit |\n"
        "| --- | --- | --- | --- | --- |"
    )
    for number, name in enumerate(pictures):
        part = slice(number * len(units), (number + 1) * len(units))
        auc, reached = found.auc[part], found.reached[part]
        share = float((reached[~reached.isnan()] >= 1).float().mean())
        print(
            f"| {name} | {float(auc.mean()):.3f} | {float(auc.min()):.3f} | {share:.0%} | "
            f"{seconds.get(name, 0.0):.1f} |"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("data")
    parser.add_argument("layer")
    parser.add_argument("--at", required=True, help="the earlier layer whose eyes compare")
    parser.add_argument("--weights")
    parser.add_argument("--split", default="test")
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="which units are drawn")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, help="pixels of a side; else the network's")
    parser.add_argument("--steps", type=int, help="the same for every preset; else its own")
    parser.add_argument("--presets", default=PRESETS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
