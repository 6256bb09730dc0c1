"""What holds for the building as a whole: where imports go, what loads when, what is public."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import public_names

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "optogram"
HEAVY = ["torch", "torchvision", "numpy", "scipy", "matplotlib", "sklearn", "skimage", "timm"]
TORCHY = ["torch", "torchvision", "matplotlib", "sklearn", "skimage", "timm"]
LOAD = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""

HELP = """
import json, sys
from optogram.cli import main
names, sys.argv = sys.argv[2:], ["optogram", "--help"]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
print(json.dumps([name for name in names if name in sys.modules]))
"""


DOORS = [
    ("optogram", LOAD, HEAVY),
    ("optogram.pictures.errors", LOAD, HEAVY),
    ("optogram.cli", LOAD, HEAVY),
    ("optogram.cli", HELP, HEAVY),
    ("optogram.web", LOAD, TORCHY),
    ("optogram.atlas.store", LOAD, TORCHY),
]


def is_built(module: str) -> bool:
    """Whether a module is there: each is held to its promise from the day it exists."""
    place = SOURCE.joinpath(*module.split(".")[1:])
    return (place / "__init__.py").exists() or place.with_suffix(".py").exists()


def loaded(program: str, *words: str) -> list[str]:
    """Run a program in a Python of its own; what it printed last is a list of modules."""
    command = [sys.executable, "-c", program, *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(("module", "program", "heavy"), [row for row in DOORS if is_built(row[0])])
def test_a_door_opens_without_loading_torch(module, program, heavy):
    assert loaded(program, module, *heavy) == []


def test_the_probe_notices_a_module_that_loads_torch():
    assert loaded(LOAD, "torch", *HEAVY)[0] == "torch"


def test_imports_look_down():
    linter = Path(sys.executable).with_name("lint-imports")
    command = [linter, "--cache-dir", "build/import-linter"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_public_name_and_no_argument_was_lost():
    lost = public_names.lost(public_names.recorded(), public_names.exported())
    assert not lost, f"{lost} can no longer be typed: if meant, `make names`"


def test_every_public_name_and_argument_is_recorded():
    new = public_names.lost(public_names.exported(), public_names.recorded())
    assert not new, f"{new} are new: record them with `make names`"


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        ({"f": ["a"], "g": []}, {"f": ["a"]}, ["g"]),
        ({"f": ["a", "*", "b"]}, {"f": ["a", "*", "c"]}, ["f(b)"]),
        ({"f": ["a", "b"]}, {"f": ["b", "a"]}, ["f(a)", "f(b)"]),
        ({"f": ["a", "*", "b"]}, {"f": ["a", "b", "*", "c"]}, []),
    ],
)
def test_what_was_lost_is_named(before, now, lost):
    assert public_names.lost(before, now) == lost


def test_the_version_is_the_same_in_the_package_and_in_the_project_file():
    from optogram.version import __version__

    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_no_file_puts_off_its_annotations():
    """`from __future__ import annotations` would keep shapes from being checked."""
    late = [
        str(path.relative_to(ROOT))
        for path in SOURCE.rglob("*.py")
        if "\nfrom __future__ import annotations" in "\n" + path.read_text(encoding="utf-8")
    ]
    assert late == []


def test_every_file_opens_with_a_sentence():
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCE.rglob("*.py")
        if not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []
