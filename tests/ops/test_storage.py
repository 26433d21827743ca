"""A tensor whose storage was freed or shrunk is refused; nothing is read out of bounds."""

import pytest
import torch

from s2mlp_cuda import gelu_spatial_shift, shift_branch_combine, shift_branch_pool, shift_split_attention, spatial_shift

from test_raw_operators import CASES, tensors


@pytest.mark.parametrize("fewer", ["freed", "one byte less"])
@pytest.mark.parametrize("name", CASES)
def test_raw_operators(name, fewer, device):
    function, *shapes = CASES[name]
    for index in range(len(shapes)):
        inputs = tensors(shapes, device)
        storage = inputs[index].untyped_storage()
        size = storage.nbytes()
        storage.resize_(0 if fewer == "freed" else size - 1)
        with pytest.raises(RuntimeError, match=f"takes a storage of {size} bytes, but its storage has {storage.nbytes()} bytes"):
            function(*inputs)


def test_offset_and_strides_count(device):
    """The last element of a view may be far into the storage; a storage that ends there is large enough."""
    buffer = torch.arange(1000.0, device=device)
    x = buffer.as_strided((2, 3, 4, 8), (200, 60, 10, 1), 50)
    last = 50 + 200 + 2 * 60 + 3 * 10 + 7
    expected = spatial_shift(x)
    buffer.untyped_storage().resize_(4 * (last + 1))
    assert torch.equal(spatial_shift(x), expected)
    buffer.untyped_storage().resize_(4 * last)
    with pytest.raises(RuntimeError, match=f"takes a storage of {4 * (last + 1)} bytes, but its storage has {4 * last} bytes"):
        spatial_shift(x)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_functions(requires_grad, device):
    x = torch.randn(2, 4, 5, 8, device=device, requires_grad=requires_grad)
    weights = torch.randn(2, 2, 4, device=device)
    fc1, fc2 = torch.randn(3, 4, device=device), torch.randn(8, 3, device=device)
    x.untyped_storage().resize_(0)
    for call in (
        lambda: spatial_shift(x),
        lambda: gelu_spatial_shift(x),
        lambda: shift_branch_pool(x, (None, None)),
        lambda: shift_branch_combine(x, weights, (None, None)),
        lambda: shift_split_attention(x, fc1, fc2, (None, None)),
    ):
        with pytest.raises(RuntimeError, match="x has shape .*, which takes a storage of 1280 bytes, but its storage has 0 bytes"):
            call()


def test_saved_tensors_that_were_freed(device):
    """As FSDP does between forward and backward, but without restoring them."""
    x = torch.randn(2, 4, 5, 8, device=device, requires_grad=True)
    out = gelu_spatial_shift(x)
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="x has shape .* its storage has 0 bytes: it was resized or freed"):
        out.sum().backward()


def test_maps_without_elements_need_no_storage(device):
    x = torch.empty(0, 4, 5, 8, device=device)
    assert x.untyped_storage().nbytes() == 0 and spatial_shift(x).shape == x.shape
