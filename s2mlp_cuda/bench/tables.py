"""The tables of a run: ratios to a copy and to ours, for the terminal and as Markdown."""

import statistics
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from s2mlp_cuda.bench.headline import TITLE, headline, shortfalls
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run, copies, is_ours
from s2mlp_cuda.bench.models import INFERENCE, SLICES, TRAINING

FORM = "shifts by"


@dataclass(frozen=True)
class Section:
    """Rows of one table, their names in the first column; ``marks`` has "ours", "wrong" or "" for each."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    marks: list[str]


def sections(run: Run) -> list[Section]:
    """Operators, one section per layout and direction over all shapes; then models."""
    kinds: dict[tuple, list[tuple[Case, list[Measurement]]]] = {}
    for case, ways in run.cases("operator").items():
        kinds.setdefault((case.subject, case.data_format, case.direction), []).append((case, ways))
    found = [_operator(kind, cases) for kind, cases in kinds.items()]
    models = run.cases("model")
    return found + ([_models(models)] if models else [])


def _operator(kind: tuple[str, str, str], cases: list[tuple[Case, list[Measurement]]]) -> Section:
    subject, data_format, direction = kind
    dtypes = list(dict.fromkeys(case.dtype for case, _ in cases))
    names = list(dict.fromkeys(way.name for _, ways in cases for way in ways if way.name != COPY))
    ours = next((name for name in names if is_ours(name)), None)
    rows, marks = [], []
    for name in names:
        cells, memory, wrong = [], [], False
        for dtype in dtypes:
            ratios, to_ours, failures, once = [], [], [], False
            for case, ways in cases:
                way = next((w for w in ways if w.name == name), None)
                if case.dtype != dtype or way is None:
                    continue
                if way.failure:
                    failures.append(way.failure.partition(":")[0])
                    continue
                unit = next(w for w in ways if w.name == COPY)
                our = next((w for w in ways if w.name == ours), None)
                ratios.append(copies(way, ways))
                to_ours.append(way.median / our.median if our else float("nan"))
                wrong |= way.right is False
                once |= len(way.seconds) < len(unit.seconds)
                if way.peak_bytes is not None and unit.peak_bytes:
                    memory.append(way.peak_bytes / unit.peak_bytes)
            times = spread(ratios) + (", once" if once else "")
            cells += [times or ", ".join(dict.fromkeys(failures)), _median(to_ours)]
        rows.append((name + (" **wrong**" if wrong else ""), *cells, _median(memory)))
        marks.append("wrong" if wrong else "ours" if name == ours else "")
    title = f"{subject}, {data_format.replace('_', '-')}, {direction}"
    header = (*(text for dtype in dtypes for text in (dtype, "x ours")), "memory")
    return Section(title, header, rows, marks)


def spread(values: list[float]) -> str:
    """Median, and the range where there are several."""
    if not values:
        return ""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else ""


def _models(cases: dict[Case, list[Measurement]]) -> Section:
    """A row per model and form: milliseconds, and the ratio to eager slices."""
    rows, marks = [], []
    pairs: dict[tuple[str, str], dict[str, tuple[Measurement, list[Measurement]]]] = {}
    for case, ways in cases.items():
        for way in ways:
            pairs.setdefault((case.subject, way.name), {})[case.direction] = (way, ways)
    for (model, name), found in pairs.items():
        cells, wrong = [], False
        for direction in (INFERENCE, TRAINING):
            way, ways = found[direction]
            slices = next((w for w in ways if w.name == SLICES), None)
            ratio = f"{way.median / slices.median:.2f}" if slices and slices.seconds and way.seconds else ""
            cells += [f"{way.median * 1e3:.0f}" if way.seconds else way.failure.partition(":")[0], ratio]
            wrong |= way.right is False
        memory = found[TRAINING][0].peak_bytes
        rows.append((model, name + (" **wrong**" if wrong else ""), *cells, f"{memory / 1e6:.0f}" if memory else ""))
        marks.append("wrong" if wrong else "ours" if "s2mlp_cuda" in name else "")
    header = (FORM, "inference, ms", "x slices", "training, ms", "x slices", "MB")
    return Section("model", header, rows, marks)


def markdown(section: Section) -> list[str]:
    header = (section.title, *section.header)
    return [f"| {' | '.join(line)} |" for line in (header, ("---",) * len(header), *section.rows)]


def document(run: Run) -> str:
    """The headline and all tables as a Markdown page that names the machine."""
    commit = run.commit["id"] + ("+changes" if run.commit["dirty"] else "")
    lines = [f"# {run.machine['name']}", "", f"PyTorch {run.machine['torch']}, commit {commit}, {run.date}.", ""]
    if found := headline(run):
        lines += [TITLE, "", *(f"- {line}" for line in (*found, *shortfalls(run))), ""]
    for section in sections(run):
        lines += [*markdown(section), ""]
    return "\n".join(lines)


def show(found: list[Section], console: Console) -> None:
    """All sections as one table each, ours in green, wrong ones in red."""
    styles = {"ours": "bold green", "wrong": "red", "": ""}
    for section in found:
        table = Table(section.title, box=None, padding=(0, 0, 0, 2))
        for text in section.header:
            table.add_column(text, justify="left" if text == FORM else "right", overflow="fold")
        for row, mark in zip(section.rows, section.marks):
            table.add_row(*(cell.replace("**wrong**", "WRONG") for cell in row), style=styles[mark])
        console.print(table)
        console.print()
