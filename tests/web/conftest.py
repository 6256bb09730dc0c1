"""A made-up atlas, one of the shipped MNIST network's last layers, and visitors to both."""

import json
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import optogram.atlas
from optogram.web.app import create
from tests.atlas.synthetic import write_atlas

HERE = "http://127.0.0.1:8411"
LAYERS = {"fc7": 32, "fc8": 10}


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """An atlas of 300 and 20 made-up units."""
    return write_atlas(tmp_path_factory.mktemp("made up") / "atlas")


@pytest.fixture(scope="session")
def atlas(folder):
    return optogram.atlas.open(folder)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("small") / "atlas"
    return write_atlas(place, layers={"conv1": 20, "fc": 3})


@pytest.fixture
def own_atlas(small, tmp_path):
    """A small atlas that a test may write into."""
    return optogram.atlas.open(shutil.copytree(small, tmp_path / "own"))


@pytest.fixture
def visit() -> Iterator[Callable[..., TestClient]]:
    """`visit(atlas, ...)` is a visitor of an explorer made so; all end with the test."""
    opened: list[TestClient] = []

    def enter(*atlases, **settings) -> TestClient:
        client = TestClient(create(*atlases, **settings), base_url=HERE, follow_redirects=False)
        opened.append(client.__enter__())
        return client

    yield enter
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def visitor(visit, atlas) -> TestClient:
    """Somebody who looks at the made-up atlas."""
    return visit(atlas)


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    return mnist_folder(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def mnist(digits, tmp_path) -> "optogram.atlas.Atlas":
    """Made-up findings about the last layers of the shipped MNIST network, which can be asked."""
    return optogram.atlas.open(shutil.copytree(digits, tmp_path / "mnist"))


def mnist_folder(place: Path) -> Path:
    import optogram as og

    network = og.load("mnist-mlp")
    about = {"name": "mnist-mlp", "weights": network.fingerprint, "file": None}
    about |= {"shape": [1, 28, 28], "labels": list(network.labels)}
    folder = write_atlas(place / "mnist", layers=LAYERS, labels=tuple(network.labels))
    head = json.loads((folder / "atlas.json").read_text())
    head["network"] = about
    (folder / "atlas.json").write_text(json.dumps(head))
    return folder


def png(size=(28, 28), seed=0, mode="L") -> bytes:
    """A picture nobody else has."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    noise = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def send(client: TestClient, content: bytes, name: str = "mine.png", kind: str = "image/png"):
    return client.post("/images", files={"file": (name, content, kind)})
