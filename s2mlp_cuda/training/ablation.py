"""``s2mlp ablate``: trains the papers' ablations and timm models of equal size on small images, with the same training budget."""

import json
import math
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import s2mlp_cuda.training.peer_models  # noqa: F401, registers them with timm
from s2mlp_cuda._files import write_text
from s2mlp_cuda._terminal import printable
from s2mlp_cuda.offsets import ABLATION, SS1, SS2
from s2mlp_cuda.training.ablation_picture import draw
from s2mlp_cuda.training.config import parse
from s2mlp_cuda.training.environment import environment
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.files import check_folder
from s2mlp_cuda.training.processes import resolve_device
from s2mlp_cuda.training.run import accuracy, train

V1, V2 = "s2mlp_wide", "s2mlpv2_small_7"
SHIFTS, BLOCKS, PATCHES = "Shift (S2-MLP)", "Blocks (S2-MLP)", "Patch size (S2-MLP)"
FUSION, BRANCHES, PYRAMID, PEERS = "Fusion (S2-MLPv2)", "Branches (S2-MLPv2)", "Pyramid (S2-MLPv2)", "Models of equal parameters"
_LETTERS = {
    "a": "four directions", "b": "eight directions", "c": "up, right", "d": "left, down", "e": "up, down", "f": "left, right",
    "g": "up", "h": "down", "i": "left", "j": "right", "none": "no shift",
}  # fmt: skip
#: Top-1 accuracy (percent) of the shift settings on ImageNet-100, wide model: arXiv 2106.07477. The accuracies of S2-MLPv2 below
#: are on ImageNet-1K: arXiv 2108.01072.
_PAPER_SHIFTS = {
    "a": 87.1, "b": 87.0, "c": 85.0, "d": 85.1, "e": 79.5, "f": 80.5, "g": 77.7, "h": 77.5, "i": 78.3, "j": 78.4, "none": 56.7,
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """The size of the models for one device type: arguments of the base models, which the rows modify."""

    recipe: str
    seeds: int
    v1: dict[str, Any]
    v2: dict[str, Any]
    flat: dict[str, Any]
    blocks: tuple[int, ...]
    peer_models: dict[str, tuple[str, dict[str, Any]]]


def _peer_models(mixer: dict, resmlp: dict, gmlp: dict, vit: dict, convnext: dict) -> dict[str, tuple[str, dict[str, Any]]]:
    tokens = {"img_size": 32, "patch_size": 4}
    return {
        "MLP-Mixer": ("mlp_mixer", tokens | mixer),
        "ResMLP": ("resmlp", tokens | resmlp),
        "gMLP": ("gmlp", tokens | gmlp),
        "ViT": ("vit_tiny_patch16_224", tokens | vit),
        "ConvNeXt": ("convnext_tiny", convnext),
    }


SCALES = {
    "cpu": Scale(
        "ablation_cpu", 1,
        v1={"patch_size": 4, "embed_dim": 64, "depth": 5},
        v2={"patch_sizes": (2, 2), "embed_dims": (32, 64), "depths": (1, 4)},
        flat={"patch_sizes": (4,), "embed_dims": (64,), "depths": (4,)},
        blocks=(1, 2, 5, 7),
        peer_models=_peer_models(
            {"embed_dim": 64, "num_blocks": 5}, {"embed_dim": 64, "num_blocks": 5}, {"embed_dim": 64, "num_blocks": 5},
            {"embed_dim": 64, "depth": 4, "num_heads": 2},
            {"depths": (1, 1, 1, 1), "dims": (32, 56, 72, 88), "patch_size": 2},
        ),
    ),
    "cuda": Scale(
        "ablation_gpu", 3,
        v1={"patch_size": 4, "embed_dim": 256, "depth": 8},
        v2={"patch_sizes": (2, 2), "embed_dims": (128, 256), "depths": (2, 7)},
        flat={"patch_sizes": (4,), "embed_dims": (256,), "depths": (7,)},
        blocks=(1, 3, 8, 12),
        peer_models=_peer_models(
            {"embed_dim": 256, "num_blocks": 10}, {"embed_dim": 256, "num_blocks": 10}, {"embed_dim": 256, "num_blocks": 9},
            {"embed_dim": 256, "depth": 7, "num_heads": 4},
            {"depths": (2, 2, 4, 2), "dims": (64, 128, 256, 384), "patch_size": 2},
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A model to train. ``paper`` is the top-1 accuracy (percent) of the paper's corresponding model, on the group's dataset."""

    group: str
    name: str
    model: str
    model_kwargs: dict[str, Any]
    paper: float | None = None

    @property
    def key(self) -> str:
        """Identifies the model; rows with the same key share one training run."""
        return json.dumps([self.model, self.model_kwargs])

    @property
    def slug(self) -> str:
        text = f"{self.group.partition(' (')[0]} {self.name}".lower()
        return "".join(letter if letter.isalnum() else "-" for letter in text)


def rows(scale: Scale) -> list[Row]:
    """All rows. A model that several groups compare has a row in each."""
    result = [
        Row(SHIFTS, f"({letter}) {_LETTERS[letter]}" if letter != "none" else "no shift", V1,
            scale.v1 if letter == "a" else {**scale.v1, "offsets": table}, _PAPER_SHIFTS[letter])
        for letter, table in ABLATION.items()
    ]  # fmt: skip
    paper_blocks = dict(zip(scale.blocks, (56.7, 79.6, 87.1, 86.3)))  # the paper's 1, 3, 12 and 16
    result += [
        Row(BLOCKS, f"{count} block{'s' if count > 1 else ''}", V1, {**scale.v1, "depth": count}, paper_blocks[count])
        for count in scale.blocks
    ]
    result += [
        Row(PATCHES, f"{size}x{size}", V1, {**scale.v1, "patch_size": size}, paper) for size, paper in ((8, 81.0), (4, 87.1))
    ]
    result += [
        Row(FUSION, "split attention", V2, scale.v2, 82.0),
        Row(FUSION, "sum", V2, {**scale.v2, "fusion": "sum"}),
        # The paper calls it sum-pooling, but its formula is the sum over k of X_k / 3.
        Row(FUSION, "mean", V2, {**scale.v2, "fusion": "mean"}, 79.8),
        Row(BRANCHES, "x1 + x2 + x3", V2, scale.v2, 82.0),
        Row(BRANCHES, "x1 + x2", V2, {**scale.v2, "branches": (SS1, SS2)}, 81.7),
        Row(BRANCHES, "x1 + x3", V2, {**scale.v2, "branches": (SS1, None)}, 81.6),
        Row(PYRAMID, "pyramid", V2, scale.v2, 82.0),
        Row(PYRAMID, "flat", V2, scale.flat, 80.9),
        Row(PEERS, "S2-MLPv2", V2, scale.v2, 82.0),
        Row(PEERS, "S2-MLP", V1, scale.v1, 80.7),
    ]
    return result + [Row(PEERS, name, model, kwargs) for name, (model, kwargs) in scale.peer_models.items()]


@dataclass(frozen=True)
class Finding:
    """A finding of the papers: row ``better`` is more accurate than row ``worse``, or at least as accurate if ``alike``."""

    text: str
    group: str
    better: str
    worse: str
    alike: bool = False


def _findings_on_blocks(scale: Scale) -> tuple[Finding, ...]:
    one, few, middle, many = scale.blocks
    return (
        Finding(f"12 blocks beat 1 (here {middle} and {one})", BLOCKS, f"{middle} blocks", f"{one} block"),
        Finding(f"12 blocks beat 3 (here {middle} and {few})", BLOCKS, f"{middle} blocks", f"{few} blocks"),
        Finding(f"16 blocks are no better than 12 (here {many} and {middle})", BLOCKS, f"{middle} blocks", f"{many} blocks", True),
    )


FINDINGS = (
    Finding("The shift matters: four directions beat none", SHIFTS, "(a) four directions", "no shift"),
    Finding("Eight directions are no better than four", SHIFTS, "(a) four directions", "(b) eight directions", alike=True),
    Finding("Four directions beat two on both axes (c)", SHIFTS, "(a) four directions", "(c) up, right"),
    Finding("Four directions beat two on both axes (d)", SHIFTS, "(a) four directions", "(d) left, down"),
    Finding("Two directions on both axes beat two on the vertical", SHIFTS, "(c) up, right", "(e) up, down"),
    Finding("Two directions on both axes beat two on the horizontal", SHIFTS, "(d) left, down", "(f) left, right"),
    Finding("Two vertical directions beat one", SHIFTS, "(e) up, down", "(g) up"),
    Finding("Two horizontal directions beat one", SHIFTS, "(f) left, right", "(i) left"),
    Finding("One direction beats none", SHIFTS, "(h) down", "no shift"),
    Finding("S2-MLPv2 beats S2-MLP", PEERS, "S2-MLPv2", "S2-MLP"),
    Finding("Split attention beats the mean", FUSION, "split attention", "mean"),
    Finding("Three branches beat x1 + x2", BRANCHES, "x1 + x2 + x3", "x1 + x2"),
    Finding("Three branches beat x1 + x3", BRANCHES, "x1 + x2 + x3", "x1 + x3"),
    Finding("The pyramid beats the flat model", PYRAMID, "pyramid", "flat"),
    Finding("Smaller patches beat larger ones", PATCHES, "4x4", "8x8"),
    *(finding for scale in SCALES.values() for finding in _findings_on_blocks(scale)),
)


@dataclass
class Result:
    """The result of a row. Per seed: top-1 accuracy (percent) after the last epoch, and seconds of training and evaluation."""

    row: Row
    parameters: int
    accuracies: list[float]
    seconds: list[float]
    epochs: int

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def _standard_error(result: Result, images: int) -> float:
    """Standard error of the mean: from the seeds if there are several, else binomial from the number of test images."""
    if result.spread is not None:
        return result.spread / math.sqrt(len(result.accuracies))
    share = result.mean / 100
    return 100 * math.sqrt(share * (1 - share) / images)


def verdicts(results: list[Result], images: int) -> list[tuple[Finding, float, float, str]]:
    """For each finding with results for both rows: the finding, the paper's difference, our difference (points) and the verdict.

    Differences below two standard errors are undecided. An ``alike`` finding holds unless ``worse`` is better by more than two
    standard errors.
    """
    by_name = {(result.row.group, result.row.name): result for result in results}
    lines = []
    for finding in FINDINGS:
        better, worse = by_name.get((finding.group, finding.better)), by_name.get((finding.group, finding.worse))
        if better is None or worse is None:
            continue
        paper = (better.row.paper or math.nan) - (worse.row.paper or math.nan)
        here = better.mean - worse.mean
        margin = 2 * math.hypot(_standard_error(better, images), _standard_error(worse, images))
        if finding.alike:
            verdict = "holds" if here > -margin else "does not hold"
        elif abs(here) < margin:
            verdict = "undecided"
        else:
            verdict = "holds" if here > 0 else "does not hold"
        lines.append((finding, paper, here, verdict))
    return lines


def table_text(results: list[Result]) -> str:
    """The table of all rows, in Markdown."""
    lines = ["| | parameters | here, top-1 % | paper, top-1 % |", "|---|---:|---:|---:|"]
    group = ""
    for result in results:
        if result.row.group != group:
            group = result.row.group
            lines.append(f"| **{group}** | | | |")
        spread = "" if result.spread is None else f" ± {result.spread:.1f}"
        paper = "" if result.row.paper is None else f"{result.row.paper:.1f}"
        lines.append(f"| {result.row.name} | {result.parameters / 1e6:.2f}M | {result.mean:.1f}{spread} | {paper} |")
    return "\n".join(lines) + "\n"


def findings_text(results: list[Result], images: int) -> str:
    """The table of the papers' findings and whether they hold here, in Markdown."""
    lines = ["| the papers say | paper | here | |", "|---|---:|---:|---|"]
    for finding, paper, here, verdict in verdicts(results, images):
        lines.append(f"| {finding.text} | {paper:+.1f} | {here:+.1f} | {verdict} |")
    return "\n".join(lines) + "\n"


def budget_text(results: list[Result], images: int) -> str:
    """A description of the two columns of results."""
    seeds, epochs = max(len(result.accuracies) for result in results), results[0].epochs
    return (
        f"Here: {epochs} epoch{'s' if epochs > 1 else ''} of 32x32 images for every row, {seeds} seed{'s' if seeds > 1 else ''}, "
        f"{images} test images; "
        + ("± is the standard deviation over seeds. " if seeds > 1 else "differences below 2 standard errors of the test set "
           "are undecided, and how much another seed would change is not known. ")
        + "Papers: ImageNet-100 for S2-MLP's shift, blocks and patches (12 blocks of 768 channels; blocks 1, 3, 12, 16; patches "
        "of 32 and 16), ImageNet-1K for the rest."
    )  # fmt: skip


def document(results: list[Result], images: int) -> str:
    """The content of ablation.md."""
    return f"{budget_text(results, images)}\n\n{table_text(results)}\n{findings_text(results, images)}"


def run(
    data: str, out: Path, recipe: str | None, seeds: int | None, only: tuple[str, ...], device: str, cache: bool = False
) -> int:
    """Train all rows, resuming runs in ``out``, and write ablation.json, ablation.md and ablation.png.

    Args:
        data: image folder of 32x32 images, as for ``s2mlp train``.
        out: folder for the results and the runs.
        recipe: the training budget; default depends on the device.
        seeds: runs per row; default depends on the device.
        only: run only rows whose group or name contains one of these words.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        cache: as ``--cache`` of ``s2mlp train``.

    Raises:
        TrainingError: no row matches ``only``, or as in :func:`s2mlp_cuda.training.run.train`.
    """
    check_folder(out)
    console = Console(highlight=False, markup=False, emoji=False)
    device = resolve_device(device)
    scale = SCALES[device.partition(":")[0]]
    recipe, seeds = recipe or scale.recipe, seeds or scale.seeds
    chosen = [row for row in rows(scale) if not only or any(word.lower() in f"{row.group} {row.name}".lower() for word in only)]
    if not chosen:
        raise TrainingError(f"no row matches --only {' '.join(only)}")
    models: dict[str, Row] = {}
    for row in chosen:
        models.setdefault(row.key, row)
    console.print(f"{len(chosen)} rows, {len(models)} models, {seeds} seed{'s' if seeds > 1 else ''} each, in {printable(out)}")
    trained: dict[str, Result] = {}
    images = 0
    for number, (key, row) in enumerate(models.items()):
        console.rule(f"{number + 1} of {len(models)}: {row.group}, {row.name}", align="left")
        accuracies, seconds = [], []
        for seed in range(seeds):
            argv = ["--recipe", recipe, "--data", data, "--device", device, "--model", row.model, "--seed", str(seed)]
            argv += ["--model-kwargs", *(f"{name}={value!r}" for name, value in row.model_kwargs.items())]
            argv += ["--output", str(out / "runs" / f"{row.slug}-{seed}"), "--resume", "auto", *["--cache"] * cache]
            finished = train(parse(argv))
            accuracies.append(accuracy(finished.history[-1]))
            seconds.append(sum(epoch["seconds"] for epoch in finished.history))
            images = finished.test_images
        trained[key] = Result(row, finished.parameters, accuracies, seconds, len(finished.history))
        results = [replace(trained[each.key], row=each) for each in chosen if each.key in trained]
        _write(results, images, recipe, out)
    _show(console, results, images)
    console.print(f"\n{printable(out)}: ablation.md, ablation.json, ablation.png")
    return 0


def _write(results: list[Result], images: int, recipe: str, out: Path) -> None:
    write_text(out / "ablation.md", document(results, images))
    content = {
        "environment": environment(),
        "recipe": recipe,
        "test_images": images,
        "results": [asdict(result) for result in results],
    }
    write_text(out / "ablation.json", json.dumps(content, indent=1) + "\n")
    draw(results, budget_text(results, images), out / "ablation.png")


def _show(console: Console, results: list[Result], images: int) -> None:
    table = Table(box=None)
    for title in ("", "parameters", "here, top-1 %", "paper, top-1 %"):
        table.add_column(title, justify="left" if not title else "right")
    for line in table_text(results).splitlines()[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table.add_row(name.replace("**", ""), *cells, style="bold" if name.startswith("**") else "")
    console.print(table)
    for finding, paper, here, verdict in verdicts(results, images):
        console.print(f"{verdict:14} {finding.text}: {here:+.1f} points here, {paper:+.1f} in the paper")
    console.print(f"\n{budget_text(results, images)}")
