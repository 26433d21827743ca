"""Compares the raw operators of a namespace with the NumPy oracle, on one case."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

import numpy_oracle as oracle
from strategies import BranchCase, Layout, ShiftCase


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def whole_numbers(dtype: torch.dtype, seed: int):
    """Small integers, whose sums are exact in every dtype."""
    low, high = {torch.bool: (0, 2), torch.uint8: (0, 3)}.get(dtype, (-2, 3))
    return lambda shape: torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def any_bits(dtype: torch.dtype, seed: int):
    """Every pattern of bits: infinities, NaN with payloads, negative zeros, subnormal numbers."""

    def make(shape) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        if dtype == torch.bool:
            return torch.randint(0, 2, shape, generator=generator).bool()
        count = torch.Size(shape).numel() * dtype.itemsize
        return torch.randint(0, 256, (count,), generator=generator).to(torch.uint8).view(dtype).view(shape)

    return make


def reals(dtype: torch.dtype, seed: int):
    """Normally distributed numbers."""
    return lambda shape: torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(3).to(dtype)


def bits_of(x: torch.Tensor) -> np.ndarray:
    """The bits as integers, channels as they are."""
    x = x.contiguous()
    return x.view(torch.uint8 if x.dtype == torch.bool else getattr(torch, f"int{8 * x.dtype.itemsize}")).numpy()


def channels_last(x: np.ndarray, data_format: str) -> np.ndarray:
    return x if data_format == "channels_last" else np.moveaxis(x, -3, -1)


def unchanged(x: torch.Tensor, before: torch.Tensor) -> None:
    assert np.array_equal(bits_of(x), bits_of(before)), "an input was changed"


def check_close(ours: torch.Tensor, exact: np.ndarray, magnitude: np.ndarray, terms: int, dtype: torch.dtype) -> None:
    """Allows half a unit in the last place, and the rounding errors of a sum in the accumulator's dtype.

    Args:
        ours, exact: the result and its exact value, channels last.
        magnitude: the sum of the absolute values of the terms of each element.
        terms: how many there are at most.
    """
    assert ours.dtype == dtype and ours.shape == exact.shape
    info, accumulator = torch.finfo(dtype), torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    error = np.abs(ours.double().numpy() - exact)
    tolerance = 0.51 * info.eps * np.abs(exact) + (terms + 2) * accumulator.eps * magnitude + info.smallest_normal * info.eps
    assert (error <= tolerance).all(), f"error {error.max()}"


def check_shift(ops, case: ShiftCase) -> None:
    """Forward: the bits. Backward: sums of small integers, which are exact."""
    table = case.offsets, case.group_sizes, case.mode
    arguments = case.offsets, case.group_sizes, case.mode, case.data_format
    x = case.x.place(case.shape, any_bits(case.dtype, case.seed))
    before = x.clone()
    with threads(case.threads):
        out = ops.spatial_shift(x, *arguments)
    unchanged(x, before)
    assert out.shape == x.shape and out.dtype == x.dtype
    expected = oracle.shift(channels_last(bits_of(x), case.data_format), *table)
    assert np.array_equal(channels_last(bits_of(out), case.data_format), expected), "forward"
    if not case.dtype.is_floating_point:
        return
    grad = case.grad.place(case.shape, whole_numbers(case.dtype, case.seed))
    with threads(case.threads):
        out = ops.spatial_shift_backward(grad, *arguments)
    exact = oracle.adjoint(channels_last(grad.double().numpy(), case.data_format), *table)
    # bfloat16 represents integers up to 2^8; a token is read at most as many times as the map has tokens, which are at most 121.
    limit = 2 / torch.finfo(case.dtype).eps
    assert (np.abs(exact) <= limit).all()
    assert np.array_equal(channels_last(out.double().numpy(), case.data_format), exact), "adjoint"


def check_gelu(ops, case: ShiftCase) -> None:
    table = case.offsets, case.group_sizes, case.mode
    arguments = case.offsets, case.group_sizes, case.approximate, case.mode, case.data_format
    x = case.x.place(case.shape, reals(case.dtype, case.seed))
    grad = case.grad.place(case.shape, whole_numbers(case.dtype, case.seed))
    with threads(case.threads):
        out = ops.gelu_spatial_shift(x, *arguments)
        x_grad = ops.gelu_spatial_shift_backward(grad, x, *arguments)
    values = channels_last(x.double().numpy(), case.data_format)
    grads = channels_last(grad.double().numpy(), case.data_format)
    out, x_grad = (tensor if case.data_format == "channels_last" else tensor.movedim(-3, -1) for tensor in (out, x_grad))
    exact = oracle.shift(oracle.gelu(values, case.approximate), *table)
    check_close(out, exact, oracle.shift(np.abs(values), *table), 6, case.dtype)
    exact = oracle.adjoint(grads, *table) * oracle.gelu_slope(values, case.approximate)
    # The exponent of the tanh form is cubic in x; its relative error carries over to the slope.
    check_close(x_grad, exact, oracle.adjoint(np.abs(grads), *table) * (1 + np.abs(values)) ** 3, 6, case.dtype)


def check_branches(ops, case: BranchCase) -> None:
    *leading, height, width, channels = case.shape
    accumulator = torch.float64 if case.dtype == torch.float64 else torch.float32
    table = case.offsets, case.group_sizes, case.mode

    def place(layout: Layout, shape: tuple[int, ...], dtype: torch.dtype, number: int) -> torch.Tensor:
        return layout.place(shape, reals(dtype, case.seed + number))

    x = place(case.x, (*leading, height, width, case.branches * channels), case.dtype, 0)
    grad = place(case.grad, case.shape, case.dtype, 1)
    weights = place(case.weights, (*leading, case.branches, channels), accumulator, 2)
    pool_grad = place(case.pool_grad, (*leading, channels), accumulator, 3)
    with threads(case.threads):
        pooled = ops.shift_branch_pool(x, case.branches, *table)
        pool_backward = ops.shift_branch_pool_backward(pool_grad, height, width, case.dtype, case.branches, *table)
        combined = ops.shift_branch_combine(x, weights, *table)
        x_grad = ops.shift_branch_combine_backward(grad, weights, pool_grad, *table)
        x_grad_alone = ops.shift_branch_combine_backward(grad, weights, None, *table)
        weights_grad = ops.shift_branch_combine_backward_weights(grad, x, *table)

    def expected(x: np.ndarray, grad: np.ndarray, weights: np.ndarray, pool_grad: np.ndarray) -> list[np.ndarray]:
        return [
            oracle.pool(x, case.branches, *table),
            oracle.combine_backward(np.zeros_like(grad), weights, pool_grad, *table),
            oracle.combine(x, weights, *table),
            oracle.combine_backward(grad, weights, pool_grad, *table),
            oracle.combine_backward(grad, weights, None, *table),
            oracle.combine_backward_weights(grad, x, *table),
        ]

    inputs = [tensor.double().numpy() for tensor in (x, grad, weights, pool_grad)]
    results = [pooled, pool_backward, combined, x_grad, x_grad_alone, weights_grad]
    tokens = height * width
    terms = [case.branches * tokens, tokens, case.branches, tokens + 1, tokens, tokens]
    dtypes = [accumulator, *[case.dtype] * 4, accumulator]
    for arguments in zip(results, expected(*inputs), expected(*map(np.abs, inputs)), terms, dtypes, strict=True):
        check_close(*arguments)
