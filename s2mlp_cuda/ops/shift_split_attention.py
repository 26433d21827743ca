"""The split attention of S2-MLPv2 over shifted branches, without storing a shifted map."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_variadic

from s2mlp_cuda._arguments import BranchOffsets, check_attention_pool, check_beside_map
from s2mlp_cuda._torch_private import forward_mode_is_active, transforms_are_active
from s2mlp_cuda.ops import shift_branches
from s2mlp_cuda.ops._differentiable import differentiates, traced
from s2mlp_cuda.ops._kernels import below_autograd
from s2mlp_cuda.ops._torchscript import not_for_torchscript

_pool = torch.ops.s2mlp_cuda.shift_branch_pool.default
_combine = torch.ops.s2mlp_cuda.shift_branch_combine.default
_combine_backward = torch.ops.s2mlp_cuda.shift_branch_combine_backward.default
_combine_backward_weights = torch.ops.s2mlp_cuda.shift_branch_combine_backward_weights.default


@not_for_torchscript
def shift_split_attention(
    x: torch.Tensor,
    fc1_weight: torch.Tensor,
    fc2_weight: torch.Tensor,
    branch_offsets: Sequence[BranchOffsets],
    *,
    padding_mode: str = "replicate",
    attention_pool: str = "mean",
) -> torch.Tensor:
    """Split attention over K shifted branches (S2-MLPv2, arXiv 2108.01072, eqs. 9 to 12; from ResNeSt).

    With X_k the shifted branch k and n the tokens of an image::

        a = mean over n of the sum over k of X_k
        w = softmax over k of (W2 GELU(W1 a))
        y = sum over k of w_k * X_k

    The forward pass reads the expanded map twice and writes the result once. The backward pass reads the expanded map once and
    the output gradient twice, and writes the input gradient once. Shifted maps, stacked branches and expanded weights are not
    stored.

    The paper's text says average, as do ResNeSt (arXiv 2004.08955) and Vision Permutator (arXiv 2106.12368), from which it takes
    split attention: these add the branches and average over the tokens. The paper's formula sums over the tokens, and so do
    public implementations: ``attention_pool="sum"``. The mean does not depend on the size of the map, so weights can be used at
    another size. The sum grows with it, and saturates the softmax: with the mean, models train better.

    Args:
        x: expanded map of shape (..., H, W, K*C): the K branches side by side, usually the output of one linear layer. float64,
            float32, float16 or bfloat16, with any strides. Copied first if channels are not contiguous or leading dimensions
            cannot be merged into one.
        fc1_weight: W1, (hidden, C), as in :class:`torch.nn.Linear`.
        fc2_weight: W2, (K*C, hidden); rows k*C .. (k+1)*C - 1 belong to branch k.
        branch_offsets: K shift tables, as ``offsets`` of :func:`s2mlp_cuda.spatial_shift`; None leaves a branch unshifted.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`.
        attention_pool: ``"mean"`` for a as above, or ``"sum"`` for the sum over n.

    Returns:
        A new contiguous tensor of shape (..., H, W, C) with the dtype of ``x``. Everything between pooling and weighting is
        computed in float32 (float64 for float64 maps), for weights of any dtype and also under autocast; these tensors have
        only a few values per image. Differentiable any number of times, in reverse and forward mode. Infinities and NaN are as in
        :func:`shift_branch_combine`.

    Raises:
        TypeError: ``x`` is not a floating-point tensor; a weight is not a tensor, or is complex; ``branch_offsets`` is not a
            sequence of tables; an offset is not a pair of integers.
        ValueError: fewer than three dimensions, no branches, a number of channels that is not a multiple of K, a table with
            more groups than channels, weights of the wrong shape, or an unknown padding mode or pooling.
        RuntimeError: the tensors are not on one device.
    """
    tensors = (x, fc1_weight, fc2_weight)
    if has_torch_function_variadic(*tensors):
        options = {"padding_mode": padding_mode, "attention_pool": attention_pool}
        return handle_torch_function(shift_split_attention, tensors, *tensors, branch_offsets, **options)
    check_attention_pool(attention_pool)
    channels, offsets, sizes = shift_branches.check_expanded_map(x, branch_offsets, padding_mode)
    check_beside_map(fc1_weight, "fc1_weight", x)
    check_beside_map(fc2_weight, "fc2_weight", x)
    branches = len(branch_offsets)
    if fc1_weight.dim() != 2 or fc1_weight.shape[1] != channels:
        raise ValueError(f"fc1_weight must have shape (hidden, {channels}), got {tuple(fc1_weight.shape)}")
    if fc2_weight.shape != (branches * channels, fc1_weight.shape[0]):
        expected = (branches * channels, fc1_weight.shape[0])
        raise ValueError(f"fc2_weight must have shape {expected}, got {tuple(fc2_weight.shape)}")
    with without_autocast(x.device.type):
        return _apply(tensors, (branches, attention_pool, offsets, sizes, padding_mode))


def without_autocast(device: str) -> AbstractContextManager:
    """A context in which autocast is off for a type of device."""
    enabled = device != "meta" and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if enabled else nullcontext()


def _apply(tensors, arguments):
    """Chooses the implementation with the least overhead that supports the active transforms."""
    if transforms_are_active() or forward_mode_is_active() or torch.jit.is_tracing():
        return _composed_of_operators(*tensors, *arguments)
    if torch.compiler.is_compiling() or differentiates(*tensors):
        return _SplitAttention.apply(*tensors, *arguments)
    return _forward(*tensors, *arguments)[0]


def scale_pooled(pooled: torch.Tensor, x: torch.Tensor, attention_pool: str) -> torch.Tensor:
    """The sum over the tokens of a map (..., H, W, C), or its gradient, divided by their number if the pooling is a mean.

    A map without tokens has a mean of zero, because NaN would spread to the gradients of the weights.
    """
    if attention_pool == "sum":
        return pooled
    tokens = x.shape[-3] * x.shape[-2]
    return pooled / (tokens if torch.jit.is_tracing() else tokens or 1)  # traced sizes have no truth value


def _attention(pooled, fc1_weight, fc2_weight, branches):
    """The hidden layer before and after GELU, and the branch weights (..., K, C)."""
    hidden = functional.linear(pooled, fc1_weight)
    activation = functional.gelu(hidden)
    logits = functional.linear(activation, fc2_weight)
    return hidden, activation, logits.unflatten(-1, (branches, -1)).softmax(-2)


def _weight_grad(grad, x):
    """The gradient of a linear layer's weight, from the gradient of its output and its input."""
    images = grad.shape[:-1].numel()  # not -1, which is ambiguous for a hidden layer of size 0
    return grad.reshape(images, grad.shape[-1]).mT @ x.reshape(images, x.shape[-1])


def _composed_of_operators(x, fc1_weight, fc2_weight, branches, attention_pool, *table):
    """Split attention composed of differentiable operators. Its backward pass computes the gradient of x in two parts."""
    pooled = scale_pooled(shift_branches.pool(x, branches, *table), x, attention_pool)
    *_, weights = _attention(pooled, fc1_weight.to(pooled.dtype), fc2_weight.to(pooled.dtype), branches)
    return shift_branches.combine(x, weights, *table)


def _kernel(op, *args):
    """Calls a raw operator, below its autograd kernel unless the compiler is tracing."""
    return traced(op, *args) if torch.compiler.is_compiling() else below_autograd(op, *args)


def _forward(x, fc1_weight, fc2_weight, branches, attention_pool, *table):
    """The result and the tensors to save for backward: both matrices in the accumulator dtype, the pooled map, the hidden
    layer before and after GELU, and the branch weights."""
    pooled = scale_pooled(_kernel(_pool, x, branches, *table), x, attention_pool)
    matrices = fc1_weight.to(pooled.dtype), fc2_weight.to(pooled.dtype)
    hidden, activation, weights = _attention(pooled, *matrices, branches)
    return _kernel(_combine, x, weights, *table), *matrices, pooled, hidden, activation, weights


class _SplitAttention(torch.autograd.Function):
    """``(x, fc1_weight, fc2_weight, branches, attention_pool, offsets, group_sizes, padding_mode)``.

    A single Function, so that the gradient of x is written once. Autograd would compute the gradients through pool and through
    combine separately, and add them.
    """

    @staticmethod
    def forward(ctx, x, fc1_weight, fc2_weight, *arguments):
        out, *intermediates = _forward(x, fc1_weight, fc2_weight, *arguments)
        ctx.save_for_backward(x, fc1_weight, fc2_weight, *intermediates)
        ctx.arguments = arguments
        return out

    @staticmethod
    def backward(ctx, grad):
        # Read once: torch.utils.checkpoint does not unpack saved tensors twice.
        saved = ctx.saved_tensors
        device, compiling = grad.device.type, torch.compiler.is_compiling()
        # torch.compile traces a backward pass in the autocast state around its forward pass, and executes it in another.
        with torch.autocast(device, enabled=False) if compiling and device != "meta" else without_autocast(device):
            if torch.is_grad_enabled() and not compiling:
                gradients = _differentiable_gradients(ctx, saved[:3], grad)
            else:
                gradients = _gradients(ctx, saved, grad)
        return (*gradients, *(None,) * len(ctx.arguments))


def _gradients(ctx, saved, grad) -> tuple:
    x, fc1_weight, fc2_weight, fc1, fc2, pooled, hidden, activation, weights = saved
    _, attention_pool, *table = ctx.arguments
    _, needs_fc1, needs_fc2, *_ = ctx.needs_input_grad
    weights_grad = _kernel(_combine_backward_weights, grad, x, *table).expand_as(weights)  # see shift_branches.weights_gradient
    logits_grad = torch.ops.aten._softmax_backward_data(weights_grad, weights, -2, weights.dtype)
    logits_grad = logits_grad.reshape(*hidden.shape[:-1], len(fc2))
    fc2_grad = fc1_grad = None
    if needs_fc2:
        fc2_grad = _weight_grad(logits_grad, activation).to(fc2_weight.dtype)
    hidden_grad = torch.ops.aten.gelu_backward(logits_grad @ fc2, hidden)
    if needs_fc1:
        fc1_grad = _weight_grad(hidden_grad, pooled).to(fc1_weight.dtype)
    pool_grad = scale_pooled(hidden_grad @ fc1, x, attention_pool)
    x_grad = _kernel(_combine_backward, grad, weights, pool_grad, *table) if ctx.needs_input_grad[0] else None
    return x_grad, fc1_grad, fc2_grad


def _differentiable_gradients(ctx, inputs, grad) -> list:
    """The gradients as differentiable functions of all inputs, for higher-order derivatives."""
    required = [i for i in range(3) if ctx.needs_input_grad[i]]
    out = _composed_of_operators(*inputs, *ctx.arguments)
    gradients = torch.autograd.grad(out, [inputs[i] for i in required], grad, create_graph=True)
    by_input = dict(zip(required, gradients))
    return [by_input.get(i) for i in range(3)]
