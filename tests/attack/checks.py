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
    yield
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


def check_close(ours: torch.Tensor, exact: np.ndarray, dtype: torch.dtype, scale: float, data_format="channels_last") -> None:
    """Allows half a unit in the last place, and rounding errors of the accumulator in sums of terms that ``scale`` bounds."""
    assert ours.dtype == dtype
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    ours = channels_last(ours.double().numpy(), data_format)
    assert ours.shape == exact.shape
    tolerance = 0.51 * torch.finfo(dtype).eps * np.abs(exact) + 64 * torch.finfo(accumulator).eps * scale
    tolerance += torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert (np.abs(ours - exact) <= tolerance).all(), f"error {np.abs(ours - exact).max()}"


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
    scale = 1 + np.abs(values).max(initial=0)
    check_close(out, oracle.shift(oracle.gelu(values, case.approximate), *table), case.dtype, scale, case.data_format)
    sums = oracle.adjoint(channels_last(grad.double().numpy(), case.data_format), *table)
    exact = sums * oracle.gelu_slope(values, case.approximate)
    check_close(x_grad, exact, case.dtype, 1 + np.abs(sums).max(initial=0), case.data_format)


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
    exact_x, exact_grad, exact_weights, exact_pool = (t.double().numpy() for t in (x, grad, weights, pool_grad))
    tokens = 1 + height * width
    scale = 20.0 * tokens  # a bound of any sum of products of two numbers of standard deviation 3
    zeros = np.zeros_like(exact_grad)
    results = [
        (pooled, oracle.pool(exact_x, case.branches, *table), accumulator),
        (pool_backward, oracle.combine_backward(zeros, exact_weights, exact_pool, *table), case.dtype),
        (combined, oracle.combine(exact_x, exact_weights, *table), case.dtype),
        (x_grad, oracle.combine_backward(exact_grad, exact_weights, exact_pool, *table), case.dtype),
        (x_grad_alone, oracle.combine_backward(exact_grad, exact_weights, None, *table), case.dtype),
        (weights_grad, oracle.combine_backward_weights(exact_grad, exact_x, *table), accumulator),
    ]
    for ours, exact, dtype in results:
        check_close(ours, exact, dtype, scale)
