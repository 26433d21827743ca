"""The tables of a run: times relative to a copy and to ours, for the terminal and as Markdown."""

import statistics
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from s2mlp_cuda.bench.headline import TITLE, headline, shortfalls
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, copies, is_ours
from s2mlp_cuda.bench.models import INFERENCE, SLICES, TRAINING

VARIANT_HEADER = "shifts by"


@dataclass(frozen=True)
class Section:
    """One table. The first column of ``rows`` holds their names; ``marks`` has "ours", "wrong" or "" for each row."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    marks: list[str]


def sections(run: Run) -> list[Section]:
    """One section per operator, layout and direction, over all shapes; then one for models."""
    kinds: dict[tuple, list[tuple[Case, list[Measurement]]]] = {}
    for case, measurements in run.cases("operator").items():
        kinds.setdefault((case.subject, case.data_format, case.direction), []).append((case, measurements))
    operators = [_operator(kind, cases) for kind, cases in kinds.items()]
    models = run.cases("model")
    return operators + ([_models(models)] if models else [])


def _operator(kind: tuple[str, str, str], cases: list[tuple[Case, list[Measurement]]]) -> Section:
    subject, data_format, direction = kind
    dtypes = list(dict.fromkeys(case.dtype for case, _ in cases))
    names = list(
        dict.fromkeys(measurement.name for _, measurements in cases for measurement in measurements if measurement.name != COPY)
    )
    ours = next((name for name in names if is_ours(name)), None)
    rows, marks = [], []
    for name in names:
        cells, memory, wrong = [], [], False
        for dtype in dtypes:
            ratios, to_ours, failures, once = [], [], [], False
            for case, measurements in cases:
                measurement = next((m for m in measurements if m.name == name), None)
                if case.dtype != dtype or measurement is None:
                    continue
                if measurement.failure:
                    failures.append(measurement.failure.partition(":")[0])
                    continue
                unit = next(m for m in measurements if m.name == COPY)
                our = next((m for m in measurements if m.name == ours), None)
                ratios.append(copies(measurement, measurements))
                to_ours.append(measurement.median / our.median if our else float("nan"))
                wrong |= measurement.right is False
                once |= len(measurement.seconds) < len(unit.seconds)
                if measurement.peak_bytes is not None and unit.peak_bytes:
                    memory.append(measurement.peak_bytes / unit.peak_bytes)
            times = spread(ratios) + (", once" if once else "")
            cells += [times or ", ".join(dict.fromkeys(failures)), _median(to_ours)]
        rows.append((name + (" **wrong**" if wrong else ""), *cells, _median(memory)))
        marks.append("wrong" if wrong else "ours" if name == ours else "")
    title = f"{subject}, {data_format.replace('_', '-')}, {direction}"
    header = (*(text for dtype in dtypes for text in (dtype, "x ours")), "memory")
    return Section(title, header, rows, marks)


def spread(values: list[float]) -> str:
    """The median, and the range if there are several values."""
    if not values:
        return ""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else ""


def _models(cases: dict[Case, list[Measurement]]) -> Section:
    """One row per model and variant: milliseconds, and the ratio to eager slices."""
    rows, marks = [], []
    pairs: dict[tuple[str, str], dict[str, tuple[Measurement, list[Measurement]]]] = {}
    for case, measurements in cases.items():
        for measurement in measurements:
            pairs.setdefault((case.subject, measurement.name), {})[case.direction] = (measurement, measurements)
    for (model, name), by_direction in pairs.items():
        cells, wrong = [], False
        for direction in (INFERENCE, TRAINING):
            measurement, measurements = by_direction[direction]
            slices = next((m for m in measurements if m.name == SLICES), None)
            ratio = f"{measurement.median / slices.median:.2f}" if slices and slices.seconds and measurement.seconds else ""
            cells += [f"{measurement.median * 1e3:.0f}" if measurement.seconds else measurement.failure.partition(":")[0], ratio]
            wrong |= measurement.right is False
        memory = by_direction[TRAINING][0].peak_bytes
        rows.append((model, name + (" **wrong**" if wrong else ""), *cells, f"{memory / 1e6:.0f}" if memory else ""))
        marks.append("wrong" if wrong else "ours" if "s2mlp_cuda" in name else "")
    header = (VARIANT_HEADER, "inference, ms", "x slices", "training, ms", "x slices", "MB")
    return Section("model", header, rows, marks)


def markdown(section: Section) -> list[str]:
    header = (section.title, *section.header)
    return [f"| {' | '.join(line)} |" for line in (header, ("---",) * len(header), *section.rows)]


def document(run: Run) -> str:
    """A Markdown page with the machine, the headline and all tables."""
    commit = run.commit["id"] + ("+changes" if run.commit["dirty"] else "")
    lines = [f"# {run.machine['name']}", "", f"PyTorch {run.machine['torch']}, commit {commit}, {run.date}.", ""]
    if summary := headline(run):
        lines += [TITLE, "", *(f"- {line}" for line in (*summary, *shortfalls(run))), ""]
    for section in sections(run):
        lines += [*markdown(section), ""]
    return "\n".join(lines)


def show(shown: list[Section], console: Console) -> None:
    """Prints each section as a table, with ours in green and wrong results in red."""
    styles = {"ours": "bold green", "wrong": "red", "": ""}
    for section in shown:
        table = Table(section.title, box=None, padding=(0, 0, 0, 2))
        for text in section.header:
            table.add_column(text, justify="left" if text == VARIANT_HEADER else "right", overflow="fold")
        for row, mark in zip(section.rows, section.marks):
            table.add_row(*(cell.replace("**wrong**", "WRONG") for cell in row), style=styles[mark])
        console.print(table)
        console.print()
