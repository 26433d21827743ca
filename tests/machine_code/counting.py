"""Warp instructions, memory requests and bank conflicts of a row.

Of launches with more than ``blocks`` blocks, ``blocks`` are run, and their counts are scaled by the number of blocks. The blocks,
and therefore the counts, are the same in every run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from decoding import CLASSES, OPERATIONS, parse_text
from device import HOPPER, Device, Record
from rows import Row

BLOCKS = 256
#: Issue slots of all multiprocessors in the time in which a copy moves a KiB, from 132 x 4 schedulers, the clock and the copy rate.
ISSUE_SLOTS_PER_KIB = {"H100": 363, "H200": 249}


@dataclass
class Count:
    """The counts of one row. All but the ratios are per KiB that it must move."""

    name: str
    blocks: int
    sampled: int
    kernels: list[str]
    by_class: dict[str, float]
    load_sectors: float  # per request
    store_sectors: float
    shared_conflicts: float  # extra cycles per shared memory instruction
    records: list[Record] = field(repr=False)

    @property
    def instructions(self) -> float:
        return sum(self.by_class.values())

    def predicted_share(self, gpu: str) -> float:
        """The share of the copy rate if instruction issue is the only limit."""
        return min(1.0, ISSUE_SLOTS_PER_KIB[gpu] / self.instructions)


def _ratio(records: list[Record], opcodes: tuple[str, ...], what: str) -> float:
    accesses = [record.statistics.accesses[name] for record in records for name in opcodes if name in record.statistics.accesses]
    requests = sum(access.requests for access in accesses)
    return sum(getattr(access, what) for access in accesses) / requests if requests else 0.0


def issued_by_class(record: Record) -> Counter:
    """Warp instructions of the sampled blocks, by class."""
    counts: Counter = Counter()
    for text, issued in zip(record.kernel.listing, record.statistics.issued.tolist()):
        if issued:
            counts[OPERATIONS[parse_text(text)[1]].kind] += issued
    return counts


def count(row: Row, blocks: int = BLOCKS) -> Count:
    with Device(HOPPER, sample=blocks) as device:
        row.call(device.ops)
    totals: Counter = Counter()
    for record in device.records:
        for kind, issued in issued_by_class(record).items():
            totals[kind] += issued * record.blocks / record.sampled
    return Count(
        name=row.name,
        blocks=sum(record.blocks for record in device.records),
        sampled=sum(record.sampled for record in device.records),
        kernels=[record.kernel.name for record in device.records],
        by_class={kind: totals[kind] / row.kilobytes for kind in CLASSES},
        load_sectors=_ratio(device.records, ("LDG",), "sectors"),
        store_sectors=_ratio(device.records, ("STG",), "sectors"),
        shared_conflicts=_ratio(device.records, ("LDS", "STS"), "conflicts"),
        records=device.records,
    )


def profile(record: Record) -> str:
    """The listing of a kernel, with how many times each instruction was issued, per warp of the sampled blocks."""
    issued = record.statistics.issued
    warps = max(1, int(issued[0]))
    opcodes: Counter = Counter()
    for text, times in zip(record.kernel.listing, issued.tolist()):
        opcodes[parse_text(text)[1]] += times
    most = ", ".join(f"{opcode} {times / warps:.1f}" for opcode, times in opcodes.most_common() if times)
    lines = [f"{record.kernel.name}: {issued.sum() / warps:.1f} instructions per warp", most]
    for number, (text, times) in enumerate(zip(record.kernel.listing, issued.tolist())):
        lines.append(f"{16 * number:06x} {times / warps:9.2f}  {text}" if times else f"{16 * number:06x} {'':9}  {text}")
    return "\n".join(lines)
