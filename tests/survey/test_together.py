"""Several programs on one survey: the same bytes as one alone, and no shard twice."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optogram.pictures.errors import RequestError
from optogram.pictures.leases import leased
from optogram.survey import make
from optogram.survey.run import Unfinished
from optogram.survey.store import Store
from tests.survey.small import LAYERS, images, network
from tests.survey.test_store import content, surveyed

ROOT = Path(__file__).parent.parent.parent
CHILD = """
import sys, time
from optogram.survey import make
from optogram.survey.store import Store
from tests.survey.small import LAYERS, images, network

publish = Store.publish
def slowly(store, part):
    publish(store, part)
    print("published", part.ranges[0][0], flush=True)
    time.sleep(float(sys.argv[2]))
Store.publish = slowly
make(network(), images(48), LAYERS, batch=4, shard=4, directory=sys.argv[1])
"""


def started(folder, pause):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-c", CHILD, str(folder), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_programs_that_are_killed_at_random_leave_what_one_alone_makes(tmp_path):
    surveyed(tmp_path / "alone")
    chance, said = random.Random(3), []
    folder = tmp_path / "together"
    running = [started(folder, 0.3) for _ in range(3)]
    for _ in range(4):
        time.sleep(chance.uniform(0.5, 1.5))
        victim = running.pop(chance.randrange(len(running)))
        victim.kill()
        said.append(victim.communicate()[0])
        running.append(started(folder, 0.3))
    said += [program.communicate()[0] for program in running]
    assert [program.returncode for program in running] == [0] * 3
    assert content(folder) == content(tmp_path / "alone")
    published = [line for text in said for line in text.splitlines()]
    assert len(published) == len(set(published)), "a finished shard was made again"
    assert sorted(path.name for path in folder.iterdir()) == sorted(content(folder))


def test_shares_end_with_the_last_one(tmp_path, monkeypatch):
    begun = []
    publish = Store.publish
    monkeypatch.setattr(
        Store, "publish", lambda s, part: (begun.append(part.ranges[0][0]), publish(s, part))
    )
    surveyed(tmp_path / "alone")
    begun.clear()
    surveyed(tmp_path / "shares", share=(1, 2))
    assert begun == [*range(24, 48, 4), *range(0, 24, 4)]
    assert content(tmp_path / "shares") == content(tmp_path / "alone")


def test_a_share_does_not_wait_for_others(tmp_path):
    folder = tmp_path / "shares"
    recipe = surveyed(tmp_path / "alone").recipe
    with leased(Store.at(folder, recipe).lease((8, 12))) as mine:
        assert mine
        with pytest.raises(Unfinished, match="11 of 12 shards are finished"):
            surveyed(folder, share=(0, 2))
    surveyed(folder, share=(1, 2))
    assert content(folder) == content(tmp_path / "alone")


@pytest.mark.parametrize("share", [(2, 2), (-1, 3), (0, 0)])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(RequestError, match="share="):
        surveyed(tmp_path / "there", share=share)


def test_a_share_needs_a_folder():
    with pytest.raises(RequestError, match="a folder that the others see"):
        make(network(), images(48), LAYERS, share=(0, 2))
