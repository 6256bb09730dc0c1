"""The stop-watch is tested with a clock of its own: no test here waits."""

import importlib
import json
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import paired as module
from benchmarks.paired import Paired, Time, paired


class Clock:
    """Time passes only when a call says so; the machine grows slower with each call."""

    def __init__(self, monkeypatch, slower=1.0):
        self.wall, self.cpu, self.pace, self.slower, self.calls = 0.0, 0.0, 1.0, slower, []
        monkeypatch.setattr(module.time, "perf_counter_ns", lambda: round(self.wall * 1e9))
        monkeypatch.setattr(module.time, "process_time_ns", lambda: round(self.cpu * 1e9))

    def call(self, name, seconds, cores=1.0):
        def run():
            self.calls.append(name)
            self.wall += seconds * self.pace
            self.cpu += seconds * self.pace * cores
            self.pace *= self.slower

        return run


def test_the_ratio_says_how_many_times_faster_the_second_is(monkeypatch):
    clock = Clock(monkeypatch)
    row = paired(clock.call("a", 6.0), clock.call("b", 2.0), repeats=3).row()
    assert row["wall ratio"] == row["wall min"] == row["wall max"] == pytest.approx(3.0)
    assert (row["a seconds"], row["b seconds"]) == (pytest.approx(6.0), pytest.approx(2.0))


def test_cpu_time_tells_of_a_second_core(monkeypatch):
    clock = Clock(monkeypatch)
    row = paired(clock.call("a", 6.0), clock.call("b", 3.0, cores=2.0), repeats=2).row()
    assert row["wall ratio"] == pytest.approx(2.0)
    assert row["cpu ratio"] == pytest.approx(1.0)


def test_calls_are_warmed_up_then_interleaved_with_every_second_pair_turned(monkeypatch):
    clock = Clock(monkeypatch)
    paired(clock.call("a", 1.0), clock.call("b", 1.0), repeats=3, warm_up=2)
    assert "".join(clock.calls) == "abab" + "ab" + "ba" + "ab"


def test_a_machine_that_slows_down_does_not_favour_one_side(monkeypatch):
    clock = Clock(monkeypatch, slower=1.1)
    ratios = paired(clock.call("a", 1.0), clock.call("b", 1.0), repeats=2).wall_ratios
    assert ratios == pytest.approx([1 / 1.1, 1.1])


def test_median_lowest_and_highest_are_of_the_pairs():
    ones = (Time(1.0, 1.0),) * 3
    row = Paired(a=(Time(2.0, 8.0), Time(9.0, 7.0), Time(4.0, 1.0)), b=ones).row()
    assert (row["wall min"], row["wall ratio"], row["wall max"]) == (2.0, 4.0, 9.0)
    assert (row["cpu min"], row["cpu ratio"], row["cpu max"]) == (1.0, 7.0, 8.0)


def test_a_call_that_takes_no_time_at_all_has_a_ratio():
    assert paired(lambda: None, lambda: None, repeats=1).row()["wall ratio"] > 0


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        paired(lambda: None, lambda: None, repeats=0)


def test_every_benchmark_found_is_run_and_written_down(tmp_path, monkeypatch, capsys):
    (tmp_path / "bench_sums.py").write_text("def run(): return [{'what': 'sum', 'ratio': 2.0}]")
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "REPORT", tmp_path / "build" / "bench.json")
    monkeypatch.setattr("benchmarks.__path__", [str(tmp_path)])
    assert program.main([]) == 0
    assert "sums" in capsys.readouterr().out
    report = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert report["sums"]["rows"] == [{"what": "sum", "ratio": 2.0}]
    assert report["sums"]["machine"]["torch"]
    assert "| sum | 2 |" in (tmp_path / "build" / "bench.md").read_text()


def test_a_later_run_leaves_what_other_benchmarks_measured_and_published(tmp_path, monkeypatch):
    for name in ("first", "second"):
        text = f"def run(): return [{{'what': '{name}'}}]"
        (tmp_path / f"bench_{name}.py").write_text(text)
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "REPORT", tmp_path / "build" / "bench.json")
    monkeypatch.setattr(program, "PUBLISHED", tmp_path / "measured.md")
    monkeypatch.setattr("benchmarks.__path__", [str(tmp_path)])
    assert program.main(["second", "--publish"]) == program.main(["first", "--publish"]) == 0
    published = (tmp_path / "measured.md").read_text()
    assert published.index("### first") < published.index("### second")


@pytest.mark.parametrize("name", sorted(p.stem for p in Path(program.__file__).parent.glob("*.py")))
def test_every_program_here_still_finds_what_it_measures(name):
    importlib.import_module(f"benchmarks.{name}")


def test_an_unknown_benchmark_is_named(capsys):
    assert program.main(["nonsense"]) == 2
    assert "'nonsense'" in capsys.readouterr().out
