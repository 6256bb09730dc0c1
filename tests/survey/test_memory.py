"""A survey and an atlas for which memory is short: the same, in smaller parts."""

import gc
import sys
import threading

import pytest
import torch

import optogram as og
from optogram.atlas import painting
from optogram.core import visit as visiting
from optogram.core.memory import trim
from optogram.survey import ImageSet, make, scan
from optogram.survey.ahead import ahead
from tests.survey.small import LAYERS, images, network

FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"


@pytest.fixture
def short(monkeypatch):
    """Passes of more than five images fail, and not before the second layer has been heard."""
    seen = []
    visit = visiting.visit

    def tight(network, shown, layers, hear, onward=None):
        heard = []

        def hear_some(name, answer):
            if len(shown) > 5 and heard:
                raise RuntimeError(FULL)
            heard.append(name)
            hear(name, answer)

        seen.append(len(shown))
        visit(network, shown, layers, hear_some, onward)

    monkeypatch.setattr(scan, "visit", tight)
    return seen


def test_a_survey_is_the_same_in_halves(short, monkeypatch):
    found = make(network(), images(40, levels=3), LAYERS, batch=16)
    assert short[:3] == [16, 8, 4]
    assert set(short[2:]) == {4}
    assert sum(short[2:]) == 40
    monkeypatch.undo()
    whole = make(network(), images(40, levels=3), LAYERS, batch=16)
    for name in LAYERS:
        mine, other = found.part.layers[name], whole.part.layers[name]
        assert torch.equal(mine.top.images, other.top.images)
        assert torch.equal(mine.top.places, other.top.places)
        torch.testing.assert_close(mine.top.values, other.top.values)
        # Sums of float32 over other chunks.
        torch.testing.assert_close(mine.moments.mean, other.moments.mean, rtol=1e-5, atol=1e-5)
        assert torch.equal(mine.moments.active, other.moments.active)
        assert mine.moments.count == other.moments.count
        torch.testing.assert_close(mine.answers.mean, other.answers.mean, rtol=1e-5, atol=1e-5)


def test_an_atlas_is_the_same_in_halves(tmp_path, monkeypatch):
    asked = {"layers": ["conv2", "fc1"], "pictures": []}
    asked["recipes"] = [{"name": "short", "arguments": {"steps": 3}}]
    whole = og.atlas.build(network(), images(), tmp_path / "whole", **asked)
    patches = sys.modules["optogram.techniques.top_patches"]
    back, group = patches.value_and_gradient, painting._group
    sent, climbed = [], []

    def tight_back(network, shown, *rest, **more):
        sent.append(len(shown))
        if len(shown) > 9:
            raise RuntimeError(FULL)
        return back(network, shown, *rest, **more)

    def tight_group(network, layer, units, *rest):
        climbed.append(len(units))
        if len(units) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return group(network, layer, units, *rest)

    monkeypatch.setattr(patches, "value_and_gradient", tight_back)
    monkeypatch.setattr(painting, "_group", tight_group)
    made = og.atlas.build(network(), images(), tmp_path / "halves", **asked)
    assert max(sent) > 9 >= sent[-1]
    assert climbed == [6, 3, 1, 1, 1, 1, 1, 1, 5, 2, 2, 1]
    for layer in asked["layers"]:
        for unit in range(whole.layer(layer).units):
            mine, other = made.unit(layer, unit), whole.unit(layer, unit)
            assert [p.image for p in mine.patches] == [p.image for p in other.patches]
            assert mine.pictures[0].score == pytest.approx(other.pictures[0].score, rel=1e-4)


def test_what_is_read_ahead_comes_in_order_and_no_further_than_it_should():
    made = []

    def items():
        for number in range(10):
            made.append(number)
            yield number

    reader = ahead(items(), most=2)
    assert next(reader) == 0
    assert max(made) <= 4  # one handed out, two waiting, one in hand
    assert list(reader) == list(range(1, 10))


def test_a_fault_in_reading_is_raised_in_its_turn_and_the_thread_ends():
    def items():
        yield 1
        raise og.RequestError("a broken image")

    before = threading.active_count()
    reader = ahead(items())
    assert next(reader) == 1
    with pytest.raises(og.RequestError, match="a broken image"):
        next(reader)
    endless = ahead(iter(int, 1))
    next(endless)
    endless.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("stored", [True, False])
def test_what_a_survey_keeps_does_not_grow_with_the_data(stored, tmp_path, monkeypatch):
    """Bytes of all tensors that live after a batch; images exist only while they are shown."""

    def read(numbers):
        chance = torch.Generator().manual_seed(int(numbers[0]))
        return torch.rand(len(numbers), 1, 10, 10, generator=chance)

    data = ImageSet("noise", (), torch.full((512,), -1), read, lambda: [b"noise"], str)
    monkeypatch.setattr(scan, "BUFFER", 500)  # some 20 images' answers wait
    listen, alive = scan._listen, []

    def measured(*args, **kwargs):
        listen(*args, **kwargs)
        gc.collect()
        storages = {
            thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
            for thing in gc.get_objects()
            if issubclass(type(thing), torch.Tensor)
        }
        alive.append(sum(storages.values()))

    monkeypatch.setattr(scan, "_listen", measured)
    place = {"shard": 64, "directory": tmp_path / "survey"} if stored else {}
    make(network(), data, LAYERS, batch=8, **place)
    assert len(alive) == 64
    later = alive[16:]  # two shards make the sum and the part in the making
    assert max(later[24:]) <= max(later[:24])


def test_the_heap_is_put_in_order_now_and_then(monkeypatch):
    seen, trimmed = [0], []
    listen = scan._listen

    def counted(network, data, plan, ears, numbers, *args, **kwargs):
        seen[0] += len(numbers)
        listen(network, data, plan, ears, numbers, *args, **kwargs)

    monkeypatch.setattr(scan, "_listen", counted)
    monkeypatch.setattr(scan, "trim", lambda: trimmed.append(seen[0]))
    monkeypatch.setattr(scan, "TRIMMED", 20)
    make(network(), images(50), LAYERS, batch=8, triage=False)
    assert trimmed == [24, 40]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and it is glibc that can trim")
def test_trimming_gives_back_what_lies_free_between_what_is_used():
    def resident():
        with open("/proc/self/statm") as numbers:
            return int(numbers.read().split()[1]) * 4096

    # Below the size from which glibc takes memory of its own for each, and every other one is kept.
    held = [torch.ones(25_000) for _ in range(2_000)]
    before = resident()
    del held[::2]
    trim()
    assert before - resident() > 50_000_000
