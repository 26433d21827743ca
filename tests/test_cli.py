import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import s2mlp_cuda
from s2mlp_cuda import _system, cli
from s2mlp_cuda._terminal import suggest


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"s2mlp_cuda       {s2mlp_cuda.__version__}" in out
    assert f"PyTorch {torch.__version__}" in out
    assert ("GPU              none that PyTorch can see" in out) != torch.cuda.is_available()


def test_info_as_json(capsys):
    """One object with the documented fields, and nothing else."""
    assert cli.main(["info", "--json"]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    facts = json.loads(found.out)
    assert list(facts) == ["s2mlp_cuda", "torch", "python", "build", "cpu", "gpus"]
    assert facts["s2mlp_cuda"] == s2mlp_cuda.__version__ and facts["torch"] == torch.__version__
    assert set(facts["build"]) == {"torch", "oldest_torch", "compiler", "pybind11", "cuda", "cuda_architectures"}
    assert facts["build"]["oldest_torch"] == "2.11"
    assert set(facts["cpu"]) == {"name", "threads", "capability", "torch_capability"}
    assert facts["cpu"]["threads"] == torch.get_num_threads()
    assert len(facts["gpus"]) == torch.cuda.device_count()
    for name in (name for part in (facts, facts["build"], facts["cpu"]) for name in part):
        assert re.search(rf"^ +(\w+, )*{name}\b", cli.INFO_EXAMPLES, re.MULTILINE), name


def test_info_as_json_with_a_gpu(monkeypatch, capsys):
    gpu = types.SimpleNamespace(name="G", major=9, minor=0, total_memory=2**33, multi_processor_count=7)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    cli.main(["info", "--json"])
    (found,) = json.loads(capsys.readouterr().out)["gpus"]
    assert found == {"name": "G", "capability": "9.0", "memory_bytes": 2**33, "multiprocessors": 7}
    cli.main(["info"])
    assert "\ncuda:0           G, sm_90, 8 GiB, 7 SMs\n" in capsys.readouterr().out


def test_info_as_json_without_the_build(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "s2mlp_cuda._build_info", None)
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["build"] is None


def commands() -> dict[str, argparse.ArgumentParser]:
    (group,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return group.choices


@pytest.mark.parametrize("name", commands())
def test_help_of_commands(name):
    """A sentence, a default for each option that can be left out, and examples that the parser accepts."""
    command = commands()[name]
    assert re.fullmatch(r"[A-Z].{10,90}\.", command.description)
    for action in command._actions:
        if action.option_strings and not action.required and (action.nargs != 0 or "--no-" in str(action.option_strings)):
            if "--compare" not in action.option_strings:
                assert re.search(r"\b(default:|required)", action.help), action.option_strings
    examples = re.findall(r"^  (?:s2mlp|torchrun .* s2mlp_cuda) (.+)$", command.epilog, re.MULTILINE)
    assert examples
    for example in examples:
        assert cli.parser().parse_args(shlex.split(example)).run.__name__.startswith(name), example


def test_defaults_in_help_are_the_defaults():
    """Those that are written as a number."""
    for name, command in commands().items():
        for action in command._actions:
            stated = re.search(r"default: (-?[\d.e-]+)(?:$|[;,])", action.help or "")
            if stated:
                assert float(stated[1]) == action.default, (name, action.dest)


def test_suggestions_go_to_the_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["s2mlp"])
    suggest("predict", "IMAGE", "--weights", Path("my run/\x1b.safetensors"))
    assert capsys.readouterr() == ("", "next: s2mlp predict IMAGE --weights 'my run/\\x1b.safetensors'\n")


@pytest.mark.parametrize(
    "start, on_path, expected",
    [
        ("bin/s2mlp", True, "s2mlp"),
        ("bin/s2mlp", False, "{0}/bin/s2mlp"),
        ("package/__main__.py", True, "python -m s2mlp_cuda"),
        ("package/__main__.py", False, "{0}/bin/python -m s2mlp_cuda"),
        ("mine.py", True, "python {0}/mine.py"),
    ],
)
def test_suggestions_start_the_program_as_this_one_was(tmp_path, monkeypatch, capsys, start, on_path, expected):
    (tmp_path / "bin").mkdir()
    for name in ("python", "s2mlp"):
        (tmp_path / "bin" / name).touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / start)])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin") if on_path else "")
    suggest("info")
    assert capsys.readouterr().err == f"next: {expected.format(tmp_path)} info\n"


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


def test_no_command_prints_the_help(capsys):
    assert status_of([]) == 0
    shown = capsys.readouterr()
    usage, _, rest = shown.out.partition("\n\n")  # the usage names this program, and may take several lines
    assert usage.startswith("usage: ") and rest == cli.parser().format_help().partition("\n\n")[2]
    assert not shown.err


def test_unknown_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["demonstrate"])
    assert "invalid choice: 'demonstrate'" in capsys.readouterr().err


def status_of(argv: list[str]) -> int:
    try:
        return cli.main(argv)
    except SystemExit as error:  # of argparse and rich
        return error.code


@pytest.mark.parametrize("argv", [["info"], ["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_output_to_a_closed_pipe_ends_quietly(monkeypatch, capsys, argv):
    """As of ``s2mlp ... | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert status_of(argv) == 1
        pipe.flush()  # as the interpreter does when it exits
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_interpreter_exits_quietly_after_a_closed_pipe(options):
    command = [sys.executable, *options, "-m", "s2mlp_cuda", "info"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (1, "")


def test_broken_pipe_elsewhere_is_not_hidden(monkeypatch, capfd):
    def fail():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli, "info_lines", fail)
    with pytest.raises(BrokenPipeError):
        cli.main(["info"])


def test_output_to_a_full_disk_is_reported(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert [status_of(argv) for argv in (["info"], ["--help"])] == [1, 0]  # the rest is discarded
        monkeypatch.undo()
    assert capsys.readouterr().err == "s2mlp: standard output: No space left on device\n"


def test_closed_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["info"]) == 0


@pytest.mark.parametrize("file", ["out[/old]/bench.json", None])
def test_full_disk_of_any_command_is_reported(monkeypatch, capsys, file):
    def fail():
        raise OSError(28, "No space left on device", file)

    monkeypatch.setattr(cli, "info_lines", fail)
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err == (f"s2mlp: {file}: No space left on device\n" if file else "s2mlp: No space left on device\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_bench_without_a_gpu(capsys):
    assert cli.main(["bench", "--device", "cuda"]) == 1
    assert capsys.readouterr().err == "s2mlp: --device cuda: PyTorch finds no GPU on this machine\n"
