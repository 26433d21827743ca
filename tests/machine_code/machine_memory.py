"""Memory that a kernel may access: the tensors that its parameters point to, and the shared memory of each block."""

import ctypes
from dataclasses import dataclass

import numpy as np

from faults import Fault

SHARED_BASE = 0x400  # sm_90 reserves the first bytes of a block's shared memory
SECTOR_BYTES = 32
BANKS = 32
WORD_BYTES = 4


@dataclass
class Range:
    """A tensor's allocation."""

    begin: int
    size: int
    writable: bool = True

    def __post_init__(self):
        self.bytes = np.frombuffer((ctypes.c_uint8 * self.size).from_address(self.begin), np.uint8)

    @property
    def end(self) -> int:
        return self.begin + self.size


def units(memory: np.ndarray, width: int) -> np.ndarray:
    """Bytes as rows of ``width`` bytes: elements of one or two bytes, or words of four. A partial row at the end is dropped."""
    rows = memory[: memory.size // width * width].reshape(-1, width)
    return rows.view(np.uint32) if width >= WORD_BYTES else rows.view(f"u{width}")


def _check_aligned(addresses: np.ndarray, width: int) -> None:
    wrong = addresses % np.uint64(width) != 0
    if wrong.any():
        raise Fault(f"misaligned address {int(addresses[wrong][0]):#x} of {width} bytes")


class GlobalMemory:
    """``load`` returns a row for each address, of elements as in ``units``; ``store`` takes such rows."""

    def __init__(self, ranges: list[Range]):
        self.ranges = ranges

    def _find(self, addresses: np.ndarray, width: int):
        """Yields (range, mask of the addresses in it) until all addresses are found."""
        _check_aligned(addresses, width)
        missing = np.ones(addresses.size, bool)
        for candidate in self.ranges:
            last = candidate.end - width
            if last < candidate.begin:
                continue
            inside = (addresses >= np.uint64(candidate.begin)) & (addresses <= np.uint64(last))
            if inside.any():
                missing &= ~inside
                yield candidate, inside
                if not missing.any():
                    return
        raise Fault(f"address {int(addresses[missing][0]):#x} of {width} bytes is outside of every tensor")

    def load(self, addresses: np.ndarray, width: int) -> np.ndarray:
        columns, dtype = (width // WORD_BYTES, np.uint32) if width >= WORD_BYTES else (1, f"u{width}")
        values = np.empty((addresses.size, columns), dtype)
        for found, inside in self._find(addresses, width):
            offsets = (addresses[inside] - np.uint64(found.begin)).astype(np.int64)
            values[inside] = units(found.bytes, width)[offsets // width]
        return values

    def store(self, addresses: np.ndarray, width: int, values: np.ndarray) -> None:
        for found, inside in self._find(addresses, width):
            if not found.writable:
                raise Fault(f"address {int(addresses[inside][0]):#x} is written, but belongs to a const parameter")
            offsets = (addresses[inside] - np.uint64(found.begin)).astype(np.int64)
            units(found.bytes, width)[offsets // width] = values[inside]


class SharedMemory:
    """The shared memory of all blocks; addresses come with the number of their block."""

    def __init__(self, blocks: int, end: int):
        self.end = end
        self.bytes = np.zeros((blocks, -(-end // 16) * 16), np.uint8)

    def _rows(self, addresses: np.ndarray, blocks: np.ndarray, width: int) -> np.ndarray:
        _check_aligned(addresses, width)
        wrong = (addresses < SHARED_BASE) | (addresses + np.uint64(width) > self.end)
        if wrong.any():
            raise Fault(f"address {int(addresses[wrong][0]):#x} of {width} bytes is outside of shared memory")
        return (blocks * self.bytes.shape[1] + addresses.astype(np.int64)) // width

    def load(self, addresses: np.ndarray, blocks: np.ndarray, width: int) -> np.ndarray:
        return units(self.bytes.reshape(-1), width)[self._rows(addresses, blocks, width)]

    def store(self, addresses: np.ndarray, blocks: np.ndarray, width: int, values: np.ndarray) -> None:
        units(self.bytes.reshape(-1), width)[self._rows(addresses, blocks, width)] = values


def count_sectors(addresses: np.ndarray, warps: np.ndarray, width: int) -> int:
    """The number of sectors of global memory that the requests of all warps touch, counted per request."""
    sectors = addresses // np.uint64(SECTOR_BYTES) * np.uint64(warps.max() + 1) + warps.astype(np.uint64)
    return np.unique(sectors).size


def count_conflicts(addresses: np.ndarray, warps: np.ndarray, lanes: np.ndarray, width: int) -> int:
    """Extra cycles of a shared memory instruction: words beyond the first that lanes of one part of a warp request from one bank.

    Half a warp is served at a time for accesses of 8 bytes, a quarter for 16 bytes.
    """
    words = max(1, width // WORD_BYTES)
    part = warps * words + lanes % 32 * words // 32
    first = addresses.astype(np.int64) // WORD_BYTES
    asked = np.unique(np.concatenate([part * 2**40 + first + word for word in range(words)]))
    banks = asked // 2**40 * BANKS + asked % BANKS
    of_bank, counts = np.unique(banks, return_counts=True)
    deepest = np.zeros(int(part.max()) + 1, np.int64)
    np.maximum.at(deepest, of_bank // BANKS, counts)
    return int((deepest[np.unique(part)] - 1).sum())
