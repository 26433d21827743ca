"""The README's Python runs as printed."""

import re
from pathlib import Path

import torch

import s2mlp_cuda

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(blocks) == 5
    names = {"torch": torch, "s2mlp_cuda": s2mlp_cuda, "c": 384}
    for block in blocks:
        if block.startswith("x[:, 1:"):  # the papers' line, on a map that does not need a gradient
            names["x"] = names["x"].detach()
        exec(block, names)
    maps = torch.randn(2, 6, 7, 16)
    assert torch.equal(names["spatial_shift1"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS1))
    assert torch.equal(names["spatial_shift2"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS2))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
