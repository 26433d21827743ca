"""Compares the operator with the reference on this machine, and shows the public in-place version on the same tensor."""

from dataclasses import dataclass
from itertools import product

import torch

from s2mlp_cuda import offsets, reference, spatial_shift
from s2mlp_cuda.bench.baselines import assign_in_place
from s2mlp_cuda.ops import PADDING_MODES

#: Tolerance of gradients by dtype. Gradients at the border are sums, whose rounding depends on the order of summation.
DTYPES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
TABLES = (offsets.V1, offsets.SS1, offsets.EIGHT_WAY)


@dataclass(frozen=True)
class Check:
    """The number of combinations compared and equal (outputs bitwise, gradients within rounding), and the in-place failure."""

    combinations: int
    equal: int
    in_place_wrong: float  # share of elements that the in-place version gets wrong
    in_place_column: list[float]  # a column moved down by one, in place
    expected_column: list[float]  # the same column, correct


def check(device: torch.device) -> Check:
    combinations = list(product(DTYPES, ("channels_last", "channels_first"), PADDING_MODES, TABLES))
    equal = 0
    for dtype, data_format, mode, table in combinations:
        x = torch.randn(4, 14, 14, 96, device=device).to(dtype)
        if data_format == "channels_first":
            x = x.permute(0, 3, 1, 2).contiguous()
        x.requires_grad_()
        grad = torch.randn(x.shape, device=device).to(dtype)
        out = spatial_shift(x, table, padding_mode=mode, data_format=data_format)
        expected = reference.spatial_shift(x, table, padding_mode=mode, data_format=data_format)
        (ours,) = torch.autograd.grad(out, x, grad)
        (oracle,) = torch.autograd.grad(expected, x, grad)
        equal += torch.equal(out, expected) and torch.allclose(ours, oracle, rtol=DTYPES[dtype], atol=DTYPES[dtype])
    x = torch.rand(1, 14, 14, 96, device=device)
    x[0, :, 0, 0] = torch.arange(14)
    expected = spatial_shift(x, offsets.SS1)
    in_place = assign_in_place(x.clone(), offsets.SS1)
    return Check(
        len(combinations),
        equal,
        (in_place != expected).float().mean().item(),
        in_place[0, :, 0, 0].tolist(),
        expected[0, :, 0, 0].tolist(),
    )
