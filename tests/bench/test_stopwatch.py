"""Interleaved timing, on a simulated clock that only the workloads advance."""

from types import SimpleNamespace

import pytest
import torch

from s2mlp_cuda.bench import stopwatch
from s2mlp_cuda.bench.stopwatch import interleave

CPU = torch.device("cpu")


@pytest.fixture
def make_workload(monkeypatch):
    """Makes workloads that take the given time and record each run."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def make(seconds: float, runs: list, name: str = ""):
        def workload():
            runs.append(name)
            clock.now += seconds

        return workload

    return make


def test_rounds_are_interleaved(make_workload):
    runs = []
    samples = interleave({name: make_workload(1e-2, runs, name) for name in "ab"}, 3, CPU)
    assert runs == ["a", "a", "b", "b"] * 4  # each with a warm-up call, and an uncounted first round
    assert samples == {name: [pytest.approx(1e-2)] * 3 for name in "ab"}


def test_timing_does_not_depend_on_the_previous_workload(make_workload):
    """A copy takes twice as long after another workload, which changes the state of the caches."""
    runs: list[str] = []
    cold, warm = (make_workload(seconds, runs, "copy") for seconds in (2e-2, 1e-2))

    def copy():
        (warm if runs[-1:] == ["copy"] else cold)()

    samples = interleave({"copy": copy, "other": make_workload(3e-2, runs, "other")}, 3, CPU)
    assert samples == {"copy": [pytest.approx(1e-2)] * 3, "other": [pytest.approx(3e-2)] * 3}


def test_long_workloads_run_once_per_round(make_workload):
    runs = []
    workloads = {"long": make_workload(2 * stopwatch.LONG_SECONDS, runs, "long")}
    assert interleave(workloads, 3, CPU)["long"] == [pytest.approx(2 * stopwatch.LONG_SECONDS)] * 3
    assert len(runs) == 4


def test_the_first_round_is_not_counted(make_workload):
    """It is slowed down by page faults."""
    runs: list[str] = []
    faulting, usual = (make_workload(seconds, runs, "copy") for seconds in (0.3, 0.06))
    samples = interleave({"copy": lambda: (usual if runs else faulting)()}, 3, CPU)
    assert samples == {"copy": [pytest.approx(0.06)] * 3}


def test_workloads_of_more_than_a_hundred_units_run_only_in_the_first_round(make_workload):
    runs = []
    workloads = {name: make_workload(t, runs, name) for name, t in {"unit": 2e-3, "fast": 0.19, "slow": 0.21}.items()}
    samples = interleave(workloads, 4, CPU, unit="unit")
    assert [len(samples[name]) for name in workloads] == [4, 4, 1]
    assert samples["slow"] == [pytest.approx(0.21)] and runs.count("slow") == 1
    assert len(interleave(workloads, 4, CPU)["slow"]) == 4


def test_call_overhead_alone_is_not_slow(make_workload):
    """It is more than a hundred times a tiny unit, but short enough to be repeated."""
    samples = interleave({"unit": make_workload(1e-6, []), "call": make_workload(0.09, [])}, 3, CPU, unit="unit")
    assert len(samples["call"]) == 3


def test_short_workloads_are_repeated_within_a_sample(make_workload):
    runs = []
    assert interleave({"short": make_workload(1e-6, runs)}, 1, CPU)["short"] == [pytest.approx(1e-6)]
    assert len(runs) * 1e-6 >= stopwatch.MIN_SECONDS
