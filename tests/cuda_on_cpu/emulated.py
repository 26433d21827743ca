"""Builds the .cu files as C++ and runs them on the CPU, in processes of their own.

A variant is a list of edits (file, old text, new text) made to a copy of the sources before they are compiled.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ORDERS = ("ascending", "descending", "shuffled")
Edit = tuple[str, str, str]

SANITIZE = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
WARNINGS = ("-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-psabi")


def copy_sources(folder: Path, edits: list[Edit]) -> Path:
    """A copy of csrc/ and of this folder's C++, edited. Every old text must occur exactly once."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    for path in HERE.glob("*.[ch]*"):
        shutil.copy(path, folder)
    for name, old, new in edits:
        path = folder / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new))
    return folder


def compile_shared(sources: list[Path], out: Path, *flags: str) -> Path:
    """Compiles C++ (and .cu as C++) into one shared library."""
    command = ["g++", "-x", "c++", "-std=c++17", "-shared", "-fPIC", *WARNINGS, *flags]
    result = subprocess.run([*command, *map(str, sources), "-o", str(out)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out


def emulation_flags(folder: Path) -> list[str]:
    return [
        "-DS2MLP_CUDA_ON_CPU",
        "-DS2MLP_LIBRARY=s2mlp_cuda_on_cpu",
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        f"-I{folder / 'csrc'}",
        f"-I{folder}",
        f"-isystem{sysconfig.get_path('include')}",
        *(f"-isystem{path}" for path in include_paths()),
    ]


def build_kernels(folder: Path, edits: list[Edit] = (), kernels: str = "csrc/cuda/*.cu") -> Path:
    """All .cu files, sanitized, as a library whose operators are ``torch.ops.s2mlp_cuda_on_cpu``.

    With ``kernels="csrc/cpu/*.cpp"`` the CPU kernels take their place, to be checked in the same way.
    """
    copy_sources(folder, list(edits))
    sources = [folder / "csrc" / "registration.cpp", folder / "control.cpp", *sorted(folder.glob(kernels))]
    torch_libraries = [flag for path in library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    return compile_shared(
        sources, folder / "kernels.so", *SANITIZE, *emulation_flags(folder), *torch_libraries,
        "-Wl,--no-as-needed", "-lc10", "-ltorch", "-ltorch_cpu",
    )


def run_cases(library: Path, order: str, only: str = "", launches: bool = True) -> dict[str, str]:
    """Runs the cases whose names contain ``only`` under one thread order; returns the failures, name: what happened.

    With ``launches``, a run that launched fewer emulated kernels than it had cases is a failure too.

    A sanitizer ends the process at its first finding; the finding is then the failure of the case that ran.
    """

    def runtime(name: str) -> str:
        return subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()

    result = subprocess.run(
        [sys.executable, str(HERE / "run_cases.py"), str(library), str(ORDERS.index(order)), only],
        env={
            **os.environ,
            "LD_PRELOAD": f"{runtime('libasan.so')}:{runtime('libubsan.so')}",
            "ASAN_OPTIONS": "detect_leaks=0:protect_shadow_gap=0",
            "UBSAN_OPTIONS": "print_stacktrace=0",
        },
        capture_output=True,
        text=True,
    )
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    failures = {event["case"]: event["failure"] for event in events if event.get("failure")}
    if result.returncode != 0:
        running = events[-1]["case"] if events else "(before the first case)"
        findings = [
            line for line in result.stderr.splitlines() if "runtime error" in line or "ERROR: AddressSanitizer" in line
        ]
        failures[running] = findings[0] if findings else result.stderr[-2000:]
    elif launches and events[-1]["launches"] < events[-1]["finished"]:
        failures["(the run)"] = "kernels were not launched"
    return failures


def load_plan_check(folder: Path, edits: list[Edit] = ()) -> ctypes.CDLL:
    copy_sources(folder, list(edits))
    library = compile_shared([folder / "plan_check.cpp"], folder / "plan_check.so", "-O2", f"-I{folder / 'csrc'}")
    return ctypes.CDLL(str(library))
