"""The jobs of quick and full runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2mlp_cuda import list_models
from s2mlp_cuda.bench import suite
from s2mlp_cuda.bench.models import ModelJob
from s2mlp_cuda.bench.operators import OPERATORS, OperatorJob

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_full_run_covers_everything(kind):
    jobs = suite.jobs(True, torch.device(kind))
    operators = [job for job in jobs if isinstance(job, OperatorJob) and job.level == "operator"]
    assert {job.operator for job in operators} == {*OPERATORS, *suite.GROUP_SHAPES}
    for operator in suite.GROUP_SHAPES:
        assert len({(job.data_format, job.dtype) for job in operators if job.operator is operator}) == 4
    shifts = [job for job in operators if job.operator is suite.SPATIAL_SHIFT]
    assert {(job.data_format, job.dtype) for job in shifts} == {
        (data_format, dtype) for data_format in ("channels_last", "channels_first") for dtype in (torch.float32, torch.bfloat16)
    }
    assert {tuple(job.shape) for job in shifts} >= set(suite.SHAPES[kind])
    assert any(name.startswith("torch.compile") for job in shifts for name in job.implementations())
    assert {job.name for job in jobs if isinstance(job, ModelJob)} >= {*suite.MODELS, *suite.TIMM_MODELS}
    assert set(suite.MODELS) <= set(list_models())
    sizes = [4 * torch.Size(job.shape).numel() for job in jobs if isinstance(job, OperatorJob) and job.level == "scale"]
    assert min(sizes) == 2**10 and max(sizes) == 2**30


def test_quick_run_has_all_operators():
    jobs = suite.jobs(False, torch.device("cpu"))
    operators = [job for job in jobs if isinstance(job, OperatorJob)]
    assert {(job.operator, job.dtype) for job in operators} == {
        (operator, dtype) for operator in OPERATORS for dtype in (torch.float32, torch.bfloat16)
    }
    assert len(jobs) <= 20 and not any(suite.SLOW in job.implementations() for job in operators)
    compiled = [name for job in operators for name in job.implementations() if name.startswith("torch.compile")]
    assert len(compiled) == len(set(compiled)) == 6  # two per operator, without repetition, since they take most of the time


def test_names_are_those_of_implementations():
    """The suite would silently skip an unknown name."""
    known = set(suite.baselines.shift_implementations("channels_last"))
    assert suite.LOW_MEMORY_NAMES < suite.SCALE_NAMES < known and suite.SLOW in known
    assert suite.HIGH_MEMORY in suite.baselines.split_attention_implementations("channels_last")


def test_only_and_skip():
    assert [str(job) for job in suite.jobs(False, torch.device("cpu"), ("gelu",))] == [
        "gelu_spatial_shift 32x14x14x384 channels_last float32",
        "gelu_spatial_shift 32x14x14x384 channels_last bfloat16",
    ]
    assert suite.jobs(False, torch.device("cpu"), ("nothing of this name",)) == []
    left = suite.jobs(False, torch.device("cpu"), ("float32",), ("spatial_shift", "s2mlp"))
    assert {str(job).split()[0] for job in left} == {"shift_split_attention", *suite.QUICK_TIMM_MODELS}


def test_pytest_benchmark_runs_it(tmp_path):
    """One case of the suite as tests of pytest-benchmark: it reports the samples of the interleaved rounds."""
    command = [
        sys.executable, "-m", "pytest", "benchmarks", "-k", "1x2x2x64", "-p", "no:cacheprovider",
        f"--benchmark-json={tmp_path / 'a.json'}",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if "XDIST" not in name}  # xdist would disable timing
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "10 passed" in result.stdout and "s2mlp_cuda.spatial_shift" in result.stdout
    assert (tmp_path / "a.json").read_text().count('"right": true') == 8
