"""The tokens that the center token depends on, after one to four blocks of S2-MLP with random weights."""

import matplotlib.pyplot as plt
import torch

from s2mlp_cuda.layers import S2MLPBlock

from drawing import Theme, cells

SIZE, DEPTHS = 11, (1, 2, 3, 4)


def reach(depth: int) -> torch.Tensor:
    """(SIZE, SIZE), true where the gradient of the center token is not zero."""
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(*(S2MLPBlock(16) for _ in range(depth))).double()
    x = torch.randn(1, SIZE, SIZE, 16, dtype=torch.float64, requires_grad=True)
    (blocks(x)[0, SIZE // 2, SIZE // 2] @ torch.randn(16, dtype=torch.float64)).backward()
    return x.grad[0].abs().sum(-1) > 0


def draw(theme: Theme) -> plt.Figure:
    figure, axes = plt.subplots(2, 2, figsize=(5.2, 5.6))
    for axis, depth in zip(axes.flat, DEPTHS):
        seen = reach(depth)
        fills = [[(theme.ours, 0.75) if cell else (theme.other, 0.2) for cell in row] for row in seen.tolist()]
        cells(axis, [[""] * SIZE] * SIZE, fills, theme)
        axis.plot(SIZE // 2, SIZE // 2, marker="o", color=theme.ink, markersize=5)
        axis.set_title(f"{depth} block{'s' * (depth > 1)}: {int(seen.sum())} tokens", loc="center", fontsize=12)
    figure.tight_layout()
    return figure
