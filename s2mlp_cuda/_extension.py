"""Loads the compiled kernels. If that fails, the error says what to do."""

import importlib

import torch

OLDEST_TORCH = (2, 11)
_BUILD = "`pip install --no-build-isolation -e .` (or `python setup.py build_ext --inplace`) in the s2mlp_cuda source folder"


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def load() -> None:
    """Import the binary, which registers the operators under ``torch.ops.s2mlp_cuda``.

    Raises:
        ImportError: torch is older than 2.11, or the binary is missing, or it cannot be loaded. The message says
            which of the three, and what to run.
    """
    if _torch_version() < OLDEST_TORCH:
        raise ImportError(
            f"s2mlp_cuda needs PyTorch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer, but this environment has "
            f"{torch.__version__}. Upgrade it with `pip install 'torch>={OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}'`."
        )
    try:
        importlib.import_module("s2mlp_cuda._C")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The compiled extension s2mlp_cuda._C is missing: it has not been built for this environment. Run {_BUILD}."
        ) from error
    except (ImportError, OSError) as error:
        raise ImportError(
            f"The compiled extension s2mlp_cuda._C exists, but PyTorch {torch.__version__} cannot load it: {error}. "
            f"It was probably built for another system, or is damaged. To rebuild it, delete the `build` folder and "
            f"s2mlp_cuda/_C*.so, then run {_BUILD}."
        ) from error


def cpu_capability() -> str:
    """The instruction set that the CPU kernels use: ``"DEFAULT"``, ``"AVX2"`` or ``"AVX512"``.

    The widest that the processor supports. The environment variable ``ATEN_CPU_CAPABILITY`` can select a narrower one, as for
    PyTorch's own kernels (:func:`torch.backends.cpu.get_cpu_capability`). Fixed when the first kernel runs.
    """
    return importlib.import_module("s2mlp_cuda._C").cpu_capability()


def build_info() -> dict[str, str | None]:
    """How the binary was built. ``cuda`` and ``cuda_architectures`` are None without CUDA kernels.

    Raises:
        ImportError: that is not known, e.g. under a different Python version.
    """
    info = importlib.import_module("s2mlp_cuda._build_info")
    return {
        "torch": info.torch_version,
        "oldest_torch": info.torch_target_version,
        "compiler": info.compiler,
        "pybind11": info.pybind11_version,
        "cuda": info.cuda_version if info.with_cuda else None,
        "cuda_architectures": info.cuda_arch_list if info.with_cuda else None,
    }


def build_facts() -> dict[str, str]:
    """:func:`build_info` as label: text, or why that is not known."""
    try:
        info = build_info()
    except ImportError as error:
        return {"build": f"not known ({error})"}
    cuda = f"toolkit {info['cuda']}, architectures {info['cuda_architectures']}"
    return {
        "built with": f"PyTorch {info['torch']}, {info['compiler']}, pybind11 {info['pybind11']}",
        "compatible with": f"PyTorch {info['oldest_torch']} and newer (stable ABI)",
        "CUDA kernels": cuda if info["cuda"] else "not compiled in",
    }
