"""float16 and bfloat16: packing, and packed arithmetic."""

import numpy as np

from decoding import F32, F64, FLOAT, U32, Operand, Reader, is_number, operation, real_number
from floating_point import COMBINATIONS, COMPARISONS, saturate
from half_formats import HALF_BITS, HALF_FORMATS, cut_to_bfloat16


def format_of(rd: Reader):
    """Conversions of the halves of a word to float32 and back: bfloat16, or float16 without a modifier."""
    return HALF_FORMATS["BF16" if rd.flag("BF16_V2") or rd.flag("BF16") else "F16"]


@operation("F2FP", kind=FLOAT)
def f2fp(rd: Reader):
    """Packs two numbers into a word, the first into its upper half."""
    name = rd.choice("BF16", "F16")
    convert = HALF_FORMATS[name][1]
    rd.choice("F32")
    rd.choice("PACK_AB")
    negative_to_zero = rd.flag("RELU")
    if name == "BF16" and rd.flag("RZ"):
        convert = cut_to_bfloat16
    write, upper, lower = rd.result(), rd.single(), rd.single()

    def half(value):
        return convert(np.where(value < 0, F32(0), value) if negative_to_zero else value)

    return lambda m, s: write(m, s, half(upper(m, s)) << HALF_BITS | half(lower(m, s)))


def _halves(rd: Reader, unpack, pack):
    """A source as (lower, upper), float32. Two consecutive literals are upper and lower."""
    operand = rd.take()
    if is_number(operand.body) and "0x" not in operand.body:
        upper = real_number(operand.body)
        lower = real_number(rd.take().body)
        constants = tuple(unpack(np.asarray(pack(F32(value)))) for value in (lower, upper))
        return lambda m, s: constants
    if operand.suffix not in ("", "H0_H0", "H1_H1", "H1_H0"):
        raise rd.unknown(f"unknown suffix .{operand.suffix}")
    raw = rd.raw(Operand(operand.body))

    def with_sign(value):
        value = np.abs(value) if operand.absolute else value
        return -value if operand.negated else value

    def fetch(m, s):
        word = np.asarray(raw(m, s))
        lower, upper = with_sign(unpack(word & U32(0xFFFF))), with_sign(unpack(word >> HALF_BITS))
        return {"H0_H0": (lower, lower), "H1_H1": (upper, upper)}.get(operand.suffix, (lower, upper))

    return fetch


def _arithmetic(rd: Reader, operands: int, compute):
    """``compute`` gets float64, in which products of halves and nearly all sums are exact."""
    rd.ignore("MMA", "FTZ")
    unpack, pack = format_of(rd)
    one_single = rd.flag("F32")
    saturates, negative_to_zero = rd.flag("SAT"), rd.flag("RELU")
    write = rd.single_result() if one_single else rd.result()
    sources = [_halves(rd, unpack, pack) for _ in range(operands)]

    def half(values):
        value = compute(*(np.asarray(value, F64) for value in values))
        if saturates:
            value = saturate(value)
        return np.where(value < 0, 0, value) if negative_to_zero else value

    def run(m, s):
        lower, upper = zip(*(source(m, s) for source in sources))
        if one_single:
            write(m, s, half(lower))
        else:
            write(m, s, pack(half(upper)) << HALF_BITS | pack(half(lower)))

    return run


@operation("HADD2", kind=FLOAT)
def hadd2(rd: Reader):
    """With .F32, the result is one float32: this converts a float16."""
    return _arithmetic(rd, 2, np.add)


@operation("HMUL2", kind=FLOAT)
def hmul2(rd: Reader):
    return _arithmetic(rd, 2, np.multiply)


@operation("HFMA2", kind=FLOAT)
def hfma2(rd: Reader):
    return _arithmetic(rd, 3, lambda a, b, c: a * b + c)


@operation("HMNMX2", kind=FLOAT)
def hmnmx2(rd: Reader):
    rd.ignore("FTZ")
    unpack, pack = format_of(rd)
    keeps_nan = rd.flag("NAN")
    write, a, b = rd.result(), _halves(rd, unpack, pack), _halves(rd, unpack, pack)
    take_minimum = rd.predicate()
    minimum, maximum = (np.minimum, np.maximum) if keeps_nan else (np.fmin, np.fmax)

    def run(m, s):
        condition = take_minimum(m, s)
        lower, upper = (
            pack(np.where(condition, minimum(first, second), maximum(first, second))) for first, second in zip(a(m, s), b(m, s))
        )
        write(m, s, upper << HALF_BITS | lower)

    return run


@operation("HSETP2", kind=FLOAT)
def hsetp2(rd: Reader):
    """One predicate for each half."""
    unpack, pack = format_of(rd)
    compare = COMPARISONS[rd.choice(*COMPARISONS)]
    rd.ignore("FTZ")
    combine = COMBINATIONS[rd.choice(*COMBINATIONS)]
    writes = rd.predicate_result(), rd.predicate_result()
    a, b = _halves(rd, unpack, pack), _halves(rd, unpack, pack)
    condition = rd.predicate()

    def run(m, s):
        other = condition(m, s)
        truths = [combine(compare(first, second), other) for first, second in zip(a(m, s), b(m, s))]
        for write, truth in zip(writes, truths):
            write(m, s, truth)

    return run


@operation("HSET2", kind=FLOAT)
def hset2(rd: Reader):
    """Sets each half to all ones, or (BF) the number 1, if a comparison holds."""
    unpack, pack = format_of(rd)
    true = pack(F32(1)) if rd.flag("BF") else U32(0xFFFF)
    compare = COMPARISONS[rd.choice(*COMPARISONS)]
    rd.ignore("FTZ")
    combine = COMBINATIONS[rd.choice(*COMBINATIONS)]
    write, a, b = rd.result(), _halves(rd, unpack, pack), _halves(rd, unpack, pack)
    condition = rd.predicate()

    def run(m, s):
        other = condition(m, s)
        lower, upper = (np.where(combine(compare(first, second), other), true, U32(0)) for first, second in zip(a(m, s), b(m, s)))
        write(m, s, upper << HALF_BITS | lower)

    return run
