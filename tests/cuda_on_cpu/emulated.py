"""Builds the .cu files as C++, to run them on the CPU in separate processes, or to record their launches (recorder.h).

The CPU kernels are checked in the same way, and with several threads under ThreadSanitizer.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.cpp_extension import include_paths, library_paths

import switches
from switches import Switch

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "emulated"
ORDERS = ("ascending", "descending", "shuffled")
Edit = tuple[str, str, str]  # file, old text, new text

SANITIZE = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
# Half the code, and half the time to compile it; what UBSan finds then ends the process without a message.
TRAP = ("-fsanitize-undefined-trap-on-error", "--param=asan-instrumentation-with-call-threshold=0")
#: In the lines that name a sanitizer's finding.
FINDINGS = ("runtime error", "ERROR: AddressSanitizer", "SUMMARY: ThreadSanitizer")
WARNINGS = ("-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-psabi")


#: GELU's approximation is chosen at run time, as on a GPU: half the code.
ONE_GELU = (
    "csrc/cpu/gelu_spatial_shift.cpp",
    "tanh ? use(element, std::true_type{}) : use(element, std::false_type{});",
    "use(element, tanh);",
)

#: Without AVX2 and AVX-512: a third of the code.
BASELINE_INSTRUCTIONS = (
    ("csrc/cpu/instruction_sets.h", "return run_avx512<kStores>(body);", "break;"),
    ("csrc/cpu/instruction_sets.h", "return run_avx2<kStores>(body);", "break;"),
)

#: Maps of any size are divided among threads, down to single rows.
SMALL_CHUNKS = (
    ("csrc/cpu/threads.h", "kGrainBytes = 131072;", "kGrainBytes = 1;"),
    ("csrc/cpu/branch_sums.h", "kChunkElements = 65536;", "kChunkElements = 1;"),
)


class Kind(NamedTuple):
    """A library: its sources, their switches and edits, the compiler flags, and the namespace of its operators."""

    pattern: str
    switches: dict[str, Switch]
    edits: tuple[Edit, ...]
    other_sources: tuple[str, ...]
    flags: tuple[str, ...]
    namespace: str


KERNELS = {
    "cuda": Kind("csrc/cuda/*.cu", switches.CUDA, (), ("control.cpp",), SANITIZE, "s2mlp_cuda_on_cpu"),
    "cpu": Kind("csrc/cpu/*.cpp", switches.CPU, (ONE_GELU,), ("control.cpp",), (*SANITIZE, *TRAP), "s2mlp_cuda_on_cpu"),
    "threads": Kind(
        "csrc/cpu/*.cpp",
        switches.THREADS,
        (ONE_GELU, *BASELINE_INSTRUCTIONS, *SMALL_CHUNKS),
        ("control.cpp", "threads.cpp"),
        ("-O1", "-g1", "-fsanitize=thread", "-Dtorch_parallel_for=s2mlp_parallel_for"),
        "s2mlp_cuda_on_cpu",
    ),
    "recorded": Kind(
        "csrc/cuda/*.cu", {}, (), ("recorder.cpp", "known_memory.cpp"), ("-O1", "-DS2MLP_RECORD_LAUNCHES"), "s2mlp_machine_code"
    ),
}


def copy_sources(folder: Path, edits: Iterable[Edit]) -> Path:
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


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def compile_shared(sources: list[Path], out: Path, *flags: str) -> Path:
    """Compiles C++ (and .cu as C++) into one shared library."""
    objects = [out.with_name(f"{source.stem}.{number}.o") for number, source in enumerate(sources)]
    compiler = ["g++", "-x", "c++", "-std=c++17", "-fPIC", *WARNINGS, *(flag for flag in flags if not flag.startswith("-Wl"))]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda pair: _run([*compiler, "-c", str(pair[0]), "-o", str(pair[1])]), zip(sources, objects)))
    _run(["g++", "-shared", *map(str, objects), *flags, "-o", str(out)])
    return out


def torch_headers(folder: Path) -> list[str]:
    """Compiler flags for the sources in ``folder`` and the Python and PyTorch headers that they include."""
    return [
        "-DTORCH_TARGET_VERSION=0x020b000000000000",
        f"-I{folder / 'csrc'}",
        f"-I{folder}",
        f"-isystem{sysconfig.get_path('include')}",
        *(f"-isystem{path}" for path in include_paths()),
    ]


def torch_libraries() -> list[str]:
    folders = [flag for path in library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    return [*folders, "-Wl,--no-as-needed", "-lc10", "-ltorch", "-ltorch_cpu"]


def emulation_flags(folder: Path, namespace: str = "s2mlp_cuda_on_cpu") -> list[str]:
    return ["-DS2MLP_CUDA_ON_CPU", f"-DS2MLP_LIBRARY={namespace}", "-include", "switch.h", *torch_headers(folder)]


def _edit(number: int, switch: Switch) -> Edit:
    return switch.file, switch.old, switch.new.format(on=f"(s2mlp_switch == {number})")


def _key(kind: str) -> str:
    """A hash of everything that a library depends on."""
    digest = hashlib.sha256(repr((kind, KERNELS, WARNINGS, torch.__version__, sys.version)).encode())
    digest.update(subprocess.check_output(["g++", "--version"]))
    for path in sorted([*ROOT.glob("csrc/**/*.*"), *HERE.glob("*.[ch]*"), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build_kernels(kind: str) -> Path:
    """All kernels of one kind, with their switches, as a library of operators.

    The build is cached across tests, processes and runs for as long as the sources are the same.
    """
    pattern, named, edits, others, flags, namespace = KERNELS[kind]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        library = CACHE / f"{kind}-{_key(kind)}.so"
        if library.exists():
            return library
        for outdated in CACHE.glob(f"{kind}-*.so"):
            outdated.unlink()
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            folder = copy_sources(Path(name) / "sources", [*edits, *(_edit(n, s) for n, s in enumerate(named.values(), 1))])
            sources = [folder / "csrc" / "registration.cpp", *(folder / other for other in others), *sorted(folder.glob(pattern))]
            built = compile_shared(sources, folder / "kernels.so", *flags, *emulation_flags(folder, namespace), *torch_libraries())
            built.rename(library)
        return library


def sanitized_environment(kind: str) -> dict[str, str]:
    """The environment of a Python process that loads a library of this kind."""

    def runtime(name: str) -> str:
        return subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()

    runtimes = ("libtsan.so",) if kind == "threads" else ("libasan.so", "libubsan.so")
    return {
        **os.environ,
        "LD_PRELOAD": ":".join(map(runtime, runtimes)),
        "ASAN_OPTIONS": "detect_leaks=0:protect_shadow_gap=0",
        "UBSAN_OPTIONS": "print_stacktrace=0",
        # PyTorch's threads synchronize unseen: what they copy is no finding.
        "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1",
    }


def sanitized_python(kind: str) -> list[str]:
    """The command that starts Python. GCC's ThreadSanitizer before version 14 supports 28 bits of address randomization at most."""
    too_random = kind == "threads" and int(Path("/proc/sys/vm/mmap_rnd_bits").read_text()) > 28
    return ["setarch", "--addr-no-randomize", sys.executable] if too_random else [sys.executable]


class Run(NamedTuple):
    """Cases whose names match the regular expression ``only``, run under one thread order, with one switch on.

    Each case is run by ``callers`` threads at the same time.
    """

    order: str = "ascending"
    only: str = ""
    switch: str = ""
    callers: int = 1


def run_cases(kind: str, *runs: Run) -> list[dict[str, str]]:
    """The failures of each run, as name: text.

    A run of CUDA kernels with fewer emulated launches than cases is a failure, too. A sanitizer ends a run at its first finding,
    which is reported as the failure of the running case.
    """
    library = build_kernels(kind)
    numbers = {"": 0, **{switch: number for number, switch in enumerate(KERNELS[kind].switches, 1)}}
    arguments = [(ORDERS.index(order), numbers[switch], only, callers) for order, only, switch, callers in runs]
    output = run_sanitized(kind, "run_cases.py", str(library), json.dumps(arguments))
    return [_failures(kind, **json.loads(line)) for line in output.splitlines()]


def run_sanitized(kind: str, script: str, *arguments: str) -> str:
    """The output of a Python script of this folder, run with the sanitizers of this kind loaded. Fails if the script does."""
    result = subprocess.run(
        [*sanitized_python(kind), str(HERE / script), *arguments],
        env=sanitized_environment(kind),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def _failures(kind: str, status: int, events: list[dict], errors: str) -> dict[str, str]:
    failures = {event["case"]: event["failure"] for event in events if event.get("failure")}
    if status == -signal.SIGILL:
        failures[events[-1]["case"]] = "undefined behavior: for a message, build without TRAP"
    elif status != 0:
        running = events[-1]["case"] if events else "(before the first case)"
        findings = [line for line in errors.splitlines() if any(finding in line for finding in FINDINGS)]
        failures[running] = findings[0] if findings else errors[-2000:] or f"status {status}"
    elif not events[-1]["finished"]:
        failures["(the run)"] = "no case matches"
    elif kind == "cuda" and events[-1]["launches"] < events[-1]["finished"]:
        failures["(the run)"] = "kernels were not launched"
    return failures


def load_plan_check(folder: Path, edits: Iterable[Edit] = ()) -> ctypes.CDLL:
    copy_sources(folder, edits)
    sources = [folder / "plan_check.cpp", folder / "branch_plan_check.cpp"]
    library = compile_shared(sources, folder / "plan_check.so", "-O2", f"-I{folder / 'csrc'}")
    return ctypes.CDLL(str(library))


def build_launch_check(folder: Path, *flags: str, edits: Iterable[Edit] = ()) -> Path:
    """Builds launch_check.cpp as a program without PyTorch's libraries: it has stand-ins for the functions that it needs."""
    copy_sources(folder, edits)
    program = folder / "launch_check"
    source = str(folder / "launch_check.cpp")
    options = ("-std=c++17", "-fvisibility=hidden", *WARNINGS, "-D__CUDA_ARCH_LIST__=750,800,900", *torch_headers(folder), *flags)
    _run(["g++", *options, source, "-o", str(program)])
    return program


def build_without_kernels(folder: Path) -> Path:
    """Builds the CUDA operators of a build without CUDA kernels, as ``torch.ops.s2mlp_cuda_without_kernels``."""
    copy_sources(folder, [])
    sources = [folder / "csrc" / "registration.cpp", folder / "csrc" / "cuda" / "without_kernels.cpp"]
    flags = ("-DS2MLP_LIBRARY=s2mlp_cuda_without_kernels", *torch_headers(folder), *torch_libraries())
    return compile_shared(sources, folder / "without_kernels.so", *flags)
