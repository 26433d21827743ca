"""Wrong calls of functions, layers, models and raw operators, with the exact type and text of the error.

An error is one sentence: what is wrong, what was given, what is allowed. It is raised before a kernel runs.
"""

import numpy
import pytest
import torch

from s2mlp_cuda import (
    GELUSpatialShift,
    ShiftSplitAttention,
    SpatialShift,
    create_model,
    gelu_spatial_shift,
    layers,
    offsets,
    reference,
    shift_branch_combine,
    shift_branch_pool,
    shift_split_attention,
    spatial_shift,
)
from s2mlp_cuda.models import S2MLP, S2MLPv2

X = torch.zeros(2, 4, 5, 8)
EXPANDED = torch.zeros(2, 4, 5, 24)
WEIGHTS = torch.zeros(2, 3, 8)
FC1, FC2 = torch.zeros(3, 8), torch.zeros(24, 3)
BRANCHES = (offsets.SS1, offsets.SS2, None)
PAIRS = "offsets must be a sequence of (dh, dw) pairs of integers, got "
MODES = "padding_mode must be one of 'replicate', 'zeros', 'circular', 'reflect', got 'same'"
FLOATING = "must be float64, float32, float16 or bfloat16"
DTYPES = "x must be float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8 or bool"
ATTENTION_POOLS = "attention_pool must be one of 'sum', 'mean', got 'max'"
IMPLEMENTATIONS = "implementation must be one of 'fused', 'composed', 'reference', got 'eager'"
DEVICES = "Expected all tensors to be on the same device, but got "
NO_OFFSETS = "offsets is empty: give at least one (dh, dw) pair"
NO_BRANCHES = "is empty: give at least one offset table, or None for an unshifted branch"
ONE_TABLE = "must have one table per branch, got one table"
TOO_MANY_GROUPS = "cannot split 8 channels into 9 groups: give at most one offset per channel"
LAST = "; channels are the last dimension unless data_format='channels_first'"


#: Four groups, for three channels: a table of a layer is refused when the layer is built.
FOUR_OF_THREE = "cannot split 3 channels into 4 groups: give at most one offset per channel"


def attention(x=EXPANDED, fc1=FC1, fc2=FC2, branches=BRANCHES, **options):
    return shift_split_attention(x, fc1, fc2, branches, **options)


def v1(**arguments):
    return S2MLP(**{"depth": 1, "embed_dim": 8, **arguments})


def v2(**arguments):
    return S2MLPv2(**{"depths": (1, 1), "embed_dims": (8, 8), **arguments})


FUNCTIONS = [
    # spatial_shift
    (lambda: spatial_shift([[1.0]]), TypeError, "x must be a torch.Tensor, got list"),
    (lambda: spatial_shift(numpy.zeros((4, 5, 8))), TypeError, "x must be a torch.Tensor, got ndarray"),
    (lambda: spatial_shift(None), TypeError, "x must be a torch.Tensor, got NoneType"),
    (lambda: spatial_shift(X.cfloat()), TypeError, f"{DTYPES}, got torch.complex64"),
    (lambda: spatial_shift(X.to(torch.float8_e4m3fn)), TypeError, f"{DTYPES}, got torch.float8_e4m3fn"),
    (lambda: spatial_shift(torch.quantize_per_tensor(X, 1, 0, torch.qint8)), TypeError, f"{DTYPES}, got torch.qint8"),
    (lambda: spatial_shift(X.to_sparse()), TypeError, "x must be a dense tensor, got torch.sparse_coo"),
    (lambda: spatial_shift(X[0, 0].to_sparse_csr()), TypeError, "x must be a dense tensor, got torch.sparse_csr"),
    (lambda: spatial_shift(X.to_mkldnn()), TypeError, "x must be a dense tensor, got torch._mkldnn"),
    (lambda: spatial_shift(torch.nested.nested_tensor([X[0], X[1]])), TypeError, "x must be a dense tensor, got a nested tensor"),
    (lambda: spatial_shift(X[0, 0]), ValueError, "x must have at least 3 dimensions, (..., H, W, C), got shape (5, 8)"),
    (
        lambda: spatial_shift(X[0, 0, 0], data_format="channels_first"),
        ValueError,
        "x must have at least 3 dimensions, (..., C, H, W), got shape (8,)",
    ),
    (lambda: spatial_shift(X, [1, 2]), TypeError, f"{PAIRS}[1, 2]"),
    (lambda: spatial_shift(X, [(1, 2, 3)]), TypeError, f"{PAIRS}[(1, 2, 3)]"),
    (lambda: spatial_shift(X, [(0.5, 1)]), TypeError, f"{PAIRS}[(0.5, 1)]"),
    (lambda: spatial_shift(X, ((True, 0),)), TypeError, f"{PAIRS}((True, 0),)"),
    (lambda: spatial_shift(X, None), TypeError, f"{PAIRS}None"),
    (lambda: spatial_shift(X, 1), TypeError, f"{PAIRS}1"),
    (lambda: spatial_shift(X, "V1"), TypeError, f"{PAIRS}'V1'"),
    (lambda: spatial_shift(X, ["10", "01"]), TypeError, f"{PAIRS}['10', '01']"),
    (lambda: spatial_shift(X, []), ValueError, NO_OFFSETS),
    (lambda: spatial_shift(X, [(0, 1)] * 9), ValueError, TOO_MANY_GROUPS + LAST),
    (lambda: spatial_shift(X, [(2**63, 0)]), ValueError, f"offsets must be 64-bit integers, got [({2**63}, 0)]"),
    (lambda: spatial_shift(X, [(0, -(2**63) - 1)]), ValueError, f"offsets must be 64-bit integers, got [(0, {-(2**63) - 1})]"),
    (lambda: spatial_shift(X, padding_mode="same"), ValueError, MODES),
    (lambda: spatial_shift(X, padding_mode=None), ValueError, MODES.replace("'same'", "None")),
    (
        lambda: spatial_shift(X, data_format="NHWC"),
        ValueError,
        "data_format must be one of 'channels_last', 'channels_first', got 'NHWC'",
    ),
    (lambda: spatial_shift(X, group_sizes=(4, 4)), ValueError, "group_sizes has 2 entries, but there are 4 offsets"),
    (lambda: spatial_shift(X, group_sizes=(4, 4, 4, -4)), ValueError, "group_sizes must not be negative, got [4, 4, 4, -4]"),
    (
        lambda: spatial_shift(X, group_sizes=(2, 2, 2, 1)),
        ValueError,
        f"group_sizes [2, 2, 2, 1] do not sum to the 8 channels of x{LAST}",
    ),
    (
        lambda: spatial_shift(X, group_sizes=(2.0, 2, 2, 2)),
        TypeError,
        "group_sizes must be a sequence of integers, got (2.0, 2, 2, 2)",
    ),
    (lambda: spatial_shift(X, group_sizes="2222"), TypeError, "group_sizes must be a sequence of integers, got '2222'"),
    (lambda: spatial_shift(X, group_sizes=8), TypeError, "group_sizes must be a sequence of integers, got 8"),
    # gelu_spatial_shift
    (lambda: gelu_spatial_shift(X.int()), TypeError, f"x {FLOATING}, got torch.int32"),
    (lambda: gelu_spatial_shift(X.cfloat()), TypeError, f"{DTYPES}, got torch.complex64"),
    (lambda: gelu_spatial_shift(X[0, 0]), ValueError, "x must have at least 3 dimensions, (..., H, W, C), got shape (5, 8)"),
    (lambda: gelu_spatial_shift(X, [(0, 1)] * 9), ValueError, TOO_MANY_GROUPS + LAST),
    (lambda: gelu_spatial_shift(X, padding_mode="same"), ValueError, MODES),
    (lambda: gelu_spatial_shift(X, approximate="erf"), ValueError, "approximate must be one of 'none', 'tanh', got 'erf'"),
    # shift_branch_pool
    (lambda: shift_branch_pool(EXPANDED.long(), BRANCHES), TypeError, f"x {FLOATING}, got torch.int64"),
    (lambda: shift_branch_pool(EXPANDED, None), TypeError, "branch_offsets must be a sequence of offset tables, got None"),
    (lambda: shift_branch_pool(EXPANDED, 3), TypeError, "branch_offsets must be a sequence of offset tables, got 3"),
    (lambda: shift_branch_pool(EXPANDED, ()), ValueError, f"branch_offsets {NO_BRANCHES}"),
    (lambda: shift_branch_pool(EXPANDED, offsets.SS1), TypeError, f"branch_offsets {ONE_TABLE} {offsets.SS1}"),
    (lambda: shift_branch_pool(EXPANDED, (None, (1, 0))), TypeError, PAIRS.replace("offsets", "branch_offsets[1]") + "(1, 0)"),
    (lambda: shift_branch_pool(EXPANDED, ((), None)), ValueError, NO_OFFSETS.replace("offsets", "branch_offsets[0]")),
    (
        lambda: shift_branch_pool(EXPANDED, (None, ((0, 2**63),))),
        ValueError,
        f"branch_offsets[1] must be 64-bit integers, got ((0, {2**63}),)",
    ),
    (lambda: shift_branch_pool(EXPANDED, (None,) * 5), ValueError, "cannot split 24 channels into 5 branches of equal size"),
    (lambda: shift_branch_pool(EXPANDED, BRANCHES, padding_mode="same"), ValueError, MODES),
    # shift_branch_combine
    (
        lambda: shift_branch_combine(EXPANDED, torch.zeros(2, 3, 7), BRANCHES),
        ValueError,
        "weights must have shape (..., K, C) = (2, 3, 8), got (2, 3, 7)",
    ),
    (lambda: shift_branch_combine(EXPANDED, None, BRANCHES), TypeError, "weights must be a torch.Tensor, got NoneType"),
    (lambda: shift_branch_combine(EXPANDED, [1.0], BRANCHES), TypeError, "weights must be a torch.Tensor, got list"),
    (lambda: shift_branch_combine(EXPANDED, 1j, BRANCHES), TypeError, "weights must be a torch.Tensor, got complex"),
    (
        lambda: shift_branch_combine(EXPANDED, WEIGHTS.cfloat(), BRANCHES),
        TypeError,
        "weights must be real, got torch.complex64",
    ),
    (lambda: shift_branch_combine(EXPANDED, WEIGHTS.to("meta"), BRANCHES), RuntimeError, f"{DEVICES}weights on meta and x on cpu"),
    (lambda: shift_branch_combine(EXPANDED.to("meta"), WEIGHTS, BRANCHES), RuntimeError, f"{DEVICES}weights on cpu and x on meta"),
    # shift_split_attention
    (lambda: attention(x=[[1.0]]), TypeError, "x must be a torch.Tensor, got list"),
    (lambda: attention(x=EXPANDED.int()), TypeError, f"x {FLOATING}, got torch.int32"),
    (lambda: attention(branches=None), TypeError, "branch_offsets must be a sequence of offset tables, got None"),
    (lambda: attention(branches=()), ValueError, f"branch_offsets {NO_BRANCHES}"),
    (lambda: attention(branches=(None,) * 5), ValueError, "cannot split 24 channels into 5 branches of equal size"),
    (lambda: attention(branches=(None, [(0, 1)] * 9, None)), ValueError, f"branch_offsets[1]: {TOO_MANY_GROUPS}"),
    (
        lambda: attention(branches=(None, [(0, 0.5)], None)),
        TypeError,
        PAIRS.replace("offsets", "branch_offsets[1]") + "[(0, 0.5)]",
    ),
    (lambda: attention(padding_mode="same"), ValueError, MODES),
    (lambda: attention(fc1=[[1.0]]), TypeError, "fc1_weight must be a torch.Tensor, got list"),
    (lambda: attention(fc1=FC1[:, :7]), ValueError, "fc1_weight must have shape (hidden, 8), got (3, 7)"),
    (lambda: attention(fc1=FC1[0]), ValueError, "fc1_weight must have shape (hidden, 8), got (8,)"),
    (lambda: attention(fc2=FC2[:23]), ValueError, "fc2_weight must have shape (24, 3), got (23, 3)"),
    (lambda: attention(fc1=FC1.cfloat()), TypeError, "fc1_weight must be real, got torch.complex64"),
    (lambda: attention(fc2=FC2.cdouble()), TypeError, "fc2_weight must be real, got torch.complex128"),
    (lambda: attention(fc1=FC1.to("meta")), RuntimeError, f"{DEVICES}fc1_weight on meta and x on cpu"),
    (lambda: attention(fc2=FC2.to("meta")), RuntimeError, f"{DEVICES}fc2_weight on meta and x on cpu"),
    (lambda: attention(x=EXPANDED.to("meta")), RuntimeError, f"{DEVICES}fc1_weight on cpu and x on meta"),
]

LAYERS = [
    (lambda: SpatialShift([(1,)]), TypeError, f"{PAIRS}[(1,)]"),
    (lambda: SpatialShift([(2**63, 0)]), ValueError, f"offsets must be 64-bit integers, got [({2**63}, 0)]"),
    (lambda: SpatialShift(padding_mode="same"), ValueError, MODES),
    (
        lambda: SpatialShift(data_format="NCHW"),
        ValueError,
        "data_format must be one of 'channels_last', 'channels_first', got 'NCHW'",
    ),
    (lambda: SpatialShift(implementation="eager"), ValueError, IMPLEMENTATIONS),
    (lambda: SpatialShift(group_sizes=(4, 4)), ValueError, "group_sizes has 2 entries, but there are 4 offsets"),
    (lambda: SpatialShift(group_sizes=(4, 4, 4, -4)), ValueError, "group_sizes must not be negative, got [4, 4, 4, -4]"),
    (lambda: SpatialShift(group_sizes="2222"), TypeError, "group_sizes must be a sequence of integers, got '2222'"),
    (
        lambda: SpatialShift(group_sizes=(2.0, 2, 2, 2)),
        TypeError,
        "group_sizes must be a sequence of integers, got (2.0, 2, 2, 2)",
    ),
    (lambda: GELUSpatialShift(approximate="fast"), ValueError, "approximate must be one of 'none', 'tanh', got 'fast'"),
    (lambda: GELUSpatialShift(implementation="eager"), ValueError, IMPLEMENTATIONS),
    (lambda: layers.Affine(0), ValueError, "channels must be at least 1, got 0"),
    (lambda: layers.Affine(2.5), TypeError, "channels must be an integer, got 2.5"),
    (lambda: layers.DropPath(1), ValueError, "drop path rate must be in [0, 1), got 1"),
    (lambda: layers.DropPath("0.1"), TypeError, "drop path rate must be a number, got '0.1'"),
    (lambda: layers.DropPath(float("nan")), ValueError, "drop path rate must be in [0, 1), got nan"),
    (lambda: layers.PatchEmbedding(3, 8, (0, 4)), ValueError, "patch_size must be one or two positive integers, got (0, 4)"),
    (lambda: layers.PatchEmbedding(3, 8, (4, 4, 4)), ValueError, "patch_size must be one or two positive integers, got (4, 4, 4)"),
    (lambda: layers.PatchEmbedding(3, 8, 2.5), ValueError, "patch_size must be one or two positive integers, got 2.5"),
    (lambda: layers.PatchEmbedding(0, 8, 4), ValueError, "in_channels must be at least 1, got 0"),
    (
        lambda: layers.PatchEmbedding(3, 8, 4, data_format="NCHW"),
        ValueError,
        "data_format must be one of 'channels_last', 'channels_first', got 'NCHW'",
    ),
    (lambda: layers.Mlp(8, -1), ValueError, "mlp_ratio must be positive and finite, got -1"),
    (lambda: layers.Mlp(8, "4"), TypeError, "mlp_ratio must be a number, got '4'"),
    (lambda: layers.Mlp(8, 0.1), ValueError, "8 channels times mlp_ratio=0.1 must be at least 1, got 0"),
    (lambda: layers.S2MLPBlock(-8), ValueError, "channels must be at least 1, got -8"),
    (lambda: layers.S2MLPv2Block("8"), TypeError, "channels must be an integer, got '8'"),
    (lambda: ShiftSplitAttention(0), ValueError, "channels must be at least 1, got 0"),
    (lambda: ShiftSplitAttention(8, hidden_channels=0), ValueError, "hidden_channels must be at least 1, got 0"),
    (lambda: ShiftSplitAttention(8, None), TypeError, "branches must be a sequence of offset tables, got None"),
    (lambda: ShiftSplitAttention(8, ()), ValueError, f"branches {NO_BRANCHES}"),
    (lambda: ShiftSplitAttention(8, implementation="eager"), ValueError, IMPLEMENTATIONS),
    (lambda: ShiftSplitAttention(8, attention_pool="max"), ValueError, ATTENTION_POOLS),
    (lambda: layers.S2(8, fusion="sum", attention_pool="max"), ValueError, ATTENTION_POOLS),
    (lambda: layers.ShiftSum(()), ValueError, f"branches {NO_BRANCHES}"),
    (lambda: layers.S2(8, ()), ValueError, f"branches {NO_BRANCHES}"),
    (lambda: layers.S2(8, None), TypeError, "branches must be a sequence of offset tables, got None"),
    (lambda: ShiftSplitAttention(3), ValueError, f"branches[0]: {FOUR_OF_THREE}"),
    (lambda: layers.S2(3), ValueError, f"branches[0]: {FOUR_OF_THREE}"),
    (
        lambda: layers.S2(8)(torch.ones(2, 8, 5, 7)),
        ValueError,
        "x must have shape (..., H, W, 8), got (2, 8, 5, 7); for the other data format, build the layer with "
        "data_format='channels_first'",
    ),
    (
        lambda: layers.S2(8, data_format="channels_first")(torch.ones(2, 5, 7, 8)),
        ValueError,
        "x must have shape (..., 8, H, W), got (2, 5, 7, 8); for the other data format, build the layer with "
        "data_format='channels_last'",
    ),
    (lambda: layers.S2(8)(torch.ones(5, 8)), ValueError, "x must have shape (..., H, W, 8), got (5, 8)"),
    (lambda: layers.S2(3, fusion="sum"), ValueError, f"branches[0]: {FOUR_OF_THREE}"),
    (
        lambda: layers.S2(3, (None, offsets.V1), "mean", data_format="channels_first"),
        ValueError,
        f"branches[1]: {FOUR_OF_THREE}",
    ),
    (lambda: layers.S2MLPBlock(3, implementation="reference"), ValueError, FOUR_OF_THREE),
    (lambda: layers.S2MLPv2Block(3, implementation="composed"), ValueError, f"branches[0]: {FOUR_OF_THREE}"),
    (
        lambda: layers.S2(8, fusion="max"),
        ValueError,
        "fusion must be one of 'split_attention', 'sum', 'mean', got 'max'; "
        "for one of your own see help(s2mlp_cuda.models.register_models)",
    ),
]

MODELS = [
    (lambda: v1(num_classes=-1), ValueError, "num_classes must be at least 0, got -1"),
    (lambda: v1(num_classes="10"), TypeError, "num_classes must be an integer, got '10'"),
    (lambda: v1().reset_classifier(-1), ValueError, "num_classes must be at least 0, got -1"),
    (lambda: v1(in_chans=0), ValueError, "in_chans must be at least 1, got 0"),
    (lambda: v1(embed_dim=3), ValueError, FOUR_OF_THREE),
    (lambda: v2(embed_dims=(8, 3)), ValueError, f"branches[0]: {FOUR_OF_THREE}"),
    (lambda: v2(embed_dims=(3, 8), fusion="mean"), ValueError, f"branches[0]: {FOUR_OF_THREE}"),
    (lambda: v1(depth=-1), ValueError, "depth must be at least 0, got -1"),
    (lambda: v1(depth=1.5), TypeError, "depth must be an integer, got 1.5"),
    (lambda: v1(embed_dim=0), ValueError, "embed_dim must be at least 1, got 0"),
    (lambda: v1(patch_size=(0, 4)), ValueError, "patch_size must be one or two positive integers, got (0, 4)"),
    (lambda: v1(patch_size=-16), ValueError, "patch_size must be one or two positive integers, got -16"),
    (lambda: v1(patch_size="16"), ValueError, "patch_size must be one or two positive integers, got '16'"),
    (lambda: v1(img_size=(224, 0)), ValueError, "img_size must be one or two positive integers, got (224, 0)"),
    (lambda: v1(mlp_ratio=0), ValueError, "mlp_ratio must be positive and finite, got 0"),
    (lambda: v1(mlp_ratio=float("inf")), ValueError, "mlp_ratio must be positive and finite, got inf"),
    (lambda: v1(drop_path_rate=2), ValueError, "drop_path_rate must be in [0, 1), got 2"),
    (
        lambda: v1(norm_layer=["layer_norm"]),
        ValueError,
        "norm_layer must be one of 'layer_norm', 'affine' or a callable, got ['layer_norm']",
    ),
    (lambda: v1(offsets=[(0, 2**63)]), ValueError, f"offsets must be 64-bit integers, got [(0, {2**63})]"),
    (lambda: v1(padding_mode="same"), ValueError, MODES),
    (lambda: v1(implementation="eager"), ValueError, IMPLEMENTATIONS),
    (lambda: v1(norm_layer="batch"), ValueError, "norm_layer must be one of 'layer_norm', 'affine' or a callable, got 'batch'"),
    (lambda: v2(implementation="eager"), ValueError, IMPLEMENTATIONS),
    (lambda: v2(num_classes=-1), ValueError, "num_classes must be at least 0, got -1"),
    (lambda: v2(depths=3), TypeError, "depths must be a sequence with one entry per stage, got 3"),
    (lambda: v2(depths=(1,)), ValueError, "patch_sizes, embed_dims and depths must have one entry per stage, got 2, 2 and 1"),
    (lambda: v2(depths=(-1, 1)), ValueError, "depths must be at least 0, got -1"),
    (lambda: v2(embed_dims=(8, -8)), ValueError, "embed_dims must be at least 1, got -8"),
    (lambda: v2(patch_sizes=(7, (2, 0))), ValueError, "patch_sizes must be one or two positive integers, got (2, 0)"),
    (lambda: v2(attention_pool="max"), ValueError, ATTENTION_POOLS),
    (lambda: v1(init="xavier"), ValueError, "init must be one of 'trunc_normal', 'fan_in', got 'xavier'"),
    (lambda: v2(attention_ratio=-1), ValueError, "attention_ratio must be positive and finite, got -1"),
    (lambda: v2(mlp_ratio="3"), TypeError, "mlp_ratio must be a number, got '3'"),
    (lambda: v2(mlp_ratio=(3, 3, 3)), ValueError, "mlp_ratio must be a number or have one entry per stage, 2, got 3"),
    (lambda: v2(branches=None), TypeError, "branches must be a sequence of offset tables, got None"),
    (lambda: v2(branches=[[1, 2], [-1, -2]]), TypeError, f"branches {ONE_TABLE} [[1, 2], [-1, -2]]"),
    (lambda: v2(branches=[None, [[1, 2, 3]]]), TypeError, PAIRS.replace("offsets", "branches[1]") + "[[1, 2, 3]]"),
    (lambda: create_model("s2mlp_wide", drop_path_rate="0.1"), TypeError, "drop_path_rate must be a number, got '0.1'"),
]

TABLE_PAIRS = "table must be a sequence of (dh, dw) pairs of integers, got "
TABLES = [
    (lambda: offsets.name_of([(1.5, 0)]), TypeError, f"{TABLE_PAIRS}[(1.5, 0)]"),
    (lambda: offsets.name_of(3), TypeError, f"{TABLE_PAIRS}3"),
    (lambda: offsets.name_of([]), ValueError, "table is empty: give at least one (dh, dw) pair"),
    (lambda: offsets.chunk_sizes(10, 0), ValueError, "chunks must be at least 1, got 0"),
    (lambda: offsets.chunk_sizes(10, -2), ValueError, "chunks must be at least 1, got -2"),
    (lambda: offsets.chunk_sizes(-1, 2), ValueError, "channels must be at least 0, got -1"),
    (lambda: offsets.chunk_sizes(10.0, 2), TypeError, "channels must be an integer, got 10.0"),
    (lambda: offsets.chunk_sizes(10, "2"), TypeError, "chunks must be an integer, got '2'"),
    (lambda: offsets.chunk_sizes(8, 5), ValueError, "8 channels cannot be split into 5 chunks of 2"),
    (lambda: offsets.partial_sizes(8, -1, 2), ValueError, "groups must be at least 0, got -1"),
    (lambda: offsets.partial_sizes(8, 1, -2), ValueError, "size must be at least 0, got -2"),
    (lambda: offsets.partial_sizes(-8, 0, 2), ValueError, "channels must be at least 0, got -8"),
    (lambda: offsets.partial_sizes(8, 1, 2.5), TypeError, "size must be an integer, got 2.5"),
    (lambda: offsets.partial_sizes(8, True, 2), TypeError, "groups must be an integer, got True"),
    (lambda: offsets.partial_sizes(8, None, 2), TypeError, "groups must be an integer, got None"),
    (lambda: offsets.partial_sizes(10, 4, 3), ValueError, "4 groups of 3 do not fit into 10 channels"),
    (lambda: offsets.interleaved((), 3), ValueError, "table is empty: give at least one (dh, dw) pair"),
    (lambda: offsets.interleaved(offsets.V1, -1), ValueError, "channels must be at least 0, got -1"),
    (lambda: offsets.interleaved(offsets.V1, 8.0), TypeError, "channels must be an integer, got 8.0"),
    (lambda: offsets.interleaved([(0, 1, 2)], 3), TypeError, f"{TABLE_PAIRS}[(0, 1, 2)]"),
    (lambda: offsets.interleaved("V1", 3), TypeError, f"{TABLE_PAIRS}'V1'"),
    (lambda: reference.group_borders(8, [(0, 1)] * 9), ValueError, TOO_MANY_GROUPS),
    (lambda: reference.group_borders(-8, [(0, 1)]), ValueError, "channels must be at least 0, got -8"),
    (lambda: reference.group_borders(8, []), ValueError, NO_OFFSETS),
    (lambda: reference.group_borders(8, [(0, 1)], [7]), ValueError, "group_sizes [7] do not sum to the 8 channels of x"),
]


@pytest.mark.parametrize("call, error, text", FUNCTIONS + LAYERS + MODELS + TABLES)
def test_call(call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert (type(raised.value), str(raised.value)) == (error, text)


@pytest.mark.parametrize("name", reference.IMPLEMENTATIONS)
def test_references_refuse_what_the_operator_refuses(name, monkeypatch):
    if name == "deform_conv2d":
        pytest.importorskip("torchvision")
    calls = [row for row in FUNCTIONS if "spatial_shift" in row[0].__code__.co_names]
    assert len(calls) > 20
    monkeypatch.setitem(globals(), "spatial_shift", reference.IMPLEMENTATIONS[name])
    for row in calls:
        test_call(*row)


@pytest.mark.parametrize("name", [name for name in reference.IMPLEMENTATIONS if name != "slices + cat"])
def test_references_that_multiply_take_floating_point_maps(name):
    if name == "deform_conv2d":
        pytest.importorskip("torchvision")
    test_call(lambda: reference.IMPLEMENTATIONS[name](X.int()), TypeError, f"x {FLOATING}, got torch.int32")


#: As for the functions, which check first.
SIZES = [24]
SHIFT = [0, 0], SIZES
TOO_LARGE = "tokens of 8 channels is too large for 1 groups"
RAW = [
    (lambda ops, x: ops.spatial_shift(x[0, 0], [0, 1]), "x must have at least 3 dimensions, (..., H, W, C), got shape (5, 24)"),
    (lambda ops, x: ops.spatial_shift(x, []), NO_OFFSETS),
    (lambda ops, x: ops.spatial_shift(x, [1]), "offsets must be a flat list dh0, dw0, dh1, dw1, ..., got a list of length 1"),
    (
        lambda ops, x: ops.spatial_shift(x, [0, 1] * 25),
        "cannot split 24 channels into 25 groups: give at most one offset per channel",
    ),
    (lambda ops, x: ops.spatial_shift(x, [0, 1], [12, 12]), "group_sizes has 2 entries, but there are 1 offsets"),
    (lambda ops, x: ops.spatial_shift(x, [0, 1] * 2, [25, -1]), "group_sizes must not be negative, got [25, -1]"),
    (lambda ops, x: ops.spatial_shift(x, [0, 1] * 2, [2**62] * 2), "do not sum to the 24 channels of x"),
    (lambda ops, x: ops.spatial_shift(x, [0, 1], None, "same"), MODES),
    (
        lambda ops, x: ops.spatial_shift(x, [0, 1], None, "zeros", "NCHW"),
        "data_format must be one of 'channels_last', 'channels_first', got 'NCHW'",
    ),
    (lambda ops, x: ops.spatial_shift(x.cfloat(), [0, 1]), DTYPES),
    (
        lambda ops, x: ops.spatial_shift(x[:0, :1, :1, :1].expand(0, 2**62, 1, 8), [0, 1], None, "reflect"),
        f"a map of {2**62} x 1 {TOO_LARGE}",
    ),
    (
        lambda ops, x: ops.spatial_shift(freed(x), [0, 1]),
        "x has shape (2, 4, 5, 24), which takes a storage of 3840 bytes, but its storage has 0 bytes: it was resized or freed",
    ),
    (lambda ops, x: ops.spatial_shift_backward(x.int(), [0, 1]), f"grad {FLOATING}"),
    (lambda ops, x: ops.spatial_shift_backward(x, [0, 1], [23]), "group_sizes [23] do not sum to the 24 channels of x"),
    (lambda ops, x: ops.gelu_spatial_shift(x.int(), [0, 1]), f"x {FLOATING}"),
    (lambda ops, x: ops.gelu_spatial_shift(x, [0, 1], None, "erf"), "approximate must be one of 'none', 'tanh', got 'erf'"),
    (lambda ops, x: ops.gelu_spatial_shift_backward(x[:1], x, [0, 1]), "x and grad must have the same shape"),
    (lambda ops, x: ops.gelu_spatial_shift_backward(x[0], x, [0, 1]), "x and grad must have the same shape"),
    (lambda ops, x: ops.gelu_spatial_shift_backward(x.double(), x, [0, 1]), "x and grad must have the same dtype"),
    (lambda ops, x: ops.shift_branch_pool(x, 5, *SHIFT), "cannot split 24 channels into 5 branches of equal size"),
    (lambda ops, x: ops.shift_branch_pool(x, 0, *SHIFT), "cannot split 24 channels into 0 branches of equal size"),
    (lambda ops, x: ops.shift_branch_pool(x, -1, *SHIFT), "cannot split 24 channels into -1 branches of equal size"),
    (lambda ops, x: ops.shift_branch_pool(x, -(2**63), *SHIFT), f"cannot split 24 channels into {-(2**63)} branches of equal size"),
    (
        lambda ops, x: ops.shift_branch_pool(x, 3, *SHIFT),
        "group_sizes: channels 0 to 23 form one group, but belong to different branches",
    ),
    (lambda ops, x: ops.shift_branch_pool(x, 1, [0, 0], [23]), "group_sizes [23] do not sum to the 24 channels of x"),
    (lambda ops, x: ops.shift_branch_pool(x, 1, [0, 0], []), "group_sizes has 0 entries, but there are 1 offsets"),
    (
        lambda ops, x: ops.shift_branch_pool(x[0, 0], 1, *SHIFT),
        "x must have at least 3 dimensions, (..., H, W, C), got shape (5, 24)",
    ),
    (lambda ops, x: ops.shift_branch_pool(x.int(), 1, *SHIFT), f"x {FLOATING}"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], height=-1), "height and width must not be negative, got -1 and 4"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], width=-(2**63)), f"height and width must not be negative, got 4 and {-(2**63)}"),
    (lambda ops, x: pool_backward(ops, x[:, 0, :, :8], height=2**62, sizes=[8]), f"a map of {2**62} x 4 {TOO_LARGE}"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], branches=2**62), f"cannot make a map of {2**62} branches of 24 channels"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], branches=0), "cannot make a map of 0 branches of 24 channels"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], branches=-1), "cannot make a map of -1 branches of 24 channels"),
    (lambda ops, x: pool_backward(ops, x[0, 0, 0, 0]), "grad must have at least 1 dimension, got 0"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], dtype=torch.complex64), f"dtype {FLOATING}"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], dtype=torch.int32), f"dtype {FLOATING}"),
    (lambda ops, x: pool_backward(ops, x[:, 0, 0], dtype=torch.float64), "grad must be float32, or float64 for a float64 map"),
    (lambda ops, x: ops.shift_branch_combine(x, x[:, 0, :1], [0, 1], [24], "same"), MODES),
    (lambda ops, x: ops.shift_branch_combine(x, x[0, 0, 0], *SHIFT), "weights must have shape (..., K, C), got (24,)"),
    (
        lambda ops, x: ops.shift_branch_combine(x, x[0, 0, :1], *SHIFT),
        "weights must have shape (..., K, C) = (2, 1, 24), got (1, 24)",
    ),
    (
        lambda ops, x: ops.shift_branch_combine(x, x[:, 0, :1].double(), *SHIFT),
        "weights must be float32, or float64 for a float64 map",
    ),
    (
        lambda ops, x: ops.shift_branch_combine_backward(x, x[:, 0, :1], x[:, 0, 0, :5], *SHIFT),
        "pool_grad must have shape (..., C) = (2, 24), got (2, 5)",
    ),
    (
        lambda ops, x: ops.shift_branch_combine_backward(x[:0], x[:0, 0, :1, :1].expand(0, 2**62, 24), None, *SHIFT),
        f"cannot make a map of {2**62} branches of 24 channels",
    ),
    (
        lambda ops, x: ops.shift_branch_combine_backward_weights(x[:1], x, *SHIFT),
        "x must have the shape of grad, except that its channels must be a multiple of those of grad",
    ),
    (lambda ops, x: ops.shift_branch_combine_backward_weights(x.double(), x, *SHIFT), "x and grad must have the same dtype"),
]


def freed(x):
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x


def pool_backward(ops, grad, height=4, width=4, dtype=torch.float32, branches=1, sizes=SIZES):
    return ops.shift_branch_pool_backward(grad, height, width, dtype, branches, [0, 0], sizes)


@pytest.mark.parametrize("call, text", RAW)
def test_raw_operator(call, text, device):
    with pytest.raises(RuntimeError) as raised:
        call(torch.ops.s2mlp_cuda, EXPANDED.to(device))
    assert type(raised.value) is RuntimeError and str(raised.value).endswith(text)


@pytest.mark.parametrize("layout", ["sparse", "nested", "mkldnn", "quantized"])
def test_raw_operators_take_dense_tensors(layout):
    x = {
        "sparse": lambda: X.to_sparse(),
        "nested": lambda: torch.nested.nested_tensor([X[0], X[1]]),
        "mkldnn": lambda: X.to_mkldnn(),
        "quantized": lambda: torch.quantize_per_tensor(X, 1, 0, torch.qint8),
    }[layout]()
    for call in (
        lambda: torch.ops.s2mlp_cuda.spatial_shift(x, [0, 1]),
        lambda: torch.ops.s2mlp_cuda.shift_branch_pool(x, 1, [0, 0], [8]),
        lambda: torch.ops.s2mlp_cuda.shift_branch_combine(X, x, [0, 0], [8]),
    ):
        with pytest.raises(NotImplementedError, match="Could not run 's2mlp_cuda::"):
            call()
