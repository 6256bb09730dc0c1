"""Engines do all of the work, whoever dies meanwhile, and each piece once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optogram.atlas.engines import Processes, Serial, Work, engine
from optogram.pictures.errors import RequestError

ROOT = Path(__file__).parent.parent.parent
CHORE = "tests.atlas.chores:chore"


@pytest.fixture(autouse=True)
def _workers_find_the_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def made(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.txt"))


def begun(folder: Path) -> list[int]:
    return sorted(int(path.name.split(".")[0]) for path in folder.glob("*.begun-*"))


def test_serial_does_it_here(tmp_path):
    Serial().run(Work(CHORE, {"folder": str(tmp_path), "count": 3}), lambda: 0)
    assert made(tmp_path) == begun(tmp_path) == [0, 1, 2]


def test_processes_share_the_work_and_do_each_piece_once(tmp_path):
    seen = []
    work = Work(CHORE, {"folder": str(tmp_path), "count": 8, "pause": 0.05})

    def done():
        seen.append(len(made(tmp_path)))
        return seen[-1]

    Processes(2, ("cpu", "other"), threads=1).run(work, done)
    assert made(tmp_path) == begun(tmp_path) == list(range(8))
    assert seen[-1] == 8
    assert seen == sorted(seen)
    owners = {(tmp_path / f"{n}.txt").read_text().rsplit(" ", 1)[0] for n in range(8)}
    assert owners <= {"cpu 1", "other 1"}
    assert not list(tmp_path.glob("*.lease"))


def test_a_worker_that_dies_is_replaced_and_only_its_piece_is_begun_again(tmp_path):
    work = Work(CHORE, {"folder": str(tmp_path), "count": 5, "kill": True})
    Processes(1, threads=1).run(work, lambda: len(made(tmp_path)))
    assert made(tmp_path) == list(range(5))
    assert begun(tmp_path) == [0, 1, 2, 2, 3, 4]


def test_workers_that_die_without_finishing_anything_end_the_run(tmp_path):
    work = Work(CHORE, {"folder": str(tmp_path), "count": 5, "always": True})
    with pytest.raises(RuntimeError, match="3 in a row"):
        Processes(1, threads=1).run(work, lambda: len(made(tmp_path)))


def test_what_a_worker_refuses_is_said_in_its_words(tmp_path):
    work = Work(CHORE, {"folder": str(tmp_path), "count": 1, "refuse": "no such layer"})
    with pytest.raises(RequestError, match=r"^no such layer$"):
        Processes(2, threads=1).run(work, lambda: 0)


def test_workers_end_with_the_program_that_started_them(tmp_path):
    script = (
        "from optogram.atlas.engines import Processes, Work\n"
        f"work = Work({CHORE!r}, dict(folder={str(tmp_path)!r}, count=2, pause=60.0))\n"
        "Processes(1, threads=1).run(work, lambda: 0)\n"
    )
    program = subprocess.Popen([sys.executable, "-c", script])
    begin = wait_for(lambda: list(tmp_path.glob("*.begun-*")))
    worker = int(begin[0].name.rsplit("-", 1)[1])
    program.send_signal(signal.SIGKILL)
    program.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists() or zombie(worker))


def wait_for(what):
    for _ in range(600):
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen within half a minute")


def zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_engine_that_is_not_there_is_one_sentence():
    with pytest.raises(RequestError, match="no engine called 'spark'; there is serial, processes"):
        engine("spark")
    with pytest.raises(RequestError, match="workers=0"):
        Processes(0).run(Work(CHORE, {}), lambda: 0)


def test_without_ray_its_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"pip install 'optogram\[ray\]'"):
        engine("ray")


def test_an_engine_by_name():
    assert engine("local") == Serial()
    assert engine("processes", workers=3, devices=("cpu",), threads=2) == Processes(3, ("cpu",), 2)
    assert engine("processes", devices=("cuda:0", "cuda:1")).workers == 2
