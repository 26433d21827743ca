"""Warp instructions per KiB of the CUDA kernels, and how many an H100 and an H200 can issue while a copy moves a KiB."""

import matplotlib.pyplot as plt

from drawing import Theme
from result_tables import instruction_counts, issue_slots

#: The bars by group: their names, and the rows of the result file.
CALLS = {
    "shift forward": "shift forward",
    "shift adjoint": "shift adjoint",
    "GELU forward": "gelu forward",
    "GELU backward": "gelu backward",
}
GROUPS = {
    "channels-last": {name: f"{call} bf16 CL V1 32x32x128" for name, call in CALLS.items()},
    "channels-first": {name: f"{call} bf16 CF V1 32x32x128" for name, call in CALLS.items()},
    "split attention": {
        "pool": "branch pool bf16 32x32x192",
        "combine": "branch combine bf16 32x32x192",
        "combine backward": "branch combine_backward bf16 32x32x192",
        "its weights": "branch combine_backward_weights bf16 32x32x192",
    },
}


def draw(theme: Theme) -> plt.Figure:
    counts, slots = instruction_counts(), issue_slots()
    figure, axis = plt.subplots(figsize=(6.2, 6))
    names, position = {}, 0
    for (title, rows), color in zip(GROUPS.items(), theme.groups):
        axis.text(2, position, title, color=color, fontweight="bold", va="center")
        for name, row in rows.items():
            position += 1
            axis.barh(position, counts[row], color=color, height=0.76)
            axis.text(counts[row] - 4, position, f"{counts[row]:.0f}", color=theme.surface, ha="right", va="center", fontsize=11)
            names[position] = name
        position += 1
    axis.set_yticks(list(names), names.values(), fontsize=11)
    axis.tick_params(axis="y", length=0)
    for gpu, count in slots.items():
        axis.axvline(count, color=theme.wrong, linewidth=1.5, linestyle=(0, (4, 3)))
        axis.text(count, -0.9, f"{gpu}: {count}", color=theme.wrong, ha="center", va="bottom", fontweight="bold")
    axis.set_ylim(position - 0.3, -0.7)
    axis.set_xlim(0, 1.08 * max(slots.values()))
    axis.set_xlabel("warp instructions per KiB, bfloat16, 32×32 tokens")
    figure.tight_layout()
    return figure
