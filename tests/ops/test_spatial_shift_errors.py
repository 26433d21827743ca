"""Every wrong input is refused before a kernel starts, with a text that says what was wrong and what is allowed."""

import pytest
import torch

from s2mlp_cuda import SpatialShift, offsets, shift_branch_pool, spatial_shift

X = torch.zeros(2, 4, 5, 8)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"x": [[1.0]]}, TypeError, r"x must be a torch.Tensor, got list"),
        ({"x": X.to(torch.complex64)}, TypeError, r"x has dtype torch.complex64; supported are float64, .* and bool"),
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
            r"cannot cut 8 channels into 9 groups: give at most one offset per channel",
        ),
        (
            {"padding_mode": "reflect"},
            ValueError,
            r"padding_mode must be one of 'replicate', 'zeros', 'circular', got 'reflect'",
        ),
        ({"data_format": "NHWC"}, ValueError, r"data_format must be one of 'channels_last', 'channels_first', got 'NHWC'"),
        ({"group_sizes": (4, 4)}, ValueError, r"group_sizes has 2 entries, but there are 4 offsets"),
        ({"group_sizes": (4, 4, 4, -4)}, ValueError, r"group_sizes must not be negative, got \[4, 4, 4, -4\]"),
        ({"group_sizes": (2, 2, 2, 1)}, ValueError, r"group_sizes \[2, 2, 2, 1\] sum to 7, but x has 8 channels"),
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
        ({"padding_mode": "same"}, ValueError, r"padding_mode must be one of 'replicate', 'zeros', 'circular', got 'same'"),
        ({"data_format": "NCHW"}, ValueError, r"data_format must be one of 'channels_last', 'channels_first', got 'NCHW'"),
        ({"group_sizes": (4, 4)}, ValueError, r"group_sizes has 2 entries, but there are 4 offsets"),
        ({"group_sizes": (4, 4, 4, -4)}, ValueError, r"group_sizes must not be negative, got \[4, 4, 4, -4\]"),
    ],
)
def test_layer_refuses_at_construction(arguments, error, text):
    with pytest.raises(error, match=text):
        SpatialShift(**arguments)


@pytest.mark.parametrize("op", ["spatial_shift", "spatial_shift_backward"])
@pytest.mark.parametrize(
    "x, arguments, text",
    [
        (X[0, 0], {}, "expected at least 3 dimensions, got 2"),
        (X, {"offsets": [1]}, "offsets must be a flat list dh0, dw0, dh1, dw1, ..., got 1 numbers"),
        (X, {"offsets": [0, 1] * 9}, "cannot cut 8 channels into 9 groups"),
        (X, {"offsets": [0, 1], "group_sizes": [4, 4]}, "group_sizes has 2 entries for 1 offsets"),
        (X, {"group_sizes": [9, -1, 0, 0]}, "group_sizes must be non-negative and sum to the 8 channels"),
        (X, {"group_sizes": [1, 1, 1, 1]}, "group_sizes sum to 4, but there are 8 channels"),
        (X, {"padding_mode": "reflect"}, "padding_mode must be 'replicate', 'zeros' or 'circular', got 'reflect'"),
        (X, {"data_format": "NCHW"}, "data_format must be 'channels_last' or 'channels_first', got 'NCHW'"),
        (X.to(torch.complex64), {}, "unsupported dtype"),
    ],
)
def test_raw_operator(op, x, arguments, text, device):
    flat = [d for pair in offsets.V1 for d in pair]
    with pytest.raises(RuntimeError, match=text.replace("(", r"\(")):
        getattr(torch.ops.s2mlp_cuda, op)(x.to(device), **{"offsets": flat, **arguments})


def test_integer_gradients_are_refused(device):
    with pytest.raises(RuntimeError, match="grad must be float64, float32, float16 or bfloat16"):
        torch.ops.s2mlp_cuda.spatial_shift_backward(torch.ones(3, 3, 4, dtype=torch.int32, device=device), [0, 1])


def test_equal_tables_are_not_taken_for_known_ones():
    """(1.0, 0) equals (1, 0), which has been accepted just before; and so for the branches of a split attention."""
    spatial_shift(X, ((1, 0), (0, 1)))
    with pytest.raises(TypeError, match="pairs of integers"):
        spatial_shift(X, ((1.0, 0), (0, 1)))
    shift_branch_pool(X, (((1, 0),), None))
    with pytest.raises(TypeError, match="pairs of integers"):
        shift_branch_pool(X, (((1.0, 0),), None))
