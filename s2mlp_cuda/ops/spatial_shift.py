"""The spatial shift: function, autograd.Function, fake kernels, autograd and vmap rules of the raw operators."""

from collections.abc import Sequence

import torch
from torch.autograd import forward_ad

from s2mlp_cuda.offsets import V1
from s2mlp_cuda.ops._arguments import check_groups, check_map, check_padding_mode, flat_offsets

_FORWARD = "s2mlp_cuda::spatial_shift"
_BACKWARD = "s2mlp_cuda::spatial_shift_backward"
_forward_op = torch.ops.s2mlp_cuda.spatial_shift.default
_backward_op = torch.ops.s2mlp_cuda.spatial_shift_backward.default


def spatial_shift(
    x: torch.Tensor,
    offsets: Sequence[Sequence[int]] = V1,
    *,
    group_sizes: Sequence[int] | None = None,
    padding_mode: str = "replicate",
    data_format: str = "channels_last",
) -> torch.Tensor:
    r"""Move each channel group of a map by its own offset (S2-MLP, arXiv 2106.07477, section 3.2 and Alg. 1).

    .. math:: out[b, h, w, c] = x[b, clamp(h - dh_g, 0, H - 1), clamp(w - dw_g, 0, W - 1), c]

    where g is the group of channel c. Written out for ``padding_mode="replicate"``, which is what the papers'
    pseudo-code does: where nothing moves in, the border keeps its old value. The input is never changed.

    Args:
        x: map of shape (..., H, W, C), or (..., C, H, W) for ``data_format="channels_first"``, with any strides and
            any number of leading dimensions, none included. float64, float32, float16 and bfloat16, forward and
            backward; int64, int32, int16, int8, uint8 and bool forward.
        offsets: one (dh, dw) pair per channel group, in tokens; positive moves content toward higher indices. They
            may be larger than the map. Presets are in :mod:`s2mlp_cuda.offsets`.
        group_sizes: channels per group; zero is allowed. Default: the C channels are cut evenly, group g of G owns
            channels floor(g*C/G) .. floor((g+1)*C/G) - 1.
        padding_mode: what moves in at the border: ``"replicate"`` (the border value), ``"zeros"`` or ``"circular"``
            (what moved out on the other side).
        data_format: ``"channels_last"`` or ``"channels_first"``, the order of the last three dimensions.

    Returns:
        A new tensor of the shape, dtype and memory format of ``x``. Differentiable any number of times, in reverse
        and forward mode; the gradient accumulates in float32 for half types.

    Raises:
        TypeError: ``x`` is no tensor or has an unsupported dtype; ``offsets`` or ``group_sizes`` are not integers.
        ValueError: fewer than three dimensions, more groups than channels, group sizes that do not match, an unknown
            padding mode or data format.

    Example:
        >>> x = torch.arange(5.0).reshape(1, 5, 1)  # one row of five tokens, one channel
        >>> spatial_shift(x, offsets=[(0, 1)]).flatten()
        tensor([0., 0., 1., 2., 3.])
    """
    channels = check_map(x, data_format)
    check_padding_mode(padding_mode)
    flat = flat_offsets(offsets)
    sizes = check_groups(len(flat) // 2, group_sizes, channels)
    if torch.compiler.is_compiling():
        # The compiler does not trace a Function that has a jvp; the raw operator carries the same rules.
        return _forward_op(x, flat, sizes, padding_mode, data_format)
    return _shift(x, flat, sizes, padding_mode, data_format)


def _shift(x, *shift):
    """The shift by the cheapest way that will do here: see :class:`_EagerShift`."""
    if torch._C._are_functorch_transforms_active():
        return SpatialShiftFunction.apply(x, *shift)
    if _differentiates(x):
        return _EagerShift.apply(x, *shift)
    return _below_autograd(_forward_op, x, *shift)


def _shift_backward(grad, *shift):
    """The adjoint, in the same way."""
    if torch._C._are_functorch_transforms_active():
        return SpatialShiftBackwardFunction.apply(grad, *shift)
    if _differentiates(grad):
        return _EagerShiftBackward.apply(grad, *shift)
    return _below_autograd(_backward_op, grad, *shift)


def _differentiates(x) -> bool:
    """Whether PyTorch records what happens to ``x``: for the backward pass, or in forward mode."""
    return (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0


class SpatialShiftFunction(torch.autograd.Function):
    """``SpatialShiftFunction.apply(x, flat_offsets, group_sizes, padding_mode, data_format)``: the differentiable op.

    ``flat_offsets`` is ``[dh0, dw0, dh1, dw1, ...]`` and ``group_sizes`` a list or None; use :func:`spatial_shift`
    unless you need the class. The op is linear: its jvp is itself and its backward is its adjoint.
    """

    @staticmethod
    def forward(x, offsets, group_sizes, padding_mode, data_format):
        return _forward_op(x, offsets, group_sizes, padding_mode, data_format)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.shift = inputs[1:]

    @staticmethod
    def backward(ctx, grad):
        return _shift_backward(grad, *ctx.shift), None, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _shift(tangent, *ctx.shift)

    @staticmethod
    def vmap(info, in_dims, x, *shift):
        return SpatialShiftFunction.apply(x.movedim(in_dims[0], 0), *shift), 0


class SpatialShiftBackwardFunction(torch.autograd.Function):
    """The adjoint of :class:`SpatialShiftFunction`, with the same arguments; its backward is the shift again."""

    @staticmethod
    def forward(grad, offsets, group_sizes, padding_mode, data_format):
        return _backward_op(grad, offsets, group_sizes, padding_mode, data_format)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.shift = inputs[1:]

    @staticmethod
    def backward(ctx, grad):
        return _shift(grad, *ctx.shift), None, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _shift_backward(tangent, *ctx.shift)

    @staticmethod
    def vmap(info, in_dims, grad, *shift):
        return SpatialShiftBackwardFunction.apply(grad.movedim(in_dims[0], 0), *shift), 0


class _EagerShift(torch.autograd.Function):
    """:class:`SpatialShiftFunction` without ``setup_context``, for plain eager calls.

    With ``setup_context``, PyTorch binds the Python signature on every call, which costs more than shifting a small map.
    functorch transforms cannot do without it, and get the full class.
    """

    @staticmethod
    def forward(ctx, x, *shift):
        ctx.shift = shift
        return _below_autograd(_forward_op, x, *shift)

    backward = SpatialShiftFunction.backward
    jvp = SpatialShiftFunction.jvp


class _EagerShiftBackward(torch.autograd.Function):
    """:class:`SpatialShiftBackwardFunction` in the same way."""

    @staticmethod
    def forward(ctx, grad, *shift):
        ctx.shift = shift
        return _below_autograd(_backward_op, grad, *shift)

    backward = SpatialShiftBackwardFunction.backward
    jvp = SpatialShiftBackwardFunction.jvp


def _below_autograd(op, x, *shift):
    """Calls a raw operator past its own autograd rule, which is written in Python; the caller has its own."""
    with torch._C._AutoDispatchBelowAutograd():
        return op(x, *shift)


def _save_shift(ctx, inputs, output):
    ctx.shift = inputs[1:]


def _register(name: str, op, adjoint_op) -> None:
    """Gives a raw operator the rules that the Functions above have, so that ``torch.ops`` alone has them too."""

    def backward(ctx, grad):
        return adjoint_op(grad, *ctx.shift), None, None, None, None

    def vmap(info, in_dims, x, *shift):
        return op(x.movedim(in_dims[0], 0), *shift), 0

    torch.library.register_fake(name, lambda x, *shift: torch.empty_like(x))
    torch.library.register_autograd(name, backward, setup_context=_save_shift)
    torch.library.register_vmap(name, vmap)


_register(_FORWARD, _forward_op, _backward_op)
_register(_BACKWARD, _backward_op, _forward_op)
