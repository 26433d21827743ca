"""The README's Python runs as printed."""

import json
import re
from pathlib import Path

import torch

import s2mlp_cuda

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(blocks) == 6
    names = {"torch": torch, "s2mlp_cuda": s2mlp_cuda, "c": 384}
    for block in blocks:
        if block.startswith("x[:, 1:"):  # the papers' line, on a map that does not need a gradient
            names["x"] = names["x"].detach()
        exec(block, names)
    maps = torch.randn(2, 6, 7, 16)
    assert torch.equal(names["spatial_shift1"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS1))
    assert torch.equal(names["spatial_shift2"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS2))


def test_links_lead_somewhere():
    headings = {"#" + line.lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert target in headings or (ROOT / target).exists(), target


def test_tables_are_those_of_the_result_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import cpu
    import training_steps

    results = ROOT / "benchmarks" / "results"
    steps = json.loads((results / "training-steps-torch2.11.0.json").read_text())
    lines = training_steps.table(steps["steps"])
    assert steps["machine"] in README
    for name in ("gelu_spatial_shift", "shift_split_attention"):
        operator = json.loads((results / f"{name}-cpu-torch2.11.0.json").read_text())
        lines += cpu.summary(operator["operators"], name)
        assert operator["machine"] == steps["machine"]
    assert len(lines) > 20 and "wrong" not in "".join(lines)
    for line in lines:
        assert line in README, line
