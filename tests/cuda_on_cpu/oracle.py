"""Checks the operators of a namespace on one case."""

import torch
import torch.nn.functional as F

from s2mlp_cuda import reference

from cases import BranchCase, Case, GeluCase
from gelu_accuracy import inaccuracy

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def failure_of(case: Case | BranchCase, ops, device: str = "cpu") -> str:
    """A description of what is wrong; empty if nothing is."""
    if isinstance(case, BranchCase):
        return branch_failure(case, ops, device)
    return gelu_failure(case, ops, device) if isinstance(case, GeluCase) else shift_failure(case, ops, device)


def shift_failure(case: Case, ops, device: str) -> str:
    """Compares with the slice reference: forward bitwise, adjoint up to rounding."""
    x = case.make(device)
    flat = [d for pair in case.offsets for d in pair]
    keywords = {"padding_mode": case.mode, "data_format": case.data_format}
    out = ops.spatial_shift(x, flat, case.group_sizes, **keywords)
    if not torch.equal(out, reference.spatial_shift(x, case.offsets, group_sizes=case.group_sizes, **keywords)):
        return "forward differs from the reference"
    if not x.is_floating_point():
        return ""
    ours = ops.spatial_shift_backward(x, flat, case.group_sizes, **keywords)
    leaf = torch.zeros(x.shape, dtype=torch.float64, device=device, requires_grad=True)
    shifted = reference.spatial_shift(leaf, case.offsets, group_sizes=case.group_sizes, **keywords)
    (expected,) = torch.autograd.grad(shifted, leaf, x.double())
    tolerance = TOLERANCE[case.dtype]
    if not torch.allclose(ours.double(), expected, rtol=tolerance, atol=tolerance):
        return "adjoint differs from the reference"
    return ""


def close(ours: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tolerance: twice half a unit for rounding to the dtype, and a few units of float32 (float64) for the computation."""
    if ours.shape != expected.shape or ours.dtype not in (dtype, torch.float32):
        return False
    few = 16 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    relative = max(few, torch.finfo(ours.dtype).eps)
    largest = expected.where(expected.isfinite(), 0).abs().max().item()
    return torch.allclose(ours.double(), expected, rtol=relative, atol=few * max(1, largest), equal_nan=True)


def exact_gelu(x: torch.Tensor, approximate: str) -> torch.Tensor:
    """GELU in float64. Value and derivative at minus infinity are zero, where PyTorch has NaN."""
    inside = x.detach().isfinite()
    return torch.where(inside, F.gelu(x.where(inside, 0), approximate=approximate), x.relu())


def every_value_failure(case: GeluCase, ops, device: str) -> str:
    x, ones = case.make(device), case.make_grad(device)
    arguments = [0, 0], None, case.approximate
    value, slope = ops.gelu_spatial_shift(x, *arguments), ops.gelu_spatial_shift_backward(ones, x, *arguments)
    return inaccuracy(x, value, slope, case.approximate)


def gelu_failure(case: GeluCase, ops, device: str) -> str:
    """Compares with PyTorch's GELU in float64 and the slice reference."""
    if case.memory == "every value":
        return every_value_failure(case, ops, device)
    x, grad = case.make(device), case.make_grad(device)
    flat = [d for pair in case.offsets for d in pair]
    keywords = {"padding_mode": case.mode, "data_format": case.data_format}
    leaf = x.detach().double().requires_grad_()
    exact = exact_gelu(leaf, case.approximate)
    expected = reference.spatial_shift(exact, case.offsets, group_sizes=case.group_sizes, **keywords)
    ours = ops.gelu_spatial_shift(x, flat, case.group_sizes, case.approximate, **keywords)
    right = torch.equal(ours.double(), expected) if x.isinf().any() else close(ours, expected, case.dtype)
    if not right:
        return "forward differs from the reference"
    (expected,) = torch.autograd.grad(expected, leaf, grad.double())
    ours = ops.gelu_spatial_shift_backward(grad, x, flat, case.group_sizes, case.approximate, **keywords)
    if not close(ours, expected, case.dtype):
        return "backward differs from the reference"
    return ""


def branch_failure(case: BranchCase, ops, device: str) -> str:
    """Compares every op with the slice reference in float64 and its gradients."""
    tensors = case.make(device)
    x, weights, grad, pool_grad = tensors.values()
    tables = case.tables
    *_, height, width, channels = case.shape
    shifts = ([d for table in tables for pair in table for d in pair], case.group_sizes, case.mode)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    parts = [
        reference.spatial_shift(part, table, padding_mode=case.mode) for part, table in zip(exact["x"].split(channels, -1), tables)
    ]
    pooled = sum(part.sum((-3, -2)) for part in parts)
    combined = sum(part * w[..., None, None, :] for part, w in zip(parts, exact["weights"].unbind(-2)))
    (x_of_pool,) = torch.autograd.grad(pooled, exact["x"], exact["pool_grad"], retain_graph=True)
    x_of_combine, weights_grad = torch.autograd.grad(combined, (exact["x"], exact["weights"]), exact["grad"])
    branches = len(tables)
    results = {
        "pool": (ops.shift_branch_pool(x, branches, *shifts), pooled),
        "pool_backward": (
            ops.shift_branch_pool_backward(pool_grad, height, width, case.dtype, branches, *shifts), x_of_pool
        ),
        "combine": (ops.shift_branch_combine(x, weights, *shifts), combined),
        "combine_backward": (
            ops.shift_branch_combine_backward(grad, weights, pool_grad, *shifts), x_of_combine + x_of_pool
        ),
        "combine_backward without pool_grad": (
            ops.shift_branch_combine_backward(grad, weights, None, *shifts), x_of_combine
        ),
        "combine_backward_weights": (ops.shift_branch_combine_backward_weights(grad, x, *shifts), weights_grad),
    }  # fmt: skip
    for name, (ours, expected) in results.items():
        if not close(ours, expected.detach(), case.dtype):
            return f"{name} differs from the reference"
    return ""
