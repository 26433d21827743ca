"""Whether one namespace of operators is right on one case."""

import torch

from cases import Case
from s2mlp_cuda import reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def failure_of(case: Case, ops, device: str = "cpu") -> str:
    """Forward to the bit, adjoint to rounding, against the slice reference; empty when both are right."""
    x = case.make(device)
    flat = [d for pair in case.offsets for d in pair]
    keywords = {"padding_mode": case.mode, "data_format": case.data_format}
    out = ops.spatial_shift(x, flat, None, **keywords)
    if not torch.equal(out, reference.spatial_shift(x, case.offsets, **keywords)):
        return "forward differs from the reference"
    if not x.is_floating_point():
        return ""
    ours = ops.spatial_shift_backward(x, flat, None, **keywords)
    leaf = torch.zeros(x.shape, dtype=torch.float64, device=device, requires_grad=True)
    shifted = reference.spatial_shift(leaf, case.offsets, **keywords)
    (expected,) = torch.autograd.grad(shifted, leaf, x.double())
    tolerance = TOLERANCE[case.dtype]
    if not torch.allclose(ours.double(), expected, rtol=tolerance, atol=tolerance):
        return "adjoint differs from the reference"
    return ""
