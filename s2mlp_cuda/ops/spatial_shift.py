"""The spatial shift: the public function, and the derivative rules of its two raw operators."""

from collections.abc import Sequence

import torch
from torch.overrides import handle_torch_function, has_torch_function_unary

from s2mlp_cuda._arguments import check_groups, check_map, check_padding_mode, flat_offsets
from s2mlp_cuda.offsets import V1
from s2mlp_cuda.ops._differentiable import Rules, differentiable
from s2mlp_cuda.ops._torchscript import not_for_torchscript


@not_for_torchscript
def spatial_shift(
    x: torch.Tensor,
    offsets: Sequence[Sequence[int]] = V1,
    *,
    group_sizes: Sequence[int] | None = None,
    padding_mode: str = "replicate",
    data_format: str = "channels_last",
) -> torch.Tensor:
    """Move each channel group of a map by its own offset (S2-MLP, arXiv 2106.07477, section 3.2 and Alg. 1)::

        out[b, h, w, c] = x[b, clamp(h - dh_g, 0, H - 1), clamp(w - dw_g, 0, W - 1), c]

    where g is the group of channel c. The formula is for ``padding_mode="replicate"``, as in the papers' pseudo-code: where
    nothing moves in, the border keeps its old value. The input is not modified.

    Args:
        x: map of shape (..., H, W, C), with any strides and any number of leading dimensions, including none. For maps
            (..., C, H, W), as convolutions have them, pass ``data_format="channels_first"``. Dtypes: float64, float32, float16
            and bfloat16 in forward and backward; int64, int32, int16, int8, uint8 and bool in forward only.
        offsets: one (dh, dw) pair per channel group, in tokens; positive offsets move content toward higher indices. Offsets
            may be larger than the map. Presets are in :mod:`s2mlp_cuda.offsets`.
        group_sizes: channels per group; zero is allowed. Default: the C channels are split evenly; group g of G owns
            channels floor(g*C/G) .. floor((g+1)*C/G) - 1.
        padding_mode: what moves in at the border, as in :class:`torch.nn.Conv2d`: ``"replicate"`` (the border value),
            ``"zeros"``, ``"circular"`` (what moved out on the other side) or ``"reflect"`` (the map mirrored at its border
            token, which is not repeated). For offsets larger than the mirrored map, it is mirrored again, as in
            :func:`numpy.pad`.
        data_format: ``"channels_last"`` or ``"channels_first"``, the order of the last three dimensions.

    Returns:
        A new tensor with the shape, dtype and memory format of ``x``. Differentiable any number of times, in reverse and
        forward mode. Gradients of float16 and bfloat16 maps are accumulated in float32.

    Raises:
        TypeError: ``x`` is not a tensor or has an unsupported dtype; ``offsets`` or ``group_sizes`` are not integers.
        ValueError: fewer than three dimensions, more groups than channels, group sizes that do not match the offsets or the
            channels, or an unknown padding mode or data format.

    Example:
        >>> x = torch.arange(5.0).reshape(1, 5, 1)  # one row of five tokens, one channel
        >>> spatial_shift(x, offsets=[(0, 1)]).flatten()
        tensor([0., 0., 1., 2., 3.])
    """
    if has_torch_function_unary(x):
        options = {"group_sizes": group_sizes, "padding_mode": padding_mode, "data_format": data_format}
        return handle_torch_function(spatial_shift, (x,), x, offsets, **options)
    channels = check_map(x, data_format)
    check_padding_mode(padding_mode)
    flat = flat_offsets(offsets)
    sizes = check_groups(len(flat) // 2, group_sizes, channels, data_format)
    return shift(x, flat, sizes, padding_mode, data_format)


class _Shift(Rules):
    """``(x, offsets, group_sizes, padding_mode, data_format)``. Linear: its jvp is the shift, its backward the adjoint."""

    op = torch.ops.s2mlp_cuda.spatial_shift.default
    num_tensors = 1

    @staticmethod
    def fake(x, *arguments):
        return torch.empty_like(x)

    @staticmethod
    def save(x, *arguments):
        return (), arguments

    @staticmethod
    def backward(saved, arguments, needs_grad, grad):
        return (shift_adjoint(grad, *arguments),)

    @staticmethod
    def jvp(saved, arguments, tangent):
        return shift(tangent, *arguments)


class _ShiftAdjoint(_Shift):
    """The adjoint of the shift, with the same arguments. Its adjoint is the shift."""

    op = torch.ops.s2mlp_cuda.spatial_shift_backward.default

    @staticmethod
    def backward(saved, arguments, needs_grad, grad):
        return (shift(grad, *arguments),)

    @staticmethod
    def jvp(saved, arguments, tangent):
        return shift_adjoint(tangent, *arguments)


_shift = differentiable(_Shift)
_shift_adjoint = differentiable(_ShiftAdjoint)


def shift(x, offsets: list[int], group_sizes: list[int] | None, padding_mode: str, data_format: str) -> torch.Tensor:
    """The differentiable operator, with the raw operator's arguments: flat offsets, no defaults."""
    return _shift.call(x, offsets, group_sizes, padding_mode, data_format)


def shift_adjoint(grad, offsets: list[int], group_sizes: list[int] | None, padding_mode: str, data_format: str) -> torch.Tensor:
    """The exact adjoint of :func:`shift`."""
    return _shift_adjoint.call(grad, offsets, group_sizes, padding_mode, data_format)


class SpatialShiftFunction(_shift.Function):  # type: ignore[name-defined]
    """``SpatialShiftFunction.apply(x, flat_offsets, group_sizes, padding_mode, data_format)``.

    The differentiable operator as a class. ``flat_offsets`` is ``[dh0, dw0, dh1, dw1, ...]``; ``group_sizes`` is a list or
    None. Use :func:`spatial_shift` unless you need the class.
    """
