"""Constant, global and shared memory, and atomic operations."""

import re

import numpy as np

from decoding import F32, I32, I64, MEMORY, U32, U64, WORD_BITS, Operand, Reader, operation
from faults import UnknownInstruction
from machine_memory import WORD_BYTES, count_conflicts, count_sectors

#: Modifiers for cache policy, scope and 64-bit addresses.
CACHING = (
    "E", "CONSTANT", "STRONG", "WEAK", "GPU", "SYS", "CTA", "SM", "VC", "PRIVATE", "BYPASS", "ACCESS",
    "EF", "EL", "LU", "EU", "NA", "LTC64B", "LTC128B", "LTC256B",
)  # fmt: skip


def element_of(rd: Reader) -> tuple[int, bool]:
    """The bytes of an element, and whether it is a signed integer."""
    kind = rd.choice("U8", "S8", "U16", "S16", "32", "64", "128", default="32")
    return int(kind.lstrip("US")) // 8, kind[0] == "S"


def address_of(rd: Reader, operand: Operand):
    """``desc[UR4][R2.64+0x10]``, ``[R2+UR4+0x10]``, as uint64. Descriptors are ignored."""
    match = re.fullmatch(r"(?:desc\[UR\d+\])?\[(.*)\]", operand.body)
    if match is None:
        raise rd.unknown(f"unknown address {operand.body}")
    terms = []
    for term in match.group(1).replace("+-", "+ -").replace(" ", "").split("+"):
        terms.append(_address_term(rd, term, pair_of_uniform="U32+" in match.group(1)))

    def fetch(m, s):
        total = U64(0)
        for term in terms:
            total = total + term(m, s)
        return np.broadcast_to(total, s.warp_of.shape)

    return fetch


def _address_term(rd: Reader, term: str, pair_of_uniform: bool):
    if re.fullmatch(r"-?0x[0-9a-f]+", term):
        offset = U64(int(term, 16) & 0xFFFFFFFFFFFFFFFF)
        return lambda m, s: offset
    register, _, suffix = term.partition(".")
    if suffix not in ("", "64", "U32") or not re.fullmatch(r"U?R(\d+|Z)", register):
        raise rd.unknown(f"unknown address term {term}")
    low = rd.raw(Operand(register))
    if register not in ("RZ", "URZ") and (suffix == "64" or (pair_of_uniform and register.startswith("UR"))):
        high = rd.raw(Operand(register), 1)
        return lambda m, s: low(m, s).astype(U64) | high(m, s).astype(U64) << WORD_BITS
    return lambda m, s: low(m, s).astype(U64)


def _registers(rd: Reader, width: int):
    """The data to store: a row for each lane, in memory layout."""
    operand = rd.take()
    if width < WORD_BYTES:
        word = rd.raw(operand)
        return lambda m, s: np.broadcast_to(word(m, s), s.warp_of.shape).astype(f"u{width}")[:, None]
    words = [rd.raw(operand, part) for part in range(width // WORD_BYTES)]

    def fetch(m, s):
        return np.stack([np.broadcast_to(word(m, s), s.warp_of.shape) for word in words], axis=-1)

    return fetch


def _results(rd: Reader, width: int, is_signed: bool):
    operand = rd.take()
    if width < WORD_BYTES:
        write = rd.result(0, operand)
        dtype = f"{'i' if is_signed else 'u'}{width}"
        return lambda m, s, rows: write(m, s, rows[:, 0].view(dtype).astype(I32 if is_signed else U32).view(U32))
    writes = [rd.result(part, operand) for part in range(width // WORD_BYTES)]

    def write(m, s, rows):
        for part, write_word in enumerate(writes):
            write_word(m, s, rows[:, part])

    return write


@operation("LDC", "ULDC", kind=MEMORY)
def ldc(rd: Reader):
    width, is_signed = element_of(rd)
    operand = rd.take()
    writes = [rd.result(part, operand) for part in range(max(1, width // WORD_BYTES))]
    body = rd.take().body
    fetches = [rd.constant(body, min(width, WORD_BYTES), WORD_BYTES * part) for part in range(len(writes))]

    def run(m, s):
        values = [np.asarray(fetch(m, s)) for fetch in fetches]
        if is_signed:
            values = [values[0].astype(f"i{width}").astype(I32).view(U32)]
        for write, value in zip(writes, values):
            write(m, s, value)

    return run


# ---- Global memory


def _count_global(m, opcode: str, addresses, s, width: int) -> None:
    access = m.statistics.access(opcode)
    access.requests += s.warp_count
    access.sectors += count_sectors(addresses, s.warp_of, width)


@operation("LDG", "LD", kind=MEMORY)
def ldg(rd: Reader):
    rd.ignore(*CACHING)
    width, is_signed = element_of(rd)
    write, address = _results(rd, width, is_signed), address_of(rd, rd.take())

    def run(m, s):
        addresses = address(m, s)
        _count_global(m, "LDG", addresses, s, width)
        write(m, s, m.memory.load(addresses, width))

    return run


@operation("STG", "ST", kind=MEMORY)
def stg(rd: Reader):
    rd.ignore(*CACHING)
    width, _ = element_of(rd)
    address, values = address_of(rd, rd.take()), _registers(rd, width)

    def run(m, s):
        addresses = address(m, s)
        _count_global(m, "STG", addresses, s, width)
        m.memory.store(addresses, width, values(m, s))

    return run


# ---- Shared memory


def _count_shared(m, opcode: str, addresses, s, width: int) -> None:
    access = m.statistics.access(opcode)
    access.requests += s.warp_count
    access.conflicts += count_conflicts(addresses, s.warp_of, s.numbers, width)


@operation("LDS", kind=MEMORY)
def lds(rd: Reader):
    width, is_signed = element_of(rd)
    write, address = _results(rd, width, is_signed), address_of(rd, rd.take())

    def run(m, s):
        addresses = address(m, s)
        _count_shared(m, "LDS", addresses, s, width)
        write(m, s, m.shared.load(addresses, m.block_of(s), width))

    return run


@operation("STS", kind=MEMORY)
def sts(rd: Reader):
    width, _ = element_of(rd)
    address, values = address_of(rd, rd.take()), _registers(rd, width)

    def run(m, s):
        addresses = address(m, s)
        _count_shared(m, "STS", addresses, s, width)
        m.shared.store(addresses, m.block_of(s), width, values(m, s))

    return run


@operation("LDGSTS", kind=MEMORY)
def ldgsts(rd: Reader):
    """Copies from global to shared memory, immediately."""
    rd.ignore(*CACHING)
    width, _ = element_of(rd)
    to, source = address_of(rd, rd.take()), address_of(rd, rd.take())

    def run(m, s):
        addresses = source(m, s)
        _count_global(m, "LDG", addresses, s, width)
        m.shared.store(to(m, s), m.block_of(s), width, m.memory.load(addresses, width))

    return run


@operation("LDL", "STL", kind=MEMORY)
def local_memory(rd: Reader):
    raise UnknownInstruction(f"local memory: '{rd.text}'")


# ---- Atomic operations

ATOMIC = {
    "ADD": lambda old, value: old + value,
    "MIN": np.minimum,
    "MAX": np.maximum,
    "AND": lambda old, value: old & value,
    "OR": lambda old, value: old | value,
    "XOR": lambda old, value: old ^ value,
    "EXCH": lambda old, value: value,
}


@operation("RED", "REDG", "ATOM", "ATOMG", "ATOMS", kind=MEMORY)
def atomic(rd: Reader):
    """Lanes are processed one after the other."""
    in_shared, returns = rd.opcode == "ATOMS", rd.opcode.startswith("ATOM")
    rd.ignore(*CACHING, "FTZ", "RN")
    compares = rd.flag("CAS")
    combine = None if compares else ATOMIC[rd.choice(*ATOMIC)]
    kind = rd.choice("F32", "S64", "U64", "64", "S32", "U32", default="U32")
    dtype = np.dtype({"F32": F32, "S64": I64, "64": U64, "S32": I32}.get(kind, U64 if "64" in kind else U32))
    width = dtype.itemsize
    if returns and rd.at_predicate():
        rd.take()
    write = _results(rd, width, False) if returns else None
    address = address_of(rd, rd.take())
    operands = [_registers(rd, width) for _ in range(1 + compares)]

    def new_value(before, given):
        if combine is None:
            return given[1] if (before == given[0]).all() else before
        return combine(before.view(dtype), np.ascontiguousarray(given[0]).view(dtype)).view(U32)

    def run(m, s):
        addresses, given = address(m, s), [operand(m, s) for operand in operands]
        where = (m.block_of(s)[:, None],) if in_shared else ()
        memory = m.shared if in_shared else m.memory
        if not in_shared:
            _count_global(m, rd.opcode, addresses, s, width)
        results = np.empty_like(given[0])
        for lane in range(addresses.size):
            place = (addresses[lane : lane + 1], *(blocks[lane] for blocks in where), width)
            results[lane] = memory.load(*place)
            memory.store(*place, new_value(results[lane : lane + 1], [values[lane : lane + 1] for values in given]))
        if write is not None:
            write(m, s, results)

    return run
