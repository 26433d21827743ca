"""The GPU benchmark, dry: that it runs and reports, never how fast anything is."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_gpu_benchmark_smoke():
    before = sorted((ROOT / "benchmarks" / "results").iterdir())
    result = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--smoke"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "| float32 | channels_last | 2x6x7x16 |" in result.stdout and " wrong" not in result.stdout
    for op in ("spatial_shift", "gelu_spatial_shift", "shift_split_attention"):
        assert f"## {op}, forward + backward" in result.stdout
    assert "| s2mlpv2_small_7 | compiled | fused |" in result.stdout
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == before
