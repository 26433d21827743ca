"""The operators, one file each. Importing this package loads the compiled kernels."""

from s2mlp_cuda import _extension

_extension.load()

from s2mlp_cuda.ops.spatial_shift import SpatialShiftFunction, spatial_shift  # noqa: E402

__all__ = ["SpatialShiftFunction", "spatial_shift"]
