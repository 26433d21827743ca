"""Rounds of timing, on a clock that the works alone move."""

from types import SimpleNamespace

import pytest
import torch

from s2mlp_cuda.bench import stopwatch
from s2mlp_cuda.bench.stopwatch import interleave

CPU = torch.device("cpu")


@pytest.fixture
def make_work(monkeypatch):
    """Works that take so many seconds and note that they ran."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def make(seconds: float, runs: list, name: str = ""):
        def work():
            runs.append(name)
            clock.now += seconds

        return work

    return make


def test_works_run_in_turn(make_work):
    runs = []
    samples = interleave({name: make_work(1e-2, runs, name) for name in "ab"}, 3, CPU)
    assert runs == ["a", "a", "b", "b"] * 4  # each once untimed, and a round that does not count
    assert samples == {name: [pytest.approx(1e-2)] * 3 for name in "ab"}


def test_what_another_work_left_in_the_caches_does_not_count(make_work):
    """A copy takes twice as long behind another work."""
    runs: list[str] = []
    cold, warm = (make_work(seconds, runs, "copy") for seconds in (2e-2, 1e-2))

    def copy():
        (warm if runs[-1:] == ["copy"] else cold)()

    samples = interleave({"copy": copy, "other": make_work(3e-2, runs, "other")}, 3, CPU)
    assert samples == {"copy": [pytest.approx(1e-2)] * 3, "other": [pytest.approx(3e-2)] * 3}


def test_long_works_run_once_a_round(make_work):
    runs = []
    works = {"long": make_work(2 * stopwatch.LONG_SECONDS, runs, "long")}
    assert interleave(works, 3, CPU)["long"] == [pytest.approx(2 * stopwatch.LONG_SECONDS)] * 3
    assert len(runs) == 4


def test_the_first_round_does_not_count(make_work):
    """Pages of memory are new to the process in it."""
    runs: list[str] = []
    faulting, usual = (make_work(seconds, runs, "copy") for seconds in (0.3, 0.06))
    samples = interleave({"copy": lambda: (usual if runs else faulting)()}, 3, CPU)
    assert samples == {"copy": [pytest.approx(0.06)] * 3}


def test_what_takes_a_hundred_units_runs_in_the_first_round_alone(make_work):
    runs = []
    works = {name: make_work(t, runs, name) for name, t in {"unit": 2e-3, "fast": 0.19, "slow": 0.21}.items()}
    samples = interleave(works, 4, CPU, unit="unit")
    assert [len(samples[name]) for name in works] == [4, 4, 1]
    assert samples["slow"] == [pytest.approx(0.21)] and runs.count("slow") == 1
    assert len(interleave(works, 4, CPU)["slow"]) == 4


def test_overhead_of_a_call_is_not_hopelessly_slow(make_work):
    """A hundred times a tiny unit, but quick enough to be repeated."""
    samples = interleave({"unit": make_work(1e-6, []), "call": make_work(0.09, [])}, 3, CPU, unit="unit")
    assert len(samples["call"]) == 3


def test_short_works_are_repeated_within_a_sample(make_work):
    runs = []
    assert interleave({"short": make_work(1e-6, runs)}, 1, CPU)["short"] == [pytest.approx(1e-6)]
    assert len(runs) * 1e-6 >= stopwatch.LEAST_SECONDS
