"""Surveys by one and two workers, and what the simulation makes of it for 64.

Two rows are measured: programs that show images to ResNet-18 side by side, one thread each, and
the same with a survey of all its layers. Their ratio is what sharing a machine costs the survey
beyond what it costs a bare forward pass. The other rows are `optogram.atlas.forecast` for 1.2
million images, from the seconds of a shard that were measured here, and for a graphics card of an
assumed pace. One worker in twenty is slow by half, one in twenty is lost an hour.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from optogram.atlas.forecast import Conditions, forecast

IMAGES, BATCH, ROUNDS = 48, 8, 3
MANY, SHARD = 1_200_000, 1024
PACES = {"this core": None, "a card, 500 images/s assumed": SHARD / 500}

WORKER = """
import sys, time
from pathlib import Path
import torch
from torchvision.models import resnet18
from optogram import Network
from optogram.survey import from_arrays
from optogram.survey.scan import Plan, chosen, scan
from optogram.survey.store import Store

folder, kind, me, of, images, batch, rounds = Path(sys.argv[1]), *sys.argv[2:]
torch.set_num_threads(1)
torch.manual_seed(0)
net = Network(resnet18(weights=None), (3, 224, 224))
shown = torch.rand(int(images), 3, 224, 224)
data = from_arrays((shown * 255).byte().numpy())
plan = Plan(chosen(net, None), 9, "strongest", "all", int(batch))
module = net.module.eval().to(memory_format=torch.channels_last)

def bare():
    with torch.inference_mode():
        for part in shown.split(int(batch)):
            module(part.contiguous(memory_format=torch.channels_last))

def survey():
    scan(net, data, plan, 0, len(data))

def publish():
    part = scan(net, data, plan, 0, int(batch))
    store = Store.at(folder / "store", {"network": {"name": "resnet18"}})
    begun = time.perf_counter()
    for _ in range(5):
        store.publish(part)
    print((time.perf_counter() - begun) / 5)
    sys.exit()

work = {"bare": bare, "survey": survey, "publish": publish}[kind]
work()
(folder / me).touch()
while len(list(folder.iterdir())) < int(of):
    time.sleep(0.005)
begun = time.perf_counter()
for _ in range(int(rounds)):
    work()
print(time.perf_counter() - begun)
"""


def run() -> list[dict[str, object]]:
    seconds = {(kind, n): together(kind, n) for kind in ("bare", "survey") for n in (1, 2)}
    gain = {kind: 2 * seconds[kind, 1] / seconds[kind, 2] for kind in ("bare", "survey")}
    rows: list[dict[str, object]] = [
        {"what": f"{kind}, images a second, 2 workers / 1 worker", "ratio": gain[kind]}
        for kind in gain
    ]
    rows.append({"what": "survey / bare: efficiency", "ratio": gain["survey"] / gain["bare"]})
    shard, writing = seconds["survey", 1] / IMAGES / ROUNDS * SHARD, together("publish", 1)
    rough = Conditions(start=30, stragglers=(0.05, 2.0), deaths=0.05, writing=writing)
    rows.append({"what": f"a shard of {SHARD} images, seconds", "ratio": shard})
    rows.append({"what": "publishing it, seconds", "ratio": writing})
    for what, pace in PACES.items():
        shards = [pace or shard] * -(-MANY // SHARD)
        for workers in (1, 8, 64):
            found = [forecast(shards, workers, rough, seed) for seed in range(5)]
            rows.append(
                {
                    "what": f"1.2 M images, {what}, {workers} workers",
                    "hours": median(f.seconds for f in found) / 3600,
                    "efficiency": median(f.efficiency for f in found),
                    "shards lost": median(f.lost for f in found),
                }
            )
    return rows


def together(kind: str, workers: int) -> float:
    """Seconds until the slowest of some programs is through, side by side."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", WORKER, folder, kind]
        running = [
            subprocess.Popen(
                [*words, str(me), str(workers), str(IMAGES), str(BATCH), str(ROUNDS)],
                stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent,
            )
            for me in range(workers)
        ]  # fmt: skip
        return max(float(program.communicate()[0]) for program in running)
