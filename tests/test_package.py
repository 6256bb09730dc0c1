"""What is released: a wheel and an archive of sources that hold all of it and nothing else."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from optogram.version import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that `hatchling` writes both into; without isolation, so without the network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


def wheel(folder: Path) -> Path:
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package_and_is_small(built):
    names = set(zipfile.ZipFile(wheel(built)).namelist())
    source = ROOT / "src"
    tracked = subprocess.run(
        ["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    here = {str(Path(f).relative_to("src")) for f in tracked} or {
        str(f.relative_to(source)) for f in source.rglob("*.py")
    }
    assert here <= names
    assert {n for n in names if not n.startswith("optogram")} == set()
    assert wheel(built).stat().st_size < 60e6
    assert __version__ in wheel(built).name


def test_the_sources_hold_the_tests_and_the_pages(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tests/test_package.py"} <= names
    assert {"docs/index.md", "examples/find_the_fault.py", "benchmarks/paired.py"} <= names
    assert not [n for n in names if n.startswith(("build/", ".venv", "docs/api/", "docs/_made/"))]


def test_the_wheel_works_away_from_the_checkout(built, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel(built)) as archive:
        archive.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = (
        "import optogram as og; from optogram.cli import main; "
        f"assert og.__file__.startswith({str(site)!r}), og.__file__; "
        "main(['maximize', 'mnist-mlp', 'output:7', '--steps', '3', '-o', 'seven.png'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "seven.png").read_bytes().startswith(b"\x89PNG")
