"""The suite of ``s2mlp bench`` under pytest-benchmark, with its options: ``--benchmark-json``, ``--benchmark-compare``, ...

The rounds of all implementations of a case are interleaved, which pytest-benchmark does not support. A case is therefore measured
when the first of its tests runs. Each test then replays its rounds, on a simulated clock.
"""

from functools import lru_cache

import pytest

from s2mlp_cuda.bench.measurement import is_ours


class Playback:
    """A simulated clock."""

    now = 0.0

    def read(self) -> float:
        return self.now

    def play(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Playback()


@lru_cache(maxsize=1)
def measured(job) -> dict:
    return {(m.case.direction, m.name): m for m in job.run()}


@pytest.mark.benchmark(timer=CLOCK.read)
def test_implementation(benchmark, job, direction, name):
    measurement = measured(job)[direction, name]
    if measurement.failure and not is_ours(name):
        pytest.skip(measurement.failure)
    assert not measurement.failure
    benchmark.group = str(measurement.case)
    benchmark.extra_info.update(right=measurement.right, peak_bytes=measurement.peak_bytes, floor_bytes=measurement.floor_bytes)
    rounds = iter(measurement.seconds)
    benchmark.pedantic(CLOCK.play, setup=lambda: ((next(rounds),), {}), rounds=len(measurement.seconds))
    assert measurement.right is not False or not is_ours(name)
