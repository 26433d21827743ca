"""Single instructions on one warp, compared with Python's integers and floats; including some that no current kernel has."""

import math
import struct

import numpy as np
import pytest

from cubin import Kernel
from faults import UnknownInstruction
from machine import Launch, Machine, Program, Statistics
from machine_memory import GlobalMemory

LANES = 32
EDGES = [0, 1, 2, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF]
MASK = 0xFFFFFFFF


def words(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 2**32, LANES, dtype=np.uint32)
    values[: len(EDGES)] = generator.permutation(np.array(EDGES, np.uint32))
    return values


def run(text: str, **registers: np.ndarray) -> Machine:
    """A warp after one instruction. Registers R4 to R9, and P0 (even lanes), are set."""
    kernel = Kernel("test", [*text.split("; "), "EXIT"], parameter_base=0x210)
    launch = Launch(Program(kernel), (1, 1, 1), (LANES, 1, 1), b"", GlobalMemory([]))
    machine = Machine(launch, [0], Statistics(np.zeros(len(kernel.listing), np.int64)))
    for number in range(4, 10):
        machine.registers[number][:] = registers.get(f"R{number}", words(number))
    machine.predicates[0][:] = np.arange(LANES) % 2 == 0
    machine.run()
    return machine


def signed(value: int) -> int:
    return value - 2**32 if value >= 2**31 else value


def clamp(value: int, limit: int) -> int:
    return min(value, limit)


def permuted(a: int, selector: int, b: int) -> int:
    both = (a | b << 32).to_bytes(8, "little")
    return int.from_bytes(bytes(both[selector >> 4 * n & 7] for n in range(4)), "little")


#: Text: the value of R0, from R4, R5, R6 and P0.
INTEGERS = {
    "IADD3 R0, R4, -R5, R6": lambda a, b, c, p: a - b + c,
    "VIADD R0, R4, -0x7": lambda a, b, c, p: a - 7,
    "IMAD R0, R4, R5, R6": lambda a, b, c, p: a * b + c,
    "IMAD.X R0, R4, 0x1, ~R5, P0": lambda a, b, c, p: a + (b ^ MASK) + p,
    "IMAD.HI.U32 R0, R4, R5, RZ": lambda a, b, c, p: a * b >> 32,
    "IMAD.HI R0, R4, R5, RZ": lambda a, b, c, p: signed(a) * signed(b) >> 32,
    "LEA R0, R4, R5, 0x3": lambda a, b, c, p: (a << 3) + b,
    "LEA.HI R0, R4, R5, R6, 0x3": lambda a, b, c, p: ((a | c << 32) << 3 >> 32) + b,
    "LEA.HI.X.SX32 R0, R4, R5, 0x4, P0": lambda a, b, c, p: (signed(a) << 4 >> 32) + b + p,
    "LOP3.LUT R0, R4, R5, R6, 0x96, !PT": lambda a, b, c, p: a ^ b ^ c,
    "LOP3.LUT R0, R4, R5, R6, 0xca, !PT": lambda a, b, c, p: (a & b) | (~a & c),
    "SHF.L.U32 R0, R4, R5, RZ": lambda a, b, c, p: a << clamp(b, 32),
    "SHF.R.U32.HI R0, RZ, R5, R6": lambda a, b, c, p: c >> clamp(b, 32),
    "SHF.R.S32.HI R0, RZ, R5, R6": lambda a, b, c, p: signed(c) >> clamp(b, 32),
    "SHF.R.W.U32 R0, R4, R5, R6": lambda a, b, c, p: (a | c << 32) >> (b & 31),
    "SHF.L.W.U32.HI R0, R4, R5, R6": lambda a, b, c, p: (a | c << 32) << (b & 31) >> 32,
    "SHF.R.U64 R0, R4, R5, R6": lambda a, b, c, p: (a | c << 32) >> clamp(b, 64),
    "SHF.L.U64.HI R0, R4, 0x7, R6": lambda a, b, c, p: (a | c << 32) << 7 >> 32,
    "PRMT R0, R4, 0x6251, R6": lambda a, b, c, p: permuted(a, 0x6251, c),
    "SEL R0, R4, R5, !P0": lambda a, b, c, p: b if p else a,
    "VIMNMX R0, R4, R5, PT": lambda a, b, c, p: min(signed(a), signed(b)),
    "VIMNMX.U32 R0, R4, R5, !PT": lambda a, b, c, p: max(a, b),
    "VIADDMNMX R0, R4, 0x5, R6, PT": lambda a, b, c, p: min(signed(a + 5 & MASK), signed(c)),
    "IABS R0, R4": lambda a, b, c, p: abs(signed(a)),
    "POPC R0, R4": lambda a, b, c, p: a.bit_count(),
    "BREV R0, R4": lambda a, b, c, p: int(f"{a:032b}"[::-1], 2),
    "FLO.U32 R0, R4": lambda a, b, c, p: a.bit_length() - 1,
    "FLO.U32.SH R0, R4": lambda a, b, c, p: 32 - a.bit_length() if a else -1,
    "FLO R0, R4": lambda a, b, c, p: (a if signed(a) >= 0 else a ^ MASK).bit_length() - 1,
    "BMSK R0, 0x4, 0x5": lambda a, b, c, p: 0x1F0,
    "SGXT R0, R4, 0x8": lambda a, b, c, p: ((a & 0xFF) ^ 0x80) - 0x80,
    "P2R R0, PR, R4, 0x1": lambda a, b, c, p: (a & ~1) | p,
    "I2F.U32.RP R0, R4; F2I.U32.TRUNC R0, R0": lambda a, b, c, p: clamp(rounded_up(a), MASK),
    "SHFL.BFLY PT, R0, R4, 0x0, 0x1f": lambda a, b, c, p: a,
    "UMOV UR4, 0x7; UIADD3 UR5, UR4, 0x3, URZ; UIMAD UR5, UR5, UR4, UR4; IMAD.U32 R0, RZ, RZ, UR5": lambda a, b, c, p: 77,
    "REDUX.SUM UR4, R4; IMAD.U32 R0, RZ, RZ, UR4": lambda a, b, c, p: int(words(4).sum(dtype=np.uint64)),
    "REDUX.MAX.S32 UR4, R4; IMAD.U32 R0, RZ, RZ, UR4": lambda a, b, c, p: 0x7FFFFFFF,
    "VOTE.ALL P1, P0; SEL R0, R4, R5, P1": lambda a, b, c, p: b,
    "VOTE.ANY R0, PT, P0": lambda a, b, c, p: 0x55555555,
}


def rounded_up(value: int) -> int:
    """Rounds up to the next float32."""
    step = 1 << max(0, value.bit_length() - 24)
    return -(-value // step) * step


@pytest.mark.parametrize("text", INTEGERS)
def test_integers(text):
    result = run(text).registers[0]
    for lane in range(LANES):
        a, b, c = (int(words(number)[lane]) for number in (4, 5, 6))
        assert int(result[lane]) == INTEGERS[text](a, b, c, lane % 2 == 0) & MASK, (lane, hex(a), hex(b), hex(c))


def pair(machine: Machine, lane: int) -> int:
    return int(machine.registers[0][lane]) | int(machine.registers[1][lane]) << 32


#: Text: the value of the pair (R0, R1), from the pairs (R4, R5), (R6, R7) and (R8, R9).
PAIRS = {
    "IADD3 R0, P1, R4, R6, RZ; IADD3.X R1, R5, R7, RZ, P1, !PT": lambda a, b, c: a + b,
    "IADD3 R0, P1, -R4, R6, RZ; IADD3.X R1, ~R5, R7, RZ, P1, !PT": lambda a, b, c: b - a,
    "IADD3 R0, P1, P2, R4, R6, R8; IADD3.X R1, R5, R7, R9, P1, P2": lambda a, b, c: a + b + c,
    "IMAD.WIDE.U32 R0, R4, R6, R8": lambda a, b, c: (a & MASK) * (b & MASK) + c,
    "IMAD.WIDE R0, R4, R6, R8": lambda a, b, c: signed(a & MASK) * signed(b & MASK) + c,
    "LEA R0, P1, R4, R6, 0x4; LEA.HI.X R1, R4, R7, R5, 0x4, P1": lambda a, b, c: (a << 4) + b,
    "ISETP.LT.U32.AND P1, PT, R4, R6, PT; ISETP.LT.AND.EX P1, PT, R5, R7, PT, P1; SEL R0, R4, R6, P1; SEL R1, R5, R7, P1": (
        lambda a, b, c: min(a, b, key=lambda v: v - 2**64 if v >= 2**63 else v)
    ),
}


@pytest.mark.parametrize("text", PAIRS)
def test_pairs(text):
    machine = run(text)
    for lane in range(LANES):
        a, b, c = (int(words(n)[lane]) | int(words(n + 1)[lane]) << 32 for n in (4, 6, 8))
        assert pair(machine, lane) == PAIRS[text](a, b, c) & (2**64 - 1), (lane, hex(a), hex(b), hex(c))


def floats(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(LANES) * 4).astype(np.float32)


def as_bfloat16(value: np.float32) -> int:
    """Rounds to nearest with Python's integers."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def as_float16(value: np.float32) -> int:
    (bits,) = struct.unpack("<H", struct.pack("<e", value))
    return bits


#: Text: the value of R0, as a word, from floats in R4, R5, R6.
FLOATS = {
    "F2FP.BF16.F32.PACK_AB R0, R4, R5": lambda a, b, c: as_bfloat16(a) << 16 | as_bfloat16(b),
    "F2F.BF16.F32 R0, R4": lambda a, b, c: as_bfloat16(a),
    "F2FP.F16.F32.PACK_AB R0, R4, R5": lambda a, b, c: as_float16(a) << 16 | as_float16(b),
    "F2I.TRUNC R0, R4": lambda a, b, c: math.trunc(float(a)) & MASK,
    "F2I.FLOOR R0, R4": lambda a, b, c: math.floor(float(a)) & MASK,
    "F2I R0, R4": lambda a, b, c: round(float(a)) & MASK,
    "FADD R0, -R4, |R5|": lambda a, b, c: bits_of(-a + abs(b)),
    "FMUL R0, R4, 0.5": lambda a, b, c: bits_of(a * np.float32(0.5)),
    "FFMA R0, R4, R5, -R6": lambda a, b, c: bits_of(np.float32(float(a) * float(b) - float(c))),
    "FMNMX R0, R4, R5, !PT": lambda a, b, c: bits_of(max(a, b)),
    "FSETP.GEU.AND P1, PT, R4, R5, PT; FSEL R0, R4, R5, P1": lambda a, b, c: bits_of(max(a, b)),
    "F2F.F64.F32 R0, R4; F2F.F64.F32 R2, R5; DADD R0, R0, R2; F2F.F32.F64 R0, R0": lambda a, b, c: bits_of(a + b),
    "F2FP.BF16.F32.PACK_AB R0, R4, R5; HFMA2.BF16_V2 R0, R0, 1, 1, R0": lambda a, b, c: (
        as_bfloat16(2 * from_bfloat16(as_bfloat16(a))) << 16 | as_bfloat16(2 * from_bfloat16(as_bfloat16(b)))
    ),
    "F2FP.BF16.F32.PACK_AB.RZ R0, RZ, R4": lambda a, b, c: bits_of(a) >> 16,
    "F2FP.BF16.F32.PACK_AB R0, R4, R5; MUFU.TANH.BF16 R0, R0.H1": lambda a, b, c: as_bfloat16(
        np.float32(math.tanh(from_bfloat16(as_bfloat16(a))))
    ),
    "F2FP.F16.F32.PACK_AB R0, R4, R5; HSET2.BF.GT.AND R0, R0, RZ, PT": lambda a, b, c: (
        (0x3C000000 if a > 0 else 0) | (0x3C00 if b > 0 else 0)
    ),
    "F2FP.F16.F32.PACK_AB R0, R4, R5; HADD2.F32 R0, -RZ, R0.H1_H1": lambda a, b, c: bits_of(np.float32(np.float16(a))),
}


def bits_of(value) -> int:
    return int(np.float32(value).view(np.uint32))


def from_bfloat16(bits: int) -> np.float32:
    return np.uint32(bits << 16).view(np.float32)


@pytest.mark.parametrize("text", FLOATS)
def test_floats(text):
    registers = {f"R{n}": floats(n).view(np.uint32) for n in (4, 5, 6)}
    result = run(text, **registers).registers[0]
    for lane in range(LANES):
        a, b, c = (floats(n)[lane] for n in (4, 5, 6))
        assert int(result[lane]) == FLOATS[text](a, b, c), (lane, a, b, c)


@pytest.mark.parametrize(
    "name, function", [("EX2", lambda x: 2**x), ("RCP", lambda x: 1 / x), ("TANH", math.tanh), ("LG2", math.log2)]
)
def test_special_functions(name, function):
    x = np.abs(floats(4)) + np.float32(0.1)
    result = run(f"MUFU.{name} R0, R4", R4=x.view(np.uint32)).registers[0].view(np.float32)
    np.testing.assert_allclose(result, [function(float(value)) for value in x], rtol=1e-6)


def test_float64_multiply_add_is_rounded_once():
    """The remainder of 1 / 3 is lost if the product is rounded first."""
    kernel = "F2F.F64.F32 R0, R4; F2F.F64.F32 R2, R5; DFMA R0, R0, R2, -1"
    third, three = np.full(LANES, 1 / 3, np.float32), np.full(LANES, 3, np.float32)
    machine = run(kernel, R4=third.view(np.uint32), R5=three.view(np.uint32))
    (value,) = struct.unpack("<d", struct.pack("<Q", pair(machine, 0)))
    assert value == float(third[0]) * 3 - 1


def test_shuffle_over_a_warp():
    down = run("SHFL.DOWN P1, R0, R4, 0x1, 0x1f")
    expected = np.append(words(4)[1:], words(4)[31])
    assert (down.registers[0] == expected).all() and (down.predicates[1] == (np.arange(LANES) < 31)).all()


def test_lanes_meet_again_behind_a_branch():
    """Lanes that branch and lanes that do not reconverge: every instruction is issued once."""
    text = "BSSY B0, 0x40; @P0 BRA 0x40; IADD3 R0, R0, 0x1, RZ; NOP; BSYNC B0; IADD3 R0, R0, 0x2, RZ"
    machine = run(text)
    assert machine.registers[0].tolist() == [2, 3] * 16
    assert machine.statistics.issued.tolist() == [1] * 7


@pytest.mark.parametrize(
    "text", ["IADD3.FROB R0, R4, R5, R6", "FROB R0", "IADD3 R0, R4, R5", "IADD3 R0, R4, R5, R6, R7, R8", "LDL R0, [R4]"]
)
def test_what_is_unknown_is_an_error(text):
    with pytest.raises(UnknownInstruction, match=text.split()[0].split(".")[0]):
        Program(Kernel("test", [text])).decode(0)


def test_lanes_wait_for_each_other():
    """The side that jumps over a call of code further down waits at the BSYNC: the following instructions are issued once."""
    text = (
        "BSSY B0, 0x60; MOV R2, 0x40; @!P0 BRA 0x60; CALL.REL.NOINC 0xa0; NOP; NOP; BSYNC B0; IADD3 R0, R0, 0x1, RZ; NOP; EXIT; "
        "IADD3 R0, R0, 0x10, RZ; IMAD.MOV.U32 R3, RZ, RZ, 0x0; RET.REL.NODEC R2 0x0"
    )
    machine = run(text)
    assert machine.registers[0].tolist() == [17, 1] * 16
    assert machine.statistics.issued.tolist() == [1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 0]


def test_a_barrier_waits_for_the_block():
    kernel = Kernel(
        "test",
        "S2R R0, SR_TID.X; LEA R1, R0, 0x400, 0x2; STS [R1], R0; BAR.SYNC.DEFER_BLOCKING 0x0; "
        "LOP3.LUT R2, R0, 0x3f, RZ, 0x3c, !PT; LEA R2, R2, 0x400, 0x2; LDS R3, [R2]; EXIT".split("; "),
        parameter_base=0x210,
        shared_bytes=0x500,
    )
    machine = Machine(
        Launch(Program(kernel), (3, 1, 1), (64, 1, 1), b"", GlobalMemory([])), [0, 2], Statistics(np.zeros(8, np.int64))
    )
    machine.run()
    assert machine.registers[3].tolist() == [63 - n for n in range(64)] * 2
    assert machine.statistics.access("LDS").conflicts == 0


def test_shared_memory_conflicts():
    """A stride of two words: two lanes per bank, so one extra cycle."""
    kernel = Kernel(
        "test", ["S2R R0, SR_TID.X", "LEA R1, R0, 0x400, 0x3", "STS [R1], R0", "EXIT"], parameter_base=0x210, shared_bytes=0x600
    )
    machine = Machine(Launch(Program(kernel), (1, 1, 1), (64, 1, 1), b"", GlobalMemory([])), [0], Statistics(np.zeros(4, np.int64)))
    machine.run()
    assert machine.statistics.access("STS").conflicts == 2


def test_a_barrier_of_some_threads():
    """The second half arrives and continues; the first half waits for all 64 threads and then sees the second half's stores."""
    text = (
        "S2R R0, SR_TID.X; LEA R1, R0, 0x400, 0x2; ISETP.GE.AND P1, PT, R0, 0x20, PT; @P1 STS [R1], R0; @P1 BAR.ARV 0x1, 0x40; "
        "@P1 EXIT; BAR.SYNC 0x1, 0x40; LDS R2, [R1+0x80]; EXIT"
    )
    kernel = Kernel("test", text.split("; "), parameter_base=0x210, shared_bytes=0x500)
    launch = Launch(Program(kernel), (1, 1, 1), (64, 1, 1), b"", GlobalMemory([]))
    machine = Machine(launch, [0], Statistics(np.zeros(9, np.int64)))
    machine.run()
    assert machine.registers[2][:32].tolist() == list(range(32, 64))


def test_atomic_addition_in_shared_memory():
    text = "S2R R0, SR_TID.X; IMAD.MOV.U32 R1, RZ, RZ, 0x400; ATOMS.ADD R2, [R1], R0; LDS R3, [R1]; EXIT"
    kernel = Kernel("test", text.split("; "), parameter_base=0x210, shared_bytes=0x500)
    launch = Launch(Program(kernel), (1, 1, 1), (32, 1, 1), b"", GlobalMemory([]))
    machine = Machine(launch, [0], Statistics(np.zeros(5, np.int64)))
    machine.run()
    assert machine.registers[3].tolist() == [31 * 16] * 32
    assert machine.registers[2].tolist() == [n * (n - 1) // 2 for n in range(32)]
