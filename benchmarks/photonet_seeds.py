"""Does the first layer of Zeiler and Fergus classify better? Both small networks, several seeds.

    .venv/bin/python -m benchmarks.photonet_seeds -o FOLDER [--seeds 3] [--epochs 6]

Trains tiny-alexnet and tiny-zfnet with the same seeds, epochs and recipe, one after the other, and
writes `photonets.json` into FOLDER, which the deconvnet study reads where it lies among the shipped
files. A run that was stopped goes on where it was; what FOLDER already has is not trained again,
so that `--only` can train the two side by side before.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from optogram.zoo.training import Progress, Trained, train

NETWORKS = ("tiny-alexnet", "tiny-zfnet")


def main() -> None:
    asked = _arguments()
    folder = Path(asked.output)
    folder.mkdir(parents=True, exist_ok=True)
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in NETWORKS}
    for seed in range(asked.seeds):
        for name in [asked.only] if asked.only else NETWORKS:
            reports[name].append(_report(name, seed, asked.epochs, folder, asked.data_root))
    if asked.only:
        return
    right = {
        name: [report["shipped"]["test_accuracy"] for report in each]
        for name, each in reports.items()
    }
    one = reports[NETWORKS[-1]][0]
    found = {
        "command": f"python -m benchmarks.photonet_seeds --seeds {asked.seeds} "
        f"--epochs {asked.epochs}",
        "epochs": asked.epochs,
        "seeds": list(range(asked.seeds)),
        "accuracy": right,
        "training_accuracy": {
            name: [report["shipped"]["training_accuracy"] for report in each]
            for name, each in reports.items()
        },
        "seconds": {name: [report["seconds"] for report in each] for name, each in reports.items()},
        "recipe": {key: value for key, value in one["recipe"].items() if key != "phases"},
        "data": one["data"],
        "made_with": one["made_with"],
    }
    (folder / "photonets.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, values in right.items():
        print(name, ", ".join(f"{value:.1%}" for value in values))


def _report(name: str, seed: int, epochs: int, folder: Path, root: str | None) -> dict[str, Any]:
    out = folder / f"{name}-{epochs}-{seed}.safetensors"
    account = out.with_suffix(".json")
    if not account.is_file():
        for event in train(name, root=root, out=out, seed=seed, epochs=epochs, checkpoints=False):
            if isinstance(event, Progress) and event.accuracy is not None:
                print(name, seed, f"epoch {event.epoch}: {event.accuracy:.1%}", flush=True)
            if isinstance(event, Trained):
                return event.report
    report: dict[str, Any] = json.loads(account.read_text())
    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", choices=NETWORKS, help="train one of them, and compare nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
