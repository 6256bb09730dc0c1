"""A survey by any engine has the bytes of one that was made here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from optogram.atlas.engines import Processes, Ray
from optogram.atlas.work import survey, survey_with
from tests.atlas.test_ray import cluster  # noqa: F401 - a fixture

ROOT = Path(__file__).parent.parent.parent
FILES = ["arrays.safetensors", "survey.json", "units.parquet"]
ASKED = {"net": "mnist-mlp", "data": "digits", "layers": ["fc5", "fc7"], "split": "test"}
SETTINGS = {"batch": 32, "shard": 64, "statistics": "all", "triage": False}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The survey, made here on one thread as the workers make theirs."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        survey(**ASKED, output=str(folder), settings=SETTINGS)
    finally:
        torch.set_num_threads(threads)
    return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.slow
def test_two_processes_make_the_survey_that_one_makes(tmp_path, alone, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    survey_with(Processes(2, threads=1), 500, str(tmp_path), **ASKED, settings=SETTINGS)
    assert content(tmp_path) == alone
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_makes_the_survey_that_one_makes(cluster, tmp_path, alone):  # noqa: F811
    head, _ = cluster
    engine = Ray(head.address, workers=2, threads=1)
    survey_with(engine, 500, str(tmp_path), **ASKED, settings=SETTINGS)
    assert content(tmp_path) == alone


@pytest.mark.slow
def test_shards_from_the_shell_end_with_the_last_one(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    words = [
        "survey",
        "mnist-mlp",
        "digits",
        "--layers",
        "fc7",
        "--split",
        "test",
        "--batch",
        "64",
        "-o",
    ]
    command = [sys.executable, "-c", "from optogram.cli import main; main()", *words]
    for shard in ("1/2", "0/2"):
        run = subprocess.run(
            [*command, str(tmp_path / "survey"), "--shard", shard],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in (tmp_path / "survey").iterdir()) == FILES
    run = subprocess.run(
        [*command, str(tmp_path / "other"), "--shard", "2/2"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert run.returncode == 2
    assert "should be I/N" in run.stderr
