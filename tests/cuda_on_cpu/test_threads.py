"""The CPU kernels with eight threads, under ThreadSanitizer: no data race, and planted ones are found."""

import pytest

import switches
from emulated import Run, run_cases

#: The kernels by the cases that run them: rows, rows with short groups, planes; fused with GELU; pool, the first branch operator.
ALL_KERNELS = (
    "shift channels_last float32 2x5x7x48 exact replicate V1",
    "shift channels_last float32 1x3x4x150 exact replicate many groups",
    "shift channels_first float32 2x8x14x14 exact replicate V1",
    "gelu none channels_last float32 2x14x14x32 exact replicate far exact",
    "gelu none channels_first float32 2x8x5x7 exact replicate V1 exact",
    "branches float32 14x14x16 exact, exact, exact replicate paper",
)
PLANTED = {
    "chunks that overlap by one row": ALL_KERNELS,
    "sums of all chunks in one place": ALL_KERNELS[-1:],
    "rows of branch maps that two threads write": ALL_KERNELS[-1:],
}
RUNS = {"": Run(only="replicate"), **{(bug, case): Run(only=case, switch=bug) for bug, cases in PLANTED.items() for case in cases}}


@pytest.fixture(scope="module")
def failures():
    return dict(zip(RUNS, run_cases("threads", *RUNS.values()), strict=True))


def test_no_data_race(failures):
    assert failures[""] == {}


def test_every_switch_is_tried():
    assert set(PLANTED) == set(switches.THREADS)


@pytest.mark.parametrize("run", list(RUNS)[1:], ids=" in ".join)
def test_planted_race_is_found(failures, run):
    _, case = run
    assert "SUMMARY: ThreadSanitizer: data race" in failures[run][case], failures[run]
