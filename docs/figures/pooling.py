"""How far the softmax of split attention is from equal weights, by the number of tokens, for both poolings."""

import matplotlib.pyplot as plt
import torch

from s2mlp_cuda import offsets, shift_branch_pool

from drawing import Theme

BRANCHES = (offsets.SS1, offsets.SS2, None)
SIDES = (7, 10, 14, 20, 28, 40, 56)
CHANNELS, HIDDEN = 64, 16


def largest_weight(side: int, mean: bool) -> float:
    """The largest of the three weights of a channel, averaged over channels."""
    generator = torch.Generator().manual_seed(0)
    fc1 = torch.randn(HIDDEN, CHANNELS, generator=generator) / CHANNELS**0.5
    fc2 = torch.randn(len(BRANCHES) * CHANNELS, HIDDEN, generator=generator) / HIDDEN**0.5
    center = torch.randn(len(BRANCHES) * CHANNELS, generator=generator) / 50
    x = center + torch.randn(1, side, side, len(BRANCHES) * CHANNELS, generator=generator)
    pooled = shift_branch_pool(x, BRANCHES) / (side * side if mean else 1)
    logits = torch.nn.functional.gelu(pooled @ fc1.T) @ fc2.T
    return logits.unflatten(-1, (len(BRANCHES), CHANNELS)).softmax(-2).amax(-2).mean().item()


def draw(theme: Theme) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(5.6, 3.5))
    tokens = [side * side for side in SIDES]
    for mean, color, text in ((False, theme.wrong, "sum"), (True, theme.ours, "mean")):
        weights = [largest_weight(side, mean) for side in SIDES]
        axis.plot(tokens, weights, color=color, linewidth=2.5, marker="o", markersize=5)
        axis.text(tokens[-1] * 1.12, weights[-1], text, color=color, va="center", fontweight="bold", fontsize=13)
    axis.axhline(1 / len(BRANCHES), color=theme.other, linewidth=1, linestyle=(0, (4, 3)))
    axis.text(tokens[0], 1 / len(BRANCHES) - 0.02, "equal weights", va="top", color=theme.ink)
    axis.set_xscale("log")
    axis.set_xticks([49, 196, 784, 3136], ["7×7", "14×14", "28×28", "56×56"])
    axis.minorticks_off()
    axis.set_ylim(0.2, 1.03)
    axis.set_xlabel("tokens")
    axis.set_title("largest weight of a channel", fontsize=12)
    figure.tight_layout()
    return figure
