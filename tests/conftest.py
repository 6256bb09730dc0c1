"""What every test can count on: the data, the devices, and a clean desk before and after."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import hypothesis.configuration
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent

# The same examples on every run: a red test is the change's fault and not the day's.
hypothesis.configuration.set_hypothesis_home_dir(ROOT / "build" / "hypothesis")
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, with the reason, what this machine cannot run."""
    no_data = pytest.mark.skip(
        reason="reads real data: set OPTOGRAM_DATA to the folder that has it"
    )
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    data, gpu = "OPTOGRAM_DATA" in os.environ, torch.cuda.is_available()
    for item in items:
        reads_data = "data_root" in getattr(item, "fixturenames", ())
        if not data and (reads_data or item.get_closest_marker("data")):
            item.add_marker(no_data)
        if not gpu and item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a device on the CPU, and on CUDA where there is one."""
    if "device" in metafunc.fixturenames:
        cuda = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []
        metafunc.parametrize("device", ["cpu", *cuda])


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets and weights; a wrong OPTOGRAM_DATA is an error, not a skip."""
    root = Path(os.environ["OPTOGRAM_DATA"]).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"OPTOGRAM_DATA names {root}, and there is no such folder")
    return root


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    """Sums are rounded the same way on every machine, however many cores it has."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(autouse=True)
def clean_desk() -> Iterator[None]:
    """Seed the global generators before a test; fail one that leaves torch's settings changed."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - other libraries still draw from it
    torch.manual_seed(0)
    before = settings()
    yield
    after = settings()
    torch.set_default_dtype(before["default dtype"])
    torch.set_grad_enabled(before["gradients on"])
    torch.use_deterministic_algorithms(before["deterministic"])
    torch.set_num_threads(before["threads"])
    changed = [
        f"{name}: {before[name]} -> {after[name]}" for name in before if before[name] != after[name]
    ]
    assert not changed, f"this test left torch changed for those after it: {', '.join(changed)}"


@pytest.fixture
def draws_nothing() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """`with draws_nothing(): ...` fails when what is within touches a global generator."""
    return nothing_drawn


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    before = generators()
    yield
    touched = [name for name, state in generators().items() if state != before[name]]
    assert not touched, f"global random numbers were drawn or seeded: {', '.join(touched)}"


def settings() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients on": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
    }


def generators() -> dict[str, object]:
    numbers = np.random.get_state()  # noqa: NPY002 - it is this one that must stay untouched
    return {
        "random": random.getstate(),
        "numpy": (numbers[1].tobytes(), numbers[2], numbers[3], numbers[4]),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
