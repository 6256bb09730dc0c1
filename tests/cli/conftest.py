"""A small network in a file of its own, and a way to type commands at it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from optogram.cli import main
from optogram.pictures import Picture

NETWORKS = '''
import logging, sys, warnings
import torch
from torch import nn
from optogram import Network

def grey():
    parts = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)]
    return Network(nn.Sequential(*parts), (1, 8, 8), labels=["cat", "dog", "red panda"])

def colour():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.shape = (3, 16, 24)
    return module

class Behaving(nn.Flatten):
    """Its answer is the image; after its first pass, which asks for its layers, it misbehaves."""
    shape, seen = (1, 2, 2), 0
    def __init__(self, behave):
        super().__init__()
        self.behave = behave
    def forward(self, images):
        self.seen += 1
        if self.seen > 1:
            self.behave()
        return super().forward(images) * 1

def failing():
    def fail():
        raise RuntimeError("out of memory.\\n  Tried to allocate 80 GiB")
    return Behaving(fail)

def noisy():
    def talk():
        print("to standard output")
        warnings.warn("a warning")
        logging.getLogger("torch").warning("a message")
    return Behaving(talk)

def reporting():
    return Behaving(lambda: print("a pass", file=sys.stderr, flush=True))

def interrupted():
    def stop():
        raise KeyboardInterrupt
    return Behaving(stop)
'''

Type = Callable[..., Result]


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python file with networks in it."""
    path = tmp_path_factory.mktemp("networks") / "nets.py"
    path.write_text(NETWORKS)
    return path


@pytest.fixture(scope="session")
def grey(file: Path) -> str:
    """A network of grey images of 8x8 pixels: a convolution, a ReLU, and three classes."""
    return f"{file}:grey"


@pytest.fixture(scope="session")
def colour(file: Path) -> str:
    """A network of colour images, 16 high and 24 wide."""
    return f"{file}:colour"


@pytest.fixture
def optogram(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Type:
    """`optogram(words...)` runs the program in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


@pytest.fixture
def refused(optogram: Type) -> Callable[..., str]:
    """`refused(words...)` runs the program, which must say no in one sentence, and returns that."""

    def run(*words: object, code: int = 2) -> str:
        result = optogram(*words)
        said = result.stderr.splitlines()
        assert (result.exit_code, len(said), result.stdout) == (code, 1, ""), result.output
        assert said[0].startswith("optogram: ")
        return said[0].removeprefix("optogram: ")

    return run


@pytest.fixture
def printed(optogram: Type) -> Callable[..., dict]:
    """`printed(words...)` runs the program with --json and returns what it says."""

    def run(*words: object) -> dict:
        result = optogram(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A grey picture of 8x8 pixels."""
    ramp = torch.linspace(0, 1, 64).view(1, 8, 8)
    return Picture(ramp, "a:0", 0.0, torch.zeros(0)).save(tmp_path / "ramp.png", scale=1)
