"""The simulation against what can be worked out by hand."""

import pytest

from optogram.atlas.forecast import Conditions, forecast
from optogram.pictures.errors import RequestError
from optogram.pictures.leases import STALE

EVEN = Conditions(start=0, spread=0)


@pytest.mark.parametrize(("shards", "workers"), [(64, 8), (65, 8), (7, 8), (1, 1)])
def test_equal_shards_go_in_rounds(shards, workers):
    found = forecast([10.0] * shards, workers, EVEN)
    rounds = -(-shards // workers)
    assert found.seconds == pytest.approx(10 * rounds)
    assert found.efficiency == pytest.approx(shards / workers / rounds)
    assert found.lost == 0


def test_starting_costs_once():
    found = forecast([10.0] * 16, 4, Conditions(start=5, spread=0))
    assert found.seconds == pytest.approx(45)


def test_the_folder_is_written_by_one_at_a_time():
    """With writing alone the time is that of all writes, however many workers there are."""
    found = forecast([0.0] * 20, 10, Conditions(start=0, spread=0, writing=3))
    assert found.seconds == pytest.approx(60)


def test_no_schedule_beats_the_bounds_and_greedy_is_near_them():
    """Graham (1969): at most 2 - 1/workers times the best; never under work / workers."""
    shards = [float(1 + (7 * i) % 13) for i in range(50)]
    for workers in (2, 5, 16):
        found = forecast(shards, workers, EVEN)
        least = max(sum(shards) / workers, max(shards))
        assert least <= found.seconds <= (2 - 1 / workers) * least


def test_a_slow_worker_costs_less_than_its_share_of_slowness():
    """Work is taken, not given: one of four at half pace leaves 3.5 of 4 paces."""
    slow = [
        forecast([1.0] * 400, 4, Conditions(start=0, spread=0, stragglers=(0.25, 2)), seed)
        for seed in range(20)
    ]
    assert all(0.45 <= one.efficiency <= 1.0 for one in slow)
    assert any(abs(one.efficiency - 0.875) < 0.01 for one in slow)


def test_a_death_costs_at_most_its_shard_and_the_wait_for_its_lease():
    found = forecast([100.0] * 40, 4, Conditions(start=10, spread=0, deaths=3), seed=1)
    assert found.lost > 0
    calm = forecast([100.0] * 40, 4, Conditions(start=10, spread=0))
    assert calm.seconds < found.seconds <= calm.seconds + found.lost * (100 + STALE + 10)


def test_the_same_seed_tells_the_same():
    rough = Conditions(spread=0.3, stragglers=(0.1, 3), deaths=1)
    assert forecast([30.0] * 99, 7, rough, 5) == forecast([30.0] * 99, 7, rough, 5)
    assert forecast([30.0] * 99, 7, rough, 5) != forecast([30.0] * 99, 7, rough, 6)


def test_no_worker_is_refused():
    with pytest.raises(RequestError, match="at least 1 worker"):
        forecast([1.0], 0)
