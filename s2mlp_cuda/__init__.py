"""The spatial shift of S2-MLP as one fused operator for PyTorch, and the S2-MLP and S2-MLPv2 models.

Submodules that are not needed for these, such as ``s2mlp_cuda.convert``, are imported when they are first used.
"""

from importlib import import_module as _import_module
from types import ModuleType as _ModuleType

from s2mlp_cuda import decompositions, offsets, reference
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
    "decompositions",
    "gelu_spatial_shift",
    "list_models",
    "offsets",
    "reference",
    "shift_branch_combine",
    "shift_branch_pool",
    "shift_split_attention",
    "spatial_shift",
]

_SUBMODULES = ("bench", "convert", "demo", "export", "hub", "timm", "training")


def __getattr__(name: str) -> _ModuleType:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(f"{__name__}.{name} cannot be imported: {error}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
