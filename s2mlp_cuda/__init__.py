"""The spatial shift of S2-MLP as one fused operator for PyTorch, and the S2-MLP and S2-MLPv2 models."""

from s2mlp_cuda import offsets, reference
from s2mlp_cuda.layers import SpatialShift
from s2mlp_cuda.models import create_model, list_models
from s2mlp_cuda.ops import SpatialShiftFunction, spatial_shift

__version__ = "0.1.0"
__all__ = [
    "SpatialShift",
    "SpatialShiftFunction",
    "create_model",
    "list_models",
    "offsets",
    "reference",
    "spatial_shift",
]
