"""Analysis of the compiled CPU kernels: their vector loops, and values that these pass through the stack.

    python tests/x86_code.py [library]       prints the number of vector loops, and the loops with a fault

The library may be stripped. Needs objdump of GNU binutils.
"""

import re
import subprocess
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import s2mlp_cuda

BINARY = Path(s2mlp_cuda.__file__).parent / "_C.abi3.so"
REGISTER_BYTES = {"x": 16, "y": 32, "z": 64}
#: Vector instructions that access 4 or 8 bytes of memory.
NARROW = re.compile(r"v?(mov[sdq]|mov(s[sd]|[hl]p[sd])|\w+s[sd][lq]?|p(ins|ext)r\w|insertps|extractps|p?broadcast(s[sd]|[bwdq]))$")
#: Vector instructions that do not change what they load: moves, and assembly from halves. The dot is the i or f of vinserti128.
MOVES = re.compile(r"v?(mov(?!msk)\w+|lddqu|insert.\d\w*|extract.\d\w*|broadcast.\d\w*)$")
WRITES_REGISTER = re.compile(r"(?:^|,)%[re](\w\w|\d+)d?$")
NO_TARGET = ("j", "cmp", "test", "bt", "push", "prefetch", "nop", "ret", "ucomis", "comis", "vucomis", "vcomis")
#: Registers that a call may clobber.
VOLATILE = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")

#: Registers that point into the stack frame, as a base register (rsp or rbp) and an offset.
Pointers = dict[str, tuple[str, int]]


class Stack(NamedTuple):
    """A range of bytes of the stack frame."""

    base: str
    begin: int
    end: int

    def overlaps(self, other: "Stack") -> bool:
        return self.base == other.base and self.begin < other.end and other.begin < self.end

    def covers(self, other: "Stack") -> bool:
        return self.base == other.base and self.begin <= other.begin and other.end <= self.end


class Instruction(NamedTuple):
    address: int
    operation: str
    text: str  # the operands, in AT&T order: the last one is written

    def __str__(self) -> str:
        return f"{self.address:x}: {self.operation} {self.text}"

    @property
    def operands(self) -> list[str]:
        return re.findall(r"[^,(]*\([^)]*\)[^,]*|[^,]+", self.text)

    @property
    def vector_bytes(self) -> int:
        """The size of the widest vector register; 0 if there is none."""
        return max((REGISTER_BYTES[kind] for kind in re.findall(r"%([xyz])mm", self.text)), default=0)

    @property
    def memory_bytes(self) -> int:
        """The bytes of a vector load or store, or of a mov of a general register or a constant; 0 for other instructions."""
        if self.vector_bytes == 0:
            return _general_bytes(self) if self.operation.startswith("mov") else 0
        if NARROW.match(self.operation):
            return 4 if re.search(r"ss$|s[sd]l$|movd$|(insr|extr|cast)[bwd]$|(insert|extract)ps$", self.operation) else 8
        if match := re.search(r"\{1to(\d+)\}", self.text):
            return self.vector_bytes // int(match.group(1))
        if match := re.search(r"(?:insert|extract|broadcast)[if](?:128|(\d+)x(\d))$", self.operation):
            return int(match.group(1)) * int(match.group(2)) // 8 if match.group(1) else 16
        if match := re.match(r"v?pmovu?s?(?:[sz]x)?([bwdq])([bwdq])$", self.operation):
            narrow, wide = sorted("bwdq".index(letter) for letter in match.groups())
            return self.vector_bytes >> (wide - narrow)
        return self.vector_bytes

    @property
    def target(self) -> str:
        """The last operand if it is written."""
        return "" if not self.text or self.operation.startswith(NO_TARGET) else self.operands[-1]

    def stack(self, operand: str, pointers: Pointers) -> Stack | None:
        """The part of the stack frame that a memory operand refers to."""
        match = re.match(r"(-?0x[0-9a-f]+)?\(%(\w+)", operand)
        if match is None or match.group(2) not in pointers:
            return None
        base, distance = pointers[match.group(2)]
        begin = distance + int(match.group(1) or "0", 16)
        return Stack(base, begin, begin + self.memory_bytes)


def _general_bytes(instruction: Instruction) -> int:
    for operand in instruction.operands:
        if re.fullmatch(r"%r(\d+|[a-z]{2})", operand):
            return 8
        if re.fullmatch(r"%(e[a-z]{2}|r\d+d)", operand):
            return 4
    return {"l": 4, "q": 8}.get(instruction.operation[-1], 1)


@dataclass
class Block:
    """A basic block: code without jumps into or out of its interior."""

    code: list[Instruction] = field(default_factory=list)
    successors: list[int] = field(default_factory=list)
    predecessors: list[int] = field(default_factory=list)
    writes: list[tuple[int, str, str]] = field(default_factory=list)  # (index, register, operand) where pointers may change
    pointers: Pointers | None = None  # at the beginning of the block

    def find_writes(self) -> None:
        for i, (_, operation, text) in enumerate(self.code):
            if operation == "call":
                self.writes += [(i, register, "") for register in VOLATILE]
            elif (match := WRITES_REGISTER.search(text)) and not operation.startswith(NO_TARGET):
                self.writes.append((i, "r" + match.group(1), text if operation in ("lea", "mov") else ""))

    def pointers_after(self, pointers: Pointers, begin: int = 0, end: int | None = None) -> Pointers:
        """The pointers after instructions [begin, end)."""
        pointers = dict(pointers)
        for i, register, text in self.writes:
            if register == "rsp" or i < begin or (end is not None and i >= end):
                continue
            source = text.rpartition(",")[0]
            lea = re.fullmatch(r"(-?0x[0-9a-f]+)?\(%(\w+)\)", source)
            if text == "%rsp,%rbp":
                pointers["rbp"] = ("rbp", 0)
            elif lea and lea.group(2) in pointers and self.code[i].operation == "lea":
                base, distance = pointers[lea.group(2)]
                pointers[register] = (base, distance + int(lea.group(1) or "0", 16))
            elif source[1:] in pointers and self.code[i].operation == "mov":
                pointers[register] = pointers[source[1:]]
            else:
                pointers.pop(register, None)
        return pointers


@dataclass
class Loop:
    """An innermost loop: its code in address order, and the pointers into the stack at each instruction."""

    code: list[tuple[Instruction, Pointers]]

    def __post_init__(self) -> None:
        self.vector_bytes = max(instruction.vector_bytes for instruction, _ in self.code)

    def __str__(self) -> str:
        return "\n".join(str(instruction) for instruction, _ in self.code)

    @property
    def is_hot(self) -> bool:
        """Whether it loads whole vectors from memory, and contains neither a call nor an integer division."""
        if any(re.match(r"call|i?div[bwlq]?$", instruction.operation) for instruction, _ in self.code):
            return False
        return any(
            instruction.vector_bytes and not NARROW.match(instruction.operation) and _is_elsewhere(instruction, operand, pointers)
            for instruction, pointers in self.code
            for operand in instruction.operands[:-1]
        )

    def faults(self) -> Iterator[str]:
        """Pairs of a store to the stack and a load from it that a loop should not contain.

        Either the load has more bytes than the store has written, which prevents store forwarding, so that the load waits for the
        cache; or the store writes a vector as it was loaded, so that a second load from its origin would suffice. Allowed are
        constants on the stack; results that are stored and loaded whole, because of register pressure; and stores that the loop
        never loads again: g++ 12 emits them next to a copy in a register, and nothing waits for them.
        """
        stores: list[tuple[Instruction, Stack, bool]] = []
        fresh: set[str] = set()  # registers that hold a vector as it was loaded
        for last_pass in (False, True):  # at the second iteration, registers hold what the first pass has left
            for instruction, pointers in self.code:
                target = instruction.target
                if not target:
                    continue
                sources = instruction.operands[:-1]
                moved = re.findall(r"%[xyz]mm(\d+)", ",".join(sources))
                if "(" in target:
                    to = instruction.stack(target, pointers)
                    if last_pass and to is not None and to.begin < to.end:
                        stores.append((instruction, to, any(register in fresh for register in moved)))
                elif match := re.match(r"%[xyz]mm(\d+)", target):
                    memory = [operand for operand in sources if "(" in operand]
                    is_fresh = (
                        bool(memory or moved)
                        and MOVES.match(instruction.operation) is not None
                        and all(_is_elsewhere(instruction, operand, pointers) for operand in memory)
                        and all(register in fresh for register in moved)
                    )
                    (fresh.add if is_fresh else fresh.discard)(match.group(1))
        for instruction, pointers in self.code if stores else []:
            for operand in instruction.operands[:-1] if instruction.vector_bytes else []:
                source = instruction.stack(operand, pointers)
                for store, to, is_fresh in stores if source is not None else []:
                    if not to.overlaps(source):
                        continue
                    if not to.covers(source):
                        yield f"cannot be forwarded: {store}, then {instruction}"
                    elif is_fresh:
                        yield f"stored as it was loaded: {store}, then {instruction}"


def _is_elsewhere(instruction: Instruction, operand: str, pointers: Pointers) -> bool:
    """Whether the operand is in memory, but neither in the stack frame nor a constant."""
    return "(" in operand and "(%rip)" not in operand and instruction.stack(operand, pointers) is None


def _objdump(library: Path, *options: str) -> str:
    return subprocess.run(["objdump", *options, library], capture_output=True, text=True, check=True).stdout


def functions(library: Path) -> Iterator[list[Instruction]]:
    """The instructions of each function. Its bounds are in the unwind information, which strip keeps."""
    listing = _objdump(library, "-d", "--no-show-raw-insn", "--section=.text")
    lines = re.findall(r"^ *([0-9a-f]+):\t(?:(?:bnd|notrack|data16|cs) )*(\S+) *([^#<\n]*)", listing, re.MULTILINE)
    code = [Instruction(int(address, 16), operation, text.strip()) for address, operation, text in lines]
    addresses = [instruction.address for instruction in code]
    for begin, end in re.findall(r" FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)", _objdump(library, "--dwarf=frames")):
        yield code[bisect_left(addresses, int(begin, 16)) : bisect_left(addresses, int(end, 16))]


def _blocks(function: list[Instruction]) -> list[Block]:
    index = {instruction.address: i for i, instruction in enumerate(function)}
    jumps: dict[int, int | None] = {}  # from an instruction to its target within this function
    begins = {0}
    for i, (_, operation, text) in enumerate(function):
        if operation[0] == "j" or operation in ("ret", "ud2", "hlt"):
            jumps[i] = index.get(int(text, 16)) if operation[0] == "j" and text[0] != "*" else None
            begins |= {i + 1, jumps[i] or 0}
    bounds = sorted(begins | {len(function)})
    number = {begin: n for n, begin in enumerate(bounds)}
    blocks = [Block(function[begin:end]) for begin, end in zip(bounds, bounds[1:])]
    for n, (block, end) in enumerate(zip(blocks, bounds[1:])):
        target = jumps.get(end - 1)
        if target is not None:
            block.successors.append(number[target])
        if end < len(function) and function[end - 1].operation not in ("jmp", "ret", "ud2", "hlt"):
            block.successors.append(n + 1)
        for successor in block.successors:
            blocks[successor].predecessors.append(n)
        block.find_writes()
    return blocks


def _find_pointers(blocks: list[Block]) -> None:
    """Propagates pointers into the stack frame along all paths; a register counts as one if all paths agree."""
    blocks[0].pointers = {"rsp": ("rsp", 0)}
    left = [0]
    while left:
        block = blocks[left.pop()]
        after = block.pointers_after(block.pointers or {})
        for n in block.successors:
            before = blocks[n].pointers
            both = after if before is None else dict(before.items() & after.items())
            if both != before:
                blocks[n].pointers = both
                left.append(n)


def _trees(roots: Iterable[int], edges: list[list[int]], allowed: set[int]) -> Iterator[list[int]]:
    """For each root, the nodes that it reaches and no earlier root does, in post-order of a depth-first search."""
    seen: set[int] = set()
    for root in roots:
        tree = []
        left = [(root, False)]
        while left:
            node, is_done = left.pop()
            if is_done:
                tree.append(node)
            elif node in allowed and node not in seen:
                seen.add(node)
                left.append((node, True))
                left += [(other, False) for other in edges[node]]
        if tree:
            yield tree


def _innermost(nodes: set[int], successors: list[list[int]], predecessors: list[list[int]]) -> Iterator[list[int]]:
    """Innermost loops: strongly connected components that have no cycle without their entry blocks."""
    order = [node for tree in _trees(sorted(nodes), successors, nodes) for node in tree]
    for tree in _trees(reversed(order), predecessors, nodes):
        component = set(tree)
        if len(tree) == 1 and tree[0] not in successors[tree[0]]:
            continue
        entries = {node for node in tree if any(other not in component for other in predecessors[node])}
        inner = list(_innermost(component - (entries or {min(tree)}), successors, predecessors))
        yield from inner or [sorted(tree)]


def innermost_loops(function: list[Instruction]) -> Iterator[Loop]:
    blocks = _blocks(function)
    _find_pointers(blocks)
    successors = [block.successors for block in blocks]
    predecessors = [block.predecessors for block in blocks]
    for numbers in _innermost(set(range(len(blocks))), successors, predecessors):
        code = []
        for block in (blocks[n] for n in numbers):
            pointers = block.pointers or {"rsp": ("rsp", 0)}  # blocks that catch exceptions have no predecessors
            for i, instruction in enumerate(block.code):
                code.append((instruction, pointers))
                pointers = block.pointers_after(pointers, i, i + 1)
        yield Loop(code)


def hot_loops(library: Path = BINARY) -> list[Loop]:
    """All innermost loops of the library that process vectors from memory."""
    found = []
    for function in functions(library):
        if any("mm" in text for _, _, text in function):
            found += [loop for loop in innermost_loops(function) if loop.vector_bytes and loop.is_hot]
    return found


if __name__ == "__main__":
    loops = hot_loops(Path(sys.argv[1]) if len(sys.argv) > 1 else BINARY)
    for width, count in sorted(Counter(loop.vector_bytes for loop in loops).items()):
        print(f"{count} loops with vectors of {width} bytes")
    for loop in loops:
        if faults := list(loop.faults()):
            print(f"\n{faults[0]} (of {len(faults)}), in\n{loop}")
