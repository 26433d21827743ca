"""Train an S2-MLPv2 with shifts and a fusion of branches that are not in the papers, on scikit-learn's digits.

python examples/own_offsets_and_fusion.py      (needs scikit-learn: pip install scikit-learn)
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from s2mlp_cuda import offsets, shift_branch_combine, shift_branch_pool
from s2mlp_cuda.layers import S2
from s2mlp_cuda.models import S2MLPv2

# --8<-- [start:offsets]
#: The eight moves of a knight: one channel group per move, in tokens, as (rows down, columns right).
KNIGHT = ((1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2))
#: One table per branch. None leaves a branch where it is.
BRANCHES = (offsets.SS1, KNIGHT, None)
# --8<-- [end:offsets]


# --8<-- [start:fusion]
class GatedFusion(nn.Module):
    """(B, H, W, K*C) to (B, H, W, C): a weighted sum of the K shifted branches.

    The weights are sigmoids, not a softmax, so branches do not compete.
    """

    def __init__(self, channels: int, branches: tuple, padding_mode: str):
        super().__init__()
        self.branches, self.padding_mode = branches, padding_mode
        self.gate = nn.Linear(channels, len(branches) * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-3:-1]
        pooled = shift_branch_pool(x, self.branches, padding_mode=self.padding_mode) / (height * width)  # (B, C)
        weights = self.gate(pooled).sigmoid().unflatten(-1, (len(self.branches), -1))  # (B, K, C)
        return shift_branch_combine(x, weights, self.branches, padding_mode=self.padding_mode)  # no shifted map is stored


def use_gated_fusion(model: nn.Module) -> nn.Module:
    """Replaces the split attention of all blocks."""
    for layer in model.modules():
        if isinstance(layer, S2):
            replaced = layer.attention
            layer.attention = GatedFusion(layer.project.in_features, replaced.branches, replaced.padding_mode)
    return model


# --8<-- [end:fusion]


def build(branches: tuple) -> S2MLPv2:
    return S2MLPv2(num_classes=10, in_chans=1, patch_sizes=(2,), embed_dims=(32,), depths=(2,), branches=branches, init="fan_in")


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int = 100) -> float:
    """Returns the accuracy on the 360 images that are not trained on."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = torch.randint(360, len(images), (64,))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model.eval()(images[:360]).argmax(1) == labels[:360]).float().mean().item()


def main() -> None:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
    labels = torch.tensor(digits.target)
    variants = {
        "the paper's shifts and split attention": lambda: build((offsets.SS1, offsets.SS2, None)),
        "knight's moves, split attention": lambda: build(BRANCHES),
        "knight's moves, gated fusion": lambda: use_gated_fusion(build(BRANCHES)),
    }
    for name, make in variants.items():
        torch.manual_seed(0)
        model = make()
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{name}: {parameters} parameters, {train(model, images, labels):.0%} of held-out digits right after 100 steps")


if __name__ == "__main__":
    main()
