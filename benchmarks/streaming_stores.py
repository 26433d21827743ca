"""Compares streaming and cached stores, for the shift alone and followed by an op that reads its output (csrc/cpu/cache.h).

    python benchmarks/streaming_stores.py

Builds the shift's kernels twice, which takes one to two minutes, and writes results/streaming-stores-torch<version>.json.
"""

import shutil
import tempfile
from collections import deque
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.utils.cpp_extension import load

from s2mlp_cuda._system import keep_freed_memory
from s2mlp_cuda.bench.operators import ROTATE_BYTES
from s2mlp_cuda.bench.stopwatch import interleave, rotate
from s2mlp_cuda.offsets import V1

from results import write_result

CSRC = Path(__file__).parent.parent / "csrc"
FLAGS = ["-O3", "-fno-signed-zeros", "-g0", "-Wno-psabi", "-fvisibility=hidden", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
#: The return value of `streaming_bytes`: larger outputs use streaming stores.
THRESHOLDS = {"cached": "std::numeric_limits<int64_t>::max()", "streaming": "cache * 0"}
OFFSETS = [n for pair in V1 for n in pair]
CHANNELS = (384, 768, 1152, 1536, 2304, 3072)
ROUNDS = 15


def build(name: str, threshold: str, folder: Path) -> str:
    """Builds the shift's kernels with one kind of stores for all map sizes; returns the namespace of their operators."""
    csrc, library = folder / name / "csrc", f"s2mlp_{name}"
    shutil.copytree(CSRC, csrc)
    cache, original = csrc / "cpu" / "cache.h", "return cache > 0 ? cache / 2 : std::numeric_limits<int64_t>::max();"
    text = cache.read_text()
    assert text.count(original) == 1
    cache.write_text(text.replace(original, f"return {threshold};"))
    load(
        library,
        [str(csrc / "registration.cpp"), str(csrc / "cpu" / "spatial_shift.cpp")],
        extra_cflags=[*FLAGS, f"-DS2MLP_LIBRARY={library}"],
        build_directory=str(folder / name),
        is_python_module=False,
    )
    return library


def shift(library: str, x: torch.Tensor) -> torch.Tensor:
    return getattr(torch.ops, library).spatial_shift(x, OFFSETS, None, "replicate", "channels_last")


def measure(libraries: dict[str, str], channels: int, dtype: torch.dtype) -> dict:
    """Times both kinds of stores on maps of 32x14x14 tokens that are not in cache."""
    x = torch.empty(32, 14, 14, channels, dtype=dtype).normal_()
    maps = [x.clone() for _ in range(max(2, -(-ROTATE_BYTES["cpu"] // x.nbytes)))]
    results: deque = deque(maxlen=len(maps) - 1)

    shifts = {name: partial(shift, library) for name, library in libraries.items()}
    assert torch.equal(shifts["cached"](x), shifts["streaming"](x))
    workloads = {}
    for name, function in shifts.items():
        workloads[name, "alone"] = rotate(function, maps, results)
        workloads[name, "and relu"] = rotate(lambda x, function=function: torch.relu(function(x)), maps, results)
    samples = {key: median(values) for key, values in interleave(workloads, ROUNDS, x.device).items()}
    return {
        "map": f"32x14x14x{channels} {str(dtype)[6:]}",
        "megabytes": round(x.nbytes / 1e6, 1),
        "milliseconds": {" ".join(key): round(seconds * 1e3, 4) for key, seconds in samples.items()},
        "streaming / cached": {
            workload: round(samples["streaming", workload] / samples["cached", workload], 3) for workload in ("alone", "and relu")
        },
    }


def main() -> None:
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        libraries = {name: build(name, threshold, Path(folder)) for name, threshold in THRESHOLDS.items()}
    maps = [measure(libraries, channels, dtype) for dtype in (torch.float32, torch.bfloat16) for channels in CHANNELS]
    write_result("streaming-stores", {"what": f"medians of {ROUNDS} interleaved rounds", "maps": maps})


if __name__ == "__main__":
    main()
