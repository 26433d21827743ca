"""S2-MLPv2 (arXiv 2108.01072): a pyramid of stages; the blocks fuse shifted branches by split attention."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from s2mlp_cuda._arguments import check_count, check_ratio
from s2mlp_cuda.layers import PatchEmbedding, S2MLPv2Block, pair
from s2mlp_cuda.models._base import Backbone, drop_path_rates, norm_layer_of
from s2mlp_cuda.models._registry import register_models
from s2mlp_cuda.offsets import SS1, SS2


class S2MLPv2(Backbone):
    """S2-MLPv2. Image height and width must be multiples of the product of the patch sizes, unless ``dynamic_img_pad``.

    Args:
        num_classes: outputs of the head; 0 for no head.
        in_chans: channels of the input images.
        patch_sizes: one per stage, a side or (height, width): the first in pixels, the others in tokens of the previous stage.
        embed_dims: c of each stage.
        depths: number of blocks of each stage.
        mlp_ratio: r, the expansion of the channel MLP, or one per stage.
        branches: the shift table of each branch; None leaves a branch unshifted.
        fusion: ``"split_attention"``, ``"sum"`` or ``"mean"``. The paper's ablation compares with the mean: what it calls
            sum-pooling is the sum over k of X_k / 3. For another one, replace the ``attention`` of each
            :class:`~s2mlp_cuda.layers.S2`, which maps (B, H, W, K*C) to (B, H, W, C); see
            :func:`~s2mlp_cuda.models.register_models`.
        attention_ratio: c̄/c, where c̄ is the hidden size of the split attention. The paper does not give c̄; 1/4 reproduces
            its parameter counts. Public implementations use 1. A number, or one per stage.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`; the paper's is ``"replicate"``.
        norm_layer: ``"layer_norm"``, ``"affine"`` or a callable.
        final_norm: apply a norm before pooling. Inferred: Vision Permutator, whose pyramid the paper adopts, has one.
        drop_path_rate: stochastic depth rate of the last block; increases linearly from 0. The paper trains with 0.1.
        drop_rate: dropout before the head.
        global_pool: ``"avg"``, or ``""`` for none: the head is then applied to every token. With timm also ``"max"``,
            ``"avgmax"`` (mean of both) and ``"catavgmax"`` (both, side by side).
        dynamic_img_pad: accept images of any size; each stage zero-pads the right and bottom edges to a multiple of its
            patch size.
        implementation: ``"fused"`` (stores no shifted map), ``"composed"`` (shifts and PyTorch's own operators) or
            ``"reference"`` (slices and PyTorch's own operators).
        always_embed: whether a later stage with patch size 1 and unchanged channels has an embedding, as in public implementations.
            By default it has none (inferred for Small/14, which keeps its resolution).
        img_size: height and width, or one number for both, of the images that the model is built for, for ``default_cfg``. No
            parameter depends on it, and the model takes any other valid size, too.
        attention_pool: what split attention pools tokens by: ``"mean"``, as in the paper's text, or ``"sum"``, as in its formula
            and public implementations; see :func:`s2mlp_cuda.shift_split_attention`. The mean is the default, because models are
            more accurate with it: the sum over many tokens saturates the softmax.
        pre_norm: apply the norm first in each residual branch, as in the paper, or last, as in S2-MLP.
        init: how linear layers and convolutions are initialized: ``"trunc_normal"`` or ``"fan_in"``; see :meth:`init_weights`.

    Raises:
        TypeError: a number of classes, channels or blocks is not an integer, or a ratio or rate not a number; ``patch_sizes``,
            ``embed_dims``, ``depths`` or ``branches`` is not a sequence.
        ValueError: a number is out of range; ``patch_sizes``, ``embed_dims``, ``depths`` or ratios per stage differ in length;
            unknown fusion, norm, pooling, initialization or implementation; an image size that is not a multiple of the product of
            the patch sizes, in ``img_size`` or ``forward``.
        MissingExtraError: one of timm's poolings, without timm.
    """

    levels_name = "stages"
    first_conv = "stages.0.0.projection"

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        patch_sizes: Sequence[int | Sequence[int]] = (7, 2),
        embed_dims: Sequence[int] = (192, 384),
        depths: Sequence[int] = (4, 14),
        mlp_ratio: float | Sequence[float] = 3.0,
        branches: Sequence[Sequence[Sequence[int]] | None] = (SS1, SS2, None),
        fusion: str = "split_attention",
        attention_ratio: float | Sequence[float] = 0.25,
        padding_mode: str = "replicate",
        norm_layer: str | Callable[[int], nn.Module] = "layer_norm",
        final_norm: bool = True,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        dynamic_img_pad: bool = False,
        implementation: str = "fused",
        always_embed: bool = False,
        img_size: int | Sequence[int] | None = None,
        attention_pool: str = "mean",
        pre_norm: bool = True,
        init: str = "trunc_normal",
    ):
        super().__init__()
        _check_stages(patch_sizes, embed_dims, depths)
        in_chans = check_count("in_chans", in_chans)
        embed_dims = [check_count("embed_dims", embed_dim) for embed_dim in embed_dims]
        depths = [check_count("depths", depth, least=0) for depth in depths]
        mlp_ratios = _per_stage("mlp_ratio", mlp_ratio, len(depths))
        attention_ratios = _per_stage("attention_ratio", attention_ratio, len(depths))
        self.dynamic_img_pad = dynamic_img_pad
        norm = norm_layer_of(norm_layer)
        rates = drop_path_rates(sum(depths), drop_path_rate)
        self.stages = nn.Sequential()
        self.feature_info = []
        self.token_size = (1, 1)
        channels = in_chans
        for index, (patch_size, embed_dim, depth) in enumerate(zip(patch_sizes, embed_dims, depths)):
            patch = pair("patch_sizes", patch_size)
            if index > 0 and patch == (1, 1) and embed_dim == channels and not always_embed:
                embedding: nn.Module = nn.Identity()
            else:
                data_format = "channels_first" if index == 0 else "channels_last"
                embedding = PatchEmbedding(channels, embed_dim, patch, data_format=data_format, pad=dynamic_img_pad)
            ratio, hidden = mlp_ratios[index], max(1, int(embed_dim * attention_ratios[index]))
            block = partial(
                S2MLPv2Block,
                embed_dim,
                ratio,
                branches,
                fusion,
                hidden,
                padding_mode,
                norm,
                implementation=implementation,
                attention_pool=attention_pool,
                pre_norm=pre_norm,
            )
            blocks = [block(drop_path=next(rates)) for _ in range(depth)]
            self.stages.append(nn.Sequential(embedding, *blocks))
            channels = embed_dim
            self.token_size = (self.token_size[0] * patch[0], self.token_size[1] * patch[1])
            self.feature_info.append({"module": f"stages.{index}", "num_chs": embed_dim, "reduction": self.stride})
        self.norm = norm(channels) if final_norm else nn.Identity()
        self.set_head(channels, num_classes, in_chans, global_pool, drop_rate, img_size)
        self.set_init(init)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def group_matcher(self, coarse: bool = False) -> dict:
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^stages\.0\.0\.", "blocks": [(blocks, None), (r"^norm", (99999,))]}


def _check_stages(patch_sizes: Sequence, embed_dims: Sequence, depths: Sequence) -> None:
    """
    Raises:
        TypeError: an argument is not a sequence.
        ValueError: they differ in length, or have no entries.
    """
    for name, sizes in (("patch_sizes", patch_sizes), ("embed_dims", embed_dims), ("depths", depths)):
        if not isinstance(sizes, Sequence):
            raise TypeError(f"{name} must be a sequence with one entry per stage, got {sizes!r}")
    if not len(patch_sizes) == len(embed_dims) == len(depths) > 0:
        raise ValueError(
            "patch_sizes, embed_dims and depths must have one entry per stage, "
            f"got {len(patch_sizes)}, {len(embed_dims)} and {len(depths)}"
        )


def _per_stage(name: str, value: float | Sequence[float], stages: int) -> Sequence[float]:
    """
    Raises:
        TypeError: ``value`` is neither a number nor a sequence of numbers.
        ValueError: a sequence does not have one entry per stage; a number is not positive and finite.
    """
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value] * stages
    if len(values) != stages:
        raise ValueError(f"{name} must be a number or have one entry per stage, {stages}, got {len(values)}")
    for number in values:
        check_ratio(name, number)
    return values


register_models(
    S2MLPv2,
    {
        # 192 channels x 4 blocks, then 384 x 14. 25.1M parameters, 6.9G multiply-adds.
        "s2mlpv2_small_7": {"patch_sizes": (7, 2), "embed_dims": (192, 384), "depths": (4, 14)},
        # 256 channels x 7 blocks, then 512 x 17. 55.3M parameters, 16.3G multiply-adds.
        "s2mlpv2_medium_7": {"patch_sizes": (7, 2), "embed_dims": (256, 512), "depths": (7, 17)},
        # One resolution. 29.9M parameters (paper: 30M), 6.85G multiply-adds as counted (paper: 5.7G).
        "s2mlpv2_small_14": {"patch_sizes": (14, 1), "embed_dims": (384, 384), "depths": (4, 14)},
    },
)
