"""Benchmark settings, which give all implementations the same conditions."""

import os

import pytest
import torch

from s2mlp_cuda.bench.settings import limit_libraries


@pytest.mark.parametrize("capability, expected", [("AVX2", "AVX2"), ("AVX512", None)])
def test_libraries_use_no_wider_instructions_than_pytorch(capability, expected, monkeypatch):
    """Otherwise F.gelu and convolutions would use AVX-512 in a run with ATEN_CPU_CAPABILITY=avx2."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    limit_libraries()
    assert [os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")] == [expected] * 2
