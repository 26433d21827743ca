"""The building blocks of both models, on maps of shape (B, H, W, C).

Layers that shift take an ``implementation``:

- ``"fused"``: the fused operators.
- ``"composed"``: :func:`~s2mlp_cuda.spatial_shift` and PyTorch's own operators.
- ``"reference"``: as ``"composed"``, with the slices and ``torch.cat`` of :func:`s2mlp_cuda.reference.spatial_shift` as the shift.

The last two are slower and are meant for comparison. All three have the same parameters.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from numbers import Real

import torch
from torch import nn

from s2mlp_cuda import offsets as presets
from s2mlp_cuda import reference
from s2mlp_cuda._arguments import (
    BranchOffsets,
    branch_groups,
    branch_tables,
    check_approximate,
    check_attention_pool,
    check_branches,
    check_count,
    check_data_format,
    check_groups,
    check_padding_mode,
    check_ratio,
    pairs_of,
)
from s2mlp_cuda._torch_private import is_plain, may_have_hooks
from s2mlp_cuda.ops import gelu_spatial_shift, shift_branch_combine, shift_branch_pool, shift_split_attention, spatial_shift
from s2mlp_cuda.ops._torchscript import refuse_torchscript
from s2mlp_cuda.ops.shift_branches import accumulator_dtype
from s2mlp_cuda.ops.shift_split_attention import scale_pooled, without_autocast

torch.fx.wrap("scale_pooled")  # symbolic tracing records the call, since sizes are not known there
FUSIONS = ("split_attention", "sum", "mean")
IMPLEMENTATIONS = ("fused", "composed", "reference")


def _check_implementation(implementation: str) -> None:
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(map(repr, IMPLEMENTATIONS))}, got {implementation!r}")


def _shift_of(implementation: str) -> Callable:
    return reference.spatial_shift if implementation == "reference" else spatial_shift


class SpatialShift(nn.Module):
    """The spatial shift as a layer; see :func:`s2mlp_cuda.spatial_shift` for shapes, dtypes and arguments.

    ``SpatialShift(offsets.SS1)`` and ``SpatialShift(offsets.SS2)`` are drop-in replacements for the functions
    ``spatial_shift1`` and ``spatial_shift2`` of public S2-MLP code, which are wrong in eager PyTorch. The shift of public
    implementations of S2-MLP (V1) moves the height first, too, and is ``SpatialShift(offsets.SS1)``.

    Args:
        offsets, group_sizes, padding_mode, data_format: as in :func:`s2mlp_cuda.spatial_shift`.
        implementation: ``"reference"`` for slices and ``torch.cat``; the other two both use the operator.

    Raises:
        TypeError, ValueError: offsets, group sizes, padding mode, data format or implementation are invalid for any input.
    """

    __prepare_scriptable__ = refuse_torchscript

    def __init__(
        self,
        offsets: Sequence[Sequence[int]] = presets.V1,
        *,
        group_sizes: Sequence[int] | None = None,
        padding_mode: str = "replicate",
        data_format: str = "channels_last",
        implementation: str = "fused",
    ):
        super().__init__()
        check_padding_mode(padding_mode)
        check_data_format(data_format)
        _check_implementation(implementation)
        self.offsets = pairs_of(offsets)
        sizes = check_groups(len(self.offsets), group_sizes, channels=None)
        self.group_sizes = None if sizes is None else tuple(sizes)
        self.padding_mode = padding_mode
        self.data_format = data_format
        self.implementation = implementation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _shift_of(self.implementation)(
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
            f"data_format={self.data_format!r}, implementation={self.implementation!r}"
        )


class GELUSpatialShift(SpatialShift):
    """GELU, then the spatial shift, in one pass; see :func:`s2mlp_cuda.gelu_spatial_shift`.

    Args:
        offsets, group_sizes, padding_mode, data_format: as in :class:`SpatialShift`.
        approximate: ``"none"`` or ``"tanh"``, as in :class:`torch.nn.GELU`.
        implementation: ``"fused"``, ``"composed"`` (GELU, then the shift) or ``"reference"`` (GELU, then the shift of
            :mod:`s2mlp_cuda.reference`).

    Raises:
        TypeError, ValueError: as in :class:`SpatialShift`; ValueError for an unknown ``approximate``.
    """

    def __init__(
        self,
        offsets: Sequence[Sequence[int]] = presets.V1,
        *,
        approximate: str = "none",
        group_sizes: Sequence[int] | None = None,
        padding_mode: str = "replicate",
        data_format: str = "channels_last",
        implementation: str = "fused",
    ):
        super().__init__(
            offsets, group_sizes=group_sizes, padding_mode=padding_mode, data_format=data_format, implementation=implementation
        )
        check_approximate(approximate)
        self.approximate = approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.implementation != "fused":
            return super().forward(nn.functional.gelu(x, approximate=self.approximate))
        return gelu_spatial_shift(
            x,
            self.offsets,
            approximate=self.approximate,
            group_sizes=self.group_sizes,
            padding_mode=self.padding_mode,
            data_format=self.data_format,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, approximate={self.approximate!r}"


class Affine(nn.Module):
    """``alpha * x + beta`` per channel, used as a norm by ResMLP (arXiv 2105.03404, eq. 1) and the deep S2-MLP.

    Raises:
        TypeError, ValueError: ``channels`` is not a positive integer.
    """

    def __init__(self, channels: int):
        super().__init__()
        channels = check_count("channels", channels)
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.alpha)
        nn.init.zeros_(self.beta)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.beta, self.alpha, x)

    def extra_repr(self) -> str:
        return str(len(self.alpha))


def check_drop_path_rate(name: str, rate: float) -> None:
    """
    Raises:
        TypeError: ``rate`` is not a number.
        ValueError: it is not in [0, 1).
    """
    if not isinstance(rate, Real):
        raise TypeError(f"{name} must be a number, got {rate!r}")
    if not 0 <= rate < 1:
        raise ValueError(f"{name} must be in [0, 1), got {rate}")


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): during training, drops the branch of each sample with probability ``rate``.

    Raises:
        TypeError, ValueError: ``rate`` is not a number in [0, 1).
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        check_drop_path_rate("drop path rate", rate)
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from one side of a square or from both.

    Raises:
        ValueError: not one or two positive integers.
    """
    try:
        height, width = size if isinstance(size, Sequence) else (size, size)
        return check_count(name, height), check_count(name, width)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be one or two positive integers, got {size!r}") from None


class PatchEmbedding(nn.Module):
    """Images or maps to tokens (B, H / p, W / q, channels): one linear projection per p x q patch.

    Args:
        in_channels, channels: channels of the input and of the tokens.
        patch_size: p for p = q, or (p, q).
        norm_layer: a norm for the tokens; default none.
        data_format: of the input: ``"channels_first"``, (B, C, H, W), or ``"channels_last"``, (B, H, W, C).
        pad: zero-pad the right and bottom edges if H or W is not a multiple of p or q. Otherwise the remainder is cropped.

    Raises:
        TypeError, ValueError: channels or patch size are not positive integers, or the data format is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch_size: int | Sequence[int],
        norm_layer: Callable | None = None,
        data_format: str = "channels_first",
        pad: bool = False,
    ):
        super().__init__()
        check_data_format(data_format)
        in_channels, channels = check_count("in_channels", in_channels), check_count("channels", channels)
        patch = pair("patch_size", patch_size)
        self.data_format = data_format
        self.pad = pad
        self.projection = nn.Conv2d(in_channels, channels, kernel_size=patch, stride=patch)
        self.norm = nn.Identity() if norm_layer is None else norm_layer(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.data_format == "channels_last":
            x = x.permute(0, 3, 1, 2)
        if self.pad:
            height, width = self.projection.stride
            x = nn.functional.pad(x, (0, -x.shape[-1] % width, 0, -x.shape[-2] % height))
        return self.norm(self.projection(x).permute(0, 2, 3, 1))

    def extra_repr(self) -> str:
        return f"data_format={self.data_format!r}, pad={self.pad}"


class Mlp(nn.Module):
    """Linear, GELU, linear per token: c -> ratio*c -> c. As in timm, ``int(channels * ratio)`` hidden channels: rounded down.

    Raises:
        TypeError, ValueError: ``channels`` is not a positive integer, or ``ratio`` not a positive number.
    """

    def __init__(self, channels: int, ratio: float):
        super().__init__()
        channels = check_count("channels", channels)
        check_ratio("mlp_ratio", ratio)
        hidden = check_count(f"{channels} channels times mlp_ratio={ratio}", int(channels * ratio))
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class S2MLPBlock(nn.Module):
    """The block of S2-MLP (arXiv 2106.07477, section 3.2): (B, H, W, C) to the same shape.

    ``y = x + Norm(fc2(shift(GELU(fc1 x))))``, then ``y + Norm(fc4(GELU(fc3 y)))``: the norm comes last in each residual branch.
    With ``pre_norm`` it comes first, as in public implementations and in S2-MLPv2.

    Raises:
        TypeError, ValueError: ``channels``, ``mlp_ratio``, ``drop_path`` or an argument of the shift is invalid; there are more
            groups than channels.
    """

    def __init__(
        self,
        channels: int,
        mlp_ratio: float = 4.0,
        offsets: Sequence[Sequence[int]] = presets.V1,
        padding_mode: str = "replicate",
        norm_layer: Callable = nn.LayerNorm,
        drop_path: float = 0.0,
        implementation: str = "fused",
        pre_norm: bool = False,
    ):
        super().__init__()
        channels = check_count("channels", channels)
        self.pre_norm = pre_norm
        self.fc1 = nn.Linear(channels, channels)
        self.shift = GELUSpatialShift(offsets, padding_mode=padding_mode, implementation=implementation)
        check_groups(len(self.shift.offsets), None, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.norm1 = norm_layer(channels)
        self.mlp = Mlp(channels, mlp_ratio)
        self.norm2 = norm_layer(channels)
        self.drop_path = DropPath(drop_path)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """The token-mixing branch, without the norm."""
        return self.fc2(self.shift(self.fc1(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pre_norm:
            x = x + self.drop_path(self.mix(self.norm1(x)))
            return x + self.drop_path(self.mlp(self.norm2(x)))
        x = x + self.drop_path(self.norm1(self.mix(x)))
        return x + self.drop_path(self.norm2(self.mlp(x)))


class _ShiftedBranches(nn.Module):
    """The K branches of an expanded map (..., H, W, K*C), with one shift table each; None leaves a branch unshifted."""

    __prepare_scriptable__ = refuse_torchscript

    def __init__(self, branches: Sequence[BranchOffsets], padding_mode: str, implementation: str):
        super().__init__()
        check_branches(branches, 0, "branches")
        check_padding_mode(padding_mode)
        _check_implementation(implementation)
        self.branches = branch_tables(branches, "branches")
        self.padding_mode = padding_mode
        self.implementation = implementation

    def shifted(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The shifted branches as separate maps, for the unfused implementations."""
        shift = _shift_of(self.implementation)
        parts = x.chunk(len(self.branches), -1)
        return [
            parts[k] if table is None else shift(parts[k], table, padding_mode=self.padding_mode)
            for k, table in enumerate(self.branches)
        ]

    def extra_repr(self) -> str:
        names = ", ".join("None" if table is None else presets.name_of(table) for table in self.branches)
        return f"branches=({names}), padding_mode={self.padding_mode!r}, implementation={self.implementation!r}"


@torch.fx.wrap  # symbolic tracing records the call, since dtypes are not known there
def _sum_over_tokens(x: torch.Tensor) -> torch.Tensor:
    return x.sum((-3, -2), dtype=accumulator_dtype(x.dtype))


@torch.fx.wrap  # symbolic tracing records the call, since shapes are not known there
def _check_channels(x: torch.Tensor, channels: int, data_format: str) -> None:
    if torch.jit.is_tracing():  # sizes are tensors there, and a comparison would be a warning
        return
    last = data_format == "channels_last"
    if x.dim() < 3 or x.shape[-1 if last else -3] != channels:
        expected, other = ("..., H, W, {}", "channels_first") if last else ("..., {}, H, W", "channels_last")
        hint = f"; for the other data format, build the layer with data_format={other!r}" if x.dim() >= 3 else ""
        raise ValueError(f"x must have shape ({expected.format(channels)}), got {tuple(x.shape)}{hint}")


def _call_in_its_dtype(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer applied to ``x`` in the dtype of its parameters, if it has any."""
    dtypes = [p.dtype for p in layer.parameters() if p.is_floating_point()]
    return layer(x.to(dtypes[0]) if dtypes else x)


class ShiftSplitAttention(_ShiftedBranches):
    """Split attention over shifted branches (arXiv 2108.01072, eqs. 9 to 12): (B, H, W, K*C) to (B, H, W, C).

    Sum of the K shifted branches, with softmax weights per branch and channel; see :func:`s2mlp_cuda.shift_split_attention`.

    Its two linear layers, ``fc1`` and ``fc2``, behave as any other: they may have hooks, be pruned, parametrized, quantized, or
    replaced, for example by adapters. They are then called, between :func:`s2mlp_cuda.shift_branch_pool` and
    :func:`s2mlp_cuda.shift_branch_combine`, in the dtype of their parameters, and the backward pass writes the gradient of the
    expanded map in two parts. In float16, sums over the tokens of large maps can then overflow; means cannot.

    Args:
        channels: C, the channels of one branch.
        branches: K shift tables; None leaves a branch unshifted. Default: the paper's three, SS1, SS2 and identity.
        hidden_channels: c̄. The paper does not give it. The default, C/4, reproduces the paper's parameter counts; public
            PyTorch copies use C.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`.
        implementation: ``"fused"``, ``"composed"`` or ``"reference"``.
        attention_pool: ``"mean"`` over tokens, as in the paper's text, or ``"sum"``, as in its formula and public
            implementations; see :func:`s2mlp_cuda.shift_split_attention`.

    Raises:
        TypeError, ValueError: channels, branches, padding mode, implementation or pooling are invalid for any input.
        ValueError: a table with more groups than channels.
    """

    def __init__(
        self,
        channels: int,
        branches: Sequence[BranchOffsets] = (presets.SS1, presets.SS2, None),
        hidden_channels: int | None = None,
        *,
        padding_mode: str = "replicate",
        implementation: str = "fused",
        attention_pool: str = "mean",
    ):
        super().__init__(branches, padding_mode, implementation)
        check_attention_pool(attention_pool)
        self.attention_pool = attention_pool
        channels = check_count("channels", channels)
        branch_groups(self.branches, channels, "branches")  # checks that no table has more groups than channels
        hidden_channels = max(1, channels // 4) if hidden_channels is None else check_count("hidden_channels", hidden_channels)
        self.fc1 = nn.Linear(channels, hidden_channels, bias=False)
        self.fc2 = nn.Linear(hidden_channels, len(self.branches) * channels, bias=False)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over branches and the sum or mean over tokens (eq. 9), (B, C), in float32 (float64 for float64 maps)."""
        return scale_pooled(shift_branch_pool(x, self.branches, padding_mode=self.padding_mode), x, self.attention_pool)

    def weights(self, pooled: torch.Tensor) -> torch.Tensor:
        """The branch weights (B, K, C), which sum to 1 over K, from the pooled map (eqs. 10, 11), without autocast.

        If ``fc1`` and ``fc2`` are plain linear layers, in the dtype of the pooled map; otherwise each in that of its parameters.
        """
        with without_autocast(next((p.device.type for p in self.parameters()), "cpu")):
            if self._layers_are_linear():
                hidden = nn.functional.linear(pooled, self.fc1.weight.to(pooled.dtype))
                logits = nn.functional.linear(nn.functional.gelu(hidden), self.fc2.weight.to(pooled.dtype))
            else:
                hidden = nn.functional.gelu(_call_in_its_dtype(self.fc1, pooled))
                logits = _call_in_its_dtype(self.fc2, hidden)
            return logits.unflatten(-1, (len(self.branches), -1)).softmax(-2)

    def _layers_are_linear(self) -> bool:
        """Whether fc1 and fc2 do nothing but multiply by their weights, so that they need not be called."""
        return all(
            type(layer) is nn.Linear
            and layer.bias is None
            and is_plain(layer.weight)
            and "forward" not in vars(layer)
            and not may_have_hooks(layer)
            for layer in (self.fc1, self.fc2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.implementation != "fused":
            maps = self.shifted(x)
            pooled = scale_pooled(reduce(torch.add, map(_sum_over_tokens, maps)), x, self.attention_pool)
            weights = self.weights(pooled).to(x.dtype)
            return reduce(torch.add, (part * weights[..., k, None, None, :] for k, part in enumerate(maps)))
        if not self._layers_are_linear():
            return shift_branch_combine(x, self.weights(self.pool(x)), self.branches, padding_mode=self.padding_mode)
        options = {"padding_mode": self.padding_mode, "attention_pool": self.attention_pool}
        return shift_split_attention(x, self.fc1.weight, self.fc2.weight, self.branches, **options)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, attention_pool={self.attention_pool!r}"


class ShiftSum(_ShiftedBranches):
    """Sum or mean of shifted branches, the baselines of the split attention: (B, H, W, K*C) to (B, H, W, C).

    Args:
        branches: as in :class:`ShiftSplitAttention`.
        mean: divide the sum by K.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`.
        implementation: ``"fused"`` (:func:`s2mlp_cuda.shift_branch_combine` with constant weights), ``"composed"`` or
            ``"reference"``.

    Raises:
        TypeError, ValueError: as in :class:`ShiftSplitAttention`.
    """

    def __init__(
        self,
        branches: Sequence[BranchOffsets] = (presets.SS1, presets.SS2, None),
        mean: bool = False,
        *,
        padding_mode: str = "replicate",
        implementation: str = "fused",
    ):
        super().__init__(branches, padding_mode, implementation)
        self.mean = mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = len(self.branches)
        if self.implementation != "fused":
            total = reduce(torch.add, self.shifted(x))
            return total / count if self.mean else total
        return shift_branch_combine(x, 1 / count if self.mean else 1.0, self.branches, padding_mode=self.padding_mode)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, {super().extra_repr()}"


class S2(nn.Module):
    """The token mixer of S2-MLPv2 (arXiv 2108.01072, section 3.2): (B, H, W, C) to the same shape.

    Linear c -> Kc, one shift per branch, fusion of the branches, linear c -> c.

    Args:
        channels: c.
        branches: K shift tables; None leaves a branch unshifted. Default: the paper's three, SS1, SS2 and identity.
        fusion: ``"split_attention"``, ``"sum"`` or ``"mean"``. For another one, replace ``attention``, which maps (B, H, W, K*C) to
            (B, H, W, C); see :func:`s2mlp_cuda.models.register_models`.
        attention_channels: c̄ of the split attention; default c/4.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`.
        implementation: ``"fused"``, ``"composed"`` or ``"reference"``.
        data_format: of input and output: ``"channels_last"``, or ``"channels_first"`` for (B, C, H, W).
        attention_pool: of the split attention, as in :class:`ShiftSplitAttention`.

    Raises:
        TypeError, ValueError: as in :class:`ShiftSplitAttention`; ValueError for an unknown fusion or data format.
    """

    def __init__(
        self,
        channels: int,
        branches: Sequence[BranchOffsets] = (presets.SS1, presets.SS2, None),
        fusion: str = "split_attention",
        attention_channels: int | None = None,
        padding_mode: str = "replicate",
        implementation: str = "fused",
        data_format: str = "channels_last",
        attention_pool: str = "mean",
    ):
        super().__init__()
        channels = check_count("channels", channels)
        check_data_format(data_format)
        check_attention_pool(attention_pool)
        if fusion not in FUSIONS:
            names = ", ".join(map(repr, FUSIONS))
            raise ValueError(
                f"fusion must be one of {names}, got {fusion!r}; for one of your own see help(s2mlp_cuda.models.register_models)"
            )
        self.channels = channels
        self.fusion = fusion
        self.data_format = data_format
        options = {"padding_mode": padding_mode, "implementation": implementation}
        if fusion == "split_attention":
            self.attention = ShiftSplitAttention(channels, branches, attention_channels, attention_pool=attention_pool, **options)
        else:
            self.sum = ShiftSum(branches, fusion == "mean", **options)
            branch_groups(self.sum.branches, channels, "branches")
        self.expand = nn.Linear(channels, len(branches) * channels)
        self.project = nn.Linear(channels, channels)

    def _fuse(self) -> nn.Module:
        """The fusion of the branches, which may have been replaced."""
        return self.attention if self.fusion == "split_attention" else self.sum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Raises:
            ValueError: ``x`` is not a map with the channels of the layer in its data format.
        """
        _check_channels(x, self.channels, self.data_format)
        fuse = self._fuse()
        if self.data_format == "channels_first":
            return self.project(fuse(self.expand(x.movedim(-3, -1)))).movedim(-1, -3)
        return self.project(fuse(self.expand(x)))

    def extra_repr(self) -> str:
        fusion = f"fusion={self.fusion!r}, " if isinstance(self._fuse(), _ShiftedBranches) else ""
        return f"{fusion}data_format={self.data_format!r}"


class S2MLPv2Block(nn.Module):
    """The block of S2-MLPv2 (arXiv 2108.01072, section 3.3): ``y = x + S2(Norm(x))``, then ``y + MLP(Norm(y))``.

    Without ``pre_norm``, the norm comes last in each residual branch, as in S2-MLP.

    Raises:
        TypeError, ValueError: ``channels``, ``mlp_ratio``, ``drop_path`` or an argument of :class:`S2` is invalid.
    """

    def __init__(
        self,
        channels: int,
        mlp_ratio: float = 3.0,
        branches: Sequence[BranchOffsets] = (presets.SS1, presets.SS2, None),
        fusion: str = "split_attention",
        attention_channels: int | None = None,
        padding_mode: str = "replicate",
        norm_layer: Callable = nn.LayerNorm,
        drop_path: float = 0.0,
        implementation: str = "fused",
        attention_pool: str = "mean",
        pre_norm: bool = True,
    ):
        super().__init__()
        channels = check_count("channels", channels)
        self.pre_norm = pre_norm
        self.norm1 = norm_layer(channels)
        self.s2 = S2(channels, branches, fusion, attention_channels, padding_mode, implementation, attention_pool=attention_pool)
        self.norm2 = norm_layer(channels)
        self.mlp = Mlp(channels, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pre_norm:
            x = x + self.drop_path(self.s2(self.norm1(x)))
            return x + self.drop_path(self.mlp(self.norm2(x)))
        x = x + self.drop_path(self.norm1(self.s2(x)))
        return x + self.drop_path(self.norm2(self.mlp(x)))
