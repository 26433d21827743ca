"""Models that are much larger than their weights are not built."""

import threading

import pytest
import torch
from torch import nn

from s2mlp_cuda._model_size import build_on_meta

LAYER = [torch.ones(2, 2), torch.ones(2)]


def stack(depth):
    """A model whose blocks are built one after the other; fails the test if that does not end."""

    def build():
        layers = []
        for number in range(depth):
            assert number < 2000
            layers.append(nn.BatchNorm1d(2))
        return nn.Sequential(*layers)

    return build


def test_the_model_is_on_the_meta_device():
    model = build_on_meta(lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), LAYER)
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_number_of_tensors():
    """A norm has two parameters and three buffers; 2 * 10 + 1000 tensors are allowed."""
    assert len(build_on_meta(stack(204), LAYER * 5)) == 204
    for depth in (205, 10**9):
        with pytest.raises(ValueError, match="^the model has more than 1020 tensors, but its weights only 10$"):
            build_on_meta(stack(depth), LAYER * 5)
    assert len(stack(500)()) == 500, "the limit must not outlast the call"


def test_size_of_tensors():
    build_on_meta(lambda: nn.Linear(2**12, 2**13), [torch.ones(2**13)])
    with pytest.raises(ValueError, match="^the tensors of the model have 1000001000000 numbers, but its weights only 6$"):
        build_on_meta(lambda: nn.Linear(10**6, 10**6), LAYER)
    # Buffers that are not saved count, too.
    module = nn.Module
    with pytest.raises(ValueError, match="have 1000000000 numbers"):
        build_on_meta(lambda: (made := module(), made.register_buffer("x", torch.zeros(10**9), persistent=False))[0], LAYER)


def test_models_of_other_threads_are_not_counted():
    def build():
        thread = threading.Thread(target=lambda: built.append(stack(500)()))
        thread.start()
        thread.join()
        return stack(1)()

    built: list[nn.Module] = []
    build_on_meta(build, LAYER)
    assert len(built[0]) == 500
