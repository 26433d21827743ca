"""The size of a model that a file describes, compared with the weights in the file before the model is built.

A few bytes can describe a model of any size. Its weights are in the same file, so that a model that is much larger is an error.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules import module as nn_module

#: What a model may have besides the tensors of its file: tensors that are replaced while it is built, or are not saved.
_SPARE_TENSORS, _SPARE_NUMBERS = 1000, 2**25


def build_on_meta(build: Callable[[], nn.Module], weights: Iterable[torch.Tensor]) -> nn.Module:
    """The model that ``build`` returns, on the meta device, where its tensors take no memory.

    Raises:
        ValueError: the model is much larger than its weights: it has more than 2n + 1000 tensors or 2m + 2^25 numbers, where the
            weights have n and m. It is not built any further.
    """
    weights = list(weights)
    with torch.device("meta"), _limited_tensors(2 * len(weights) + _SPARE_TENSORS, len(weights)):
        model = build()
    needed, given = (sum(tensor.numel() for tensor in tensors) for tensors in ([*model.parameters(), *model.buffers()], weights))
    if needed > 2 * given + _SPARE_NUMBERS:
        raise ValueError(f"the tensors of the model have {needed} numbers, but its weights only {given}")
    return model


@contextmanager
def _limited_tensors(limit: int, given: int) -> Iterator[None]:
    """Stops this thread when it builds modules with more than ``limit`` parameters and buffers."""
    thread, count = threading.get_ident(), 0

    def counted(*_) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > limit:
            raise ValueError(f"the model has more than {limit} tensors, but its weights only {given}")

    hooks = [
        nn_module.register_module_parameter_registration_hook(counted),
        nn_module.register_module_buffer_registration_hook(counted),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
