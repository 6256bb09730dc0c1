"""The desk that conftest lays is itself looked at, by a small suite that misbehaves."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

MISBEHAVING = """
import pytest, torch

def test_a_leaves_the_dtype_changed():
    torch.set_default_dtype(torch.float64)

def test_b_leaves_gradients_off():
    torch.set_grad_enabled(False)

def test_c_finds_all_as_it_was():
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()

def test_d_reads_data(data_root):
    pass

@pytest.mark.data
def test_e_is_marked_data():
    pass

def test_f_asks_for_a_device(device):
    assert device in ("cpu", "cuda")
"""


def run_misbehaving(folder: Path, **environment: str) -> dict[str, int]:
    """How often each outcome came."""
    tests = folder / "tests"
    tests.mkdir()
    shutil.copy(Path(__file__).with_name("conftest.py"), tests)
    (tests / "test_it.py").write_text(MISBEHAVING)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  data: d\n  gpu: g\n")
    kept = {name: value for name, value in os.environ.items() if name != "OPTOGRAM_DATA"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tests)]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=kept | environment, timeout=120
    )
    words = run.stdout.splitlines()[-1].strip("= ").split(" in ")[0].split(", ")
    return {outcome: int(number) for number, outcome in (word.split() for word in words)}


def test_settings_left_changed_are_an_error_and_are_put_back(tmp_path):
    devices = 1 + torch.cuda.is_available()
    outcome = run_misbehaving(tmp_path)
    assert outcome == {"passed": 3 + devices, "skipped": 2, "errors": 2}


def test_a_wrong_data_folder_is_an_error_and_not_a_skip(tmp_path):
    devices = 1 + torch.cuda.is_available()
    outcome = run_misbehaving(tmp_path, OPTOGRAM_DATA=str(tmp_path / "nowhere"))
    assert outcome == {"passed": 4 + devices, "errors": 3}


def test_what_draws_nothing_is_let_pass(draws_nothing):
    with draws_nothing():
        torch.rand(1, generator=torch.Generator().manual_seed(1))
        np.random.default_rng(1).random()


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("torch", lambda: torch.rand(1)),
        ("torch", lambda: torch.manual_seed(5)),
        ("numpy", lambda: np.random.rand()),  # noqa: NPY002
        ("random", random.random),
    ],
)
def test_a_draw_from_a_global_generator_is_noticed(name, draw, draws_nothing):
    with pytest.raises(AssertionError, match=name), draws_nothing():
        draw()
