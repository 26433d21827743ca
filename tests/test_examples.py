"""Every example runs as a script in an empty folder, and the guides include code that exists."""

import importlib
import json
import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path

import pytest
import torch

from s2mlp_cuda.training.config import parse

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.rglob("*.py") if "__main__" in path.read_text())
PAGES = sorted((ROOT / "docs" / "guides").rglob("*.md"))
TIMES = r"  forward \+ backward of [\dx]+: theirs [\d.]+ ms, ours [\d.]+ ms, ratio [\d.]+\n"
ROUNDED_VALUES = (
    r".+: values: (bitwise identical|equal up to rounding, .+); gradients: (bitwise identical|equal up to rounding, .+)"
)
#: Of ``count`` pairs of examples/migrate.
EQUAL = rf"^(.+: values: bitwise identical; gradients: bitwise identical\n{TIMES}){{{{{{count}}}}}}"
ROUNDED = rf"^({ROUNDED_VALUES}\n{TIMES}){{{{{{count}}}}}}"
WRONG = rf"^(.+: [345]\d% of their values are wrong; gradients: bitwise identical\n{TIMES}){{{{{{count}}}}}}"
#: A part of the output of each example.
EXPECTED = {
    "drop_in_layer": r"gradient: +\[2\.0, 1\.0, 1\.0, 1\.0, 0\.0\]",
    "export_aot_inductor": r"calls this package's kernels: s2mlp_cuda\.shift_branch_combine.*\n(.*differs by at most .*\n){3}",
    "export_onnx": r"23 kinds of ONNX's standard operators, 0 others\n(.*differs from PyTorch by at most .*\n){3}",
    "feature_pyramid": r"100x75: feature maps of 15x11, 8x6 tokens; logits \(2, 5, 100, 75\)",
    "fine_tune": r"not loaded, as the classes differ: head\.bias, head\.weight[\s\S]+tells even from odd in [6-9]\d% ",
    "migrate/as_mlp": EQUAL.format(count=2),
    "migrate/cycle_mlp": ROUNDED.format(count=2),
    "migrate/external_attention": WRONG.format(count=2) + r"S2Attention: 6 weights converted, 0 missing\n"
    rf"{ROUNDED_VALUES}\nS2Attention: 6 renamed, 0 missing, 0 unexpected\n(  .+\n)+The network .+{ROUNDED_VALUES}",
    "migrate/hire_mlp": EQUAL.format(count=2) + r"Moved by 2 and by -2, the map is what it was",
    "migrate/jittor_mlp": WRONG.format(count=1) + rf"(.+: \d+ weights converted to S2MLP(v2)?\n{ROUNDED_VALUES}\n){{2}}",
    "migrate/ms_mlp": EQUAL.format(count=2),
    "migrate/shift_vit": EQUAL.format(count=1),
    "migrate/tsm": EQUAL.format(count=1),
    "migrate/unext": EQUAL.format(count=2),
    "migrate/vision_mlp": WRONG.format(count=1) + r"What its indices say and what is meant agree in 1\d% of the values",
    "models": r"s2mlpv2_small_7: 24,732,298 parameters[\s\S]+timm: S2MLPv2, 24,732,298 parameters\n.+outputs equal: True",
    "own_offsets_and_fusion": r"gated fusion: \d+ parameters, [6-9]\d% of held-out digits",
    "read_explain": r"shifted_groups\.png\n[\s\S]+(block \d: \d+% of pixels; SS1, SS2, no shift: .+\n){3}",
    "train_one_cpu": r"resumed after epoch 5[\s\S]+360 images[\s\S]+7/\d+\.png\n",
}


def name_of(script: Path) -> str:
    return script.relative_to(EXAMPLES).with_suffix("").as_posix()


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_example(script, tmp_path, monkeypatch, capsys, one_thread):
    """In this process, since starting Python and PyTorch takes longer than most examples. An error or an exit status fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.syspath_prepend(str(script.parent))  # as Python does for a script
    torch.manual_seed(1)  # the examples set the seed that they depend on
    # AOTInductor: compile the C++ wrapper faster.
    with warnings.catch_warnings(), torch._inductor.config.patch({"aot_inductor.compile_wrapper_opt_level": "O0"}):
        warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    output = capsys.readouterr().out
    assert re.search(EXPECTED[name_of(script)], output), output


def test_all_examples_have_an_expected_output():
    assert EXPECTED.keys() == {name_of(script) for script in SCRIPTS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_guides_include_code_that_exists(page):
    """Snippets of pymdownx name a file, relative to the root, and a section in it; links name a page."""
    text = page.read_text()
    for name, section in re.findall(r'^ *--8<-- "([^":]+)(?::(\w+))?"$', text, re.MULTILINE):
        code = (ROOT / name).read_text()
        assert not section or all(code.count(f"# --8<-- [{edge}:{section}]") == 1 for edge in ("start", "end")), (name, section)
    assert len(re.findall(r"^ *--8<--", text, re.MULTILINE)) == len(re.findall(r'^ *--8<-- "[^"]+"$', text, re.MULTILINE))
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).is_file(), target


def test_measured_speeds_are_those_of_the_result_file(monkeypatch):
    """The committed table, its networks, and that all shifts of other networks are checked by a script."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    migration = importlib.import_module("migration")
    result = json.loads((ROOT / "benchmarks" / "results" / "migration-torch2.11.0.json").read_text())
    assert re.fullmatch("[0-9a-f]{40}", result["commit"]) and result["machine"]
    assert migration.PAGE.read_text() == migration.page(result)
    assert {f"migrate/{row['script']}" for row in result["rows"]} == {name for name in EXPECTED if name.startswith("migrate/")}


def test_training_commands_of_guides_parse():
    text = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")
    commands = re.findall(r"^ *(?:s2mlp|torchrun .* -m s2mlp_cuda) train (.+)$", text, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        parse(shlex.split(command, comments=True))


def test_every_example_is_in_a_guide():
    included = "\n".join(page.read_text() for page in PAGES)
    assert all(f"examples/{name_of(script)}.py" in included for script in SCRIPTS)
