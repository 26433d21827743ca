"""Every public operator and a small model, forward and backward, on maps that are large enough for several threads."""

from collections.abc import Callable

import torch

Call = Callable[[], list[torch.Tensor]]


def _call(function: Callable, seed: int, *shapes: tuple[int, ...]) -> Call:
    """A call of ``function`` on random tensors of these shapes. Returns its output and all gradients."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]

    def call() -> list[torch.Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = function(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, out.detach())]

    return call


def make_model() -> torch.nn.Module:
    import s2mlp_cuda  # here, so that a fresh process can import it first in several threads

    torch.manual_seed(0)
    return s2mlp_cuda.create_model("s2mlpv2_small_7", num_classes=5, patch_sizes=(2, 2), embed_dims=(16, 32), depths=(1, 1))


def make_calls(model: torch.nn.Module, seed: int = 0) -> dict[str, Call]:
    """The calls by name. Tensors, shift tables and padding modes depend on the seed."""
    import s2mlp_cuda
    from s2mlp_cuda import offsets, ops

    mode = {"padding_mode": ops.PADDING_MODES[seed % len(ops.PADDING_MODES)]}
    table = tuple((dh * (1 + seed), dw) for dh, dw in offsets.V1)
    flat = [d for pair in table for d in pair]
    branches = (offsets.SS1, table, None)
    one, three = (2, 16, 16, 96), (2, 16, 16, 288)
    return {
        "spatial_shift": _call(lambda x: s2mlp_cuda.spatial_shift(x, table, **mode), seed, one),
        "SpatialShiftFunction": _call(
            lambda x: s2mlp_cuda.SpatialShiftFunction.apply(x, flat, None, "zeros", "channels_first"), seed, (2, 48, 24, 24)
        ),
        "gelu_spatial_shift": _call(lambda x: s2mlp_cuda.gelu_spatial_shift(x, table, **mode), seed, one),
        "shift_branch_pool": _call(lambda x: s2mlp_cuda.shift_branch_pool(x, branches, **mode), seed, three),
        "shift_branch_combine": _call(
            lambda x, weights: s2mlp_cuda.shift_branch_combine(x, weights, branches, **mode), seed, three, (2, 3, 96)
        ),
        "shift_split_attention": _call(
            lambda x, fc1, fc2: s2mlp_cuda.shift_split_attention(x, fc1, fc2, branches, **mode), seed, three, (24, 96), (288, 24)
        ),
        "model": _call(model.train(), seed, (2, 3, 32, 32)),
    }


def differences(results: dict[str, list[torch.Tensor]], expected: dict[str, list[torch.Tensor]]) -> list[str]:
    """The names of calls that did not return the same bits."""
    assert results.keys() == expected.keys()
    return [
        name
        for name in results
        if not all(torch.equal(ours, theirs) for ours, theirs in zip(results[name], expected[name], strict=True))
    ]
