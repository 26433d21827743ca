"""Warp instructions per KB that each operator must move, within their bounds: instructions, not memory, would limit slower ones."""

import pytest

from bounds import BOUNDS
from counting import count, issued_by_class
from rows import all_rows

ROWS = {row.name: row for row in all_rows()}


@pytest.fixture(scope="module", autouse=True)
def machine_code(sm_90, one_thread):
    pass


def test_every_row_has_a_bound():
    assert set(BOUNDS) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_instructions_per_kilobyte(name):
    result = count(ROWS[name])
    assert result.instructions <= BOUNDS[name], f"{name}: {result.instructions:.1f} warp instructions per KB ({result.kernels})"


def test_counts_are_the_same_in_every_run():
    row = ROWS["gelu backward fp32 CF V1 14x14x384"]
    first, second = count(row), count(row)
    assert first.sampled < first.blocks
    assert (first.by_class, first.load_sectors) == (second.by_class, second.load_sectors)
    (record,) = first.records
    assert sum(issued_by_class(record).values()) == record.statistics.issued.sum()


def test_channels_last_accesses_are_whole():
    """16 sectors of 32 bytes per store, and per load away from borders; the forward pass has no others."""
    result = count(ROWS["shift forward fp32 CL V1 32x32x128"])
    assert result.store_sectors == 16 and 15.5 < result.load_sectors <= 16.5
