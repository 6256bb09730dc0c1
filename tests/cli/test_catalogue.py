"""The list of techniques is read from their source; that it is the true one, the registry says."""

import importlib
import subprocess
import sys

import pytest

from optogram.cli import catalogue

# `optogram.core.technique` is also the name of the decorator.
registry = importlib.import_module("optogram.core.technique")


ADD_ON = '''
from optogram import Attribution, Network, technique

@technique
def brightness(network: Network, image, *, times: float = 1.0) -> Attribution:
    """Show how bright the image is."""
    return Attribution(image.mean(0) * times, image, "output:0", 0.0)

@technique
def other_thing(network: Network, image, *, seed: int = 5) -> Attribution:
    """Show nothing."""
    return Attribution(image.mean(0) * 0, image, "output:0", 0.0)
'''


@pytest.fixture
def add_on(tmp_path_factory, monkeypatch):
    """A package of somebody else's that is installed, with two techniques and two entry points."""
    home = tmp_path_factory.mktemp("site")
    (home / "shining_pixels.py").write_text(ADD_ON)
    info = home / "shining_pixels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shining-pixels\nVersion: 1.0\n")
    points = "[optogram.techniques]\nbrightness = shining_pixels\nshine = shining_pixels\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(registry, "_WRAPPED", dict(registry._WRAPPED))
    monkeypatch.syspath_prepend(home)
    catalogue.added.cache_clear()
    yield
    catalogue.added.cache_clear()
    sys.modules.pop("shining_pixels", None)


def test_the_source_and_the_registry_agree():
    known = registry.techniques()
    assert catalogue.ours() == {
        name.replace("_", "-"): technique.summary for name, technique in known.items()
    }


def test_the_list_is_read_without_torch():
    look = "import sys; from optogram.cli import catalogue; catalogue.ours(); catalogue.added()"
    look += "; print('torch' in sys.modules, len(catalogue.ours()) > 2)"
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert run.stdout == "False True\n"


def test_the_decorator_is_known_by_its_name_alone(tmp_path, monkeypatch):
    written = ["@technique", "@optogram.technique", "@technique()", "@other", "@technique_not"]
    functions = [f'{mark}\ndef f{i}():\n    """Do {i}."""\n' for i, mark in enumerate(written)]
    (tmp_path / "some.py").write_text("\n".join(functions))
    monkeypatch.setattr(catalogue, "HOME", tmp_path)
    assert catalogue.ours.__wrapped__() == {"f0": "Do 0.", "f1": "Do 1."}


def test_an_add_on_is_listed_by_name(optogram, add_on):
    assert "brightness Added by shining-pixels." in " ".join(optogram("--help").stdout.split())
    assert "Added by shining-pixels." in optogram("methods").stdout


@pytest.mark.parametrize("name", ["brightness", "other-thing"])
def test_every_technique_of_an_add_on_can_be_run(printed, add_on, grey, image, name):
    """Also one that no entry point is named after."""
    assert printed(name, grey, image)["technique"] == name.replace("-", "_")


def test_an_add_on_has_its_options_too(optogram, add_on):
    assert "--times FLOAT" in optogram("brightness", "--help").stdout


def test_a_seed_that_nobody_typed_is_the_technique_s_own(printed, add_on, grey, image):
    words = ("other-thing", grey, image)
    assert printed(*words)["recipe"]["arguments"]["seed"] == 5
    assert printed(*words, "--seed", 0)["recipe"]["arguments"]["seed"] == 0


def test_an_entry_point_that_is_no_technique_says_so(refused, add_on, grey, image):
    assert "'shine'" in refused("shine", grey, image)


def test_a_name_that_nobody_knows_is_refused_where_there_are_add_ons(refused, add_on):
    assert "No such command 'darkness'" in refused("darkness")
