"""Integer arithmetic, logic, comparisons and moves, on per-lane and uniform registers."""

import numpy as np

from decoding import F64, I32, I64, INTEGER, LOW_WORD, OTHER, U32, U64, WORD_BITS, Operand, Reader, operation

COMPARISONS = {
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": np.not_equal,
}
COMBINATIONS = {"AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor}


def signed(value):
    return value.view(I32)


# ---- Moves


@operation("MOV", "UMOV")
def mov(rd: Reader):
    write, value = rd.result(), rd.word()
    if rd.more():  # the byte mask: all
        assert rd.immediate() == 0xF
    return lambda m, s: write(m, s, value(m, s))


@operation("SEL", "USEL")
def sel(rd: Reader):
    write, a, b, condition = rd.result(), rd.word(), rd.word(), rd.predicate()
    return lambda m, s: write(m, s, np.where(condition(m, s), a(m, s), b(m, s)))


@operation("S2R", "S2UR", kind=OTHER)
def s2r(rd: Reader):
    write, name = rd.result(), rd.take()
    name = f"{name.body}.{name.suffix}".rstrip(".")
    if name not in SPECIAL:
        raise rd.unknown(f"unknown special register {name}")
    value = SPECIAL[name]

    def run(m, s):
        values = value(m, s)
        write(m, s, values[s.first_of_warp] if rd.uniform and np.ndim(values) else values)

    return run


def _coordinate(number, sizes, axis: int):
    for size in sizes[:axis]:
        number = number // size
    return (number % sizes[axis]).astype(U32)


def _thread(axis: int):
    return lambda m, s: _coordinate(m.thread[s.index], m.launch.block, axis)


def _block(axis: int):
    return lambda m, s: _coordinate(m.block_numbers[m.block_of(s)], m.launch.grid, axis)


def _lane(m, s):
    return (m.thread[s.index] % 32).astype(U32)


SPECIAL = {
    **{f"SR_TID.{letter}": _thread(axis) for axis, letter in enumerate("XYZ")},
    **{f"SR_CTAID.{letter}": _block(axis) for axis, letter in enumerate("XYZ")},
    "SR_CgaCtaId": lambda m, s: U32(0),
    "SR_LANEID": _lane,
    "SR_EQMASK": lambda m, s: U32(1) << _lane(m, s),
    "SR_LTMASK": lambda m, s: (U32(1) << _lane(m, s)) - U32(1),
    "SR_LEMASK": lambda m, s: (U32(2) << _lane(m, s)) - U32(1),
    "SR_GEMASK": lambda m, s: ~((U32(1) << _lane(m, s)) - U32(1)),
    "SR_GTMASK": lambda m, s: ~((U32(2) << _lane(m, s)) - U32(1)),
    "SRZ": lambda m, s: U32(0),
}


@operation("CS2R", kind=OTHER)
def cs2r(rd: Reader):
    one_word = rd.flag("32")
    write = rd.result() if one_word else rd.pair_result()
    if rd.take().body != "SRZ":
        raise rd.unknown("unknown special register")
    zero = U32(0) if one_word else U64(0)
    return lambda m, s: write(m, s, zero)


@operation("R2UR")
def r2ur(rd: Reader):
    """Reads the register of the first active lane."""
    while rd.at_predicate() and rd.more() > 2:
        rd.take()
    write = rd.result()
    if rd.at_predicate():
        rd.take()
    operand = rd.take()
    rd.uniform = False  # the source is per lane
    value = rd.word_of(operand)
    return lambda m, s: write(m, s, np.broadcast_to(value(m, s), s.warp_of.shape)[s.first_of_warp])


# ---- Addition and multiplication


def _term(rd: Reader):
    """An addend, as uint64, so that carries are kept: -x is ~x + 1."""
    operand = rd.take()
    raw = rd.raw(Operand(operand.body))
    if operand.negated:
        return lambda m, s: (~raw(m, s)).astype(U64) + U64(1)
    if operand.inverted:
        return lambda m, s: (~raw(m, s)).astype(U64)
    return lambda m, s: raw(m, s).astype(U64)


@operation("IADD3", "UIADD3")
def iadd3(rd: Reader):
    extended = rd.flag("X")
    write = rd.result()
    carries = []
    while rd.at_predicate():
        carries.append(rd.predicate_result())
    if not carries and not extended:
        a, b, c = rd.word(), rd.word(), rd.word()
        return lambda m, s: write(m, s, a(m, s) + b(m, s) + c(m, s))
    terms = [_term(rd) for _ in range(3)]
    carries_in = [rd.predicate() for _ in range(rd.more())] if extended else []

    def run(m, s):
        total = sum((term(m, s) for term in terms), U64(0))
        for carry in carries_in:
            total = total + carry(m, s).astype(U64)
        carry_out = total >> WORD_BITS
        write(m, s, total & LOW_WORD)
        for least, carry in enumerate(carries, 1):
            carry(m, s, carry_out >= least)

    return run


@operation("VIADD", "UIADD")
def viadd(rd: Reader):
    write, a, b = rd.result(), rd.word(), rd.word()
    return lambda m, s: write(m, s, a(m, s) + b(m, s))


@operation("IMAD", "UIMAD")
def imad(rd: Reader):
    if rd.flag("WIDE"):
        return _imad_wide(rd)
    if rd.flag("HI"):
        return _imad_high(rd)
    rd.ignore("MOV", "SHL", "IADD", "U32")
    extended = rd.flag("X")
    write, a, b, c = rd.result(), rd.word(), rd.word(), rd.word()
    carry = rd.predicate() if extended else None

    def run(m, s):
        value = a(m, s) * b(m, s) + c(m, s)
        write(m, s, value if carry is None else value + carry(m, s).astype(U32))

    return run


def _product_and_sum(rd: Reader):
    """The product of two words plus a pair, and whether the sum carries out of 64 bits."""
    unsigned = rd.flag("U32")
    a, b, c = rd.word(), rd.word(), rd.pair()
    carry = rd.predicate() if rd.flag("X") else None

    def wide(value):
        return value.astype(U64) if unsigned else signed(value).astype(I64).astype(U64)

    def compute(m, s):
        product = wide(a(m, s)) * wide(b(m, s))
        total = product + c(m, s)
        overflow = total < product
        if carry is not None:
            with_carry = total + carry(m, s).astype(U64)
            total, overflow = with_carry, overflow | (with_carry < total)
        return total, overflow

    return compute


def _imad_wide(rd: Reader):
    write = rd.pair_result()
    carry_out = rd.predicate_result() if rd.at_predicate() else None
    compute = _product_and_sum(rd)

    def run(m, s):
        total, overflow = compute(m, s)
        write(m, s, total)
        if carry_out is not None:
            carry_out(m, s, overflow)

    return run


def _imad_high(rd: Reader):
    write = rd.result()
    carry_out = rd.predicate_result() if rd.at_predicate() else None
    compute = _product_and_sum(rd)

    def run(m, s):
        total, overflow = compute(m, s)
        write(m, s, total >> WORD_BITS)
        if carry_out is not None:
            carry_out(m, s, overflow)

    return run


@operation("LEA", "ULEA")
def lea(rd: Reader):
    """a << shift, or its upper word, plus b."""
    high, extended, sign_extended = rd.flag("HI"), rd.flag("X"), rd.flag("SX32")
    write = rd.result()
    carry_out = rd.predicate_result() if rd.at_predicate() else None
    a, b = rd.word(), _term(rd)
    upper = rd.word() if high and not sign_extended else None
    shift = U64(rd.immediate())
    carry_in = rd.predicate() if extended else None

    def run(m, s):
        value = a(m, s)
        if sign_extended:
            value = signed(value).astype(I64).astype(U64)
        elif upper is not None:
            value = value.astype(U64) | upper(m, s).astype(U64) << WORD_BITS
        shifted = value.astype(U64) << shift
        total = (shifted >> WORD_BITS if high else shifted & LOW_WORD) + b(m, s)
        if carry_in is not None:
            total = total + carry_in(m, s).astype(U64)
        write(m, s, total & LOW_WORD)
        if carry_out is not None:
            carry_out(m, s, total > LOW_WORD)

    return run


# ---- Logic and bits


def look_up(table: int, a, b, c, zero):
    """The function of three bits with the truth table ``table``, applied to words or truth values."""
    value = zero
    for case in range(8):
        if table >> case & 1:
            value = value | (a if case & 4 else ~a) & (b if case & 2 else ~b) & (c if case & 1 else ~c)
    return value


@operation("LOP3", "ULOP3")
def lop3(rd: Reader):
    rd.choice("LUT")
    all_of = rd.flag("PAND")
    nonzero = rd.predicate_result() if rd.at_predicate() else None
    write, a, b, c = rd.result(), rd.word(), rd.word(), rd.word()
    table, condition = rd.immediate(), rd.predicate()

    def run(m, s):
        value = look_up(table, a(m, s), b(m, s), c(m, s), U32(0))
        truth = None if nonzero is None else COMBINATIONS["AND" if all_of else "OR"](value != 0, condition(m, s))
        write(m, s, value)
        if nonzero is not None:
            nonzero(m, s, truth)

    return run


@operation("PLOP3", "UPLOP3")
def plop3(rd: Reader):
    rd.choice("LUT")
    writes = rd.predicate_result(), rd.predicate_result()
    a, b, c = rd.predicate(), rd.predicate(), rd.predicate()
    tables = rd.immediate(), rd.immediate()

    def run(m, s):
        inputs = a(m, s), b(m, s), c(m, s)
        values = [look_up(table, *inputs, np.False_) for table in tables]
        for write, value in zip(writes, values):
            write(m, s, value)

    return run


@operation("SHF", "USHF")
def shf(rd: Reader):
    """Shifts the 64 bits of a (low) and c (high); the result is one of the two words."""
    left = rd.choice("L", "R") == "L"
    wrap = rd.flag("W")
    kind = rd.choice("U32", "S32", "U64", "S64")
    high = rd.flag("HI")
    write, low, shift, upper = rd.result(), rd.word(), rd.word(), rd.word()
    width = U32(kind[1:])
    dtype = I64 if kind[0] == "S" else U64

    def run(m, s):
        amount = shift(m, s) & (width - U32(1)) if wrap else np.minimum(shift(m, s), width)
        both = low(m, s).astype(U64) | upper(m, s).astype(U64) << WORD_BITS
        amount = amount.astype(U64)
        shifted = both << amount if left else (both.view(dtype) >> amount.astype(dtype)).view(U64)
        write(m, s, shifted >> WORD_BITS if high else shifted & LOW_WORD)

    return run


@operation("PRMT", "UPRMT")
def prmt(rd: Reader):
    """Selects bytes of the pair (a, b)."""
    write, a, selector, b = rd.result(), rd.word(), rd.word(), rd.word()

    def run(m, s):
        both = a(m, s).astype(U64) | b(m, s).astype(U64) << WORD_BITS
        chosen, value = selector(m, s), U32(0)
        for position in range(4):
            pick = chosen >> U32(4 * position) & U32(0xF)
            byte = (both >> ((pick & U32(7)) * U32(8)).astype(U64) & U64(0xFF)).astype(U32)
            sign = np.where(byte & U32(0x80), U32(0xFF), U32(0))
            value = value | np.where(pick & U32(8), sign, byte) << U32(8 * position)
        write(m, s, value)

    return run


def _bit_length(value):
    """The bit length of a uint32, which float64 represents exactly."""
    return np.where(value == 0, 0, np.frexp(np.asarray(value, F64))[1]).astype(U32)


@operation("FLO", "UFLO")
def flo(rd: Reader):
    """The position of the highest bit that differs from the sign, or (SH) the shift that moves it to the top."""
    unsigned, as_shift = rd.flag("U32"), rd.flag("SH")
    write, source = rd.result(), rd.word()

    def run(m, s):
        value = source(m, s)
        if not unsigned:
            value = np.where(signed(value) < 0, ~value, value)
        place = _bit_length(value) - U32(1)
        write(m, s, np.where(value == 0, place, U32(31) - place) if as_shift else place)

    return run


@operation("BREV", "UBREV")
def brev(rd: Reader):
    write, source = rd.result(), rd.word()

    def run(m, s):
        value = source(m, s)
        for width, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
            value = (value >> U32(width) & U32(mask)) | (value & U32(mask)) << U32(width)
        write(m, s, value)

    return run


@operation("POPC", "UPOPC")
def popc(rd: Reader):
    write, source = rd.result(), rd.word()
    return lambda m, s: write(m, s, np.bitwise_count(source(m, s)))


@operation("IABS")
def iabs(rd: Reader):
    write, source = rd.result(), rd.word()
    return lambda m, s: write(m, s, np.abs(signed(source(m, s))).view(U32))


@operation("BMSK", "UBMSK")
def bmsk(rd: Reader):
    """``width`` ones from a bit on."""
    wrap = rd.flag("W")
    write, position, width = rd.result(), rd.word(), rd.word()

    def run(m, s):
        first, count = position(m, s), width(m, s)
        first = first & U32(31) if wrap else np.minimum(first, U32(32))
        ones = (U64(1) << np.minimum(count, U32(32)).astype(U64)) - U64(1)
        write(m, s, ones << first.astype(U64) & LOW_WORD)

    return run


@operation("SGXT", "USGXT")
def sgxt(rd: Reader):
    """The low ``width`` bits, with their sign or (U32) without."""
    unsigned = rd.flag("U32")
    rd.ignore("W")
    write, source, width = rd.result(), rd.word(), rd.word()

    def run(m, s):
        unused = U32(32) - np.clip(width(m, s), U32(1), U32(32))
        moved = source(m, s) << unused
        write(m, s, moved >> unused if unsigned else (signed(moved) >> unused.view(I32)).view(U32))

    return run


# ---- Comparisons and predicates


def _minimum_or_maximum(rd: Reader, sum_first: bool):
    unsigned = rd.flag("U32")
    write, a = rd.result(), rd.word()
    addend = rd.word() if sum_first else None
    b, take_minimum = rd.word(), rd.predicate()
    dtype = U32 if unsigned else I32

    def run(m, s):
        first = a(m, s) if addend is None else a(m, s) + addend(m, s)
        first, second = first.view(dtype), b(m, s).view(dtype)
        value = np.where(take_minimum(m, s), np.minimum(first, second), np.maximum(first, second))
        write(m, s, value.view(U32))

    return run


@operation("VIMNMX", "IMNMX", "UIMNMX", "UVIMNMX")
def vimnmx(rd: Reader):
    return _minimum_or_maximum(rd, sum_first=False)


@operation("VIADDMNMX")
def viaddmnmx(rd: Reader):
    return _minimum_or_maximum(rd, sum_first=True)


@operation("ISETP", "UISETP")
def isetp(rd: Reader):
    """``EX`` compares upper words; the last operand is the result for the lower words."""
    compare = rd.choice(*COMPARISONS)
    unsigned = rd.flag("U32")
    combine = COMBINATIONS[rd.choice(*COMBINATIONS)]
    extended = rd.flag("EX")
    write, write_other = rd.predicate_result(), rd.predicate_result()
    a, b, condition = rd.word(), rd.word(), rd.predicate()
    lower = rd.predicate() if extended else None
    strict = COMPARISONS[{"LE": "LT", "GE": "GT"}.get(compare, compare)]

    def run(m, s):
        first, second = a(m, s), b(m, s)
        if not unsigned:
            first, second = signed(first), signed(second)
        if lower is None:
            truth = COMPARISONS[compare](first, second)
        elif compare == "NE":
            truth = (first != second) | lower(m, s)
        elif compare == "EQ":
            truth = (first == second) & lower(m, s)
        else:
            truth = strict(first, second) | (first == second) & lower(m, s)
        other = condition(m, s)
        result, opposite = combine(truth, other), combine(~truth, other)
        write(m, s, result)
        write_other(m, s, opposite)

    return run


@operation("R2P")
def r2p(rd: Reader):
    """Copies bits of a register to predicates."""
    rd.take()
    operand = rd.take()
    shift = 8 * int(operand.suffix.removeprefix("B") or 0)
    value, mask = rd.raw(Operand(operand.body)), rd.immediate()

    def run(m, s):
        bits = value(m, s) >> U32(shift)
        for number in range(7):
            if mask >> number & 1:
                m.predicates[number][s.index] = (bits >> U32(number) & U32(1)).astype(bool)

    return run


@operation("P2R")
def p2r(rd: Reader):
    """Copies predicates to bits of a register; the other bits come from a second register."""
    write = rd.result()
    rd.take()
    rest, mask = rd.word(), rd.immediate()

    def run(m, s):
        value = rest(m, s) & U32(~mask & 0xFFFFFFFF)
        for number in range(7):
            if mask >> number & 1:
                value = value | m.predicates[number][s.index].astype(U32) << U32(number)
        write(m, s, value)

    return run


@operation("UP2UR", kind=INTEGER)
def up2ur(rd: Reader):
    write = rd.result()
    rd.take()
    rest, mask = rd.word(), rd.immediate()

    def run(m, s):
        value = rest(m, s) & U32(~mask & 0xFFFFFFFF)
        for number in range(7):
            if mask >> number & 1:
                value = value | m.uniform_predicates.of_warps(number, s).astype(U32) << U32(number)
        write(m, s, value)

    return run
