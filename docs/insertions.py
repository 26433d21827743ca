"""What ``{{ name }}`` stands for in a page: text and tables that are computed, or come from committed result files."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

import s2mlp_cuda
from s2mlp_cuda import offsets
from s2mlp_cuda._arguments import PADDING_MODES

from receptive_field import DEPTHS, reach

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"

#: The accuracies that the papers report.
PAPER_TOP1 = {"s2mlp_wide": 80.0, "s2mlp_deep": 80.7, "s2mlpv2_small_7": 82.0, "s2mlpv2_medium_7": 83.6, "s2mlpv2_small_14": 80.9}


def _result(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def _list(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def inplace_trap(outcome: str) -> str:
    """The number of combinations with this outcome, or ``combinations``, ``machine`` or ``torch``."""
    result = _result("inplace-trap-torch2.11.0.json")
    return str(result["outcomes"].get(outcome, result.get(outcome)))


def row_gradient(padding_mode: str = "replicate") -> str:
    """The gradient of the sum of a row of five tokens that moved right by one."""
    x = torch.zeros(1, 5, 1, requires_grad=True)
    s2mlp_cuda.spatial_shift(x, ((0, 1),), padding_mode=padding_mode).sum().backward()
    return str(x.grad.flatten().int().tolist())


def gradient_table() -> str:
    """:func:`row_gradient` for every padding mode."""
    lines = ["| padding | gradient |", "|---|---|"]
    return "\n".join(lines + [f"| {mode} | `{row_gradient(mode)}` |" for mode in PADDING_MODES])


def border_rows() -> str:
    """The output of the example on borders."""
    row = torch.arange(1, 7).reshape(1, 6, 1)
    moved = {mode: s2mlp_cuda.spatial_shift(row, ((0, 2),), padding_mode=mode) for mode in PADDING_MODES}
    return "\n".join(f"    {mode} {x.flatten().tolist()}" for mode, x in moved.items())


def presets() -> str:
    """The tables of offsets of both papers."""
    lines = ["| table | offsets (dh, dw) |", "|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {', '.join(map(str, getattr(offsets, name)))} |" for name in ("V1", "SS1", "SS2")])


def receptive_field() -> str:
    """The numbers of tokens in the figure of the receptive field."""
    counts = [str(int(reach(depth).sum())) for depth in DEPTHS]
    return f"After {_list(list(map(str, DEPTHS)))} blocks it is {_list(counts)} tokens."


def model_table() -> str:
    """Parameters and multiply-adds, as counted, and the papers' accuracies."""
    lines = [
        "| name | parameters | multiply-adds at 224x224 | ImageNet-1K top-1, as the papers report it |",
        "|---|---:|---:|---:|",
    ]
    for name, counts in _result("model-sizes-torch2.11.0.json")["models"].items():
        sizes = f"{counts['parameters'] / 1e6:.2f}M | {counts['multiply_adds'] / 1e9:.2f}G"
        lines.append(f"| `{name}` | {sizes} | {PAPER_TOP1[name]} |")
    return "\n".join(lines)


FUNCTIONS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (border_rows, gradient_table, inplace_trap, model_table, presets, receptive_field, row_gradient)
}
