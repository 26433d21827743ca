"""The operators, one per file. Importing this package loads the compiled kernels."""

from s2mlp_cuda import _extension

_extension.load()

from s2mlp_cuda._arguments import PADDING_MODES  # noqa: E402
from s2mlp_cuda.ops.gelu_spatial_shift import GELUSpatialShiftFunction, gelu_spatial_shift  # noqa: E402
from s2mlp_cuda.ops.shift_branches import (  # noqa: E402
    ShiftBranchCombineFunction,
    ShiftBranchPoolFunction,
    shift_branch_combine,
    shift_branch_pool,
)
from s2mlp_cuda.ops.shift_split_attention import shift_split_attention  # noqa: E402
from s2mlp_cuda.ops.spatial_shift import SpatialShiftFunction, spatial_shift  # noqa: E402

__all__ = [
    "GELUSpatialShiftFunction",
    "PADDING_MODES",
    "ShiftBranchCombineFunction",
    "ShiftBranchPoolFunction",
    "SpatialShiftFunction",
    "gelu_spatial_shift",
    "shift_branch_combine",
    "shift_branch_pool",
    "shift_split_attention",
    "spatial_shift",
]
