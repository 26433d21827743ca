"""The spatial shift of S2-MLP as one fused operator for PyTorch, and the S2-MLP and S2-MLPv2 models."""

from s2mlp_cuda import offsets, reference
from s2mlp_cuda._version import __version__
from s2mlp_cuda.layers import GELUSpatialShift, ShiftSplitAttention, SpatialShift
from s2mlp_cuda.models import create_model, list_models
from s2mlp_cuda.ops import (
    SpatialShiftFunction,
    gelu_spatial_shift,
    shift_branch_combine,
    shift_branch_pool,
    shift_split_attention,
    spatial_shift,
)

__all__ = [
    "GELUSpatialShift",
    "ShiftSplitAttention",
    "SpatialShift",
    "SpatialShiftFunction",
    "__version__",
    "create_model",
    "gelu_spatial_shift",
    "list_models",
    "offsets",
    "reference",
    "shift_branch_combine",
    "shift_branch_pool",
    "shift_split_attention",
    "spatial_shift",
]
