"""Times of the operators on a CPU, in copies, next to the least that their memory traffic takes."""

import matplotlib.pyplot as plt

from drawing import Theme
from result_tables import DTYPES, distances

RUN = "cpu-epyc-avx512"


def draw(theme: Theme) -> plt.Figure:
    rows = distances(RUN)
    figure, axis = plt.subplots(figsize=(6.2, 5.6))
    colors = dict(zip(DTYPES, theme.groups))
    for position, row in enumerate(rows):
        axis.plot([row.floor] * 2, [position - 0.36, position + 0.36], color=theme.ink, linewidth=2.5)
        for step, dtype in enumerate(DTYPES):
            ratios = sorted(row.ratios[dtype])
            height = position - 0.16 + 0.32 * step
            axis.plot([ratios[0], ratios[-1]], [height] * 2, color=colors[dtype], linewidth=5, alpha=0.4, solid_capstyle="round")
            axis.plot(ratios[len(ratios) // 2], height, marker="o", color=colors[dtype], markersize=7)
    axis.set_yticks(range(len(rows)), [f"{row.subject}\n{row.data_format}, {row.direction}" for row in rows], fontsize=10)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axis.minorticks_off()
    axis.set_xlabel("time in copies of a map")
    for step, dtype in enumerate(DTYPES):
        axis.text(0.98, 0.95 - 0.06 * step, dtype, transform=axis.transAxes, color=colors[dtype], ha="right", fontweight="bold")
    axis.text(0.98, 0.83, "| floor", transform=axis.transAxes, ha="right", fontweight="bold")
    figure.tight_layout()
    return figure
