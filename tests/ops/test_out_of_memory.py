"""If memory runs out, the error is PyTorch's own, with its type and text: programs that search for a batch size depend on both."""

import pytest
import torch

from s2mlp_cuda import gelu_spatial_shift, shift_branch_combine, shift_split_attention, spatial_shift

from conftest import require_device

#: Expanded leading dimensions, which take no memory: the result would take 2^60 elements.
BATCH = 2**50
BRANCHES = (((0, 1),), None)


def huge(device: torch.device, requires_grad: bool) -> torch.Tensor:
    return torch.ones(1, 4, 4, 64, device=device, requires_grad=requires_grad).expand(BATCH, 4, 4, 64)


CALLS = {
    "spatial_shift": spatial_shift,
    "gelu_spatial_shift": gelu_spatial_shift,
    "shift_branch_combine": lambda x: shift_branch_combine(x, 1.0, BRANCHES),
    "shift_split_attention": lambda x: shift_split_attention(
        x, torch.ones(2, 32, device=x.device), torch.ones(64, 2, device=x.device), BRANCHES
    ),
    "raw operator": lambda x: torch.ops.s2mlp_cuda.spatial_shift(x, [0, 1]),
}


def error_of(call, x) -> RuntimeError:
    with pytest.raises(RuntimeError) as raised:
        call(x)
    return raised.value


def check_error_of_pytorch(error: RuntimeError, device: torch.device) -> None:
    if device.type == "cuda":
        assert type(error) is torch.OutOfMemoryError and "CUDA out of memory" in str(error)
    else:
        assert type(error) is RuntimeError and "DefaultCPUAllocator: can't allocate memory: you tried to allocate" in str(error)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_error_is_that_of_pytorch(name, requires_grad, device):
    check_error_of_pytorch(error_of(CALLS[name], huge(device, requires_grad)), device)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "raw operator"])
def test_error_in_inference_mode_is_that_of_pytorch(name, device):
    with torch.inference_mode():
        check_error_of_pytorch(error_of(CALLS[name], huge(device, False)), device)


def test_error_of_a_raw_operator_in_inference_mode_is_the_kernels_own(device):
    """The dispatcher calls the kernel itself: see ops/_kernels.py."""
    with torch.inference_mode():
        error = error_of(CALLS["raw operator"], huge(device, False))
    assert type(error) is RuntimeError and "could not allocate memory for a result or a copy of an argument" in str(error)


def test_error_of_gelu_and_of_its_shift_name_the_same_size():
    x = huge(require_device("cpu"), False)
    assert str(error_of(gelu_spatial_shift, x)) == str(error_of(torch.nn.functional.gelu, x))


def test_gradient(device):
    """In the backward pass, from a gradient that takes no memory."""
    x = torch.ones(1, 4, 4, 64, device=device, requires_grad=True)
    backward = torch.ops.s2mlp_cuda.spatial_shift_backward
    error = error_of(lambda grad: backward(grad, [0, 1]), x.detach().expand(BATCH, 4, 4, 64))
    assert "out of memory" in str(error) or "can't allocate memory" in str(error)


def test_sizes_that_overflow(device):
    """2^64 bytes: PyTorch refuses them before it allocates."""
    grad = torch.ones(1, 8, device=device).expand(2**30, 8)
    call = torch.ops.s2mlp_cuda.shift_branch_pool_backward
    error = error_of(lambda grad: call(grad, 2**20, 2**20, torch.float32, 1, [0, 0], [8]), grad)
    assert "overflow" in str(error)


def test_other_errors_stay_as_they_are(device):
    x = torch.zeros(2, 4, 5, 8, device=device)
    with pytest.raises(RuntimeError, match="padding_mode must be one of .*, got 'same'"):
        torch.ops.s2mlp_cuda.spatial_shift(x, [0, 1], None, "same")
