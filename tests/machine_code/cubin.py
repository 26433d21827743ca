"""The machine code in the installed binary: each kernel's instructions, constants, parameters and shared memory.

cuobjdump extracts the ELF files and disassembles them; both are cached under build/ until the binary changes.
"""

import hashlib
import json
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import sass

ARCHITECTURE = "sm_90"
CACHE = Path(__file__).parent.parent.parent / "build" / "machine-code"
INSTRUCTION_BYTES = 16
NOBITS = 8  # the type of an ELF section that has a size but no contents
PARAMETER_BANK = 0x0A  # an attribute in a kernel's .nv.info section: the location of the parameters in constant bank 0


@dataclass
class Kernel:
    """``listing[i]`` is the instruction at address 16 * i."""

    name: str  # kernel<arguments>, see sass.short_name
    listing: list[str]
    parameter_base: int = 0  # the offset of the parameters in constant bank 0
    parameter_bytes: int = 0
    constants: dict[int, bytes] = field(default_factory=dict)  # of other banks
    shared_bytes: int = 0


def _sections(elf: bytes) -> Iterator[tuple[str, bytes, int]]:
    """Name, contents and size of every section of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + n * entry_size) for n in range(count)]
    names = headers[names_index][4]
    for name, kind, _, _, offset, size in headers:
        text = elf[names + name : elf.index(b"\0", names + name)].decode()
        yield text, b"" if kind == NOBITS else elf[offset : offset + size], size


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of the attributes of a .nv.info section that are stored with a value."""
    position = 0
    while position < len(info):
        form, number, size = struct.unpack_from("<BBH", info, position)
        position += 4
        if form == 4:
            yield number, info[position : position + size]
            position += size


def _read_info(kernel: Kernel, info: bytes) -> None:
    for number, value in _attributes(info):
        if number == PARAMETER_BANK:
            _, kernel.parameter_base, kernel.parameter_bytes = struct.unpack("<IHH", value)


def _read_elf(elf: bytes, kernels: dict[str, Kernel]) -> None:
    for section, contents, size in _sections(elf):
        kind, _, mangled = section.rpartition(".")
        if section.startswith(".rela.nv.constant2") and size:
            raise ValueError(f"{section}: relocated constants are not supported")
        if mangled not in kernels:
            continue
        kernel = kernels[mangled]
        if kind == ".nv.info":
            _read_info(kernel, contents)
        elif kind == ".nv.shared":
            kernel.shared_bytes = size
        elif match := re.fullmatch(r"\.nv\.constant([1-9])", kind):
            kernel.constants[int(match.group(1))] = contents


def _listings(text: str) -> dict[str, list[str]]:
    """Instructions by mangled name, from the output of cuobjdump -sass."""
    listings: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"\s*Function : (\w+)", line):
            current = listings.setdefault(match.group(1), [])
        elif match := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line):
            assert int(match.group(1), 16) == len(current) * INSTRUCTION_BYTES, line
            current.append(match.group(2))
    return listings


def _extract(folder: Path) -> None:
    """Fills ``folder`` with the ELF files and the disassembly of the binary."""
    cuobjdump = sass.tools_folder() / "cuobjdump"
    subprocess.run([cuobjdump, "-xelf", ARCHITECTURE, sass.BINARY], cwd=folder, capture_output=True, check=True)
    listings = _listings("\n".join(sass.dump("-sass", "-arch", ARCHITECTURE)))
    (folder / "listings.json").write_text(json.dumps(listings))


def _extracted() -> Path:
    folder = CACHE / hashlib.sha256(sass.BINARY.read_bytes()).hexdigest()[:16]
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            filled = Path(name) / "filled"
            filled.mkdir()
            _extract(filled)
            try:
                filled.rename(folder)
            except OSError:  # another process was faster
                assert folder.exists()
    return folder


def compiler() -> str:
    """The ptxas version recorded in the binary."""
    elf = next(iter(sorted(_extracted().glob("*.cubin")))).read_bytes()
    found = re.search(rb"release [\d.]+, V[\d.]+", elf)
    return f"CUDA {found.group().decode()}" if found else "unknown"


@cache
def kernels() -> dict[str, Kernel]:
    """All sm_90 kernels of the binary, by name."""
    folder = _extracted()
    listings = json.loads((folder / "listings.json").read_text())
    names = {mangled: sass.short_name(plain) for mangled, plain in zip(listings, sass.demangle(listings))}
    by_mangled = {mangled: Kernel(names[mangled], listing) for mangled, listing in listings.items()}
    for path in sorted(folder.glob("*.cubin")):
        _read_elf(path.read_bytes(), by_mangled)
    by_name = {kernel.name: kernel for kernel in by_mangled.values()}
    assert len(by_name) == len(by_mangled), "two kernels have one name"
    return by_name
