"""Times of inference and training step of whole models, by implementation of the shift."""

import itertools
from collections.abc import Iterator

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run
from s2mlp_cuda.bench.models import FUSED, NATIVE, SLICES, TIMM
from s2mlp_cuda.bench.pictures.page import (
    add_legend,
    by_picture,
    case_label,
    differing,
    draw_bar,
    make_page,
    model_rows,
    range_text,
    wrong_handles,
)

VARIANT_COLORS = {SLICES: OTHER_COLOR, NATIVE: "#6c8ebf", FUSED: OURS_COLOR, TIMM: "#c9a56b"}


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Inference and training step of all variants of the models."""
    cases = run.cases("model")
    for name, group in by_picture("model-times", cases, (), ("dtype", "device", "threads")).items():
        if any(m.seconds for measurements in group.values() for m in measurements):
            yield name, _draw_models(group)


def _variant_style(name: str) -> dict:
    """The style of a bar: compiled variants are hatched and lighter."""
    eager = name.removeprefix("torch.compile(").removesuffix(")")
    color = VARIANT_COLORS.get(eager, OTHER_COLOR)
    if eager == name:
        return {"color": color}
    lighter = tuple(1 - 0.45 * (1 - part) for part in to_rgb(color))
    return {"facecolor": lighter, "edgecolor": color, "hatch": "\\\\\\", "linewidth": 0}


def _draw_models(cases: dict[Case, list[Measurement]]) -> Figure:
    directions = list(dict.fromkeys(case.direction for case in cases))
    fields = differing(cases, ("shape", "data_format"))
    models: dict[str, list[str]] = {}  # label to names of variants
    for case, measurements in cases.items():
        variants = models.setdefault(case_label(case, fields), [])
        variants += [m.name for m in measurements if m.name not in variants and m.name != COPY]
    rows, middles = model_rows(models)
    figure, body = make_page(3 + 5.4 * len(directions), 1.5 + 0.33 * (max(rows.values()) + 1), _models_title(cases))
    axes = body.subplots(1, len(directions), sharey=True, squeeze=False).flatten()
    for axis, direction in zip(axes, directions):
        panel = {case_label(case, fields): measurements for case, measurements in cases.items() if case.direction == direction}
        end = max((1e3 * m.quartiles[1] for measurements in panel.values() for m in measurements if m.seconds), default=1)
        for label, measurements in panel.items():
            for m in measurements:
                if m.name != COPY:
                    draw_bar(axis, rows[label, m.name], m, 1e-3, end, _variant_style(m.name), height=0.84)
        axis.set_xlim(0, 1.25 * end)
        axis.set_ylim(max(rows.values()) + 0.7, -0.7)
        axis.set_yticks(middles, models)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("ms")
        axis.set_title(direction)
    handles = [Patch(**_variant_style(name), label=name) for name in dict.fromkeys(itertools.chain(*models.values()))]
    add_legend(body, handles + wrong_handles(m for measurements in cases.values() for m in measurements))
    return figure


def _models_title(cases: dict[Case, list[Measurement]]) -> str:
    direction = list(cases)[-1].direction
    ratios = []
    for case, measurements in cases.items():
        medians = {m.name: m.median for m in measurements if m.seconds and m.right}
        if case.direction == direction and FUSED in medians and SLICES in medians:
            ratios.append(medians[FUSED] / medians[SLICES])
    dtypes = ", ".join(dict.fromkeys(case.dtype for case in cases))
    if not ratios:
        return f"Times of models, {dtypes}"
    return f"Models, {dtypes}: with fused operators a {direction} takes {range_text(ratios, 2)} of its time with slices"
