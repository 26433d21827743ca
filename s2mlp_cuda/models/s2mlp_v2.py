"""S2-MLPv2 (arXiv 2108.01072): a pyramid of stages, blocks with shifted branches fused by split attention."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import nn

from s2mlp_cuda.layers import PatchEmbedding, S2MLPv2Block
from s2mlp_cuda.models._base import Backbone, drop_path_rates, norm_layer_of
from s2mlp_cuda.models._registry import register_model
from s2mlp_cuda.offsets import SS1, SS2


class S2MLPv2(Backbone):
    """S2-MLPv2. Takes any input size that the product of the patch sizes divides, square or not.

    Args:
        num_classes: outputs of the head; 0 leaves it out.
        in_chans: channels of the input images.
        patch_sizes: one per stage: the first in pixels, the others in tokens of the stage before. A later stage of
            patch size 1 and unchanged channels has no embedding (inferred for Small/14, which keeps its resolution).
        embed_dims: c of each stage.
        depths: number of blocks of each stage.
        mlp_ratio: r, the expansion of the channel MLP.
        branches: the shift table of each branch, None for one that stays.
        fusion: ``"split_attention"``, ``"sum"`` or ``"mean"``.
        attention_ratio: c̄/c, the hidden size of the split attention. The paper does not print c̄; 1/4 reproduces its
            parameter counts, 1 is what public copies use.
        padding_mode: ``"replicate"`` (the paper's), ``"zeros"`` or ``"circular"``.
        norm_layer: ``"layer_norm"``, ``"affine"`` or a callable.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0. The paper trains with 0.1.
        implementation: ``"fused"``, no shifted map being stored, or ``"composed"``, of shifts and PyTorch's own operators.

    Raises:
        ValueError: stages of unequal description, an unknown fusion, norm or implementation; in ``forward`` an input size that the
            patch sizes do not divide.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        patch_sizes: Sequence[int] = (7, 2),
        embed_dims: Sequence[int] = (192, 384),
        depths: Sequence[int] = (4, 14),
        mlp_ratio: float = 3.0,
        branches: Sequence[Sequence[Sequence[int]] | None] = (SS1, SS2, None),
        fusion: str = "split_attention",
        attention_ratio: float = 0.25,
        padding_mode: str = "replicate",
        norm_layer: str | Callable[[int], nn.Module] = "layer_norm",
        drop_path_rate: float = 0.0,
        implementation: str = "fused",
    ):
        super().__init__()
        if not len(patch_sizes) == len(embed_dims) == len(depths) > 0:
            raise ValueError(
                "patch_sizes, embed_dims and depths describe the stages, so they must be of one length, "
                f"got {len(patch_sizes)}, {len(embed_dims)} and {len(depths)}"
            )
        self.stride = prod(patch_sizes)
        norm = norm_layer_of(norm_layer)
        rates = iter(drop_path_rates(sum(depths), drop_path_rate))
        self.stages = nn.ModuleList()
        channels = in_chans
        for index, (patch_size, embed_dim, depth) in enumerate(zip(patch_sizes, embed_dims, depths)):
            keeps = index > 0 and patch_size == 1 and embed_dim == channels
            embedding = nn.Identity() if keeps else PatchEmbedding(channels, embed_dim, patch_size)
            blocks = [
                S2MLPv2Block(
                    embed_dim,
                    mlp_ratio,
                    branches,
                    fusion,
                    max(1, int(embed_dim * attention_ratio)),
                    padding_mode,
                    norm,
                    next(rates),
                    implementation,
                )
                for _ in range(depth)
            ]
            self.stages.append(nn.Sequential(embedding, *blocks))
            channels = embed_dim
        # The final norm is inferred: Vision Permutator, whose pyramid the paper adopts, has one.
        self.norm = norm(channels)
        self.set_head(channels, num_classes)
        self.init_weights()

    def token_map(self, x: torch.Tensor) -> torch.Tensor:
        for index, stage in enumerate(self.stages):
            if index > 0 and isinstance(stage[0], PatchEmbedding):
                x = x.permute(0, 3, 1, 2)
            x = stage(x)
        return self.norm(x)


@register_model
def s2mlpv2_small_7(**kwargs) -> S2MLPv2:
    """S2-MLPv2-Small/7: 192 channels x 4 blocks, then 384 x 14. 25.1M parameters, 6.9G multiply-adds."""
    return S2MLPv2(**{"patch_sizes": (7, 2), "embed_dims": (192, 384), "depths": (4, 14), **kwargs})


@register_model
def s2mlpv2_medium_7(**kwargs) -> S2MLPv2:
    """S2-MLPv2-Medium/7: 256 channels x 7 blocks, then 512 x 17. 55.3M parameters, 16.3G multiply-adds."""
    return S2MLPv2(**{"patch_sizes": (7, 2), "embed_dims": (256, 512), "depths": (7, 17), **kwargs})


@register_model
def s2mlpv2_small_14(**kwargs) -> S2MLPv2:
    """S2-MLPv2-Small/14: 384 channels, 4 + 14 blocks, one resolution. 29.9M parameters (30M printed).

    6.85G multiply-adds by count; the paper prints 5.7G.
    """
    return S2MLPv2(**{"patch_sizes": (14, 1), "embed_dims": (384, 384), "depths": (4, 14), **kwargs})
