"""Work for engines: a survey of a network and a data set that every worker finds by name."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optogram.atlas.engines import Executor, Work

SHARD = re.compile(r"part-(\d+)-(\d+)\.json")


def survey(
    net: str,
    data: str,
    output: str,
    layers: Sequence[str] | None = None,
    *,
    weights: str | None = None,
    split: str = "train",
    data_root: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    threads: int | None = None,
    share: Sequence[int] | None = None,
) -> None:
    """A worker's part of `optogram survey`; the last one to end writes the survey."""
    import torch

    from optogram.survey.run import Unfinished
    from optogram.survey.run import survey as make
    from optogram.zoo import data as data_set
    from optogram.zoo import load

    if threads is not None:
        torch.set_num_threads(threads)
    network = load(net, weights=weights, device=device)
    images = data_set(data, root=data_root, split=split, shape=network.shape)
    mine = None if share is None else (share[0], share[1])
    with suppress(Unfinished):
        make(network, images, layers, directory=output, share=mine, **(settings or {}))


def survey_with(engine: Executor, images: int, output: str, **arguments: Any) -> None:
    """Have an engine make a survey of so many images in a folder; `arguments` are `survey`'s."""
    from optogram.core import progress

    def done() -> int:
        seen = images if (Path(output) / "survey.json").exists() else surveyed(output)
        progress.tell("survey", seen, images)
        return seen

    work = Work("optogram.atlas.work:survey", {"output": str(output), **arguments})
    engine.run(work, done)


def surveyed(output: str) -> int:
    """How many images lie in finished shards."""
    found = (SHARD.fullmatch(path.name) for path in Path(output).glob("scan/*/part-*.json"))
    return sum(int(match[2]) - int(match[1]) for match in found if match)
