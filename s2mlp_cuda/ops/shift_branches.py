"""Pooling and weighted sum of shifted branches, without storing a shifted map: functions and derivative rules.

An expanded map holds K branches of C channels side by side, each with its own shift table. ``pool`` is linear in x; ``combine`` is
linear in x and in the weights. Derivatives of all orders are therefore composed of these operators.
"""

from collections.abc import Sequence
from functools import reduce
from numbers import Real

import torch
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic

from s2mlp_cuda._arguments import (
    BranchOffsets,
    branch_groups,
    check_beside_map,
    check_branches,
    check_floating,
    check_map,
    check_padding_mode,
    check_same_device,
)
from s2mlp_cuda.ops._differentiable import Rules, differentiable
from s2mlp_cuda.ops._torchscript import not_for_torchscript


def accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and weights: float64 for float64 maps, float32 otherwise."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@not_for_torchscript
def shift_branch_pool(x: torch.Tensor, branch_offsets: Sequence[BranchOffsets], *, padding_mode: str = "replicate") -> torch.Tensor:
    """Sum over branches and tokens of the shifted branches (S2-MLPv2, arXiv 2108.01072, eq. 9). Reads x once.

    Args:
        x: expanded map of shape (..., H, W, K*C): K branches side by side. float64, float32, float16 or bfloat16, with any
            strides. Copied first if channels are not contiguous or leading dimensions cannot be merged into one.
        branch_offsets: K shift tables, as ``offsets`` of :func:`s2mlp_cuda.spatial_shift`; None leaves a branch unshifted.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`.

    Returns:
        A tensor of shape (..., C), in float32 (float64 for float64 maps). Bitwise identical for any number of threads.

    Raises:
        TypeError: ``x`` is not a floating-point tensor; ``branch_offsets`` is not a sequence of tables; an offset is not a pair of
            integers.
        ValueError: fewer than three dimensions, no branches, a number of channels that is not a multiple of K, a table with
            more groups than channels, or an unknown padding mode.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(shift_branch_pool, (x,), x, branch_offsets, padding_mode=padding_mode)
    _, offsets, sizes = check_expanded_map(x, branch_offsets, padding_mode)
    return pool(x, len(branch_offsets), offsets, sizes, padding_mode)


@not_for_torchscript
def shift_branch_combine(
    x: torch.Tensor,
    weights: torch.Tensor | float,
    branch_offsets: Sequence[BranchOffsets],
    *,
    padding_mode: str = "replicate",
) -> torch.Tensor:
    """Weighted sum of the shifted branches (S2-MLPv2, arXiv 2108.01072, eq. 12), in one read and one write.

    Args:
        x: expanded map of shape (..., H, W, K*C), as in :func:`shift_branch_pool`.
        weights: (..., K, C), one weight per image, branch and channel, with the leading dimensions of ``x``. Expanded leading
            dimensions are not copied. Converted to float32 (float64 for float64 maps). Or one number, the weight of everything.
            Others are expanded: a parameter ``scale`` of shape (K,), one number per branch, is given as
            ``scale[:, None].expand(*x.shape[:-3], K, C)``.
        branch_offsets: as in :func:`shift_branch_pool`.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`.

    Returns:
        A new contiguous tensor of shape (..., H, W, C) with the dtype of ``x``, accumulated in float32 (float64 for float64
        maps). Zero padding is multiplied like any other value: it is NaN if the weight is infinite or NaN.

        The gradient of ``x`` is zero at tokens that no output reads, whatever the weights are. Where several outputs read a token,
        their gradients are summed before they are multiplied by the weight. An infinite weight therefore makes it infinite where
        a sum of products would be NaN, because they have different signs.

    Raises:
        TypeError, ValueError: as in :func:`shift_branch_pool`; TypeError if ``weights`` is neither a real tensor nor a real number,
            ValueError if it has a different shape.
        RuntimeError: ``x`` and ``weights`` are on different devices.
    """
    if has_torch_function_variadic(x, weights):
        return handle_torch_function(shift_branch_combine, (x, weights), x, weights, branch_offsets, padding_mode=padding_mode)
    channels, offsets, sizes = check_expanded_map(x, branch_offsets, padding_mode)
    dtype, leading, shape = accumulator_dtype(x.dtype), x.shape[:-3], (len(branch_offsets), channels)
    if isinstance(weights, Real):
        weights = x.new_full(shape, weights, dtype=dtype).expand(*leading, *shape)
    tensor = check_beside_map(weights, "weights", x)
    if tensor.shape != (*leading, *shape):
        raise ValueError(f"weights must have shape (..., K, C) = {(*leading, *shape)}, got {tuple(tensor.shape)}")
    return combine(x, tensor.to(dtype), offsets, sizes, padding_mode)


def check_expanded_map(x, branch_offsets, padding_mode) -> tuple[int, list[int], list[int]]:
    """Checks an expanded map and its tables; returns the channels of one branch, flat offsets and group sizes."""
    expanded_channels = check_map(x, "channels_last")
    check_floating(x, "x")
    check_padding_mode(padding_mode)
    channels = check_branches(branch_offsets, expanded_channels)
    return channels, *branch_groups(branch_offsets, channels)


class _Pool(Rules):
    """``(x, branches, offsets, group_sizes, padding_mode)``."""

    op = torch.ops.s2mlp_cuda.shift_branch_pool.default
    num_tensors = 1

    @staticmethod
    def fake(x, branches, *table):
        return x.new_empty((*x.shape[:-3], x.shape[-1] // branches), dtype=accumulator_dtype(x.dtype))

    @staticmethod
    def save(x, *arguments):
        return (), (x.shape[-3], x.shape[-2], x.dtype, *arguments)

    @staticmethod
    def backward(saved, arguments, needs_grad, grad):
        return (pool_backward(grad, *arguments),)

    @staticmethod
    def jvp(saved, arguments, tangent):
        return pool(tangent, *arguments[3:])


class _PoolBackward(Rules):
    """``(grad, height, width, dtype, branches, offsets, group_sizes, padding_mode)``: the adjoint of ``pool``."""

    op = torch.ops.s2mlp_cuda.shift_branch_pool_backward.default
    num_tensors = 1

    @staticmethod
    def fake(grad, height, width, dtype, branches, *table):
        return grad.new_empty((*grad.shape[:-1], height, width, branches * grad.shape[-1]), dtype=dtype)

    @staticmethod
    def save(grad, *arguments):
        return (), arguments

    @staticmethod
    def backward(saved, arguments, needs_grad, grad_grad):
        return (pool(grad_grad, *arguments[3:]),)

    @staticmethod
    def jvp(saved, arguments, tangent):
        return pool_backward(tangent, *arguments)


class _Combine(Rules):
    """``(x, weights, offsets, group_sizes, padding_mode)``."""

    op = torch.ops.s2mlp_cuda.shift_branch_combine.default
    num_tensors = 2

    @staticmethod
    def fake(x, weights, *table):
        check_same_device(weights, "weights", x, "x")
        return x.new_empty((*x.shape[:-1], weights.shape[-1]))

    @staticmethod
    def save(x, weights, *table):
        return (x, weights), table

    @staticmethod
    def backward(saved, table, needs_grad, grad):
        x, weights = saved
        return (
            combine_backward(grad, weights, None, *table) if needs_grad[0] else None,
            weights_gradient(grad, x, weights, *table) if needs_grad[1] else None,
        )

    @staticmethod
    def jvp(saved, table, x_tangent, weights_tangent):
        x, weights = saved
        return _sum(
            None if x_tangent is None else combine(x_tangent, weights, *table),
            None if weights_tangent is None else combine(x, weights_tangent, *table),
        )


class _CombineBackward(Rules):
    """``(grad, weights, pool_grad, offsets, group_sizes, padding_mode)``: the gradient of x through ``combine``, plus its
    gradient through ``pool`` if ``pool_grad`` is given."""

    op = torch.ops.s2mlp_cuda.shift_branch_combine_backward.default
    num_tensors = 3

    @staticmethod
    def fake(grad, weights, pool_grad, *table):
        check_same_device(weights, "weights", grad, "grad")
        if pool_grad is not None:
            check_same_device(pool_grad, "pool_grad", grad, "grad")
        return grad.new_empty((*grad.shape[:-1], weights.shape[-2] * grad.shape[-1]))

    @staticmethod
    def save(grad, weights, pool_grad, *table):
        return (grad, weights), table

    @staticmethod
    def backward(saved, table, needs_grad, grad_grad):
        grad, weights = saved
        return (
            combine(grad_grad, weights, *table) if needs_grad[0] else None,
            weights_gradient(grad, grad_grad, weights, *table) if needs_grad[1] else None,
            pool(grad_grad, weights.shape[-2], *table) if needs_grad[2] else None,
        )

    @staticmethod
    def jvp(saved, table, grad_tangent, weights_tangent, pool_grad_tangent):
        grad, weights = saved
        height, width = grad.shape[-3:-1]
        return _sum(
            None if grad_tangent is None else combine_backward(grad_tangent, weights, None, *table),
            None if weights_tangent is None else combine_backward(grad, weights_tangent, None, *table),
            None
            if pool_grad_tangent is None
            else pool_backward(pool_grad_tangent, height, width, grad.dtype, weights.shape[-2], *table),
        )


class _CombineBackwardWeights(Rules):
    """``(grad, x, offsets, group_sizes, padding_mode)``: the gradient of the weights."""

    op = torch.ops.s2mlp_cuda.shift_branch_combine_backward_weights.default
    num_tensors = 2

    @staticmethod
    def fake(grad, x, *table):
        check_same_device(x, "x", grad, "grad")
        channels = grad.shape[-1]
        shape = (*x.shape[:-3], x.shape[-1] // channels if channels else 1, channels)
        return x.new_empty(shape, dtype=accumulator_dtype(x.dtype))

    @staticmethod
    def save(grad, x, *table):
        return (grad, x), table

    @staticmethod
    def backward(saved, table, needs_grad, grad_grad):
        grad, x = saved
        return (
            combine(x, grad_grad, *table) if needs_grad[0] else None,
            combine_backward(grad, grad_grad, None, *table) if needs_grad[1] else None,
        )

    @staticmethod
    def jvp(saved, table, grad_tangent, x_tangent):
        grad, x = saved
        return _sum(
            None if grad_tangent is None else combine_backward_weights(grad_tangent, x, *table),
            None if x_tangent is None else combine_backward_weights(grad, x_tangent, *table),
        )


def _sum(*terms: torch.Tensor | None) -> torch.Tensor:
    """The sum of the terms that are not None, of which there must be at least one."""
    return reduce(torch.add, (term for term in terms if term is not None))


_pool = differentiable(_Pool)
_pool_backward = differentiable(_PoolBackward)
_combine = differentiable(_Combine)
_combine_backward = differentiable(_CombineBackward)
_combine_backward_weights = differentiable(_CombineBackwardWeights)


# The differentiable operators, with the raw operators' arguments: flat tables, no defaults.


def pool(x, branches: int, *table) -> torch.Tensor:
    return _pool.call(x, branches, *table)


def pool_backward(grad, height: int, width: int, dtype: torch.dtype, branches: int, *table) -> torch.Tensor:
    return _pool_backward.call(grad, height, width, dtype, branches, *table)


def combine(x, weights, *table) -> torch.Tensor:
    return _combine.call(x, weights, *table)


def combine_backward(grad, weights, pool_grad, *table) -> torch.Tensor:
    return _combine_backward.call(grad, weights, pool_grad, *table)


def combine_backward_weights(grad, x, *table) -> torch.Tensor:
    return _combine_backward_weights.call(grad, x, *table)


def weights_gradient(grad, x, weights, *table) -> torch.Tensor:
    """``combine_backward_weights`` with the shape of the weights: maps without channels do not tell the number of branches."""
    return combine_backward_weights(grad, x, *table).expand_as(weights)


class ShiftBranchPoolFunction(_pool.Function):  # type: ignore[name-defined]
    """``.apply(x, branches, flat_offsets, group_sizes, padding_mode)``; use :func:`shift_branch_pool`."""


class ShiftBranchCombineFunction(_combine.Function):  # type: ignore[name-defined]
    """``.apply(x, weights, flat_offsets, group_sizes, padding_mode)``; use :func:`shift_branch_combine`."""
