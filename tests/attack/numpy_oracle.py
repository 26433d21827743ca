"""What every raw operator must compute, in NumPy, one index at a time. Shares no code with the package."""

import math

import numpy as np


def source(position: int, size: int, mode: str) -> int | None:
    """The index of an axis that an unbounded position stands for; None for a zero."""
    if 0 <= position < size:
        return position
    if mode == "zeros":
        return None
    if mode == "replicate":
        return 0 if position < 0 else size - 1
    if mode == "circular":
        return position % size
    assert mode == "reflect"
    if size == 1:
        return 0
    position %= 2 * (size - 1)
    return position if position < size else 2 * (size - 1) - position


def sizes_of(channels: int, groups: int, group_sizes: list[int] | None) -> list[int]:
    if group_sizes is not None:
        return group_sizes
    return [(g + 1) * channels // groups - g * channels // groups for g in range(groups)]


def moves(shape: tuple[int, ...], offsets: list[int], group_sizes: list[int] | None, mode: str):
    """Yields (channels, output row, output column, input row, input column) of every token with a source. Channels come last."""
    *_, height, width, channels = shape
    begin = 0
    for g, size in enumerate(sizes_of(channels, len(offsets) // 2, group_sizes)):
        group, begin = slice(begin, begin + size), begin + size
        rows = [(h, source(h - offsets[2 * g], height, mode)) for h in range(height)]
        columns = [(w, source(w - offsets[2 * g + 1], width, mode)) for w in range(width)]
        for h, from_h in rows:
            for w, from_w in columns:
                if from_h is not None and from_w is not None:
                    yield group, h, w, from_h, from_w


def shift(x: np.ndarray, *table) -> np.ndarray:
    out = np.zeros_like(x)
    for group, h, w, from_h, from_w in moves(x.shape, *table):
        out[..., h, w, group] = x[..., from_h, from_w, group]
    return out


def adjoint(grad: np.ndarray, *table) -> np.ndarray:
    out = np.zeros_like(grad)
    for group, h, w, from_h, from_w in moves(grad.shape, *table):
        out[..., from_h, from_w, group] += grad[..., h, w, group]
    return out


def _gelu(x: float, approximate: str) -> float:
    if approximate == "none":
        return 0.5 * x * math.erfc(-x / math.sqrt(2))
    return x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _gelu_slope(x: float, approximate: str) -> float:
    if approximate == "none":
        return 0.5 * math.erfc(-x / math.sqrt(2)) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    sigmoid = 1 / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return sigmoid * (1 + x * (1 - sigmoid) * 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x))


gelu = np.vectorize(_gelu, otypes=[float], excluded=["approximate"])
gelu_slope = np.vectorize(_gelu_slope, otypes=[float], excluded=["approximate"])


def split(x: np.ndarray, branches: int) -> np.ndarray:
    """(..., K*C) as (..., K, C)."""
    return x.reshape(*x.shape[:-1], branches, x.shape[-1] // branches if branches else 0)


def pool(x: np.ndarray, branches: int, *table) -> np.ndarray:
    return split(shift(x, *table), branches).sum((-4, -3, -2))


def combine(x: np.ndarray, weights: np.ndarray, *table) -> np.ndarray:
    return (split(shift(x, *table), weights.shape[-2]) * weights[..., None, None, :, :]).sum(-2)


def combine_backward(grad: np.ndarray, weights: np.ndarray, pool_grad: np.ndarray | None, *table) -> np.ndarray:
    expanded = grad[..., None, :] * weights[..., None, None, :, :]
    if pool_grad is not None:
        expanded = expanded + pool_grad[..., None, None, None, :]
    return adjoint(expanded.reshape(*grad.shape[:-1], weights.shape[-2] * grad.shape[-1]), *table)


def combine_backward_weights(grad: np.ndarray, x: np.ndarray, *table) -> np.ndarray:
    branches = x.shape[-1] // grad.shape[-1]
    return (split(shift(x, *table), branches) * grad[..., None, :]).sum((-4, -3))
