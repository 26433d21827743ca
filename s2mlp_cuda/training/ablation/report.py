"""The results as tables in Markdown."""

from s2mlp_cuda.training.ablation.findings import CHOICES, FINDINGS, MARGIN, Verdict, verdicts
from s2mlp_cuda.training.ablation.results import Ablation, Result


def _span(values: set[int], word: str) -> str:
    low, high = min(values), max(values)
    return f"{low} to {high} {word}s" if low < high else f"{low} {word}{'s' if low > 1 else ''}"


def table_text(results: list[Result]) -> str:
    """The table of all rows."""
    lines = ["| | parameters | multiply-adds | here, % | paper, % |", "|---|---:|---:|---:|---:|"]
    group = ""
    for result in results:
        if result.row.group != group:
            group = result.row.group
            lines.append(f"| **{group}, {_span({result.epochs}, 'epoch')}** | | | | |")
        spread = "" if result.spread is None else f" ± {result.spread:.1f}"
        paper = "" if result.row.paper is None else f"{result.row.paper:.1f}"
        lines.append(
            f"| {result.row.name} | {result.parameters / 1e6:.2f}M | {result.multiply_adds / 1e6:.1f}M | {result.mean:.1f}{spread} "
            f"| {paper} |"
        )
    return "\n".join(lines) + "\n"


def difference_text(verdict: Verdict) -> str:
    """The difference here, with two standard errors."""
    return f"{verdict.difference:+.2f}" + ("" if verdict.error is None else f" ± {verdict.error:.2f}")


def findings_text(results: list[Result]) -> str:
    """The table of the papers' findings: the difference in the paper and here, and the verdict."""
    lines = ["| the papers say | paper | here | |", "|---|---:|---:|---|"]
    for verdict in verdicts(results, FINDINGS):
        paper = "" if verdict.paper is None else f"{verdict.paper:+.1f}"
        lines.append(f"| {verdict.finding.text} | {paper} | {difference_text(verdict)} | {verdict.text} |")
    return "\n".join(lines) + "\n"


def choices_text(results: list[Result]) -> str:
    """The table of the choices that the papers leave open: the difference here, and the verdict."""
    lines = ["| | here | |", "|---|---:|---|"]
    lines += [f"| {verdict.finding.text} | {difference_text(verdict)} | {verdict.text} |" for verdict in verdicts(results, CHOICES)]
    return "\n".join(lines) + "\n"


def budget_text(ablation: Ablation) -> str:
    """What the numbers are."""
    results = ablation.results()
    seeds = _span({len(result.accuracies) for result in results}, "seed")
    epochs = _span({result.epochs for result in results}, "epoch")
    return (
        f"Here: {epochs} of 32x32 images per row, {seeds}, {ablation.test_images} test images. ± is the standard deviation over "
        "seeds in the table of rows, and two standard errors of the mean difference, paired by seed, in the tables of findings. "
        "Differences within two standard errors, or of one seed, are undecided. "
        f'"No better" and "as accurate" hold if the other model is better by less than {MARGIN} points, within two standard '
        "errors. With three seeds, two equal models differ by more than two standard errors in 18% of comparisons (t distribution "
        "with two degrees of freedom): a difference of little more than its error is weak evidence. "
        "Papers: ImageNet-100 for S2-MLP's shift, blocks, "
        "patches and padding (12 blocks of 768 channels; blocks 1, 3, 12, 16; patches of 32 and 16), ImageNet-1K for the rest."
    )


def document(ablation: Ablation) -> str:
    """The content of ablation.md."""
    results = ablation.results()
    parts = (
        budget_text(ablation), "## Findings of the papers", findings_text(results), "## Choices that the papers leave open",
        choices_text(results), "## All rows", table_text(results),
    )  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"
