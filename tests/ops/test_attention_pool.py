"""The mean as the pooling of split attention: compared with the sum whose first matrix is divided by the number of tokens."""

import itertools

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from s2mlp_cuda import ShiftSplitAttention, layers, offsets, shift_split_attention

BRANCHES = (offsets.SS1, offsets.SS2, None)
HALF = (torch.float16, torch.bfloat16)


def attend(x, fc1_weight, fc2_weight, attention_pool="mean"):
    return shift_split_attention(x, fc1_weight, fc2_weight, BRANCHES, attention_pool=attention_pool)


def attend_by_sum(x, fc1_weight, fc2_weight):
    tokens = x.shape[-3] * x.shape[-2]
    return attend(x, fc1_weight / tokens, fc2_weight, "sum")


def make(*leading, height=5, width=7, dtype=torch.float64, device="cpu"):
    shapes = ((*leading, height, width, 24), (4, 8), (24, 4))
    return [torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for shape in shapes]


def test_values_and_gradients(device):
    for leading in ((), (2,), (2, 3)):
        tensors = make(*leading, device=device)
        ours, expected = attend(*tensors), attend_by_sum(*tensors)
        torch.testing.assert_close(ours, expected)
        grad = torch.randn_like(ours)
        for got, exact in zip(torch.autograd.grad(ours, tensors, grad), torch.autograd.grad(expected, tensors, grad)):
            torch.testing.assert_close(got, exact)
    assert not torch.allclose(ours, attend(*tensors, "sum"))


def test_other_derivatives(device):
    tensors = make(1, height=2, width=3, device=device)
    assert torch.autograd.gradcheck(attend, tensors, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(attend, tensors)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(tensor.detach(), torch.ones_like(tensor)) for tensor in tensors]
        ours, expected = (forward_ad.unpack_dual(function(*duals)).tangent for function in (attend, attend_by_sum))
    torch.testing.assert_close(ours, expected)


def test_vmap_and_compilation():
    tensors = [tensor.detach() for tensor in make(3)]
    torch.testing.assert_close(torch.func.vmap(attend, (0, None, None))(*tensors), attend(*tensors))
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager", dynamic=True)
    for height, width in ((5, 7), (9, 4)):
        tensors = make(2, height=height, width=width)
        torch.testing.assert_close(compiled(*tensors), attend(*tensors))
        gradients = [torch.autograd.grad(function(*tensors).sum(), tensors) for function in (compiled, attend)]
        torch.testing.assert_close(*gradients)


def test_traces_take_maps_of_other_sizes():
    attention = ShiftSplitAttention(8, attention_pool="mean")
    traces = [torch.jit.trace(attention, torch.randn(1, 4, 6, 24)), torch.fx.symbolic_trace(attention)]
    x = torch.randn(2, 9, 5, 24)
    for trace in traces:
        torch.testing.assert_close(trace(x), attention(x))


@pytest.mark.parametrize("implementation", layers.IMPLEMENTATIONS)
@pytest.mark.parametrize("attention_pool", ["sum", "mean"])
def test_maps_without_tokens(attention_pool, implementation):
    attention = ShiftSplitAttention(8, implementation=implementation, attention_pool=attention_pool)
    x = torch.randn(2, 0, 3, 24, requires_grad=True)
    attention(x).sum().backward()
    assert all(parameter.grad.eq(0).all() for parameter in attention.parameters())


def test_layers_agree():
    fused = ShiftSplitAttention(8, attention_pool="mean").double()
    others = [ShiftSplitAttention(8, attention_pool="mean", implementation=name).double() for name in ("composed", "reference")]
    called = ShiftSplitAttention(8, attention_pool="mean").double()
    called.fc1.register_forward_hook(lambda *_: None)
    x = torch.randn(2, 5, 7, 24, dtype=torch.float64)
    for other in (*others, called):
        other.load_state_dict(fused.state_dict())
        torch.testing.assert_close(other(x), fused(x))
    weights = fused.weights(fused.pool(x))
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 8, dtype=torch.float64))


@pytest.mark.parametrize("implementation", layers.IMPLEMENTATIONS)
def test_weights_work_at_another_size(implementation):
    """Four copies of a map have the mean of one, so their attention is the same; a sum is four times as large."""
    x = torch.randn(2, 4, 4, 24, dtype=torch.float64)
    four = x.tile(1, 2, 2, 1)
    for attention_pool in ("sum", "mean"):
        options = {"padding_mode": "circular", "implementation": implementation, "attention_pool": attention_pool}
        attention = ShiftSplitAttention(8, **options).double()
        same = torch.allclose(attention(four), attention(x).tile(1, 2, 2, 1))
        assert same == (attention_pool == "mean")


@pytest.mark.parametrize("dtype, implementation", list(itertools.product(HALF, layers.IMPLEMENTATIONS)))
def test_sums_of_large_maps_in_half_precision(dtype, implementation):
    """Sums over tokens are in float32: at 56x56 tokens of 1000 each, they are far above the largest value of float16."""
    x = torch.full((1, 56, 56, 24), 1e3, dtype=dtype)
    x[..., 1::2] *= -1
    for attention_pool in ("sum", "mean"):
        attention = ShiftSplitAttention(8, implementation=implementation, attention_pool=attention_pool).to(dtype)
        nn.init.normal_(attention.fc1.weight, std=0.02)
        nn.init.normal_(attention.fc2.weight, std=0.02)
        exact = ShiftSplitAttention(8, implementation="reference", attention_pool=attention_pool).double()
        exact.load_state_dict(attention.state_dict())
        rounding = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
        torch.testing.assert_close(attention(x).double(), exact(x.double()), rtol=rounding, atol=0)
