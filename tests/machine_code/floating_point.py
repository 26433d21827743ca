"""float32 and float64 arithmetic, comparisons, conversions and the special function unit.

Results are correctly rounded, with three exceptions: a float32 multiply-add is rounded to float64 first; a float64 multiply-add may
be one unit off in rare cases; results of the special function unit are correctly rounded, unlike the hardware's, which are off by a
unit or two.
"""

import numpy as np

from decoding import F32, F64, FLOAT, I32, I64, U32, U64, WORD_BITS, Operand, Reader, operation
from half_formats import HALF_FORMATS
from integer import COMBINATIONS

LARGEST_SUBNORMAL = np.nextafter(np.finfo(F32).tiny, F32(0))
WIDER = np.longdouble  # holds every 64-bit integer


def flush(value):
    """Flushes subnormal float32 values to zero and keeps their sign."""
    return np.where(np.abs(value) <= LARGEST_SUBNORMAL, np.copysign(F32(0), value), value)


def narrow(value, rounding: str):
    """Rounds float64 (or wider) to float32 in a rounding mode: N, M (down), P (up), Z."""
    nearest = value.astype(F32)
    if rounding == "N":
        return nearest
    if rounding == "Z":
        return np.where(np.abs(nearest) > np.abs(value), np.nextafter(nearest, F32(0)), nearest)
    too_far = nearest > value if rounding == "M" else nearest < value
    return np.where(too_far, np.nextafter(nearest, F32(-np.inf if rounding == "M" else np.inf)), nearest)


def rounding_of(rd: Reader) -> str:
    return rd.choice("RN", "RM", "RP", "RZ", default="RN")[1]


def saturate(value):
    return np.where(np.isnan(value), 0, np.clip(value, 0, 1)).astype(value.dtype)


# ---- float32


def _arithmetic(rd: Reader, operands: int, compute, compute_exactly):
    """``compute`` rounds to nearest; ``compute_exactly`` gets float64."""
    flushes, saturates, rounding = rd.flag("FTZ"), rd.flag("SAT"), rounding_of(rd)
    write = rd.single_result()
    sources = [rd.single() for _ in range(operands)]

    def run(m, s):
        values = [source(m, s) for source in sources]
        if flushes:
            values = [flush(value) for value in values]
        if rounding == "N":
            value = compute(*values)
        else:
            value = narrow(compute_exactly(*(value.astype(F64) for value in values)), rounding)
        if saturates:
            value = saturate(value)
        write(m, s, flush(value) if flushes else value)

    return run


@operation("FADD", kind=FLOAT)
def fadd(rd: Reader):
    return _arithmetic(rd, 2, np.add, np.add)


@operation("FMUL", kind=FLOAT)
def fmul(rd: Reader):
    return _arithmetic(rd, 2, np.multiply, np.multiply)


@operation("FFMA", kind=FLOAT)
def ffma(rd: Reader):
    def exactly(a, b, c):
        return a * b + c

    return _arithmetic(rd, 3, lambda a, b, c: exactly(a.astype(F64), b.astype(F64), c.astype(F64)).astype(F32), exactly)


@operation("FMNMX", kind=FLOAT)
def fmnmx(rd: Reader):
    rd.ignore("FTZ")
    keeps_nan = rd.flag("NAN")
    write, a, b, take_minimum = rd.single_result(), rd.single(), rd.single(), rd.predicate()
    minimum, maximum = (np.minimum, np.maximum) if keeps_nan else (np.fmin, np.fmax)

    def run(m, s):
        first, second = a(m, s), b(m, s)
        write(m, s, np.where(take_minimum(m, s), minimum(first, second), maximum(first, second)))

    return run


@operation("FSEL", kind=FLOAT)
def fsel(rd: Reader):
    rd.ignore("FTZ")
    write, a, b, condition = rd.single_result(), rd.single(), rd.single(), rd.predicate()
    return lambda m, s: write(m, s, np.where(condition(m, s), a(m, s), b(m, s)))


def _unordered(a, b):
    return np.isnan(a) | np.isnan(b)


COMPARISONS = {
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": lambda a, b: (a != b) & ~_unordered(a, b),
    "NUM": lambda a, b: ~_unordered(a, b),
    "NAN": _unordered,
    "LTU": lambda a, b: ~(a >= b),
    "LEU": lambda a, b: ~(a > b),
    "GTU": lambda a, b: ~(a <= b),
    "GEU": lambda a, b: ~(a < b),
    "EQU": lambda a, b: (a == b) | _unordered(a, b),
    "NEU": np.not_equal,
}


def comparison(rd: Reader, source):
    """Two predicates: the comparison and its opposite, each combined with a third."""
    compare = COMPARISONS[rd.choice(*COMPARISONS)]
    flushes = rd.flag("FTZ")
    combine = COMBINATIONS[rd.choice(*COMBINATIONS)]
    write, write_other = rd.predicate_result(), rd.predicate_result()
    a, b, condition = source(), source(), rd.predicate()

    def run(m, s):
        first, second = a(m, s), b(m, s)
        if flushes:
            first, second = flush(first), flush(second)
        truth, other = compare(first, second), condition(m, s)
        result, opposite = combine(truth, other), combine(~truth, other)
        write(m, s, result)
        write_other(m, s, opposite)

    return run


@operation("FSETP", kind=FLOAT)
def fsetp(rd: Reader):
    return comparison(rd, rd.single)


@operation("FCHK", kind=FLOAT)
def fchk(rd: Reader):
    """Whether a division takes the slow path, because an exponent is near its limits."""
    rd.ignore("DIVIDE")
    write, a, b = rd.predicate_result(), rd.single(), rd.single()

    def exponent(value):
        return (np.asarray(value).view(U32) >> U32(23) & U32(0xFF)).astype(I32)

    def run(m, s):
        top, bottom = exponent(a(m, s)), exponent(b(m, s))
        difference = top - bottom
        ordinary = (bottom > 2) & (bottom < 252) & (top > 24) & (top < 255) & (difference > -125) & (difference < 126)
        write(m, s, ~ordinary)

    return run


# ---- The special function unit

SPECIAL_FUNCTIONS = {
    "EX2": np.exp2,
    "LG2": np.log2,
    "RCP": lambda x: 1 / x,
    "RSQ": lambda x: 1 / np.sqrt(x),
    "SQRT": np.sqrt,
    "TANH": np.tanh,
    "SIN": lambda x: np.sin(2 * np.pi * x),
    "COS": lambda x: np.cos(2 * np.pi * x),
}


@operation("MUFU", kind=FLOAT)
def mufu(rd: Reader):
    for name, function in (("RCP64H", lambda x: 1 / x), ("RSQ64H", lambda x: 1 / np.sqrt(x))):
        if rd.flag(name):
            return _of_upper_word(rd, function)
    function = SPECIAL_FUNCTIONS[rd.choice(*SPECIAL_FUNCTIONS)]
    for name, (unpack, pack) in HALF_FORMATS.items():
        if rd.flag(name):
            return _of_half(rd, lambda half: pack(function(np.asarray(unpack(half), F64))))
    write, source = rd.single_result(), rd.single()

    def run(m, s):
        write(m, s, flush(function(np.asarray(flush(source(m, s)), F64)).astype(F32)))

    return run


def _of_half(rd: Reader, function):
    """Applies a function to the lower half of a word, or (H1) the upper half; the result is in the lower half."""
    write, operand = rd.result(), rd.take()
    if operand.suffix not in ("", "H0", "H1", "H0_H0", "H1_H1") or operand.absolute or operand.negated:
        raise rd.unknown(f"unknown operand {operand}")
    shift, word = U32(16 if "H1" in operand.suffix else 0), rd.raw(Operand(operand.body))
    return lambda m, s: write(m, s, function(word(m, s) >> shift & U32(0xFFFF)))


def _of_upper_word(rd: Reader, function):
    """Computes the upper word of a float64 result from the upper word of the operand."""
    write, upper = rd.result(), rd.word()

    def run(m, s):
        value = (np.asarray(upper(m, s)).astype(U64) << WORD_BITS).view(F64)
        write(m, s, function(value).view(U64) >> WORD_BITS)

    return run


# ---- float64

SPLITTER = F64(2**27 + 1)


def _halves(value):
    scaled = SPLITTER * value
    high = scaled - (scaled - value)
    return high, value - high


def product_error(a, b, product):
    """The rounding error of a product (Dekker); zero if it cannot be determined."""
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return np.where(np.isfinite(error), error, 0)


def multiply_add(a, b, c):
    """The sum and its rounding error."""
    product = a * b
    total = product + c
    part = total - product
    sum_error = (product - (total - part)) + (c - part)
    correction = np.where(np.isfinite(sum_error), sum_error, 0) + product_error(a, b, product)
    nearest = np.where(np.isfinite(total), total + correction, total)
    return nearest, np.where(np.isfinite(total), correction - (nearest - total), 0)


def towards(nearest, error, rounding: str):
    """The float64 that a rounding mode gives for the exact value ``nearest`` + ``error``."""
    if rounding == "N":
        return nearest
    if rounding == "Z":
        return np.where(nearest * error < 0, np.nextafter(nearest, 0), nearest)
    wrong = error > 0 if rounding == "P" else error < 0
    return np.where(wrong, np.nextafter(nearest, np.inf if rounding == "P" else -np.inf), nearest)


@operation("DADD", kind=FLOAT)
def dadd(rd: Reader):
    write, a, b = rd.double_result(), rd.double(), rd.double()
    return lambda m, s: write(m, s, a(m, s) + b(m, s))


@operation("DMUL", kind=FLOAT)
def dmul(rd: Reader):
    rounding = rounding_of(rd)
    write, a, b = rd.double_result(), rd.double(), rd.double()

    def run(m, s):
        first, second = a(m, s), b(m, s)
        product = first * second
        write(m, s, towards(product, product_error(first, second, product), rounding))

    return run


@operation("DFMA", kind=FLOAT)
def dfma(rd: Reader):
    rounding = rounding_of(rd)
    write, a, b, c = rd.double_result(), rd.double(), rd.double(), rd.double()
    return lambda m, s: write(m, s, towards(*multiply_add(a(m, s), b(m, s), c(m, s)), rounding))


@operation("DMNMX", kind=FLOAT)
def dmnmx(rd: Reader):
    write, a, b, take_minimum = rd.double_result(), rd.double(), rd.double(), rd.predicate()

    def run(m, s):
        first, second = a(m, s), b(m, s)
        write(m, s, np.where(take_minimum(m, s), np.fmin(first, second), np.fmax(first, second)))

    return run


@operation("DSETP", kind=FLOAT)
def dsetp(rd: Reader):
    for name, beats in (("MAX", np.greater), ("MIN", np.less)):
        if rd.flag(name):
            return _select_extreme(rd, beats)
    return comparison(rd, rd.double)


def _select_extreme(rd: Reader, beats):
    """Whether the first operand is the result of fmax or fmin, and whether the result is NaN."""
    rd.choice("AND")
    write_first, write_nan = rd.predicate_result(), rd.predicate_result()
    a, b, condition = rd.double(), rd.double(), rd.predicate()

    def run(m, s):
        first, second, also = a(m, s), b(m, s), condition(m, s)
        takes_first = (beats(first, second) | np.isnan(second)) & also
        neither = np.isnan(first) & np.isnan(second) & also
        write_first(m, s, takes_first)
        write_nan(m, s, neither)

    return run


# ---- Conversions


def _integer_source(rd: Reader, kind: str):
    """A source as a signed or unsigned integer of its width."""
    width = int(kind[1:])
    if width == 64:
        pair = rd.pair()
        return lambda m, s: pair(m, s).view(I64 if kind[0] == "S" else U64)
    operand = rd.take()
    shift = U32(8 * int(operand.suffix.removeprefix("B") or 0))
    word = rd.word_of(Operand(operand.body, operand.negated))
    dtype = f"i{width // 8}" if kind[0] == "S" else f"u{width // 8}"
    return lambda m, s: (word(m, s) >> shift).astype(dtype)


@operation("I2F", "I2FP", kind=FLOAT)
def i2f(rd: Reader):
    to_double = rd.flag("F64")
    rd.ignore("F32")
    kind = rd.choice("U64", "S64", "U32", "S32", "U16", "S16", "U8", "S8", default="S32")
    rounding = rounding_of(rd)
    write = rd.double_result() if to_double else rd.single_result()
    source = _integer_source(rd, kind)

    def run(m, s):
        value = np.asarray(source(m, s))
        write(m, s, value.astype(F64) if to_double else narrow(value.astype(WIDER if "64" in kind else F64), rounding))

    return run


ROUND_TO_INTEGER = {"TRUNC": np.trunc, "FLOOR": np.floor, "CEIL": np.ceil, "": np.rint}


@operation("F2I", kind=FLOAT)
def f2i(rd: Reader):
    """Out-of-range values saturate; NaN gives zero."""
    rd.ignore("FTZ", "NTZ")
    from_double = rd.flag("F64")
    kind = rd.choice("U64", "S64", "U32", "S32", "U16", "S16", "U8", "S8", default="S32")
    to_integer = ROUND_TO_INTEGER[rd.choice("TRUNC", "FLOOR", "CEIL", default="")]
    write = rd.pair_result() if "64" in kind else rd.result()
    source = rd.double() if from_double else rd.single()
    dtype = np.dtype(f"{kind[0].lower().replace('s', 'i')}{int(kind[1:]) // 8}")
    limits = np.iinfo(dtype)

    def run(m, s):
        value = to_integer(np.asarray(source(m, s)).astype(WIDER))
        value = np.where(np.isnan(value), 0, np.clip(value, WIDER(limits.min), WIDER(limits.max)))
        integers = value.astype(dtype)
        write(m, s, integers.astype(U64) if "64" in kind else integers.astype(I32 if kind[0] == "S" else U32).view(U32))

    return run


@operation("F2F", kind=FLOAT)
def f2f(rd: Reader):
    """Converts to and from float64, or from one float32 to 16 bits; the result's type comes first."""
    rd.ignore("FTZ")
    if rd.modifiers[:1] in (["BF16"], ["F16"]):
        to_bits = HALF_FORMATS[rd.choice("BF16", "F16")][1]
        rd.choice("F32")
        write, source = rd.result(), rd.single()
        return lambda m, s: write(m, s, to_bits(source(m, s)))
    widens = rd.modifiers[:1] == ["F64"]
    rd.choice("F64")
    rd.choice("F32")
    if widens:
        write, source = rd.double_result(), rd.single()
        return lambda m, s: write(m, s, source(m, s).astype(F64))
    rounding = rounding_of(rd)
    write, source = rd.single_result(), rd.double()
    return lambda m, s: write(m, s, narrow(source(m, s), rounding))


@operation("FRND", kind=FLOAT)
def frnd(rd: Reader):
    rd.ignore("FTZ")
    is_double = rd.flag("F64")
    to_integer = ROUND_TO_INTEGER[rd.choice("TRUNC", "FLOOR", "CEIL", default="")]
    write, source = (rd.double_result(), rd.double()) if is_double else (rd.single_result(), rd.single())
    return lambda m, s: write(m, s, to_integer(source(m, s)))
