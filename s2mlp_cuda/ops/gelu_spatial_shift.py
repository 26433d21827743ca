"""GELU and spatial shift in one pass: the public function, and the derivative rules of its two raw operators."""

import math
from collections.abc import Sequence

import torch
from torch.overrides import handle_torch_function, has_torch_function_unary

from s2mlp_cuda._arguments import (
    check_approximate,
    check_floating,
    check_groups,
    check_map,
    check_padding_mode,
    check_same_device,
    flat_offsets,
)
from s2mlp_cuda.offsets import V1
from s2mlp_cuda.ops._differentiable import Rules, differentiable
from s2mlp_cuda.ops._torchscript import not_for_torchscript
from s2mlp_cuda.ops.spatial_shift import shift, shift_adjoint


@not_for_torchscript
def gelu_spatial_shift(
    x: torch.Tensor,
    offsets: Sequence[Sequence[int]] = V1,
    *,
    approximate: str = "none",
    group_sizes: Sequence[int] | None = None,
    padding_mode: str = "replicate",
    data_format: str = "channels_last",
) -> torch.Tensor:
    r"""``spatial_shift(GELU(x))`` in one read and one write, as in S2-MLP's block (arXiv 2106.07477, section 3.2).

    The backward pass reads the gradient and ``x``, and writes once. Only ``x`` is saved for it, usually the output of a linear
    layer, which does not save it itself. Saving the shifted map instead would cost another write in the forward pass.

    GELU is computed in float32 (float64 for float64 maps). It stays accurate for negative x, where
    ``x * (1 + erf(x / sqrt 2)) / 2`` suffers from cancellation, up to magnitudes below 1e-36, which may be flushed to zero. At
    infinities, its value and its derivative are the limits, where those of PyTorch's GELU are NaN. As with PyTorch's GELU, the
    gradient is NaN where ``x`` is NaN, even at tokens that no output reads.

    Args:
        x: map of shape (..., H, W, C), or (..., C, H, W) for ``data_format="channels_first"``, with any strides; float64,
            float32, float16 or bfloat16.
        offsets: as in :func:`s2mlp_cuda.spatial_shift`.
        approximate: ``"none"`` for the exact GELU, ``"tanh"`` for its tanh approximation, as in
            :func:`torch.nn.functional.gelu`.
        group_sizes: as in :func:`s2mlp_cuda.spatial_shift`.
        padding_mode: as in :func:`s2mlp_cuda.spatial_shift`. With ``"zeros"``, GELU(0) = 0 moves in.
        data_format: ``"channels_last"`` or ``"channels_first"``.

    Returns:
        A new tensor with the shape, dtype and memory format of ``x``. Differentiable any number of times, in reverse and
        forward mode. Under autocast it has the dtype of ``x``, as with GELU.

    Raises:
        TypeError: ``x`` is not a floating-point tensor; ``offsets`` or ``group_sizes`` are not integers.
        ValueError: ``approximate`` is unknown; otherwise as in :func:`s2mlp_cuda.spatial_shift`.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 1.0, 2.0]).reshape(1, 4, 1)
        >>> gelu_spatial_shift(x, offsets=[(0, 1)]).flatten()
        tensor([-0.1587, -0.1587,  0.0000,  0.8413])
    """
    if has_torch_function_unary(x):
        options = {
            "approximate": approximate, "group_sizes": group_sizes, "padding_mode": padding_mode, "data_format": data_format
        }  # fmt: skip
        return handle_torch_function(gelu_spatial_shift, (x,), x, offsets, **options)
    channels = check_map(x, data_format)
    check_floating(x, "x")
    check_approximate(approximate)
    check_padding_mode(padding_mode)
    flat = flat_offsets(offsets)
    sizes = check_groups(len(flat) // 2, group_sizes, channels, data_format)
    return gelu_shift(x, flat, sizes, approximate, padding_mode, data_format)


def _gelu_backward(grad: torch.Tensor, x: torch.Tensor, approximate: str) -> torch.Tensor:
    """``grad * GELU'(x)``, with PyTorch's own operator, which is differentiable."""
    return torch.ops.aten.gelu_backward(grad, x, approximate=approximate)


def _gelu_second_derivative(x: torch.Tensor, approximate: str) -> torch.Tensor:
    """GELU''(x), in float32 for float16 and bfloat16."""
    x = x if x.dtype == torch.float64 else x.float()
    square = x * x
    if approximate == "none":
        return torch.exp(-0.5 * square) * (2 - square) * (1 / math.sqrt(2 * math.pi))
    scale, cube = math.sqrt(2 / math.pi), 0.044715
    tanh = torch.tanh(scale * x * (1 + cube * square))
    first, second = scale * (1 + 3 * cube * square), 6 * scale * cube * x
    return (1 - tanh * tanh) * (first + 0.5 * x * (second - 2 * tanh * first * first))


class _GeluShift(Rules):
    """``(x, offsets, group_sizes, approximate, padding_mode, data_format)``."""

    op = torch.ops.s2mlp_cuda.gelu_spatial_shift.default
    num_tensors = 1

    @staticmethod
    def fake(x, *arguments):
        return torch.empty_like(x)

    @staticmethod
    def save(x, *arguments):
        return (x,), arguments

    @staticmethod
    def backward(saved, arguments, needs_grad, grad):
        return (gelu_shift_backward(grad, *saved, *arguments),)

    @staticmethod
    def jvp(saved, arguments, tangent):
        offsets, sizes, approximate, *layout = arguments
        return shift(_gelu_backward(tangent, *saved, approximate), offsets, sizes, *layout)


class _GeluShiftBackward(Rules):
    """``(grad, x, offsets, group_sizes, approximate, padding_mode, data_format)``: shift_adjoint(grad) * GELU'(x)."""

    op = torch.ops.s2mlp_cuda.gelu_spatial_shift_backward.default
    num_tensors = 2

    @staticmethod
    def fake(grad, x, *arguments):
        check_same_device(x, "x", grad, "grad")
        return torch.empty_like(x)

    @staticmethod
    def save(grad, x, *arguments):
        return (grad, x), arguments

    @staticmethod
    def backward(saved, arguments, needs_grad, grad_grad):
        grad, x = saved
        offsets, sizes, approximate, *layout = arguments
        grad_grad_out = x_grad = None
        if needs_grad[0]:
            grad_grad_out = shift(_gelu_backward(grad_grad, x, approximate), offsets, sizes, *layout)
        if needs_grad[1]:
            adjoint = shift_adjoint(grad, offsets, sizes, *layout)
            x_grad = (grad_grad * adjoint * _gelu_second_derivative(x, approximate)).to(x.dtype)
        return grad_grad_out, x_grad

    @staticmethod
    def jvp(saved, arguments, grad_tangent, x_tangent):
        grad, x = saved
        offsets, sizes, approximate, *layout = arguments
        result = None
        if grad_tangent is not None:
            result = gelu_shift_backward(grad_tangent, x, *arguments)
        if x_tangent is not None:
            adjoint = shift_adjoint(grad, offsets, sizes, *layout)
            term = (adjoint * _gelu_second_derivative(x, approximate) * x_tangent).to(x.dtype)
            result = term if result is None else result + term
        return result


_gelu_shift = differentiable(_GeluShift)
_gelu_shift_backward = differentiable(_GeluShiftBackward)


def gelu_shift(
    x, offsets: list[int], group_sizes: list[int] | None, approximate: str, padding_mode: str, data_format: str
) -> torch.Tensor:
    """The differentiable operator, with the raw operator's arguments: flat offsets, no defaults."""
    return _gelu_shift.call(x, offsets, group_sizes, approximate, padding_mode, data_format)


def gelu_shift_backward(
    grad, x, offsets: list[int], group_sizes: list[int] | None, approximate: str, padding_mode: str, data_format: str
) -> torch.Tensor:
    """The gradient of the input of :func:`gelu_shift`."""
    return _gelu_shift_backward.call(grad, x, offsets, group_sizes, approximate, padding_mode, data_format)


class GELUSpatialShiftFunction(_gelu_shift.Function):  # type: ignore[name-defined]
    """``.apply(x, flat_offsets, group_sizes, approximate, padding_mode, data_format)``.

    The differentiable operator as a class; use :func:`gelu_spatial_shift` unless you need the class.
    """
