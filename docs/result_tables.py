"""Tables of the benchmark's result files, as Markdown."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from s2mlp_cuda.bench import tables
from s2mlp_cuda.bench.baselines import GELU_ALONE
from s2mlp_cuda.bench.headline import headline, shortfalls
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, copies, fastest, load

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
BOTH = "forward + backward"
DTYPES = ("float32", "bfloat16")
#: Operator, dtype (None for both), direction, target, unit of the target, minimum map size in MB.
TARGETS = (
    ("spatial_shift", None, "forward", 1.1, COPY, 8),
    ("spatial_shift", None, BOTH, 2.2, COPY, 8),
    ("gelu_spatial_shift", None, BOTH, 1.0, GELU_ALONE, 0),
    ("shift_split_attention", "float32", BOTH, 9.5, COPY, 0),
    ("shift_split_attention", "bfloat16", BOTH, 12.0, COPY, 0),
)


@cache
def run(name: str) -> Run:
    """The result file of a folder of benchmarks/results."""
    return load(RESULTS / name / "bench.json")


def time_of(measurements: list[Measurement], name: str, unit: str = COPY) -> float:
    """The median of one implementation relative to another."""
    medians = {m.name: m.median for m in measurements if m.seconds}
    return medians[name] / medians[unit]


def commit(found: Run) -> str:
    return found.commit["id"][:7]


def environment(name: str) -> str:
    """Machine, PyTorch version, commit and date of a run, with links to all its tables and to the result file."""
    found = run(name)
    links = f"[all tables](../../benchmarks/results/{name}/bench.md), [result](../../benchmarks/results/{name}/bench.json)"
    return f"{found.machine['name']}, PyTorch {found.machine['torch']}, commit {commit(found)}, {found.date[:10]}: {links}."


def operator_table(name: str, subject: str, data_format: str) -> str:
    """Times of all implementations of an operator, forward + backward."""
    title = f"{subject}, {data_format.replace('_', '-')}, {BOTH}"
    (section,) = (section for section in tables.sections(run(name)) if section.title == title)
    return "\n".join(tables.markdown(section))


def model_times(name: str) -> str:
    (section,) = (section for section in tables.sections(run(name)) if section.title == "model")
    return "\n".join(tables.markdown(section))


def closest_baselines(name: str) -> str:
    """The best other implementation of each operator, in the case where it comes closest, and all cases in which it is faster."""
    return "\n".join(f"- {line}" for line in (*headline(run(name)), *shortfalls(run(name))))


def instruction_sets(runs: list[Run]) -> list[str]:
    """Rows of median and range over sizes of forward + backward, for each run and dtype."""
    rows: list[tuple[str, str, str, Callable[[list[Measurement]], float]]] = [
        (text, subject, data_format, relative_time)
        for subject, formats in (
            ("spatial_shift", ("channels_last", "channels_first")),
            ("gelu_spatial_shift", ("channels_last",)),
            ("shift_split_attention", ("channels_last",)),
        )
        for data_format in formats
        for text, relative_time in (
            (f"{subject}, {data_format.replace('_', '-')}", partial(time_of, name=f"s2mlp_cuda.{subject}")),
            *([("`F.gelu` alone", partial(time_of, name=GELU_ALONE))] if subject.startswith("gelu") else []),
            ("its best baseline", lambda measurements: copies(fastest(measurements, ours=False), measurements)),
        )
    ]

    def cells(subject: str, data_format: str, relative_time: Callable[[list[Measurement]], float]) -> Iterator[str]:
        for found in runs:
            for dtype in DTYPES:
                key = subject, BOTH, data_format, dtype
                yield tables.spread([relative_time(m) for case, m in found.cases("operator").items() if _key(case) == key])

    return [f"| {text} | {' | '.join(cells(*row))} |" for text, *row in rows]


def _key(case: Case) -> tuple[str, str, str, str]:
    return case.subject, case.direction, case.data_format, case.dtype


def targets(runs: list[Run]) -> list[str]:
    """Rows of the number of cases that meet each target, and the case that is furthest from it, for each run."""
    lines = []
    for subject, dtype, direction, target, unit, megabytes in TARGETS:
        cells = []
        for each in runs:
            found = {
                case: time_of(measurements, f"s2mlp_cuda.{subject}", unit)
                for case, measurements in each.cases("operator").items()
                if (case.subject, case.direction) == (subject, direction)
                and dtype in (None, case.dtype)
                and math.prod(case.shape) * (4 if case.dtype == "float32" else 2) >= megabytes * 1e6
            }
            case, worst = max(found.items(), key=lambda item: item[1])
            size = f"{'x'.join(map(str, case.shape))} {case.data_format.replace('_', '-')} {case.dtype}"
            met = sum(ratio <= target for ratio in found.values())
            cells.append(f"{met} of {len(found)}, worst {worst:.2f} ({size})")
        kind = ", ".join(part for part in (subject, dtype, direction) if part)
        limit = f"{target:g} x `F.gelu` alone" if unit == GELU_ALONE else f"{target:g} copies"
        lines.append(f"| {kind} | {limit}{f', from {megabytes} MB on' if megabytes else ''} | {' | '.join(cells)} |")
    return lines


@dataclass(frozen=True)
class Distance:
    """An operator, its memory floor in copies, and its times in copies by dtype, one per size."""

    subject: str
    data_format: str
    direction: str
    floor: float
    ratios: dict[str, list[float]]


def distances(name: str) -> list[Distance]:
    """The floor of each operator of a run, and the distance to it."""
    found: dict[tuple[str, str, str], Distance] = {}
    for case, measurements in run(name).cases("operator").items():
        ours = next((m for m in measurements if m.name == f"s2mlp_cuda.{case.subject}" and m.seconds), None)
        copy = next((m for m in measurements if m.name == COPY), None)
        if ours and copy and case.dtype in DTYPES:
            key = case.subject, case.data_format.replace("_", "-"), case.direction
            floor = ours.floor_bytes / copy.floor_bytes
            distance = found.setdefault(key, Distance(*key, floor, {dtype: [] for dtype in DTYPES}))
            distance.ratios[case.dtype].append(copies(ours, measurements))
    return list(found.values())


def floors(name: str) -> str:
    lines = ["| operator | layout | | floor | float32 | bfloat16 |", "|---|---|---|---:|---|---|"]
    for row in distances(name):
        times = " | ".join(tables.spread(row.ratios[dtype]) for dtype in DTYPES)
        lines.append(f"| {row.subject} | {row.data_format} | {row.direction} | {row.floor:g} | {times} |")
    return "\n".join(lines)


def instruction_counts() -> dict[str, float]:
    """Warp instructions per KiB of each counted call."""
    rows = json.loads((RESULTS / "machine-code" / "counts.json").read_text())["rows"]
    return {row["name"]: row["instructions_per_kib"] for row in rows}


def issue_slots() -> dict[str, int]:
    """How many warp instructions each GPU can issue while a copy moves a KiB."""
    text = (RESULTS / "machine-code" / "counts.md").read_text()
    return {gpu: int(slots) for slots, gpu in re.findall(r"(\d+) issue slots per KiB for (\w+)", text)}
