"""What is finished stays finished: kills, damage and other settings cannot spoil a survey."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from optogram.pictures import RequestError
from optogram.survey import from_arrays, make, opened, scan
from optogram.survey.part import merged_parts
from optogram.survey.scan import Plan
from optogram.survey.store import Store
from tests.survey.small import LAYERS, images, network

ROOT = Path(__file__).parent.parent.parent
FILES = ["arrays.safetensors", "survey.json", "units.parquet"]

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
count, size = int(sys.argv[3]), int(sys.argv[4])
how = {"batch": size, "shard": size, "triage": False, "directory": sys.argv[1]}
make(network(), images(count), LAYERS, **how)
print("done", flush=True)
"""


def surveyed(folder=None, **settings):
    return make(network(), images(48), LAYERS, batch=4, shard=4, directory=folder, **settings)


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def equal(one, other):
    for name in LAYERS:
        a, b = one.part.layers[name], other.part.layers[name]
        for held, found in ((a.top, b.top), (a.moments, b.moments), (a.answers, b.answers)):
            for field in held.__dataclass_fields__:
                left, right = getattr(held, field), getattr(found, field)
                assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


@pytest.mark.slow
def test_a_survey_that_is_killed_at_ten_random_moments_ends_with_the_same_bytes(tmp_path):
    """kill -9 after 0 to 2 shards and up to 0.1 s, so that shards are met in the middle too."""
    whole = {"batch": 2, "shard": 2, "triage": False}
    make(network(), images(128), LAYERS, directory=tmp_path / "whole", **whole)
    folder, published, chance = tmp_path / "killed", [], random.Random(7)
    for _ in range(10):
        words = [sys.executable, "-c", CHILD, str(folder), "0.05", "128", "2"]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            lines = [child.stdout.readline() for _ in range(chance.randint(0, 2))]
            time.sleep(chance.uniform(0, 0.1))
            os.kill(child.pid, signal.SIGKILL)
            lines += child.stdout.readlines()
        assert "done\n" not in lines, "it was quicker than the kills"
        published += [int(line.split()[1]) for line in lines if line.endswith("\n")]
    make(network(), images(128), LAYERS, directory=folder, **whole)
    assert content(folder) == content(tmp_path / "whole")
    assert len(published) >= 5
    assert published == sorted(set(published)), "a finished shard was done again"
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_only_what_has_a_marker_counts(tmp_path, monkeypatch):
    net, data, plan = network(), images(48), Plan(tuple(LAYERS), batch=4)
    recipe = surveyed().recipe
    store = Store.at(tmp_path / "other", recipe)
    for first in range(0, 48, 4):
        store.publish(scan.scan(net, data, plan, first, first + 4))
    markers = sorted(store.parts.glob("*.json"))
    assert len(markers) == 12
    markers[3].unlink()
    (markers[5].with_suffix(".parquet")).write_bytes(b"damaged")
    (store.parts / ".part-000000048.parquet.999999999-ab.tmp").write_bytes(b"litter")
    scanned = []
    ours = scan.scan
    monkeypatch.setattr(
        "optogram.survey.run.scan", lambda *a, **k: scanned.append(a[3]) or ours(*a, **k)
    )
    surveyed(tmp_path / "other")
    assert scanned == [12, 20]
    surveyed(tmp_path / "whole")
    assert content(tmp_path / "other") == content(tmp_path / "whole")


def test_a_folder_and_memory_hold_the_same_numbers(tmp_path):
    saved, held = surveyed(tmp_path / "s"), surveyed()
    equal(saved, held)
    again = opened(tmp_path / "s", images(48))
    equal(again, held)
    assert again.dead == held.dead
    assert again.recipe == held.recipe
    for unit in ("conv2:1", "fc1:3", "output:b"):
        one, two = again[unit], held[unit]
        assert torch.equal(one.patches, two.patches)
        assert torch.equal(one.boxes, two.boxes)
        assert (one.mean, one.quantiles, one.selectivity, one.prefers, one.state) == (
            two.mean, two.quantiles, two.selectivity, two.prefers, two.state,
        )  # fmt: skip


def test_a_finished_survey_is_opened_and_not_made_again(tmp_path, monkeypatch):
    surveyed(tmp_path)
    monkeypatch.setattr("optogram.survey.run.scan", None)
    assert surveyed(tmp_path).part.images == 48


def test_another_survey_is_refused_and_the_first_is_kept(tmp_path):
    surveyed(tmp_path)
    before = content(tmp_path)
    with pytest.raises(RequestError, match="holds another survey"):
        surveyed(tmp_path, k=3)
    with pytest.raises(RequestError, match="holds another survey"):
        make(network(9), images(48), LAYERS, batch=4, shard=4, directory=tmp_path)
    assert content(tmp_path) == before


def test_a_survey_of_other_images_is_not_opened_with_these(tmp_path):
    surveyed(tmp_path)
    with pytest.raises(RequestError, match="is of other images"):
        opened(tmp_path, images(48, seed=2))


def test_without_images_all_but_the_patches_is_there(tmp_path):
    surveyed(tmp_path)
    held = opened(tmp_path)["conv2:0"]
    assert held.k == 9
    assert held.labels is None
    with pytest.raises(RequestError, match="opened without"):
        _ = held.patches


def test_a_damaged_file_is_noticed(tmp_path):
    surveyed(tmp_path)
    rows = (tmp_path / "units.parquet").read_bytes()
    (tmp_path / "units.parquet").write_bytes(rows[:-8] + b"x" + rows[-7:])
    with pytest.raises(RequestError, match="damaged"):
        opened(tmp_path)


def test_a_folder_without_a_survey_says_how_to_make_one(tmp_path):
    with pytest.raises(RequestError, match="optogram survey NET DATA -o"):
        opened(tmp_path)


def test_the_files_are_read_without_optogram(tmp_path):
    """In a Python that cannot import optogram."""
    held = surveyed(tmp_path)
    program = """
import json, sys
sys.modules["optogram"] = None
import pyarrow.parquet as pq
from safetensors.numpy import load_file
rows = pq.read_table(sys.argv[1] + "/units.parquet").to_pylist()
row = next(r for r in rows if r["layer"] == "conv2" and r["unit"] == 1)
arrays = load_file(sys.argv[1] + "/arrays.safetensors")
about = json.load(open(sys.argv[1] + "/survey.json"))
print(json.dumps([row["values"], row["images"], row["rows"], row["columns"], row["boxes"],
                  row["mean"], list(arrays["conv2/half_spread"].shape), about["seen"]]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    values, numbers, rows, columns, boxes, mean, shape, seen = json.loads(run.stdout)
    unit = held["conv2:1"]
    assert values == unit.values.tolist()
    assert [list(p) for p in zip(numbers, rows, columns, strict=True)] == unit.places.tolist()
    assert boxes == unit.boxes.tolist()
    assert (mean, shape, seen) == (unit.mean, [2, 6, 6], 48)


def test_ranges_given_twice_count_once_and_overlaps_are_refused():
    net, data, plan = network(), images(20), Plan(("fc1",), batch=4)
    one, two = (scan.scan(net, data, plan, *span) for span in ((0, 12), (12, 20)))
    whole = merged_parts([two, one, two])
    assert whole.images == 20
    assert whole.ranges == ((0, 12), (12, 20))
    with pytest.raises(RequestError, match="surveyed twice"):
        merged_parts([one, two, scan.scan(net, data, plan, 8, 16)])


def test_a_set_without_a_readable_image_is_refused():
    data = from_arrays(torch.rand(3, 1, 10, 10))

    def read(numbers):
        raise RequestError("broken")

    object.__setattr__(data, "read", read)
    with pytest.raises(RequestError, match="no image that can be read"):
        make(network(), data, ["fc1"])
