import importlib.util
import subprocess
import sys

import pytest
import torch

import s2mlp_cuda
from s2mlp_cuda import _system, cli


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"s2mlp_cuda    {s2mlp_cuda.__version__}" in out
    assert f"PyTorch {torch.__version__}" in out
    assert ("GPU           none that PyTorch can see" in out) != torch.cuda.is_available()


@pytest.mark.parametrize(
    "ours, variable, expected",
    [
        ("AVX2", None, "AVX2"),
        ("AVX2", "avx2", "AVX2 (ATEN_CPU_CAPABILITY=avx2)"),
        ("AVX512", "avx2", "AVX512 (ATEN_CPU_CAPABILITY=avx2), PyTorch's own kernels AVX2"),
    ],
)
def test_info_names_the_instruction_set(ours, variable, expected, monkeypatch, capsys):
    monkeypatch.setattr(_system, "cpu_capability", lambda: ours)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", variable or "")
    cli.main(["info"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("CPU "))
    assert line.endswith(f"2 threads, {expected}")


def test_module_runs_the_command_line():
    result = subprocess.run([sys.executable, "-m", "s2mlp_cuda", "--version"], capture_output=True, text=True)
    assert result.stdout.strip() == s2mlp_cuda.__version__


def test_missing_extra_is_named(monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("s2mlp_cuda._extras.find_spec", lambda name: None if name in ("rich", "timm") else find_spec("torch"))
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "s2mlp: rich, timm are not installed: pip install 's2mlp_cuda[demo]'\n"


def test_import_needs_torch_alone():
    """No optional dependency is imported along with the package."""
    code = (
        "import sys, s2mlp_cuda, s2mlp_cuda.cli;"
        "print([m for m in ('rich', 'matplotlib', 'sklearn', 'timm', 'torchvision') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_unknown_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["demonstrate"])
    assert "invalid choice: 'demonstrate'" in capsys.readouterr().err
