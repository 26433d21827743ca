"""Warp instructions per KiB that each operator must move are within bounds: beyond them, instructions limit a kernel."""

import pytest

from bounds import BLOCKS, BOUNDS
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
    result = count(ROWS[name], BLOCKS)
    assert result.instructions <= BOUNDS[name], f"{name}: {result.instructions:.1f} warp instructions per KiB ({result.kernels})"


def test_counts_are_the_same_in_every_run():
    row = ROWS["gelu backward fp32 CF V1 14x14x384"]
    first, second = count(row, BLOCKS), count(row, BLOCKS)
    assert first.sampled < first.blocks
    assert (first.by_class, first.load_sectors) == (second.by_class, second.load_sectors)
    (record,) = first.records
    assert sum(issued_by_class(record).values()) == record.statistics.issued.sum()


def test_stores_write_whole_sectors():
    """The sectors that are written have as many bytes as the output."""
    row = ROWS["shift forward fp32 CL V1 32x32x128"]
    (record,) = count(row, BLOCKS).records
    written = record.statistics.accesses["STG"].sectors * 32 * record.blocks / record.sampled / 1024
    assert row.kilobytes / 2 == pytest.approx(written, rel=0.01)
