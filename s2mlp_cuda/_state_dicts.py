"""Comparison of state dicts, before one is loaded."""

from collections.abc import Mapping, Sequence

import torch


def differences(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of tensors that only one of two state dicts has, or that differ in shape."""
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (found, expected)]
    return sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))


def few(names: Sequence[str]) -> str:
    """The first five names, for error messages."""
    return f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
