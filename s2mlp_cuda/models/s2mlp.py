"""S2-MLP (arXiv 2106.07477): patch embedding, blocks with one spatial shift each, average pooling, linear head."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from s2mlp_cuda._arguments import check_count
from s2mlp_cuda.layers import PatchEmbedding, S2MLPBlock, pair
from s2mlp_cuda.models._base import Backbone, drop_path_rates, norm_layer_of
from s2mlp_cuda.models._registry import register_models
from s2mlp_cuda.offsets import V1


class S2MLP(Backbone):
    """S2-MLP. Image height and width must be multiples of the patch size, unless ``dynamic_img_pad``.

    Args:
        num_classes: outputs of the head; 0 for no head.
        in_chans: channels of the input images.
        patch_size: side of a patch in pixels, or (height, width).
        embed_dim: c, the channels of every block.
        depth: number of blocks.
        mlp_ratio: r, the expansion of the channel MLP.
        offsets: the shift table; see :mod:`s2mlp_cuda.offsets` (``ABLATION`` has the paper's ten settings).
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`; the paper's is ``"replicate"``.
        norm_layer: ``"layer_norm"``, ``"affine"`` or a callable, for the blocks.
        pre_norm: apply the norm first in each residual branch, as public implementations do; in the paper it comes last.
        embed_norm: apply a LayerNorm after the patch embedding, as in the paper. Inferred for ``s2mlp_deep``: the paper puts
            the affine transform in place of LayerNorm in its blocks and does not mention its embedding.
        drop_path_rate: stochastic depth rate of the last block; increases linearly from 0. The paper gives no rate.
        drop_rate: dropout before the head.
        global_pool: ``"avg"``, or ``""`` for none: the head is then applied to every token. With timm also ``"max"``,
            ``"avgmax"`` (mean of both) and ``"catavgmax"`` (both, side by side).
        dynamic_img_pad: accept images of any size; the right and bottom edges are zero-padded to a multiple of the patch size.
        implementation: ``"fused"`` (GELU and shift in one pass), ``"composed"`` (GELU, then the shift) or ``"reference"``
            (GELU, then slices).
        img_size: height and width, or one number for both, of the images that the model is built for, for ``default_cfg``. No
            parameter depends on it, and the model takes any other valid size, too.
        init: how linear layers and convolutions are initialized: ``"trunc_normal"`` or ``"fan_in"``; see :meth:`init_weights`.

    Raises:
        TypeError: a number of classes, channels or blocks is not an integer, or a ratio or rate not a number; offsets are not pairs
            of integers.
        ValueError: a number is out of range; unknown norm, pooling, initialization or implementation; an image size that is not a
            multiple of the patch size, in ``img_size`` or ``forward``.
        MissingExtraError: one of timm's poolings, without timm.
    """

    levels_name = "blocks"
    first_conv = "patch_embed.projection"

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        patch_size: int | Sequence[int] = 16,
        embed_dim: int = 768,
        depth: int = 12,
        mlp_ratio: float = 4.0,
        offsets: Sequence[Sequence[int]] = V1,
        padding_mode: str = "replicate",
        norm_layer: str | Callable[[int], nn.Module] = "layer_norm",
        pre_norm: bool = False,
        embed_norm: bool = True,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        dynamic_img_pad: bool = False,
        implementation: str = "fused",
        img_size: int | Sequence[int] | None = None,
        init: str = "trunc_normal",
    ):
        super().__init__()
        in_chans, embed_dim = check_count("in_chans", in_chans), check_count("embed_dim", embed_dim)
        depth = check_count("depth", depth, least=0)
        self.token_size = pair("patch_size", patch_size)
        self.dynamic_img_pad = dynamic_img_pad
        embed_norm_layer = nn.LayerNorm if embed_norm else None
        self.patch_embed = PatchEmbedding(in_chans, embed_dim, patch_size, embed_norm_layer, pad=dynamic_img_pad)
        norm = norm_layer_of(norm_layer)
        self.blocks = nn.Sequential(
            *(
                S2MLPBlock(embed_dim, mlp_ratio, offsets, padding_mode, norm, rate, implementation, pre_norm)
                for rate in drop_path_rates(depth, drop_path_rate)
            )
        )
        self.norm = nn.Identity()
        self.feature_info = [
            {"module": f"blocks.{index}", "num_chs": embed_dim, "reduction": self.stride} for index in range(depth)
        ]
        self.set_head(embed_dim, num_classes, in_chans, global_pool, drop_rate, img_size)
        self.set_init(init)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self.patch_embed(x)

    def group_matcher(self, coarse: bool = False) -> dict:
        return {"stem": r"^patch_embed", "blocks": [(r"^blocks\.(\d+)", None)]}


register_models(
    S2MLP,
    {
        # 72.24M parameters (71.43M without head and norms), 14.0G multiply-adds.
        "s2mlp_wide": {"embed_dim": 768, "depth": 12, "norm_layer": "layer_norm"},
        # 53.92M parameters, 10.5G multiply-adds. The paper gives 51M, but its own formula gives 53.48M without head and norms;
        # 53.48e6 / 2**20 is 51.0.
        "s2mlp_deep": {"embed_dim": 384, "depth": 36, "norm_layer": "affine"},
    },
)
