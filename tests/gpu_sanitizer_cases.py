"""Runs a small subset of the emulated cases on the GPU, for compute-sanitizer: all kernels, with one padding mode.

PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python tests/gpu_sanitizer_cases.py [NAME]

If NAME is given, only cases whose names contain it.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "cuda_on_cpu"))

import s2mlp_cuda  # noqa: F401  (registers the operators)

from cases import every_case
from oracle import failure_of

only = "".join(sys.argv[1:])
cases = [case for case in every_case() if case.mode == "replicate" and case.table != "far" and only in case.name]
cases = [
    case for case in cases if "far apart" not in case.name
]  # those take tens of GB of a GPU, whose memory is not lazily committed
failures = {case.name: failure for case in cases if (failure := failure_of(case, torch.ops.s2mlp_cuda, "cuda"))}
for name, failure in failures.items():
    print(f"{name}: {failure}")
print(f"{len(cases) - len(failures)} of {len(cases)} cases correct")
sys.exit(1 if failures else 0)
