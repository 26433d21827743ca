"""Models in several threads: shared, copied, and replicated as nn.DataParallel does for several GPUs."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import s2mlp_cuda

from calls import make_model
from fresh import in_fresh_process

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> nn.Module:
    return make_model().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 16, 16)


def in_threads(models: list[nn.Module], batches: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(lambda model, batch: model(batch), models, batches))


def test_data_parallel(model, images):
    """Without a GPU, the model alone."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, images = model.to(device), images.to(device)
    torch.testing.assert_close(nn.DataParallel(model)(images), model(images))


def test_deep_copies(model, images):
    outputs = in_threads([copy.deepcopy(model) for _ in range(4)], images.split(1))
    for output, image in zip(outputs, images.split(1), strict=True):
        assert torch.equal(output, model(image))


def test_replicas_of_data_parallel(model, images, monkeypatch):
    """Their weights are not Parameters. Only the copy between GPUs is replaced."""

    def broadcast(tensors, devices, detach):
        return [[tensor.clone() for tensor in tensors] for _ in devices]

    monkeypatch.setattr(sys.modules["torch.nn.parallel.replicate"], "_broadcast_coalesced_reshape", broadcast)
    replicas = nn.parallel.replicate(model, [0, 1])
    outputs = in_threads(replicas, images.split(2))
    expected = [model(half) for half in images.split(2)]
    assert torch.equal(torch.cat(outputs), torch.cat(expected))
    for ours, theirs in zip(gradients(model, outputs), gradients(model, expected), strict=True):
        torch.testing.assert_close(ours, theirs)


def gradients(model: nn.Module, outputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(torch.cat(outputs).square().sum(), list(model.parameters()))


def test_threads_that_add_to_the_gradients_of_one_layer():
    """Gradients that several threads accumulate are whole numbers, whose sums are exact."""
    weights = torch.ones(2, 3, 8, requires_grad=True)
    x = torch.ones(2, 5, 5, 24)

    def backward(_) -> None:
        s2mlp_cuda.shift_branch_combine(x, weights, (s2mlp_cuda.offsets.SS1, None, None)).sum().backward()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(backward, range(160)))
    assert torch.equal(weights.grad, torch.full_like(weights, 160 * 25))


def run_pickled(pickled: bytes, images: torch.Tensor) -> torch.Tensor:
    torch.set_num_threads(1)
    return pickle.loads(pickled)(images).detach()


def test_pickled_model_in_another_process(model, images):
    assert torch.equal(in_fresh_process(run_pickled, pickle.dumps(model), images), model(images))
