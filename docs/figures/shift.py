"""A map of 4x4 tokens, and what each of the four channel groups of the table SS1 makes of it."""

import matplotlib.pyplot as plt
import torch

from s2mlp_cuda import offsets, spatial_shift

from drawing import Theme, arrow, cells

SIZE = 4
DIRECTIONS = {(1, 0): "down", (-1, 0): "up", (0, 1): "right", (0, -1): "left"}


def draw(theme: Theme) -> plt.Figure:
    tokens = torch.arange(SIZE * SIZE).reshape(SIZE, SIZE, 1)
    x = tokens.expand(-1, -1, len(offsets.SS1)).contiguous()  # one channel per group
    shifted = spatial_shift(x, offsets.SS1)
    moved_in = spatial_shift(torch.ones_like(x), offsets.SS1, padding_mode="zeros") == 0
    figure, axes = plt.subplots(2, 3, figsize=(6.4, 4.7))
    _draw_map(axes[0, 0], tokens[..., 0], theme, theme.other)
    axes[0, 0].set_title("input", loc="center")
    axes[1, 0].set_axis_off()
    axes[1, 0].text(
        0.5, 0.5, "each letter\nis a token;\nhatched: the\nborder keeps\nits old value", ha="center", va="center", fontsize=12,
        transform=axes[1, 0].transAxes,
    )  # fmt: skip
    for group, (axis, offset) in enumerate(zip(axes[:, 1:].flat, offsets.SS1)):
        _draw_map(axis, shifted[..., group], theme, theme.groups[group], moved_in[..., group])
        axis.set_title(
            f"{arrow(*offset)} group {group}: {DIRECTIONS[offset]}", loc="center", color=theme.groups[group], fontsize=12
        )
    figure.tight_layout(h_pad=1.5, w_pad=0.5)
    return figure


def _draw_map(axis, sources: torch.Tensor, theme: Theme, color: str, moved_in: torch.Tensor | None = None) -> None:
    letters = [[chr(ord("a") + source) for source in row] for row in sources.tolist()]
    fills = [[(color, 0.12 + 0.5 * source / (SIZE * SIZE - 1)) for source in row] for row in sources.tolist()]
    cells(axis, letters, fills, theme, moved_in)
