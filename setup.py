"""Builds s2mlp_cuda._C (kernels, LibTorch stable ABI) and s2mlp_cuda._build_info (pybind11).

Environment:
    S2MLP_CUDA            0: CPU-only build; 1: fail without a CUDA toolkit; default: build the CUDA kernels if nvcc is found.
    TORCH_CUDA_ARCH_LIST  GPU architectures, as for any PyTorch extension. Default: those of the GPUs of this machine, or
                          DEFAULT_CAPABILITIES if it has none. This includes wheels: set it to build a wheel for other machines.
    CUDA_HOME             the CUDA toolkit; default: the toolkit of the nvcc on PATH.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# In current setuptools, `setup.py develop` calls pip, which would build in an isolated environment without torch.
# pip inverts the meaning of this variable: "0" disables build isolation.
os.environ.setdefault("PIP_NO_BUILD_ISOLATION", "0")

try:
    import torch
except ModuleNotFoundError:
    sys.exit(
        "s2mlp_cuda is built against PyTorch, which is not installed in this environment: run "
        "`pip install 'torch>=2.11' 'setuptools>=77,<82' ninja pybind11`, then "
        "`pip install --no-build-isolation -e .`"
    )

import torch.utils.cpp_extension as cpp_extension
from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

ROOT = Path(__file__).parent
# The oldest PyTorch that the binary runs on (2.11). Newer versions keep this interface.
TORCH_TARGET_VERSION = "0x020b000000000000"
# Compute capabilities of T4, A100, H100, B200 and RTX 5090. Code also runs on later minor versions: code for 8.0 on 8.6 and 8.9.
# PTX of the last one covers newer GPUs.
DEFAULT_CAPABILITIES = {(7, 5), (8, 0), (9, 0), (10, 0), (12, 0)}


def find_cuda_home() -> Path | None:
    """The CUDA toolkit directory, or None. nvcc on PATH may be a wrapper script, so the path comes from `nvcc --dryrun`."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    dryrun = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
    top = re.search(r"^#\$ TOP=(.+)$", dryrun.stderr, re.MULTILINE)
    return Path(top.group(1)).resolve() if top else Path(nvcc).resolve().parent.parent


def cuda_toolkit() -> Path | None:
    """The toolkit to build with, or None for a CPU-only build. Exits if S2MLP_CUDA=1 and there is no toolkit."""
    switch = os.environ.get("S2MLP_CUDA", "")
    if switch not in ("", "0", "1"):
        sys.exit(f"S2MLP_CUDA must be 0 (no CUDA kernels) or 1 (CUDA kernels), got {switch!r}")
    home = None if switch == "0" else find_cuda_home()
    if home is not None and not (home / "bin" / "nvcc").exists():
        sys.exit(f"no nvcc in {home / 'bin'}: point CUDA_HOME at a CUDA toolkit, or set S2MLP_CUDA=0 to build without it")
    if switch == "1" and home is None:
        sys.exit("S2MLP_CUDA=1, but no CUDA toolkit was found: put nvcc on PATH or set CUDA_HOME")
    return home


def toolkit_version(home: Path) -> str:
    banner = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release (\d+\.\d+)", banner).group(1)


def toolkit_capabilities(home: Path) -> set[tuple[int, int]]:
    """Capabilities that the toolkit compiles for. The newest toolkits support none below 7.5, those before 12.8 none above 9.0."""
    listed = subprocess.run([home / "bin" / "nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    return {(int(major), int(minor)) for major, minor in re.findall(r"^compute_(\d+)(\d)$", listed, re.MULTILINE)}


def visible_capabilities() -> set[tuple[int, int]]:
    """Capabilities of this machine's GPUs: as seen by PyTorch or, for a CPU build of PyTorch, as listed by nvidia-smi."""
    if torch.version.cuda is not None:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return {torch.cuda.get_device_capability(gpu) for gpu in range(count)}
    if shutil.which("nvidia-smi") is None:
        return set()
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return {(int(major), int(minor)) for major, minor in re.findall(r"^(\d+)\.(\d)$", listed, re.MULTILINE)}


def default_arch_list(known: set[tuple[int, int]], visible: set[tuple[int, int]]) -> str:
    """Architectures of the visible GPUs or, without any, the default ones that the toolkit supports.

    A GPU newer than the toolkit gets PTX of the newest architecture that the toolkit supports. A GPU older than all of these gets
    no code.
    """
    chosen = {max(older) for gpu in visible if (older := {capability for capability in known if capability <= gpu})}
    return ";".join(f"{major}.{minor}" for major, minor in sorted(chosen or known & DEFAULT_CAPABILITIES)) + "+PTX"


def files(pattern: str) -> list[str]:
    """Matching files relative to this directory, sorted so that builds are reproducible."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


def extensions() -> list:
    home = cuda_toolkit()
    # -Wno-psabi: vectors are only passed to inlined functions, so their calling convention does not matter.
    cxx_flags = ["-O3", "-fno-signed-zeros", "-g0", "-Wall", "-Wno-psabi", "-fvisibility=hidden"]
    cxx_flags.append(f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}")
    nvcc_flags = ["-O3", "-DUSE_CUDA", "-Xcompiler=-fvisibility=hidden", "--threads=2"]
    nvcc_flags.append(f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}")
    sources = ["csrc/registration.cpp", *files("csrc/cpu/*.cpp")]
    libraries, include_dirs, library_dirs, cuda_version = [], [], [], ""
    if home is not None:
        cuda_version = toolkit_version(home)
        # A quarter smaller, but requires a driver of CUDA 12.4 or newer. Toolkits from 13.0 on require a newer driver anyway.
        small = int(cuda_version.partition(".")[0]) >= 13
        nvcc_flags.append("--compress-mode=size" if small else "-Xfatbin=-compress-all")
        if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            os.environ["TORCH_CUDA_ARCH_LIST"] = default_arch_list(toolkit_capabilities(home), visible_capabilities())
        # CPU builds of torch set this to None, although compilation only needs the toolkit.
        cpp_extension.CUDA_HOME = str(home)
        # torch requires its own CUDA major version. This binary links the CUDA runtime statically and uses torch
        # only through the stable ABI, so any toolkit that the driver supports works.
        cpp_extension._check_cuda_version = lambda *_: None
        sources += files("csrc/cuda/*.cu")
        include_dirs.append(str(home / "include"))
        library_dirs += [str(home / folder) for folder in ("lib64", "lib") if (home / folder).is_dir()]
        libraries += ["cudart_static", "dl", "rt", "pthread"]
    else:
        sources.append("csrc/cuda/without_kernels.cpp")
    kernels = cpp_extension.CppExtension(
        "s2mlp_cuda._C",
        sources,
        depends=files("csrc/**/*.h"),
        include_dirs=include_dirs,
        library_dirs=library_dirs,
        libraries=libraries,
        extra_compile_args={"cxx": cxx_flags, "nvcc": nvcc_flags},
        # The binary must keep its dependency on torch's libraries, including those from which it uses no symbols.
        extra_link_args=["-s", "-Wl,--no-as-needed", "-lc10", "-ltorch", "-ltorch_cpu", "-Wl,--as-needed"],
        py_limited_api=True,
    )
    build_info_macros = {
        "S2MLP_TORCH_VERSION": torch.__version__,
        "S2MLP_TORCH_TARGET": "2.11",
        "S2MLP_CUDA_VERSION": cuda_version,
        "S2MLP_CUDA_ARCH_LIST": os.environ["TORCH_CUDA_ARCH_LIST"] if home is not None else "",
        "S2MLP_CXX_FLAGS": " ".join(cxx_flags),
        "S2MLP_NVCC_FLAGS": " ".join(nvcc_flags) if home is not None else "",
    }
    build_info = Pybind11Extension(
        "s2mlp_cuda._build_info",
        ["csrc/build_info.cpp"],
        define_macros=[(name, json.dumps(value)) for name, value in build_info_macros.items()]
        + [("S2MLP_WITH_CUDA", str(int(home is not None)))],
        extra_link_args=["-s"],
        cxx_std=17,
    )
    build_info.py_limited_api = False
    return [kernels, build_info]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": cpp_extension.BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
