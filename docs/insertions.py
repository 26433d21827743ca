"""What ``{{ name }}`` stands for in a page: text and tables that are computed, or come from committed result files."""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable

import torch
from safetensors import safe_open

import s2mlp_cuda
from s2mlp_cuda import offsets
from s2mlp_cuda._arguments import PADDING_MODES
from s2mlp_cuda.training.ablation import report
from s2mlp_cuda.training.ablation.findings import FINDINGS, verdicts
from s2mlp_cuda.training.ablation.results import load as load_ablation
from s2mlp_cuda.training.ablation.rows import SCALES, all_rows

import result_tables
from receptive_field import DEPTHS, reach
from result_tables import RESULTS

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


def instruction_sets(*runs: str) -> str:
    """Times of all operators with each instruction set."""
    names = " | ".join(f"{_capability(name)} {dtype}" for name in runs for dtype in result_tables.DTYPES)
    lines = [f"| {result_tables.BOTH} | {names} |", "|---" * (1 + 2 * len(runs)) + "|"]
    return "\n".join(lines + result_tables.instruction_sets([result_tables.run(name) for name in runs]))


def targets(*runs: str) -> str:
    lines = [f"| operator | target | {' | '.join(map(_capability, runs))} |", "|---" * (2 + len(runs)) + "|"]
    return "\n".join(lines + result_tables.targets([result_tables.run(name) for name in runs]))


def commit(run: str) -> str:
    """The commit of a run of the benchmark."""
    return result_tables.commit(result_tables.run(run))


def gpu_gate(word: str) -> str:
    """The result of the step of the tests on an H200 whose name contains a word."""
    steps = re.findall(r"^\| (.+) \| [0-9a-f]{7} \| (.+) \|$", (RESULTS / "nvidia-h200" / "gate.md").read_text(), re.MULTILINE)
    (result,) = (result for step, result in steps if word in step)
    return result


def cuda_toolkit() -> str:
    """The CUDA toolkit that compiled the kernels whose machine code was counted."""
    return _result("machine-code/counts.json")["compiler"].partition(",")[0].removeprefix("CUDA release ")


def _capability(name: str) -> str:
    return result_tables.run(name).machine["cpu_capability"].replace("AVX512", "AVX-512")


def cifar10(what: str) -> str:
    """A fact about the CIFAR-10 run: its accuracy, minutes, parameters, machine or torch."""
    folder = RESULTS / "cifar10-cpu"
    if what in ("machine", "torch"):
        return str(_result("cifar10-cpu/environment.json")[what])
    if what == "parameters":
        with safe_open(folder / "last.safetensors", "pt") as file:
            return f"{sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys()) / 1e6:.2f}M"  # noqa: SIM118
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    values = {
        "accuracy": f"{float(rows[-1]['val_top1']):.1f}%",
        "epochs": str(len(rows)),
        "minutes": f"{sum(float(row['seconds']) for row in rows) / 60:.0f}",
    }
    return values[what]


def training_throughput() -> str:
    """Images per second and memory of a training, by implementation of the shifts."""
    lines = ["| shifts | images/s | slowest to fastest epoch | peak memory |", "|---|---:|---:|---:|"]
    for name, variant in _result("training-forms-torch2.11.0.json")["forms"].items():
        epochs = variant["all_images_per_second"]
        speeds = f"{variant['images_per_second']:.0f} | {min(epochs):.0f} to {max(epochs):.0f}"
        lines.append(f"| {name} | {speeds} | {variant['peak_memory_mb']:.0f} MB |")
    return "\n".join(lines)


def ablations(what: str) -> str:
    """Of the ablations: tables of ``findings``, ``choices`` or ``rows``, ``counts`` of verdicts, ``budget``, ``machines``,
    ``hours`` of all trainings together, ``progress`` (how many trainings are done), or ``parameters``."""
    found = load_ablation(RESULTS / "cifar10-ablation-cpu" / "ablation.json")
    results = found.results()
    tables = {"findings": report.findings_text, "choices": report.choices_text, "rows": report.table_text}
    if what in tables:
        return tables[what](results)
    if what == "budget":
        return report.budget_text(found)
    if what == "parameters":
        sizes = [result.parameters / 1e6 for result in results]
        return f"{min(sizes):.2f}M to {max(sizes):.2f}M"
    if what == "machines":
        return "; ".join(
            dict.fromkeys(f"{each.environment['machine']}, PyTorch {each.environment['torch']}" for each in found.trainings)
        )
    if what == "progress":
        keys = {row.key for row in all_rows(SCALES[found.scale])}
        return f"{len(found.trainings)} of {3 * len(keys)}"
    if what == "hours":
        return f"{sum(each.seconds for each in found.trainings) / 3600:.1f}"
    counts = Counter(verdict.text for verdict in verdicts(results, FINDINGS))
    plural = {"holds": "hold", "does not hold": "do not hold", "undecided": "are undecided"}
    return f"Of {counts.total()} findings, {', '.join(f'{count} {plural[verdict]}' for verdict, count in counts.most_common())}"


def attention_saturation() -> str:
    """The share of channels in which one branch dominates, by block, for models that pool by sum and by mean."""
    models = list(_result("attention-saturation-torch2.11.0.json")["models"].values())
    count = len(models[0]["blocks"])
    lines = [f"| pooling | {' | '.join(f'block {block}' for block in range(1, count + 1))} |", "|---|" + "---:|" * count]
    for pool in dict.fromkeys(model["pool"] for model in models):
        by_block = zip(*(model["blocks"] for model in models if model["pool"] == pool))
        ranges = (dict.fromkeys((f"{min(shares):.0%}", f"{max(shares):.0%}")) for shares in by_block)
        lines.append(f"| {pool} | {' | '.join(map(' to '.join, ranges))} |")
    return "\n".join(lines)


def call_overhead() -> str:
    """Microseconds of a call on a map of 32 elements."""
    lines = ["| call | microseconds |", "|---|---:|"]
    calls = _result("call-overhead-torch2.11.0.json")["microseconds"]
    return "\n".join(lines + [f"| {name} | {microseconds:.1f} |" for name, microseconds in calls.items()])


def issue_slots(gpu: str) -> str:
    """How many warp instructions a GPU can issue while a copy moves a KiB."""
    return str(result_tables.issue_slots()[gpu])


FUNCTIONS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        ablations, attention_saturation, border_rows, call_overhead, cifar10, commit, cuda_toolkit, gpu_gate, gradient_table,
        inplace_trap, instruction_sets, issue_slots, model_table, presets, receptive_field, row_gradient, targets,
        training_throughput, result_tables.closest_baselines, result_tables.environment, result_tables.floors,
        result_tables.model_times, result_tables.operator_table,
    )
}  # fmt: skip
