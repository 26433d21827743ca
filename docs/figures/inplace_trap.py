"""A map that moves down by one token: the operator's result, and that of an in-place assignment of overlapping slices."""

import matplotlib.pyplot as plt
import torch

from s2mlp_cuda import offsets, spatial_shift
from s2mlp_cuda.bench.baselines import assign_in_place

from drawing import Theme, cells

SIZE = 5


def draw(theme: Theme) -> plt.Figure:
    tokens = torch.arange(SIZE * SIZE).reshape(1, SIZE, SIZE, 1).repeat(1, 1, 1, len(offsets.SS1))
    expected = spatial_shift(tokens, offsets.SS1)
    assigned = assign_in_place(tokens.clone(), offsets.SS1)
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.9))
    for axis, x, title in zip(axes, (tokens, expected, assigned), ("input", "expected", "in place")):
        sources, right = x[0, ..., 0].tolist(), expected[0, ..., 0].tolist()
        fills = [
            [(theme.ours if a == b or title == "input" else theme.wrong, 0.1 + 0.5 * a / (SIZE * SIZE)) for a, b in zip(*rows)]
            for rows in zip(sources, right)
        ]
        cells(axis, [[chr(ord("a") + source) for source in row] for row in sources], fills, theme)
        axis.set_title(title, loc="center", color=theme.wrong if x is assigned else theme.ink)
    figure.tight_layout(w_pad=0.6)
    return figure
