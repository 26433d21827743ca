"""Inference and training step of whole models by how they shift."""

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
)

FORM_COLORS = {SLICES: OTHER_COLOR, NATIVE: "#6c8ebf", FUSED: OURS_COLOR, TIMM: "#c9a56b"}


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Inference and training step of models in their forms."""
    cases = run.cases("model")
    for name, group in by_picture("model-times", cases, (), ("dtype", "device", "threads")).items():
        if any(m.seconds for ways in group.values() for m in ways):
            yield name, _draw_models(group)


def _form_style(name: str) -> dict:
    """Of a bar: compiled forms are hatched and lighter."""
    eager = name.removeprefix("torch.compile(").removesuffix(")")
    color = FORM_COLORS.get(eager, OTHER_COLOR)
    if eager == name:
        return {"color": color}
    lighter = tuple(1 - 0.45 * (1 - part) for part in to_rgb(color))
    return {"facecolor": lighter, "edgecolor": color, "hatch": "\\\\\\", "linewidth": 0}


def _draw_models(cases: dict[Case, list[Measurement]]) -> Figure:
    directions = list(dict.fromkeys(case.direction for case in cases))
    fields = differing(cases, ("shape", "data_format"))
    models: dict[str, list[str]] = {}  # label: names of forms
    for case, ways in cases.items():
        forms = models.setdefault(case_label(case, fields), [])
        forms += [m.name for m in ways if m.name not in forms and m.name != COPY]
    rows, middles = model_rows(models)
    figure, body = make_page(3 + 5.4 * len(directions), 1.5 + 0.33 * (max(rows.values()) + 1), _models_title(cases))
    axes = body.subplots(1, len(directions), sharey=True, squeeze=False).flatten()
    for axis, direction in zip(axes, directions):
        panel = {case_label(case, fields): ways for case, ways in cases.items() if case.direction == direction}
        end = max((1e3 * m.quartiles[1] for ways in panel.values() for m in ways if m.seconds), default=1)
        for label, ways in panel.items():
            for m in ways:
                if m.name != COPY:
                    draw_bar(axis, rows[label, m.name], m, 1e-3, end, _form_style(m.name), height=0.84)
        axis.set_xlim(0, 1.25 * end)
        axis.set_ylim(max(rows.values()) + 0.7, -0.7)
        axis.set_yticks(middles, models)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("ms")
        axis.set_title(direction)
    handles = [Patch(**_form_style(name), label=name) for name in dict.fromkeys(itertools.chain(*models.values()))]
    add_legend(body, handles)
    return figure


def _models_title(cases: dict[Case, list[Measurement]]) -> str:
    direction = list(cases)[-1].direction
    ratios = []
    for case, ways in cases.items():
        medians = {m.name: m.median for m in ways if m.seconds and m.right}
        if case.direction == direction and FUSED in medians and SLICES in medians:
            ratios.append(medians[FUSED] / medians[SLICES])
    what = ", ".join(dict.fromkeys(case.dtype for case in cases))
    if not ratios:
        return f"Times of models, {what}"
    return f"Models, {what}: with fused operators a {direction} takes {range_text(ratios, 2)} of its time with slices"
