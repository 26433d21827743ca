"""Result files can be read by this package and by pytest-benchmark."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2mlp_cuda.bench import settings
from s2mlp_cuda.bench.measurement import COPY, Breakdown, Case, Measurement, Run, copies, load

CASE = Case("operator", "spatial_shift", "forward", (2, 6, 7, 16), "channels_last", "float32", "cpu", 2)


@pytest.fixture
def run():
    return Run(
        [
            Measurement(CASE, COPY, (1e-3, 2e-3, 3e-3), peak_bytes=64, floor_bytes=128),
            Measurement(CASE, "s2mlp_cuda.spatial_shift", (3e-3, 4e-3, 5.00001e-3), True, 64, 128),
            Measurement(CASE, "broken", (), failure="RuntimeError: no"),
        ],
        [Breakdown(CASE, "a variant", {"matrix products": 0.5})],
    )


def test_saved_runs_can_be_loaded(run, tmp_path):
    run.save(tmp_path / "a.json")
    found = load(tmp_path / "a.json")
    assert found.measurements[0] == run.measurements[0] and found.measurements[2] == run.measurements[2]
    assert found.measurements[1].seconds == (3e-3, 4e-3, 5e-3)  # rounded to five digits
    assert (found.breakdowns, found.machine["name"], found.commit, found.date) == (
        run.breakdowns, run.machine["name"], run.commit, run.date,
    )  # fmt: skip
    assert found.machine["node"] == ""


def test_pytest_benchmark_reads_it(run, tmp_path):
    run.save(tmp_path / "a.json")
    command = [Path(sys.executable).with_name("pytest-benchmark"), "compare", tmp_path / "a.json", "--columns=median"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "s2mlp_cuda.spatial_shift" in result.stdout and "4.0000" in result.stdout


def test_a_single_sample_is_saved_and_loaded(run, tmp_path):
    run.measurements = [Measurement(CASE, "slow", (0.5,), True)]
    run.save(tmp_path / "a.json")
    assert load(tmp_path / "a.json").measurements == run.measurements
    assert run.measurements[0].quartiles == (0.5, 0.5)
    command = [Path(sys.executable).with_name("pytest-benchmark"), "compare", tmp_path / "a.json", "--columns=median,iqr"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "slow" in result.stdout, result.stderr


def test_other_files_are_rejected(tmp_path):
    (tmp_path / "a.json").write_text('{"benchmarks": [{"name": "of another suite"}]}')
    with pytest.raises(ValueError, match="is not a result of `s2mlp bench`: KeyError"):
        load(tmp_path / "a.json")


def test_times_in_copies(run):
    copy, ours, broken = run.measurements
    assert copies(ours, run.measurements) == 2
    assert copies(broken, run.measurements) != copies(broken, run.measurements)  # not a number
    assert copies(ours, [ours]) != copies(ours, [ours])
    assert copy.quartiles == (1e-3, 3e-3)


def test_compiler_settings(monkeypatch):
    """Threads and vector width are those of the run, which are not part of the compiler's cache key by default. The recompile limit
    allows more shapes than the default, and exceeding it is an error."""
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    limits = {"recompile_limit": 1, "fail_on_recompile_limit_hit": False}
    with inductor.patch({"cpp.threads": -1, "cpp.simdlen": None}), dynamo.patch(limits):
        settings.set_up_compiler()
        assert inductor.cpp.threads == torch.get_num_threads()
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        settings.set_up_compiler()
        assert inductor.cpp.simdlen == 256
        double = torch.compile(lambda x: 2 * x, backend=backend, dynamic=False)
        for size in range(2, 22):
            double(torch.ones(size))
        assert len(compiled) == 20
        dynamo.recompile_limit = 20
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            double(torch.ones(22))
