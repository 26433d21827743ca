"""The operators of this package and their baselines: the other implementations in common use."""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch.nn import functional

from s2mlp_cuda import gelu_spatial_shift, reference, shift_split_attention, spatial_shift
from s2mlp_cuda.offsets import IDENTITY, SS1, SS2, V1

Shift = Callable[..., torch.Tensor]  # (map, offsets, data_format="channels_last")
IN_PLACE = "slices in place (public copies)"
IN_PLACE_STACK = f"stack, {IN_PLACE}"
ASSIGNED = "slices, cloned and assigned"
DEFORM = "deform_conv2d"
OURS = "s2mlp_cuda.spatial_shift"


def _parts(x: torch.Tensor, offsets, dim: int, group_sizes=None) -> list[torch.Tensor]:
    """The channel groups as views by slicing. Views by ``chunk`` cannot be modified in place if they require a gradient."""
    borders = reference.group_borders(x.shape[dim], offsets, group_sizes)
    return [x.narrow(dim, begin, end - begin) for begin, end in zip(borders, borders[1:])]


def _groups(x: torch.Tensor, offsets, data_format: str, group_sizes=None):
    """For each group of a shift along one axis: its view of the map with the shifted axis first, and its offset."""
    last = data_format == "channels_last"
    for (dh, dw), part in zip(offsets, _parts(x, offsets, -1 if last else -3, group_sizes)):
        yield part.movedim((-3 if last else -2) if dh else (-2 if last else -1), 0), dh + dw


def assign_in_place(x, offsets=V1, data_format: str = "channels_last"):
    """Overlapping slices, assigned in place, as in most public PyTorch copies. Wrong for tensors, correct for NumPy arrays.

    Args:
        x: a tensor or an array, (B, H, W, C) or (B, C, H, W); overwritten.
        offsets: (dh, dw) of each group; one of them is 1 or -1, the other 0.
    """
    channel_dim, height_dim = (3, 1) if data_format == "channels_last" else (1, 2)
    borders = reference.group_borders(x.shape[channel_dim], offsets)
    for (dh, dw), begin, end in zip(offsets, borders, borders[1:]):

        def part(tokens: slice) -> tuple[slice, ...]:
            index = [slice(None)] * 4
            index[channel_dim] = slice(begin, end)
            index[height_dim if dh else height_dim + 1] = tokens
            return tuple(index)

        behind, ahead = part(slice(1, None)), part(slice(None, -1))
        if dh + dw > 0:
            x[behind] = x[ahead]
        else:
            x[ahead] = x[behind]
    return x


def in_place(x: torch.Tensor, offsets=V1, data_format: str = "channels_last") -> torch.Tensor:
    """:func:`assign_in_place`. A leaf that requires a gradient cannot be modified in place, and is cloned first."""
    return assign_in_place(x.clone() if x.requires_grad and x.is_leaf else x, offsets, data_format)


def clone_and_assign(x: torch.Tensor, offsets=V1, data_format: str = "channels_last") -> torch.Tensor:
    """Cloned slices assigned to a clone: the papers' pseudo-code in a form that is safe in eager mode."""
    out = x.clone()
    for view, offset in _groups(out, offsets, data_format):
        if offset > 0:
            view[1:] = view[:-1].clone()
        else:
            view[:-1] = view[1:].clone()
    return out


class _HandWritten(torch.autograd.Function):
    """``(x, offsets, data_format, group_sizes)``: copies interior and border slices into a new map; backward is the adjoint."""

    @staticmethod
    def forward(ctx, x, *groups):
        ctx.groups = groups
        out = torch.empty_like(x)
        for (to, n), (source, _) in zip(_groups(out, *groups), _groups(x, *groups)):
            if n > 0:
                to[n:], to[:n] = source[:-n], source[0]
            elif n < 0:
                to[:n], to[n:] = source[-n:], source[-1]
            else:
                to[:] = source
        return out

    @staticmethod
    def backward(ctx, grad):
        out = torch.empty_like(grad)
        for (to, n), (source, _) in zip(_groups(out, *ctx.groups), _groups(grad, *ctx.groups)):
            if n > 0:
                to[:-n], to[-n:] = source[n:], 0
                for i in range(n):
                    to[0] += source[i]
            elif n < 0:
                to[-n:], to[:-n] = source[:n], 0
                for i in range(n, 0):
                    to[-1] += source[i]
            else:
                to[:] = source
        return out, None, None, None


def hand_written(x: torch.Tensor, offsets=V1, data_format: str = "channels_last", group_sizes=None) -> torch.Tensor:
    """The strongest pure PyTorch baseline: an autograd.Function with hand-written forward and backward passes."""
    return _HandWritten.apply(x, offsets, data_format, group_sizes)


def index_select(x: torch.Tensor, offsets=V1, data_format: str = "channels_last", group_sizes=None) -> torch.Tensor:
    """``index_select`` of clamped rows or columns per group, then ``cat``."""
    channel_dim, height_dim = (-1, -3) if data_format == "channels_last" else (-3, -2)
    parts = []
    for (dh, dw), part in zip(offsets, _parts(x, offsets, channel_dim, group_sizes)):
        dim, offset = (height_dim, dh) if dh else (height_dim + 1, dw)
        index = (torch.arange(x.shape[dim], device=x.device) - offset).clamp(0, x.shape[dim] - 1)
        parts.append(part.index_select(dim % x.dim(), index))
    return torch.cat(parts, channel_dim)


@lru_cache(maxsize=1)
def _token_index(height: int, width: int, channels: int, offsets, group_sizes, device) -> torch.Tensor:
    """The source token of each token and channel, (H * W, C)."""
    tokens = torch.arange(height * width, device=device).view(1, height, width, 1).expand(-1, -1, -1, channels)
    return reference.spatial_shift(tokens, offsets, group_sizes=group_sizes).view(height * width, channels)


def gather(x: torch.Tensor, offsets=V1, data_format: str = "channels_last", group_sizes=None) -> torch.Tensor:
    """``gather`` with an index per token and channel, which is cached."""
    if data_format == "channels_last":
        batch, height, width, channels = x.shape
        index = _token_index(height, width, channels, offsets, group_sizes, x.device)
        return x.reshape(batch, height * width, channels).gather(1, index.expand(batch, -1, -1)).view(x.shape)
    batch, channels, height, width = x.shape
    index = _token_index(height, width, channels, offsets, group_sizes, x.device).T
    return x.reshape(batch, channels, height * width).gather(2, index.expand(batch, -1, -1)).view(x.shape)


def _compiled(function: Callable) -> Callable:
    return torch.compile(lambda *inputs: function(*inputs), dynamic=False)


def shift_implementations(data_format: str, **groups) -> dict[str, Callable]:
    """All implementations of the shift by name, ours first. Without torchvision's if it is not installed.

    Args:
        data_format: of the maps.
        groups: ``offsets``, each along one axis, and ``group_sizes``; default V1. If given, implementations that support only
            equal groups and offsets of one token are omitted.
    """
    functions: dict[str, Callable] = {
        OURS: spatial_shift,
        ASSIGNED: clone_and_assign,
        "slices + cat": reference.spatial_shift,
        "hand-written Function of slices": hand_written,
        "padded roll": reference.spatial_shift_roll,
        "one-hot depthwise conv2d": reference.spatial_shift_conv2d,
        DEFORM: reference.spatial_shift_deform_conv2d,
        "gather": gather,
        "index_select + cat": index_select,
        IN_PLACE: in_place,
    }
    try:
        import torchvision  # noqa: F401
    except ImportError:
        del functions[DEFORM]
    if groups:
        del functions[ASSIGNED], functions[IN_PLACE]
    shifts = {name: partial(function, data_format=data_format, **groups) for name, function in functions.items()}
    compiled = (name for name in (ASSIGNED, "slices + cat", "index_select + cat") if name in shifts)
    return shifts | {f"torch.compile({name})": _compiled(shifts[name]) for name in compiled}


#: The target of the fused operator. It does not shift, so it is not compared with the reference.
GELU_ALONE = "F.gelu alone"


def gelu_implementations(data_format: str) -> dict[str, Callable]:
    """All implementations of GELU followed by V1's shift by name, ours first."""

    def gelu_then(shift: Shift) -> Callable:
        return lambda x: shift(functional.gelu(x), data_format=data_format)

    slices, select = gelu_then(reference.spatial_shift), gelu_then(index_select)
    return {
        "s2mlp_cuda.gelu_spatial_shift": partial(gelu_spatial_shift, data_format=data_format),
        GELU_ALONE: functional.gelu,
        "F.gelu, s2mlp_cuda.spatial_shift": gelu_then(spatial_shift),
        "F.gelu, hand-written Function of slices": gelu_then(hand_written),
        "F.gelu, slices + cat": slices,
        "torch.compile(F.gelu, slices + cat)": _compiled(slices),
        "torch.compile(F.gelu, index_select + cat)": _compiled(select),
    }


BRANCHES = (SS1, SS2, None)


def split_attention(x, fc1_weight, fc2_weight, shift: Shift) -> torch.Tensor:
    """Split attention as in public code: shifted branches are stacked, summed, weighted and summed again."""
    maps = [part if table is None else shift(part, table) for part, table in zip(_parts(x, IDENTITY * len(BRANCHES), -1), BRANCHES)]
    stack = torch.stack(maps, 1)
    hidden = functional.gelu(functional.linear(stack.sum((1, 2, 3)), fc1_weight))
    weights = functional.linear(hidden, fc2_weight).unflatten(-1, (3, -1)).softmax(1)
    return (stack * weights[:, :, None, None]).sum(1)


def split_attention_implementations(data_format: str) -> dict[str, Callable]:
    """All implementations of split attention by name, as functions of (x, fc1_weight, fc2_weight), ours first."""

    def stack(shift: Shift) -> Callable:
        return partial(split_attention, shift=shift)

    return {
        "s2mlp_cuda.shift_split_attention": partial(shift_split_attention, branch_offsets=BRANCHES, attention_pool="sum"),
        "stack, s2mlp_cuda.spatial_shift": stack(spatial_shift),
        "stack, slices, cloned and assigned": stack(clone_and_assign),
        "stack, slices + cat": stack(reference.spatial_shift),
        "stack, hand-written Function of slices": stack(hand_written),
        IN_PLACE_STACK: lambda x, *weights: stack(in_place)(x.clone() if x.requires_grad else x, *weights),
        "torch.compile(stack, slices + cat)": _compiled(stack(reference.spatial_shift)),
        "torch.compile(stack, index_select + cat)": _compiled(stack(index_select)),
    }
