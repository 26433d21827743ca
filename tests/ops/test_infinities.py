"""Infinities and NaN reach the same results and gradients in all implementations.

Zero padding is multiplied as any other value: an infinite weight makes it NaN. The gradient of a token that no output reads is
zero, whatever the weights are.
"""

import pytest
import torch
from torch.nn import functional

from s2mlp_cuda import (
    decompositions,
    gelu_spatial_shift,
    offsets,
    reference,
    shift_branch_combine,
    shift_branch_pool,
    spatial_shift,
)
from s2mlp_cuda._arguments import branch_groups
from s2mlp_cuda.ops import PADDING_MODES

BRANCHES = (((1, 0), (-1, 0)), ((0, 2), (0, -7)), None)
COUNT, CHANNELS = len(BRANCHES), 4
TABLE = branch_groups(BRANCHES, CHANNELS)
INF, NAN = float("inf"), float("nan")


def composed(shift):
    def combine(x, weights, mode):
        parts = x.chunk(COUNT, -1)
        maps = [part if table is None else shift(part, table, padding_mode=mode) for part, table in zip(parts, BRANCHES)]
        return sum(part * weights[..., k, None, None, :] for k, part in enumerate(maps))

    def pool(x, mode):
        parts = x.chunk(COUNT, -1)
        return sum(
            (part if table is None else shift(part, table, padding_mode=mode)).sum((-3, -2)) for part, table in zip(parts, BRANCHES)
        )

    return combine, pool


#: (combine, pool) by implementation, to be compared with the same of slices and torch.cat.
IMPLEMENTATIONS = {
    "fused": (
        lambda x, weights, mode: shift_branch_combine(x, weights, BRANCHES, padding_mode=mode),
        lambda x, mode: shift_branch_pool(x, BRANCHES, padding_mode=mode),
    ),
    "composed": composed(spatial_shift),
    "decomposition": (
        lambda x, weights, mode: decompositions.shift_branch_combine(x, weights, *TABLE, mode),
        lambda x, mode: decompositions.shift_branch_pool(x, COUNT, *TABLE, mode),
    ),
}


def assert_same(ours, expected):
    torch.testing.assert_close(ours, expected, equal_nan=True)


def special(shape, value, step, device) -> torch.Tensor:
    """Positive numbers, so that sums of infinities are infinite, and ``value`` in every ``step``-th place; none for 0."""
    x = 0.5 + torch.rand(shape, dtype=torch.float64, device=device)
    if step:
        x.view(-1)[::step] = value
    return x


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("value", [INF, -INF, NAN])
@pytest.mark.parametrize("steps", [(7, 0, 0), (0, 5, 0), (0, 0, 7)], ids=["x", "weights", "gradient"])
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_combine_and_pool(name, steps, value, mode, device):
    x = special((2, 3, 4, COUNT * CHANNELS), value, steps[0], device).requires_grad_()
    weights = special((2, COUNT, CHANNELS), value, steps[1], device).requires_grad_()
    grad = special((2, 3, 4, CHANNELS), value, steps[2], device)
    combine, pool = IMPLEMENTATIONS[name]
    oracle_combine, oracle_pool = composed(reference.spatial_shift)
    out, expected = combine(x, weights, mode), oracle_combine(x, weights, mode)
    assert_same(out, expected)
    for ours, oracle in zip(torch.autograd.grad(out, (x, weights), grad), torch.autograd.grad(expected, (x, weights), grad)):
        assert_same(ours, oracle)
    out, expected = pool(x, mode), oracle_pool(x, mode)
    assert_same(out, expected)
    pool_grad = special((2, CHANNELS), value, steps[2], device)
    assert_same(torch.autograd.grad(out, x, pool_grad), torch.autograd.grad(expected, x, pool_grad))


@pytest.mark.parametrize("value", [INF, NAN])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_an_infinite_weight(dtype, value, device):
    """Times zero padding it is NaN, as the formula says; the token that moves out has the gradient of a token that nobody reads."""
    x = torch.ones(1, 3, 32, dtype=dtype, device=device, requires_grad=True)
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    weights = torch.full((1, 32), value, dtype=acc_dtype, device=device)
    out = shift_branch_combine(x, weights, (offsets.RIGHT,), padding_mode="zeros")
    assert out[0, 0].isnan().all() and torch.equal(out[0, 1:].isinf(), weights.expand(2, 32).isinf())
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
    assert grad[0, 2].eq(0).all() and not grad[0, :2].isfinite().any()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("shape", [(1, 6, 6, 8), (1, 24, 14, 14), (2, 4, 4, 16), (5, 9, 13)])
def test_gelu_of_nan(shape, mode, data_format, device):
    """As PyTorch's GELU, whose gradient is NaN where the input is NaN, even if no output reads it. For infinities, PyTorch's
    GELU and its gradient are NaN, where these are the limits."""
    x = torch.randn(shape, device=device)
    x.view(-1)[::3] = NAN
    x.requires_grad_()
    options = {"padding_mode": mode, "data_format": data_format}
    out, expected = gelu_spatial_shift(x, **options), reference.spatial_shift(functional.gelu(x), **options)
    assert_same(out, expected)
    grad = torch.randn_like(out)
    assert_same(torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad))
