"""How tables cut the channels into groups: evenly, with explicit sizes, and one group per channel."""

import matplotlib.pyplot as plt

from s2mlp_cuda import offsets
from s2mlp_cuda.reference import group_borders

from drawing import Theme, arrow, cells

#: Title, channels, table, group sizes.
ROWS = (
    ("V1, 12 channels", 12, offsets.V1, None),
    ("V1, 10 channels", 10, offsets.V1, None),
    ("ShiftViT: four groups move, the rest stays", 12, offsets.SHIFT_VIT, offsets.partial_sizes(12, 4, 1)),
    ("AS-MLP: −2 to 2 tokens along the width", 14, offsets.AXIAL_5_WIDTH, offsets.chunk_sizes(14, 5)),
    ("CycleMLP: one group per channel", 12, offsets.interleaved(offsets.CYCLE_3_WIDTH, 12), None),
)  # fmt: skip


def draw(theme: Theme) -> plt.Figure:
    figure, axes = plt.subplots(len(ROWS), 1, figsize=(5.6, 5.4))
    for axis, (title, channels, table, sizes) in zip(axes, ROWS):
        borders = group_borders(channels, table, sizes)
        texts, fills = [], []
        for group, (begin, end) in enumerate(zip(borders, borders[1:])):
            dh, dw = table[group]
            text = arrow(dh, dw) * max(abs(dh), abs(dw), 1)
            color = theme.other if (dh, dw) == (0, 0) else theme.groups[_color(table, group)]
            texts += [text] * (end - begin)
            fills += [(color, 0.45)] * (end - begin)
        cells(axis, [texts], [fills], theme)
        for border in borders[1:-1]:
            axis.plot([border - 0.5] * 2, [-0.6, 0.6], color=theme.ink, linewidth=1.5, clip_on=False)
        axis.set_xlim(-0.55, 13.55)
        axis.set_title(title, fontsize=12)
    figure.tight_layout(h_pad=0.8)
    return figure


def _color(table: offsets.OffsetTable, group: int) -> int:
    """Equal offsets have equal colors."""
    moving = [offset for offset in dict.fromkeys(table) if offset != (0, 0)]
    return moving.index(table[group])
