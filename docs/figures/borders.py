"""A row of six tokens, moved right by two, with each padding mode."""

import matplotlib.pyplot as plt
import torch

from s2mlp_cuda import spatial_shift
from s2mlp_cuda._arguments import PADDING_MODES

from drawing import Theme, cells

LENGTH, DISTANCE = 6, 2


def draw(theme: Theme) -> plt.Figure:
    x = torch.arange(1, LENGTH + 1).reshape(1, LENGTH, 1)
    moved_in = spatial_shift(torch.ones_like(x), ((0, DISTANCE),), padding_mode="zeros").reshape(1, -1) == 0
    figure, axes = plt.subplots(len(PADDING_MODES) + 1, 1, figsize=(6.2, 1.04 * (len(PADDING_MODES) + 1)))
    rows = [("input", x)] + [(mode, spatial_shift(x, ((0, DISTANCE),), padding_mode=mode)) for mode in PADDING_MODES]
    for axis, (name, row) in zip(axes, rows):
        sources = row.flatten().tolist()
        color = theme.other if name == "input" else theme.ours
        fills = [[(color, 0.12 + 0.5 * source / LENGTH) for source in sources]]
        texts = [["0" if source == 0 else chr(ord("a") + source - 1) for source in sources]]
        cells(axis, texts, fills, theme, None if name == "input" else moved_in)
        axis.text(-0.85, 0, name, ha="right", va="center", fontweight="bold")
        axis.set_xlim(-3.1, LENGTH - 0.45)
    figure.tight_layout(h_pad=0.3)
    return figure
