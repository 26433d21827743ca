import importlib.util
import subprocess
import sys

import pytest
import torch

import s2mlp_cuda
from s2mlp_cuda import cli


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"s2mlp_cuda    {s2mlp_cuda.__version__}" in out
    assert f"PyTorch {torch.__version__}" in out
    assert ("GPU           none that PyTorch can see" in out) != torch.cuda.is_available()


def test_module_runs_the_command_line():
    result = subprocess.run([sys.executable, "-m", "s2mlp_cuda", "--version"], capture_output=True, text=True)
    assert result.stdout.strip() == s2mlp_cuda.__version__


def test_missing_extra_is_named(monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "s2mlp_cuda._extras.find_spec", lambda name: None if name in ("rich", "timm") else find_spec("torch")
    )
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == (
        "s2mlp: this needs rich, timm, which come with the optional dependencies 'demo': "
        "pip install 's2mlp_cuda[demo]'\n"
    )


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
