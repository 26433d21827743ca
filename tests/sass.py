"""Properties of the compiled CUDA kernels: registers, occupancy, local memory, widths of loads and stores.

    python tests/sass.py       prints a table of every kernel of the installed binary

Needs cuobjdump and nvdisasm: from a CUDA toolkit on PATH, or the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import s2mlp_cuda

BINARY = Path(s2mlp_cuda.__file__).parent / "_C.abi3.so"
BLOCK_THREADS = 256
REGISTERS_PER_MULTIPROCESSOR = 65536
#: Other architectures have 1536.
THREADS_PER_MULTIPROCESSOR = {"sm_75": 1024, "sm_80": 2048, "sm_90": 2048, "sm_100": 2048, "sm_103": 2048}


@dataclass
class Kernel:
    arch: str
    name: str
    registers: int = 0
    stack: int = 0
    local: int = 0
    wide_loads: int = 0  # 128-bit loads from global memory
    wide_stores: int = 0
    loads_in_flight: int = 0  # global loads before the first global store
    local_accesses: list[str] = field(default_factory=list)

    @property
    def threads_per_multiprocessor(self) -> int:
        return THREADS_PER_MULTIPROCESSOR.get(self.arch, 1536)

    @property
    def blocks(self) -> int:
        """The blocks that a multiprocessor's registers allow at a time."""
        warps = BLOCK_THREADS // 32
        per_warp = -(-self.registers * 32 // 256) * 256
        return min(REGISTERS_PER_MULTIPROCESSOR // (warps * per_warp), self.threads_per_multiprocessor // BLOCK_THREADS)

    @property
    def occupancy(self) -> float:
        """The share of a multiprocessor's threads that its registers allow."""
        return self.blocks * BLOCK_THREADS / self.threads_per_multiprocessor


def tools_folder() -> Path:
    """The folder of cuobjdump and nvdisasm.

    Raises:
        FileNotFoundError: they are neither in this environment's packages nor on PATH.
    """
    packaged = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"
    if (packaged / "cuobjdump").exists():
        return packaged
    found = shutil.which("cuobjdump")
    if found is None:
        raise FileNotFoundError("no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    return Path(found).parent


def dump(*options: str) -> list[str]:
    """The output of cuobjdump for the installed binary."""
    folder = tools_folder()
    result = subprocess.run(
        [folder / "cuobjdump", *options, BINARY],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return result.stdout.splitlines()


def demangle(names: Iterable[str]) -> list[str]:
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return plain.stdout.splitlines()


def short_name(plain: str) -> str:
    """A demangled name as ``kernel<arguments>``, without namespaces and parameters."""
    left_out = r"\(anonymous namespace\)::|\(s2mlp::Precision\)|s2mlp::|c10::|^void "
    return re.sub(left_out, "", plain).partition("(")[0]


def kernels() -> list[Kernel]:
    """All kernels of the binary, for every architecture that it has machine code for."""
    found: dict[tuple[str, str], Kernel] = {}
    arch, current = "", None

    def kernel(mangled: str) -> Kernel:
        return found.setdefault((arch, mangled), Kernel(arch, mangled))

    for line in dump("-res-usage"):
        if match := re.match(r"arch = (\w+)", line):
            arch = match.group(1)
        elif match := re.match(r"\s*Function (\w+):", line):
            current = kernel(match.group(1))
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            current.registers, current.stack, current.local = map(int, match.groups())
    for line in dump("-sass"):
        if match := re.match(r"arch = (\w+)", line):
            arch = match.group(1)
        elif match := re.match(r"\s*Function : (\w+)", line):
            current = kernel(match.group(1))
            stored = False
        elif match := re.search(r"\b(LDG|STG|LDL|STL)(\.[\w.]+)?\b", line):
            operation, modifiers = match.group(1), match.group(2) or ""
            wide = ".128" in modifiers
            current.wide_loads += operation == "LDG" and wide
            current.wide_stores += operation == "STG" and wide
            stored |= operation == "STG"
            current.loads_in_flight += operation == "LDG" and not stored
            if operation in ("LDL", "STL"):
                current.local_accesses.append(operation + modifiers)
    for entry, plain in zip(found.values(), demangle(mangled for _, mangled in found)):
        entry.name = short_name(plain)
    return sorted(found.values(), key=lambda k: (k.name, k.arch))


def table(entries: list[Kernel]) -> str:
    """One line per kernel: registers and occupancy per architecture, then 128-bit loads and stores."""
    archs = sorted({entry.arch for entry in entries}, key=lambda arch: int(arch[3:]))
    lines = ["registers (occupancy)".ljust(70) + "".join(arch.rjust(12) for arch in archs) + "   LDG.128  STG.128"]
    by_name: dict[str, dict[str, Kernel]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, {})[entry.arch] = entry
    for name, row in by_name.items():
        cells = "".join(f"{row[arch].registers} ({row[arch].occupancy:.0%})".rjust(12) for arch in archs if arch in row)
        last = row[max(row)]
        lines.append(f"{name:70}{cells}{last.wide_loads:10}{last.wide_stores:9}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(kernels()))
