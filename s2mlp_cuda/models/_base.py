"""What both architectures share: the head, the initial weights, and the choice of norm."""

from collections.abc import Callable

import torch
from torch import nn

from s2mlp_cuda.layers import Affine

NORM_LAYERS: dict[str, Callable[[int], nn.Module]] = {"layer_norm": nn.LayerNorm, "affine": Affine}


def norm_layer_of(norm_layer: str | Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """
    Raises:
        ValueError: a name that is not in ``NORM_LAYERS``.
    """
    if callable(norm_layer):
        return norm_layer
    if norm_layer not in NORM_LAYERS:
        raise ValueError(
            f"norm_layer must be one of {', '.join(map(repr, NORM_LAYERS))} or a callable, got {norm_layer!r}"
        )
    return NORM_LAYERS[norm_layer]


def drop_path_rates(depth: int, last: float) -> list[float]:
    """One rate per block, rising linearly from 0 to ``last`` (the rule of arXiv 1603.09382)."""
    return [last * i / max(1, depth - 1) for i in range(depth)]


class Backbone(nn.Module):
    """A classifier on token maps. A subclass sets ``stride``, calls ``set_head`` and defines ``token_map``."""

    #: Side of a final token in pixels: the product of the patch sizes.
    stride: int
    num_features: int
    head: nn.Module

    def set_head(self, num_features: int, num_classes: int) -> None:
        self.num_features = num_features
        self.num_classes = num_classes
        self.head = nn.Linear(num_features, num_classes) if num_classes > 0 else nn.Identity()

    def init_weights(self) -> None:
        """Truncated normal with deviation 0.02, biases zero. Inferred: the papers give no initialisation."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def token_map(self, x: torch.Tensor) -> torch.Tensor:
        """What ``forward_features`` computes, for an input of a size that fits."""
        raise NotImplementedError

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, in_chans, H, W) to the last token map, (B, H / stride, W / stride, num_features).

        Raises:
            ValueError: the stride does not divide H and W.
        """
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"the input is {height}x{width}, but this model cuts images into patches of {self.stride}x{self.stride} "
                f"pixels: height and width must be multiples of {self.stride}"
            )
        return self.token_map(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The last token map to logits (B, num_classes), or with ``pre_logits`` to pooled features."""
        x = x.mean((1, 2))
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))
