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
CALLERS = "a cache that every caller fills"
PLANTED_RUNS = {(bug, case): Run(only=case, switch=bug) for bug, cases in PLANTED.items() for case in cases}
RUNS = {
    "one caller": Run(only="replicate"),
    "callers": Run(only="|".join(ALL_KERNELS), callers=8),
    CALLERS: Run(only=ALL_KERNELS[0], switch=CALLERS, callers=8),
    **PLANTED_RUNS,
}


@pytest.fixture(scope="module")
def failures():
    return dict(zip(RUNS, run_cases("threads", *RUNS.values()), strict=True))


def test_no_data_race(failures):
    assert failures["one caller"] == {}


def test_no_data_race_between_callers(failures):
    assert failures["callers"] == {}


def test_race_between_callers_is_found(failures):
    assert "SUMMARY: ThreadSanitizer: data race" in failures[CALLERS][ALL_KERNELS[0]], failures[CALLERS]


def test_every_switch_is_tried():
    assert {*PLANTED, CALLERS} == set(switches.THREADS)


@pytest.mark.parametrize("run", PLANTED_RUNS, ids=" in ".join)
def test_planted_race_is_found(failures, run):
    _, case = run
    assert "SUMMARY: ThreadSanitizer: data race" in failures[run][case], failures[run]
