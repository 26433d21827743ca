"""The state of many blocks, and the choice of the instruction to run next.

All lanes of all blocks are one array. The instruction at the lowest address with ready lanes runs next, for all lanes at this
address. Each warp therefore runs its own lowest address first, and an instruction is issued once for all lanes of a warp that
reach it together. Lanes that wait for others of their warp (BSYNC) or of their block (BAR) are not ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

import control  # noqa: F401  (registers its opcodes)
import floating_point  # noqa: F401
import half_precision  # noqa: F401
import integer  # noqa: F401
import loads_and_stores  # noqa: F401
import warp_exchange  # noqa: F401
from cubin import INSTRUCTION_BYTES, Kernel
from decoding import OPERATIONS, Reader, UnknownInstruction, parse_text
from faults import Fault
from lanes import WARP, Lanes
from machine_memory import GlobalMemory, SharedMemory

REGISTERS, PREDICATES, UNIFORM_REGISTERS, BARRIERS = 256, 8, 64, 16
#: Offsets in constant bank 0, below the parameters, of values that the driver sets.
BLOCK_SIZE, GRID_SIZE, STACK_POINTER = 0x0, 0xC, 0x28


class MachineError(Exception):
    """A fault, with its kernel and instruction."""


class PerWarp:
    """Per-warp registers: each is one number as long as all warps agree, else one per warp."""

    def __init__(self, count: int, warps: int, dtype):
        self.warps = warps
        self.values: list = [dtype(0)] * count

    def of_warps(self, number: int, lanes: Lanes):
        value = self.values[number]
        return value if np.ndim(value) == 0 else value[lanes.warps]

    def of_lanes(self, number: int, lanes: Lanes):
        value = self.values[number]
        return value if np.ndim(value) == 0 else value[lanes.warp_of]

    def write(self, number: int, lanes: Lanes, value: np.ndarray) -> None:
        if lanes.everywhere:
            self.values[number] = value[()] if value.ndim == 0 else value
            return
        current = np.array(np.broadcast_to(self.values[number], self.warps))
        current[lanes.warps] = value
        self.values[number] = current


@dataclass(frozen=True)
class Step:
    """A decoded instruction."""

    run: object
    guard: object  # fetches the guard predicate, or None
    kind: str
    control: bool


class Program:
    """A kernel's instructions; each is decoded when it is first reached."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.steps: list[Step | None] = [None] * len(kernel.listing)

    def decode(self, number: int) -> Step:
        text = self.kernel.listing[number]
        guard_text, opcode, _, _ = parse_text(text)
        if opcode not in OPERATIONS:
            raise UnknownInstruction(f"unknown opcode {opcode} in '{text}'")
        operation = OPERATIONS[opcode]
        reader = Reader(text, (number + 1) * INSTRUCTION_BYTES)
        run = operation.decode(reader)
        reader.finish()
        guard = Reader(f"GUARD {guard_text}", 0).predicate() if guard_text else None
        step = self.steps[number] = Step(run, guard, operation.kind, operation.control)
        return step


@dataclass
class Accesses:
    """Access counts of one kind of memory instruction."""

    requests: int = 0
    sectors: int = 0  # of global memory
    conflicts: int = 0  # of shared memory: cycles beyond the first


@dataclass
class Statistics:
    """``issued[i]`` counts how many times warps issued the i-th instruction."""

    issued: np.ndarray
    accesses: dict[str, Accesses] = field(default_factory=dict)

    def access(self, opcode: str) -> Accesses:
        return self.accesses.setdefault(opcode, Accesses())


@dataclass
class Launch:
    """A kernel's grid and block, as (x, y, z), and its parameters in the layout of constant memory."""

    program: Program
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    parameters: bytes
    memory: GlobalMemory

    @property
    def blocks(self) -> int:
        return int(np.prod(self.grid))

    def constant_banks(self) -> dict[int, np.ndarray]:
        """The bytes of each bank."""
        kernel = self.program.kernel
        assert len(self.parameters) == kernel.parameter_bytes, "the host code passes other parameters than the kernel takes"
        bank = bytearray(kernel.parameter_base) + self.parameters
        for offset, sizes in ((BLOCK_SIZE, self.block), (GRID_SIZE, self.grid)):
            bank[offset : offset + 12] = np.array(sizes, np.uint32).tobytes()
        bank[STACK_POINTER : STACK_POINTER + 4] = np.uint32(0xFFFDC0).tobytes()
        banks = {0: bytes(bank), **kernel.constants}
        return {number: np.frombuffer(contents, np.uint8) for number, contents in banks.items()}


class Machine:
    """Some blocks of a launch, from their first instruction to their last."""

    def __init__(self, launch: Launch, blocks: Sequence[int], statistics: Statistics):
        threads = int(np.prod(launch.block))
        self.launch = launch
        self.statistics = statistics
        self.block_lanes = -(-threads // WARP) * WARP
        self.block_numbers = np.array(blocks)
        self.total = len(blocks) * self.block_lanes
        self.thread = np.tile(np.arange(self.block_lanes), len(blocks))
        self.registers = list(np.zeros((REGISTERS, self.total), np.uint32))
        self.predicates = list(np.zeros((PREDICATES, self.total), bool))
        self.uniform = PerWarp(UNIFORM_REGISTERS, self.total // WARP, np.uint32)
        self.uniform_predicates = PerWarp(PREDICATES, self.total // WARP, np.bool_)
        self.memory = launch.memory
        self.shared = SharedMemory(len(blocks), launch.program.kernel.shared_bytes)
        self.barrier_masks = list(np.zeros((BARRIERS, self.total), np.uint32))  # of BSSY, for each lane
        self.alive = self.thread < threads
        self.ready: dict[int, Lanes] = {}
        self.waiting_for_warp: dict[tuple[int, int], Lanes] = {}  # (barrier, number of the BSYNC)
        self.waiting_for_block: dict[tuple[int, int | None], dict[int, Lanes]] = {}  # (barrier, count): by number of the BAR
        self.arrivals: dict[int, np.ndarray] = {}  # by barrier, for each block: the number of lanes that arrived without waiting
        self._banks = launch.constant_banks()

    def block_of(self, lanes: Lanes) -> np.ndarray:
        """The block of each lane, numbered within this machine."""
        return lanes.numbers // self.block_lanes

    def constant(self, bank: int, offset, width: int):
        """Elements of a constant bank; ``offset`` is one number or one per lane."""
        contents = self._banks.get(bank, np.empty(0, np.uint8))
        last = int(np.max(offset))
        if int(np.min(offset)) < 0 or last + width > contents.size:
            raise Fault(f"offset {last:#x} is outside of constant bank {bank}")
        if np.any(offset % width):
            raise Fault(f"misaligned offset {last:#x} in constant bank {bank}")
        return contents[: contents.size // width * width].view(f"u{width}")[offset // width].astype(np.uint32)

    def go(self, number: int, lanes: Lanes | None) -> None:
        """Lets lanes continue at an instruction."""
        if lanes is not None:
            there = self.ready.get(number)
            self.ready[number] = lanes if there is None else there | lanes

    def run(self) -> None:
        self.go(0, Lanes.of(np.flatnonzero(self.alive), self.total))
        with np.errstate(all="ignore"):
            while self.ready or self._release_blocks():
                number = min(self.ready)
                self._run_from(number, self.ready.pop(number))
        if self.waiting_for_warp:
            raise self._error(next(iter(self.waiting_for_warp))[1], "lanes wait here for others that never come")

    def _run_from(self, number: int, lanes: Lanes) -> None:
        """Runs up to the next control flow instruction."""
        steps, issued = self.launch.program.steps, self.statistics.issued
        try:
            while True:
                step = steps[number] or self.launch.program.decode(number)
                issued[number] += lanes.warp_count
                active = lanes if step.guard is None else lanes.where(step.guard(self, lanes))
                if step.control:
                    step.run(self, number, lanes, active)
                    return
                if active is not None:
                    step.run(self, active)
                number += 1
                if number in self.ready:
                    lanes = lanes | self.ready.pop(number)
        except Fault as fault:
            raise self._error(number, str(fault)) from fault

    def _error(self, number: int, what: str) -> MachineError:
        kernel = self.launch.program.kernel
        return MachineError(f"{kernel.name}, {number * INSTRUCTION_BYTES:#06x} {kernel.listing[number]}: {what}")

    def exit(self, lanes: Lanes) -> None:
        self.alive[lanes.index] = False
        self.release_warps()

    def release_warps(self) -> None:
        """Lets lanes continue after a BSYNC if every lane of their mask has arrived or ended."""
        ended = ~np.packbits(self.alive, bitorder="little").view("<u4")
        for (barrier, number), lanes in list(self.waiting_for_warp.items()):
            arrived = (lanes.bits | ended)[lanes.warp_of]
            released, waiting = lanes.split(self.barrier_masks[barrier][lanes.index] & ~arrived == 0)
            if waiting is None:
                del self.waiting_for_warp[barrier, number]
            else:
                self.waiting_for_warp[barrier, number] = waiting
            self.go(number + 1, released)

    def wait_for_block(self, barrier: int, count: int | None, number: int, lanes: Lanes) -> None:
        waiting = self.waiting_for_block.setdefault((barrier, count), {})
        waiting[number] = waiting[number] | lanes if number in waiting else lanes

    def arrive(self, barrier: int, lanes: Lanes) -> None:
        counts = np.bincount(self.block_of(lanes), minlength=len(self.block_numbers))
        self.arrivals[barrier] = self.arrivals.get(barrier, 0) + counts

    def _release_blocks(self) -> bool:
        """If nothing is ready: lets blocks with enough lanes at a barrier continue. Returns whether there is one."""
        blocks = len(self.block_numbers)
        running = np.bincount(np.flatnonzero(self.alive) // self.block_lanes, minlength=blocks)
        for (barrier, count), waiting in self.waiting_for_block.items():
            there = sum(np.bincount(self.block_of(lanes), minlength=blocks) for lanes in waiting.values())
            arrived = there + self.arrivals.get(barrier, 0)
            complete = (there > 0) & (arrived >= (running if count is None else count))
            if barrier in self.arrivals:
                self.arrivals[barrier] = np.where(complete, 0, self.arrivals[barrier])
            for number in list(waiting):
                released, still = waiting[number].split(complete[self.block_of(waiting[number])])
                self.go(number + 1, released)
                if still is None:
                    del waiting[number]
                else:
                    waiting[number] = still
        if not self.ready:
            for waiting in self.waiting_for_block.values():
                for number in waiting:
                    raise self._error(number, "a part of a block waits here, the rest does not come")
        return bool(self.ready)


def run_launch(launch: Launch, blocks: Sequence[int], lanes_at_once: int = 8192) -> Statistics:
    """Runs some blocks of a launch, up to ``lanes_at_once`` lanes at a time."""
    statistics = Statistics(np.zeros(len(launch.program.kernel.listing), np.int64))
    at_once = max(1, lanes_at_once // int(np.prod(launch.block)))
    for first in range(0, len(blocks), at_once):
        Machine(launch, blocks[first : first + at_once], statistics).run()
    return statistics
