"""Invalid inputs raise an error before a kernel runs. The message says what is wrong and what is allowed."""

import re

import pytest
import torch

from s2mlp_cuda import SpatialShift, offsets, shift_branch_pool, spatial_shift

X = torch.zeros(2, 4, 5, 8)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"x": [[1.0]]}, TypeError, r"x must be a torch.Tensor, got list"),
        ({"x": X.to(torch.complex64)}, TypeError, r"x must be float64, .* or bool, got torch.complex64"),
        (
            {"x": torch.zeros(4, 8)},
            ValueError,
            r"x must have at least 3 dimensions, \(\.\.\., H, W, C\), got shape \(4, 8\)",
        ),
        (
            {"x": torch.zeros(4), "data_format": "channels_first"},
            ValueError,
            r"x must have at least 3 dimensions, \(\.\.\., C, H, W\), got shape \(4,\)",
        ),
        ({"offsets": [1, 2]}, TypeError, r"offsets must be a sequence of \(dh, dw\) pairs of integers, got \[1, 2\]"),
        ({"offsets": [(1, 2, 3)]}, TypeError, r"offsets must be a sequence of \(dh, dw\) pairs of integers, got"),
        ({"offsets": [(0.5, 1)]}, TypeError, r"offsets must be a sequence of \(dh, dw\) pairs of integers, got"),
        ({"offsets": None}, TypeError, r"offsets must be a sequence of \(dh, dw\) pairs of integers, got None"),
        ({"offsets": []}, ValueError, r"offsets is empty: give at least one \(dh, dw\) pair"),
        (
            {"offsets": [(0, 1)] * 9},
            ValueError,
            r"cannot split 8 channels into 9 groups: give at most one offset per channel",
        ),
        (
            {"padding_mode": "same"},
            ValueError,
            r"padding_mode must be one of 'replicate', 'zeros', 'circular', 'reflect', got 'same'",
        ),
        ({"data_format": "NHWC"}, ValueError, r"data_format must be one of 'channels_last', 'channels_first', got 'NHWC'"),
        ({"group_sizes": (4, 4)}, ValueError, r"group_sizes has 2 entries, but there are 4 offsets"),
        ({"group_sizes": (4, 4, 4, -4)}, ValueError, r"group_sizes must not be negative, got \[4, 4, 4, -4\]"),
        ({"group_sizes": (2, 2, 2, 1)}, ValueError, r"group_sizes \[2, 2, 2, 1\] do not sum to the 8 channels of x"),
        ({"group_sizes": (2.0, 2, 2, 2)}, TypeError, r"group_sizes must be a sequence of integers, got \(2.0, 2, 2, 2\)"),
        ({"group_sizes": 8}, TypeError, r"group_sizes must be a sequence of integers, got 8"),
    ],
)
def test_function(arguments, error, text):
    with pytest.raises(error, match=text):
        spatial_shift(**{"x": X, **arguments})


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"offsets": [(1,)]}, TypeError, r"offsets must be a sequence of \(dh, dw\) pairs of integers, got"),
        ({"padding_mode": "same"}, ValueError, r"padding_mode must be one of '.*', got 'same'"),
        ({"data_format": "NCHW"}, ValueError, r"data_format must be one of 'channels_last', 'channels_first', got 'NCHW'"),
        ({"group_sizes": (4, 4)}, ValueError, r"group_sizes has 2 entries, but there are 4 offsets"),
        ({"group_sizes": (4, 4, 4, -4)}, ValueError, r"group_sizes must not be negative, got \[4, 4, 4, -4\]"),
    ],
)
def test_layer_errors_at_construction(arguments, error, text):
    with pytest.raises(error, match=text):
        SpatialShift(**arguments)


@pytest.mark.parametrize("op", ["spatial_shift", "spatial_shift_backward"])
@pytest.mark.parametrize(
    "x, arguments",
    [
        (X[0, 0], {}),
        (X[0, 0, 0], {"data_format": "channels_first"}),
        (X, {"offsets": []}),
        (X, {"offsets": [(0, 1)] * 9}),
        (X, {"offsets": [(0, 1)], "group_sizes": [4, 4]}),
        (X, {"group_sizes": [9, -1, 0, 0]}),
        (X, {"group_sizes": [1, 1, 1, 1]}),
        (X, {"group_sizes": [2**62] * 4}),
        (X, {"padding_mode": "same"}),
        (X, {"data_format": "NCHW"}),
        (X.to(torch.complex64), {}),
    ],
)
def test_raw_operators_raise_the_same_messages(op, x, arguments, device):
    """The function checks first, so that users get a ValueError or a TypeError. The operator checks for direct calls."""
    with pytest.raises((TypeError, ValueError)) as raised:
        spatial_shift(x, **arguments)
    text = str(raised.value)
    if "must be float64" in text:  # C++ does not print the dtype, and the backward op supports fewer dtypes
        text = "must be float64, float32, float16"
    arguments = {"offsets": offsets.V1, **arguments}
    arguments["offsets"] = [d for pair in arguments["offsets"] for d in pair]
    with pytest.raises(RuntimeError, match=re.escape(text)):
        getattr(torch.ops.s2mlp_cuda, op)(x.to(device), **arguments)


def test_raw_operator_rejects_an_odd_number_of_offsets(device):
    with pytest.raises(RuntimeError, match="offsets must be a flat list dh0, dw0, dh1, dw1, ..., got a list of length 1"):
        torch.ops.s2mlp_cuda.spatial_shift(X.to(device), [1])


def test_integer_gradients_are_rejected(device):
    with pytest.raises(RuntimeError, match="grad must be float64, float32, float16 or bfloat16"):
        torch.ops.s2mlp_cuda.spatial_shift_backward(torch.ones(3, 3, 4, dtype=torch.int32, device=device), [0, 1])


def test_invalid_tables_that_equal_cached_ones_are_rejected():
    """(1.0, 0) equals (1, 0), which is cached by the previous call. The same for the branches of a split attention."""
    spatial_shift(X, ((1, 0), (0, 1)))
    with pytest.raises(TypeError, match="pairs of integers"):
        spatial_shift(X, ((1.0, 0), (0, 1)))
    shift_branch_pool(X, (((1, 0),), None))
    with pytest.raises(TypeError, match="pairs of integers"):
        shift_branch_pool(X, (((1.0, 0),), None))
