"""The README's Python runs as printed."""

import re
from pathlib import Path

import torch

import s2mlp_cuda
from s2mlp_cuda.bench import tables
from s2mlp_cuda.bench.measurement import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(blocks) == 8
    names = {"torch": torch, "s2mlp_cuda": s2mlp_cuda, "c": 384}
    for block in blocks:
        if block.startswith("x[:, 1:"):  # the papers' line, on a map that does not need a gradient
            names["x"] = names["x"].detach()
        exec(block, names)
    maps = torch.randn(2, 6, 7, 16)
    assert torch.equal(names["spatial_shift1"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS1))
    assert names["fine"].shape == (1, 192, 74, 55) and names["coarse"].shape == (1, 384, 37, 28)
    assert torch.equal(names["spatial_shift2"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS2))


def test_links_lead_somewhere():
    headings = {"#" + line.lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert target in headings or (ROOT / target).exists(), target


def test_tables_are_those_of_the_result_file():
    folder = ROOT / "benchmarks" / "results" / "cpu-xeon"
    run = load(folder / "bench.json")
    assert not run.commit["dirty"]
    assert (folder / "bench.md").read_text() == tables.document(run)
    assert run.machine["name"] in README and run.machine["torch"].partition("+")[0] in README
    shown = [s for s in tables.sections(run) if "forward + backward" in s.title or s.title == "model"]
    assert len(shown) == 5
    for section in shown:
        assert "\n".join(tables.markdown(section)) in README, section.title
        ours = [row for row, mark in zip(section.rows, section.marks) if "s2mlp_cuda" in "".join(row[:2])]
        assert ours and "**wrong**" not in str(ours)
