"""Control flow opcodes: branches, calls, barriers, exit.

``run(machine, number, lanes, active)``: ``active`` are the lanes of ``lanes`` whose guard is true, None if there are none.
"""

import numpy as np

from cubin import INSTRUCTION_BYTES
from decoding import CONTROL, I64, OTHER, U32, Reader, operation


def _rest(lanes, active):
    """The lanes of ``lanes`` that are not ``active``."""
    if active is None:
        return lanes
    return lanes.split(~np.isin(lanes.numbers, active.numbers, assume_unique=True))[0] if active is not lanes else None


@operation("BRA", kind=CONTROL, control=True)
def bra(rd: Reader):
    rd.ignore("U", "CONV")
    diverged = rd.flag("DIV")
    mask = rd.word() if diverged else None
    conditions = []
    while rd.at_predicate():
        conditions.append(rd.predicate())
    target = rd.immediate() // INSTRUCTION_BYTES

    def run(m, number, lanes, active):
        for condition in conditions:
            active = active and active.where(condition(m, active))
        if mask is not None and active is not None:
            required = np.broadcast_to(mask(m, active), active.warp_of.shape)
            active = active.where(required & ~active.bits[active.warp_of] != 0)
        m.go(target, active)
        m.go(number + 1, _rest(lanes, active))

    return run


def _jump(address):
    """A jump to an address that may differ from lane to lane."""

    def run(m, number, lanes, active):
        m.go(number + 1, _rest(lanes, active))
        if active is None:
            return
        targets = np.broadcast_to(address(m, active), active.numbers.shape)
        for target in np.unique(targets):
            m.go(int(target) // INSTRUCTION_BYTES, active.where(targets == target))

    return run


@operation("BRX", "BRXU", kind=CONTROL, control=True)
def brx(rd: Reader):
    register, offset = _register_and_offset(rd)
    return _jump(lambda m, s: register(m, s).astype(np.int32).astype(I64) + rd.next_address + offset)


@operation("RET", kind=CONTROL, control=True)
def ret(rd: Reader):
    rd.choice("REL", "ABS")
    rd.ignore("NODEC")
    register, offset = _register_and_offset(rd)
    return _jump(lambda m, s: register(m, s).astype(I64) + offset)


def _register_and_offset(rd: Reader):
    """``R4 -0x10``: the disassembly has no comma between them."""
    operand = rd.take()
    register, _, offset = f"{operand.body}.{operand.suffix}".rstrip(".").partition(" ")
    return rd.raw(type(operand)(register)), int(offset, 16)


@operation("CALL", kind=CONTROL, control=True)
def call(rd: Reader):
    """A call. Preceding code has written the return address into a register."""
    rd.choice("REL")
    rd.choice("NOINC")
    target = rd.immediate() // INSTRUCTION_BYTES

    def run(m, number, lanes, active):
        m.go(target, active)
        m.go(number + 1, _rest(lanes, active))

    return run


@operation("EXIT", kind=CONTROL, control=True)
def exit_(rd: Reader):
    def run(m, number, lanes, active):
        m.go(number + 1, _rest(lanes, active))
        if active is not None:
            m.exit(active)

    return run


# ---- Convergence within a warp


def _barrier(rd: Reader) -> int:
    return int(rd.take().body.removeprefix("B"))


@operation("BSSY", kind=CONTROL)
def bssy(rd: Reader):
    """The current lanes reconverge at the BSYNC of this barrier."""
    rd.ignore("RELIABLE", "RECONVERGENT")
    barrier = _barrier(rd)
    rd.immediate()

    def run(m, s):
        m.barrier_masks[barrier][s.index] = s.bits[s.warp_of]

    return run


@operation("BSYNC", kind=CONTROL, control=True)
def bsync(rd: Reader):
    rd.ignore("RELIABLE", "RECONVERGENT")
    barrier = _barrier(rd)

    def run(m, number, lanes, active):
        m.go(number + 1, _rest(lanes, active))
        if active is not None:
            _wait_for_warp(m, barrier, number, active)

    return run


def _wait_for_warp(m, barrier, number, lanes):
    there = m.waiting_for_warp.get((barrier, number))
    m.waiting_for_warp[barrier, number] = lanes if there is None else there | lanes
    m.release_warps()


@operation("BREAK", kind=CONTROL, control=True)
def break_(rd: Reader):
    """The current lanes leave a barrier: others no longer wait for them."""
    condition = rd.predicate() if rd.more() > 1 else None
    barrier = _barrier(rd)

    def run(m, number, lanes, active):
        leaving = active if active is None or condition is None else active.where(condition(m, active))
        if leaving is not None:
            m.barrier_masks[barrier] &= ~np.repeat(leaving.bits, 32)
        m.go(number + 1, lanes)
        m.release_warps()

    return run


#: A barrier that only this interpreter uses; no BSSY names it.
WARPSYNC_BARRIER = 15


@operation("WARPSYNC", kind=CONTROL, control=True)
def warpsync(rd: Reader):
    rd.ignore("EXCLUSIVE")
    mask = (lambda m, s: U32(0xFFFFFFFF)) if rd.flag("ALL") else rd.word()

    def run(m, number, lanes, active):
        m.go(number + 1, _rest(lanes, active))
        if active is not None:
            m.barrier_masks[WARPSYNC_BARRIER][active.index] = mask(m, active)
            _wait_for_warp(m, WARPSYNC_BARRIER, number, active)

    return run


# ---- Barriers of a block


@operation("BAR", kind=CONTROL, control=True)
def bar(rd: Reader):
    """A barrier of all threads of the block, or of as many as the second operand says. ARV: arrives, but does not wait."""
    waits = rd.choice("SYNC", "ARV") == "SYNC"
    rd.ignore("DEFER_BLOCKING")
    barrier = rd.immediate()
    count = rd.immediate() if rd.more() else None

    def run(m, number, lanes, active):
        m.go(number + 1, _rest(lanes, active))
        if active is None:
            return
        if waits:
            m.wait_for_block(barrier, count, number, active)
        else:
            m.arrive(barrier, active)
            m.go(number + 1, active)

    return run


# ---- Without effect here


@operation("NOP", "YIELD", "ERRBAR", "CGAERRBAR", "NANOSLEEP", "PREEXIT", kind=OTHER)
def nothing(rd: Reader):
    rd.operands.clear()
    return lambda m, s: None


@operation("DEPBAR", "LDGDEPBAR", kind=OTHER)
def wait_for_copies(rd: Reader):
    """Asynchronous copies complete immediately here."""
    rd.ignore("LE")
    return nothing(rd)


@operation("MEMBAR", "CCTL", "FENCE", kind=OTHER)
def fence(rd: Reader):
    """Accesses take effect immediately and in order here."""
    rd.modifiers.clear()
    return nothing(rd)
