"""Decodes the text of instructions into functions of the machine and the lanes: the part that all opcodes share.

A decoder takes its modifiers and operands from a Reader, in the order of the disassembly, and returns a function that executes
the instruction. Modifiers and operands that it does not take are unknown, which is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from faults import UnknownInstruction
from lanes import Lanes

if TYPE_CHECKING:
    from machine import Machine

U32, U64, I32, I64, F32, F64 = np.uint32, np.uint64, np.int32, np.int64, np.float32, np.float64
LOW_WORD = U64(0xFFFFFFFF)
WORD_BITS = U64(32)

#: A value is one number per lane (per warp in instructions of the uniform datapath), or one for all.
Value = Any
Fetch = Callable[["Machine", Lanes], Value]
Write = Callable[["Machine", Lanes, Value], None]
Action = Callable[["Machine", Lanes], None]

INTEGER, FLOAT, MEMORY, CONTROL, UNIFORM, OTHER = CLASSES = (
    "integer", "floating point", "memory", "control", "uniform", "other",
)  # fmt: skip


@dataclass(frozen=True)
class Operation:
    decode: Callable[[Reader], Any]
    kind: str  # of CLASSES
    control: bool  # affects control flow: see control.py


OPERATIONS: dict[str, Operation] = {}
#: Opcodes of the uniform datapath that do not begin with U.
UNIFORM_RESULT = ("S2UR", "R2UR", "VOTEU")


def operation(*opcodes: str, kind: str = INTEGER, control: bool = False):
    """Registers a decoder. Opcodes that begin with U and those in UNIFORM_RESULT compute once per warp."""

    def register(decode):
        for opcode in opcodes:
            uniform = opcode.startswith("U") or opcode in UNIFORM_RESULT
            OPERATIONS[opcode] = Operation(decode, UNIFORM if uniform else kind, control)
        return decode

    return register


@dataclass(frozen=True)
class Operand:
    """``-|R7.H0_H0|`` is negated, absolute, body R7, suffix H0_H0."""

    body: str
    negated: bool = False
    inverted: bool = False
    absolute: bool = False
    suffix: str = ""

    @classmethod
    def parse(cls, text: str) -> Operand:
        text = text.replace(".reuse", "")
        if is_number(text):
            return cls(text)
        match = re.fullmatch(r"(-?)([~!]?)(\|?)(.*?\]|[^.|]*)(?:\|)?(?:\.(\w+))?(?:\|)?", text)
        if match is None:
            raise UnknownInstruction(f"unknown operand {text}")
        minus, inverting, bar, body, suffix = match.groups()
        return cls(body, bool(minus), bool(inverting), bool(bar), suffix or "")


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?0x[0-9a-f]+|[-+]?\d+(\.\d*)?(e[-+]?\d+)?|[-+]?INF|[-+]?[QS]NAN", text) is not None


def real_number(text: str) -> float:
    if "NAN" in text:
        return float("nan")
    return float(text.replace("INF", "inf"))


def split_operands(text: str) -> list[str]:
    """Splits at commas; the brackets of constants contain none."""
    return [part.strip() for part in text.split(",")] if text.strip() else []


def parse_text(text: str) -> tuple[str, str, list[str], list[str]]:
    """Guard, opcode, modifiers and operands."""
    match = re.fullmatch(r"(?:@(!?U?P\w+)\s+)?([A-Z0-9]+)((?:\.\w+)*)\s*(.*)", text)
    if match is None:
        raise UnknownInstruction(f"not an instruction: {text}")
    guard, opcode, modifiers, rest = match.groups()
    return guard or "", opcode, modifiers.split(".")[1:], split_operands(rest)


def _constant(value: Value) -> Fetch:
    return lambda m, s: value


class Reader:
    """Reads an instruction's modifiers and operands."""

    def __init__(self, text: str, next_address: int):
        _, self.opcode, self.modifiers, operands = parse_text(text)
        self.text = text
        self.next_address = next_address
        self.uniform = self.opcode.startswith("U") or self.opcode in UNIFORM_RESULT
        self.operands = [Operand.parse(operand) for operand in operands]

    def unknown(self, what: str) -> UnknownInstruction:
        return UnknownInstruction(f"{what} in '{self.text}'")

    def finish(self) -> None:
        if self.modifiers:
            raise self.unknown(f"unknown modifier .{self.modifiers[0]}")
        if self.operands:
            raise self.unknown(f"unknown operand {self.operands[0].body}")

    # ---- Modifiers

    def flag(self, name: str) -> bool:
        if name in self.modifiers:
            self.modifiers.remove(name)
            return True
        return False

    def choice(self, *names: str, default: str | None = None) -> str:
        for name in names:
            if self.flag(name):
                return name
        if default is None:
            raise self.unknown(f"none of .{', .'.join(names)}")
        return default

    def ignore(self, *names: str) -> None:
        """Skips modifiers that do not change results: caching, scheduling."""
        for name in names:
            self.flag(name)

    # ---- Operands

    def take(self) -> Operand:
        if not self.operands:
            raise self.unknown("an operand is missing")
        return self.operands.pop(0)

    def more(self) -> int:
        return len(self.operands)

    def at_predicate(self) -> bool:
        return bool(self.operands) and re.fullmatch(r"U?P[0-9T]", self.operands[0].body) is not None

    def raw(self, operand: Operand, part: int = 0) -> Fetch:
        """A 32-bit word without its sign; ``part`` 1 is the upper word of a pair."""
        body = operand.body
        if body in ("RZ", "URZ"):
            return _constant(U32(0))
        if match := re.fullmatch(r"R(\d+)", body):
            number = int(match.group(1)) + part
            return lambda m, s: m.registers[number][s.index]
        if match := re.fullmatch(r"UR(\d+)", body):
            number = int(match.group(1)) + part
            if self.uniform:
                return lambda m, s: m.uniform.of_warps(number, s)
            return lambda m, s: m.uniform.of_lanes(number, s)
        if body.startswith("c["):
            return self.constant(body, WORD_BITS // 8, 4 * part)
        if is_number(body) and "0x" in body:
            return _constant(U32(int(body, 16) >> 32 * part & 0xFFFFFFFF))
        raise self.unknown(f"unknown operand {body}")

    def constant(self, body: str, width: int, extra: int = 0) -> Fetch:
        """An element of ``width`` bytes of a constant bank, unsigned."""
        match = re.fullmatch(r"c\[(0x[0-9a-f]+)\]\[(?:(U?R\w+)\+?)?(-?0x[0-9a-f]+)?\]", body)
        if match is None:
            raise self.unknown(f"unknown operand {body}")
        bank, register, text = int(match.group(1), 16), match.group(2), match.group(3)
        offset = int(text or "0", 16) + extra
        if register is None:
            return lambda m, s: m.constant(bank, offset, width)
        base = self.raw(Operand(register))
        return lambda m, s: m.constant(bank, base(m, s).astype(I32).astype(I64) + offset, width)

    def _plain(self, operand: Operand) -> Operand:
        if operand.suffix:
            raise self.unknown(f"unknown suffix .{operand.suffix}")
        return operand

    def word(self) -> Fetch:
        """A 32-bit integer, as uint32, with its sign applied."""
        return self.word_of(self._plain(self.take()))

    def word_of(self, operand: Operand) -> Fetch:
        raw = self.raw(operand)
        if operand.absolute:
            raise self.unknown("absolute value")
        if operand.negated:
            return lambda m, s: U32(0) - raw(m, s)
        if operand.inverted:
            return lambda m, s: ~raw(m, s)
        return raw

    def pair(self) -> Fetch:
        """A 64-bit integer, as uint64, with its sign applied."""
        operand = self._plain(self.take())
        low, high = self.raw(operand), self.raw(operand, 1)
        if operand.body in ("RZ", "URZ"):
            return _constant(U64(0))

        def fetch(m, s):
            return low(m, s).astype(U64) | high(m, s).astype(U64) << WORD_BITS

        if operand.negated:
            return lambda m, s: U64(0) - fetch(m, s)
        if operand.inverted:
            return lambda m, s: ~fetch(m, s)
        return fetch

    def immediate(self) -> int:
        operand = self.take()
        if not is_number(operand.body):
            raise self.unknown(f"{operand.body} is not a number")
        return int(operand.body, 0)

    def single(self) -> Fetch:
        """A float32."""
        operand = self._plain(self.take())
        if is_number(operand.body) and "0x" not in operand.body:
            return _constant(F32(real_number(operand.body)))
        raw = self.raw(operand)
        return self._with_sign(operand, lambda m, s: raw(m, s).view(F32))

    def double(self) -> Fetch:
        operand = self._plain(self.take())
        if is_number(operand.body) and "0x" not in operand.body:
            return _constant(F64(real_number(operand.body)))
        if operand.body in ("RZ", "URZ"):
            return self._with_sign(operand, _constant(F64(0)))
        low, high = self.raw(operand), self.raw(operand, 1)
        return self._with_sign(operand, lambda m, s: (low(m, s).astype(U64) | high(m, s).astype(U64) << WORD_BITS).view(F64))

    def _with_sign(self, operand: Operand, value: Fetch) -> Fetch:
        if operand.inverted:
            raise self.unknown("inverted number")
        if operand.absolute and operand.negated:
            return lambda m, s: -np.abs(value(m, s))
        if operand.absolute:
            return lambda m, s: np.abs(value(m, s))
        if operand.negated:
            return lambda m, s: -value(m, s)
        return value

    def predicate(self) -> Fetch:
        return self.predicate_of(self.take())

    def predicate_of(self, operand: Operand) -> Fetch:
        value = self._raw_predicate(operand.body)
        return (lambda m, s: ~value(m, s)) if operand.inverted else value

    def _raw_predicate(self, body: str) -> Fetch:
        if body in ("PT", "UPT"):
            return _constant(np.True_)
        match = re.fullmatch(r"(U?)P(\d)", body)
        if match is None:
            raise self.unknown(f"{body} is not a predicate")
        number = int(match.group(2))
        if not match.group(1):
            return lambda m, s: m.predicates[number][s.index]
        if self.uniform:
            return lambda m, s: m.uniform_predicates.of_warps(number, s)
        return lambda m, s: m.uniform_predicates.of_lanes(number, s)

    # ---- Results

    def result(self, part: int = 0, operand: Operand | None = None) -> Write:
        """A 32-bit result; wider integers are truncated."""
        operand = operand or self.take()
        body = self._plain(operand).body
        if body in ("RZ", "URZ"):
            return lambda m, s, value: None
        match = re.fullmatch(r"(U?)R(\d+)", body)
        if match is None:
            raise self.unknown(f"{body} is not a register")
        number = int(match.group(2)) + part
        if match.group(1):
            return lambda m, s, value: m.uniform.write(number, s, np.asarray(value).astype(U32))

        def write(m, s, value):
            m.registers[number][s.index] = value

        return write

    def pair_result(self) -> Write:
        """A 64-bit result."""
        operand = self.take()
        low, high = self.result(0, operand), self.result(1, operand)

        def write(m, s, value):
            low(m, s, value & LOW_WORD)
            high(m, s, value >> WORD_BITS)

        return write

    def single_result(self) -> Write:
        write = self.result()
        return lambda m, s, value: write(m, s, value.astype(F32).view(U32))

    def double_result(self) -> Write:
        write = self.pair_result()
        return lambda m, s, value: write(m, s, value.astype(F64).view(U64))

    def predicate_result(self) -> Write:
        body = self.take().body
        if body in ("PT", "UPT"):
            return lambda m, s, value: None
        match = re.fullmatch(r"(U?)P(\d)", body)
        if match is None:
            raise self.unknown(f"{body} is not a predicate")
        number = int(match.group(2))
        if match.group(1):
            return lambda m, s, value: m.uniform_predicates.write(number, s, np.asarray(value))

        def write(m, s, value):
            m.predicates[number][s.index] = value

        return write
