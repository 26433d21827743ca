"""The building blocks of both models, on maps of shape (B, H, W, C)."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import nn

from s2mlp_cuda import offsets as presets
from s2mlp_cuda.ops import spatial_shift
from s2mlp_cuda.ops._arguments import DATA_FORMATS, check_groups, check_padding_mode, flat_offsets

FUSIONS = ("split_attention", "sum", "mean")


class SpatialShift(nn.Module):
    """The spatial shift as a layer; see :func:`s2mlp_cuda.spatial_shift` for shapes, dtypes and arguments.

    A drop-in for the ``spatial_shift1``/``spatial_shift2`` functions of public S2-MLP code, which is wrong in eager
    PyTorch: ``SpatialShift(offsets.SS1)`` and ``SpatialShift(offsets.SS2)``.

    Raises:
        TypeError, ValueError: on offsets, group sizes, padding mode or data format that no input could satisfy.
    """

    def __init__(
        self,
        offsets: Sequence[Sequence[int]] = presets.V1,
        *,
        group_sizes: Sequence[int] | None = None,
        padding_mode: str = "replicate",
        data_format: str = "channels_last",
    ):
        super().__init__()
        check_padding_mode(padding_mode)
        if data_format not in DATA_FORMATS:
            raise ValueError(f"data_format must be one of {', '.join(map(repr, DATA_FORMATS))}, got {data_format!r}")
        flat = flat_offsets(offsets)
        self.offsets = tuple(zip(flat[::2], flat[1::2]))
        self.group_sizes = None if group_sizes is None else tuple(group_sizes)
        if self.group_sizes is not None:
            check_groups(len(self.offsets), self.group_sizes, sum(self.group_sizes))
        self.padding_mode = padding_mode
        self.data_format = data_format

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return spatial_shift(
            x,
            self.offsets,
            group_sizes=self.group_sizes,
            padding_mode=self.padding_mode,
            data_format=self.data_format,
        )

    def extra_repr(self) -> str:
        sizes = "" if self.group_sizes is None else f", group_sizes={self.group_sizes}"
        return (
            f"offsets={presets.name_of(self.offsets)}{sizes}, padding_mode={self.padding_mode!r}, "
            f"data_format={self.data_format!r}"
        )


class Affine(nn.Module):
    """``alpha * x + beta`` per channel: what ResMLP (arXiv 2105.03404, eq. 1) and the deep S2-MLP use as a norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.beta, self.alpha, x)

    def extra_repr(self) -> str:
        return str(len(self.alpha))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, a sample's branch is dropped with probability ``rate``."""

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop path rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty([len(x)] + [1] * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class PatchEmbedding(nn.Module):
    """(B, in_channels, H, W) images or maps to (B, H // p, W // p, channels): one linear map per p x p patch."""

    def __init__(self, in_channels: int, channels: int, patch_size: int, norm_layer: Callable | None = None):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, channels, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.Identity() if norm_layer is None else norm_layer(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.projection(x).permute(0, 2, 3, 1))


class Mlp(nn.Module):
    """Linear, GELU, linear on every token: c -> ratio*c -> c."""

    def __init__(self, channels: int, ratio: float):
        super().__init__()
        hidden = int(channels * ratio)
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class S2MLPBlock(nn.Module):
    """The block of S2-MLP (arXiv 2106.07477, section 3.2): (B, H, W, C) to the same shape.

    ``y = x + Norm(fc2(shift(GELU(fc1 x))))``, then ``y + Norm(fc4(GELU(fc3 y)))``: the norm sits last in each branch.
    """

    def __init__(
        self,
        channels: int,
        mlp_ratio: float = 4.0,
        offsets: Sequence[Sequence[int]] = presets.V1,
        padding_mode: str = "replicate",
        norm_layer: Callable = nn.LayerNorm,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels)
        self.act = nn.GELU()
        self.shift = SpatialShift(offsets, padding_mode=padding_mode)
        self.fc2 = nn.Linear(channels, channels)
        self.norm1 = norm_layer(channels)
        self.mlp = Mlp(channels, mlp_ratio)
        self.norm2 = norm_layer(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.norm1(self.fc2(self.shift(self.act(self.fc1(x))))))
        return x + self.drop_path(self.norm2(self.mlp(x)))


class SplitAttention(nn.Module):
    """Softmax-weighted sum of K maps, weighted per channel (arXiv 2108.01072, eqs. 9 to 12; from ResNeSt).

    With K maps of n tokens and c channels: ``a = sum_k sum_n X_k``; ``GELU(a W1) W2`` with W1 of shape (c, c̄) and W2
    of shape (c̄, Kc), no bias; softmax over K. The paper's formula sums over the tokens, its prose says average; this
    follows the formula.

    Args:
        channels: c.
        maps: K.
        hidden_channels: c̄. The paper does not print it; c/4, the default, reproduces its parameter counts, while the
            public PyTorch copies use c.
    """

    def __init__(self, channels: int, maps: int, hidden_channels: int | None = None):
        super().__init__()
        hidden_channels = channels // 4 if hidden_channels is None else hidden_channels
        self.maps = maps
        self.fc1 = nn.Linear(channels, hidden_channels, bias=False)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, maps * channels, bias=False)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """K maps of shape (B, H, W, C) to one."""
        pooled = reduce(torch.add, (part.sum((1, 2)) for part in maps))
        weights = self.fc2(self.act(self.fc1(pooled))).unflatten(-1, (self.maps, -1)).softmax(1)
        return reduce(torch.add, (part * weights[:, k, None, None] for k, part in enumerate(maps)))


class S2(nn.Module):
    """The token mixer of S2-MLPv2 (arXiv 2108.01072, section 3.2): (B, H, W, C) to the same shape.

    Linear c -> Kc, one shift per branch, fusion of the branches, linear c -> c.

    Args:
        channels: c.
        branches: K offset tables, None for a branch that stays. The paper's three: SS1, SS2, identity.
        fusion: ``"split_attention"``, ``"sum"`` or ``"mean"``.
        attention_channels: c̄ of the split attention; default c/4.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`.

    Raises:
        ValueError: no branches, or an unknown fusion.
    """

    def __init__(
        self,
        channels: int,
        branches: Sequence[Sequence[Sequence[int]] | None] = (presets.SS1, presets.SS2, None),
        fusion: str = "split_attention",
        attention_channels: int | None = None,
        padding_mode: str = "replicate",
    ):
        super().__init__()
        if not branches:
            raise ValueError("branches is empty: give at least one offset table, or None for a branch that stays")
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(map(repr, FUSIONS))}, got {fusion!r}")
        self.fusion = fusion
        self.expand = nn.Linear(channels, len(branches) * channels)
        self.branches = nn.ModuleList(
            nn.Identity() if table is None else SpatialShift(table, padding_mode=padding_mode) for table in branches
        )
        if fusion == "split_attention":
            self.attention = SplitAttention(channels, len(branches), attention_channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.expand(x).chunk(len(self.branches), -1)
        parts = [branch(part) for branch, part in zip(self.branches, parts)]
        if self.fusion == "split_attention":
            fused = self.attention(parts)
        else:
            fused = reduce(torch.add, parts)
            if self.fusion == "mean":
                fused = fused / len(parts)
        return self.project(fused)

    def extra_repr(self) -> str:
        return f"fusion={self.fusion!r}"


class S2MLPv2Block(nn.Module):
    """The block of S2-MLPv2 (arXiv 2108.01072, section 3.3), pre-norm: ``y = x + S2(LN x)``, then ``y + MLP(LN y)``."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: float = 3.0,
        branches: Sequence[Sequence[Sequence[int]] | None] = (presets.SS1, presets.SS2, None),
        fusion: str = "split_attention",
        attention_channels: int | None = None,
        padding_mode: str = "replicate",
        norm_layer: Callable = nn.LayerNorm,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.norm1 = norm_layer(channels)
        self.s2 = S2(channels, branches, fusion, attention_channels, padding_mode)
        self.norm2 = norm_layer(channels)
        self.mlp = Mlp(channels, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.s2(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
