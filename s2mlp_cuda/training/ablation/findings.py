"""The papers' findings and the choices that the papers leave open, each decided by the difference of two rows over seeds."""

import math
import statistics
from dataclasses import dataclass

from s2mlp_cuda.training.ablation.results import Result
from s2mlp_cuda.training.ablation.rows import (
    BLOCKS,
    BRANCHES,
    FUSION,
    INIT,
    PADDING,
    PATCHES,
    PEERS,
    PYRAMID,
    SCALES,
    SHIFTS,
    VERSIONS,
    Scale,
)  # fmt: skip

#: Two rows are alike if the other one is better by less than this, in points.
MARGIN = 0.5


@dataclass(frozen=True)
class Finding:
    """A statement: row ``better`` is more accurate than row ``worse``, or at least as accurate if ``alike``."""

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


_MEAN, _SUM = "attention, pools by mean", "attention, pools by sum"
FINDINGS = (
    Finding("S2-MLPv2 beats S2-MLP, attention pools by mean", VERSIONS, "S2-MLPv2, pools by mean", "S2-MLP"),
    Finding("S2-MLPv2 beats S2-MLP, attention pools by sum", VERSIONS, "S2-MLPv2, pools by sum", "S2-MLP"),
    Finding("Split attention beats the mean, attention pools by mean", FUSION, _MEAN, "mean"),
    Finding("Split attention beats the mean, attention pools by sum", FUSION, _SUM, "mean"),
    Finding("The shift matters: four directions beat none", SHIFTS, "(a) four directions", "no shift"),
    Finding("Eight directions are no better than four", SHIFTS, "(a) four directions", "(b) eight directions", alike=True),
    Finding("Four directions beat two on both axes (c)", SHIFTS, "(a) four directions", "(c) up, right"),
    Finding("Four directions beat two on both axes (d)", SHIFTS, "(a) four directions", "(d) left, down"),
    Finding("Two directions on both axes beat two on the vertical", SHIFTS, "(c) up, right", "(e) up, down"),
    Finding("Two directions on both axes beat two on the horizontal", SHIFTS, "(d) left, down", "(f) left, right"),
    Finding("Two vertical directions beat one", SHIFTS, "(e) up, down", "(g) up"),
    Finding("Two horizontal directions beat one", SHIFTS, "(f) left, right", "(i) left"),
    Finding("One direction beats none", SHIFTS, "(h) down", "no shift"),
    *(finding for scale in SCALES.values() for finding in _findings_on_blocks(scale)),
    Finding("Smaller patches beat larger ones", PATCHES, "4x4", "8x8"),
    Finding("Three branches beat x1 + x2", BRANCHES, "x1 + x2 + x3", "x1 + x2"),
    Finding("Three branches beat x1 + x3", BRANCHES, "x1 + x2 + x3", "x1 + x3"),
    Finding("The pyramid beats the flat model", PYRAMID, "pyramid", "flat"),
    Finding("S2-MLP beats MLP-Mixer", PEERS, "S2-MLP", "MLP-Mixer"),
    Finding("S2-MLP is as accurate as ViT", PEERS, "S2-MLP", "ViT", alike=True),
)
#: The papers do not compare these.
CHOICES = (
    Finding("Attention that pools by mean beats the sum", FUSION, _MEAN, _SUM),
    Finding("S2-MLP: norms last beat norms first", VERSIONS, "S2-MLP", "S2-MLP, norms first"),
    Finding("S2-MLPv2: norms first beat norms last", VERSIONS, "S2-MLPv2, pools by mean", "S2-MLPv2, norms last"),
    Finding("S2-MLP: fan_in beats trunc_normal", INIT, "S2-MLP, fan_in", "S2-MLP, trunc_normal"),
    Finding("S2-MLPv2: fan_in beats trunc_normal", INIT, "S2-MLPv2, fan_in", "S2-MLPv2, trunc_normal"),
    Finding("Replicate padding beats zeros", PADDING, "replicate", "zeros"),
    Finding("Replicate padding beats circular", PADDING, "replicate", "circular"),
    Finding("Replicate padding beats reflect", PADDING, "replicate", "reflect"),
)


@dataclass(frozen=True)
class Verdict:
    """What the results say about a finding.

    Attributes:
        finding: the statement.
        paper: ``better`` minus ``worse`` in the paper, in points; None if it has no such numbers.
        difference: the mean of the differences here, in points, over the seeds that both rows have.
        error: two standard errors of that mean; None for a single seed.
        text: ``"holds"``, ``"does not hold"`` or ``"undecided"``.
    """

    finding: Finding
    paper: float | None
    difference: float
    error: float | None
    text: str


def _verdict(finding: Finding, better: Result, worse: Result) -> Verdict | None:
    differences = [better.accuracies[seed] - worse.accuracies[seed] for seed in better.accuracies.keys() & worse.accuracies.keys()]
    if not differences:
        return None
    paper = None if better.row.paper is None or worse.row.paper is None else better.row.paper - worse.row.paper
    mean = statistics.fmean(differences)
    error = 2 * statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    text = "undecided"
    if error is not None and mean < -error:
        text = "does not hold"
    elif error is not None and mean - error > (-MARGIN if finding.alike else 0):
        text = "holds"
    return Verdict(finding, paper, mean, error, text)


def verdicts(results: list[Result], findings: tuple[Finding, ...]) -> list[Verdict]:
    """The verdict on each finding whose rows both have results.

    The differences are paired by seed: with the same seed, both models see the same images in the same order. A difference of less
    than two standard errors of its mean is undecided, and so is every difference of a single seed. An ``alike`` finding holds if
    ``worse`` is better by less than ``MARGIN``, within two standard errors (a test of non-inferiority).
    """
    by_name = {(result.row.group, result.row.name): result for result in results}
    pairs = [(each, by_name.get((each.group, each.better)), by_name.get((each.group, each.worse))) for each in findings]
    found = [_verdict(finding, better, worse) for finding, better, worse in pairs if better is not None and worse is not None]
    return [verdict for verdict in found if verdict is not None]
