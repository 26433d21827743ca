"""The ``s2mlp bench`` command, on a suite with one tiny case."""

import re

import pytest
import torch

from s2mlp_cuda import cli
from s2mlp_cuda.bench import command, suite
from s2mlp_cuda.bench.baselines import IN_PLACE, OURS
from s2mlp_cuda.bench.measurement import load
from s2mlp_cuda.bench.operators import SPATIAL_SHIFT, OperatorJob


@pytest.fixture
def tiny(monkeypatch):
    names = frozenset({OURS, "slices + cat", IN_PLACE})
    job = OperatorJob(SPATIAL_SHIFT, (2, 6, 7, 16), "channels_last", torch.float32, torch.device("cpu"), 3, names)
    monkeypatch.setattr(suite, "jobs", lambda full, device, only, skip: [] if only else [job])
    monkeypatch.setattr(command, "keep_freed_memory", lambda: None)  # it would affect all later tests of this process


def test_bench_prints_saves_and_draws(tiny, tmp_path, capsys):
    assert cli.main(["bench", "--device", "cpu", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "spatial_shift, channels-last, forward + backward" in out
    assert f"{IN_PLACE} WRONG" in out and "slices + cat WRONG" not in out
    assert re.search("threads?, PyTorch", out) and "keeps the memory that it frees" in out
    assert "spatial_shift, float32, forward + backward: " in out and " than slices + cat (2x6x7x16 channels-last)" in out
    assert len(load(tmp_path / "bench.json").measurements) == 8
    assert f"| {IN_PLACE} **wrong** |" in (tmp_path / "bench.md").read_text()
    assert "- spatial_shift, float32, forward + backward: " in (tmp_path / "bench.md").read_text()
    assert (tmp_path / "bars-spatial_shift-channels_last-float32.svg").exists()


def test_names_are_printed_as_they_are(tiny, tmp_path, capsys, monkeypatch):
    out = tmp_path / "long" / ("x" * 140) / "x[/old][bold]:smile:"
    monkeypatch.setattr(OperatorJob, "implementations", lambda self: {f"{OURS}[/x]": lambda x: x * 1, OURS: lambda x: x * 1})
    assert cli.main(["bench", "--device", "cpu", "--out", str(out)]) == 1
    found = capsys.readouterr().out
    assert f"  {out}/bench.json\n" in found and f"{OURS}[/x]" in found
    assert cli.main(["bench", "--compare", str(out / "bench.json"), str(out / "bench.json")]) == 0
    assert cli.main(["bench", "--device", "cpu", "--only", "[/old]", "--out", str(out)]) == 2
    assert "no benchmark matches --only [/old] " in capsys.readouterr().err


def test_a_wrong_result_of_ours_is_an_error(tiny, tmp_path, capsys, monkeypatch):
    slices = SPATIAL_SHIFT.implementations("channels_last")["slices + cat"]
    monkeypatch.setattr(OperatorJob, "implementations", lambda self: {OURS: lambda x: x * 1, "slices + cat": slices})
    assert cli.main(["bench", "--device", "cpu", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"threads: {OURS}: wrong" in out.replace("\n", " ") and "Not right: spatial_shift 2x6x7x16" in out


def test_compare(tiny, tmp_path, capsys):
    cli.main(["bench", "--device", "cpu", "--out", str(tmp_path)])
    path = str(tmp_path / "bench.json")
    assert cli.main(["bench", "--compare", path, path]) == 0
    assert "the same" in capsys.readouterr().out


def test_error_messages(tiny, tmp_path, capsys):
    assert cli.main(["bench", "--device", "cpu", "--only", "nothing", "--out", str(tmp_path)]) == 2
    assert "no benchmark matches --only nothing --skip (none)" in capsys.readouterr().err
    (tmp_path / "a.json").write_text("{}")
    assert cli.main(["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "none.json")]) == 2
    assert "is not a result of `s2mlp bench`" in capsys.readouterr().err
