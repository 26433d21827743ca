"""A row of five tokens that moves right by one: which input each output reads, and the gradient of the sum."""

import matplotlib.pyplot as plt
import torch

from s2mlp_cuda import spatial_shift

from drawing import Theme

LENGTH = 5


def draw(theme: Theme) -> plt.Figure:
    x = torch.arange(float(LENGTH)).reshape(1, LENGTH, 1).requires_grad_()
    y = spatial_shift(x, ((0, 1),))
    y.sum().backward()
    sources, gradient = y.detach().flatten().int().tolist(), x.grad.flatten().int().tolist()
    figure, axis = plt.subplots(figsize=(5.6, 3.6))
    for position in range(LENGTH):
        _box(axis, position, 2, f"x{'₀₁₂₃₄'[position]}", theme.other)
        _box(axis, position, 1, f"y{'₀₁₂₃₄'[position]}", theme.ours)
        axis.annotate(
            "", (position, 1.24), (sources[position], 1.76), arrowprops={"arrowstyle": "-|>", "color": theme.ink, "linewidth": 1.6}
        )
        count = gradient[position]
        _box(axis, position, 0.1, str(count), theme.other if count == 1 else theme.wrong)
    for height, text in ((2, "input"), (1, "output"), (0.1, "gradient\nof the sum")):
        axis.text(-0.65, height, text, ha="right", va="center", fontweight="bold")
    axis.set_xlim(-2.2, LENGTH - 0.5)
    axis.set_ylim(-0.25, 2.3)
    axis.set_axis_off()
    return figure


def _box(axis, position: float, height: float, text: str, color: str) -> None:
    axis.add_patch(plt.Rectangle((position - 0.4, height - 0.22), 0.8, 0.44, facecolor=color, alpha=0.4, linewidth=0))
    axis.text(position, height, text, ha="center", va="center", fontsize=13)
