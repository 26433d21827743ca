"""Decompositions into PyTorch's own operators. The ONNX tests cover graphs with dynamic sizes."""

import pytest
import torch

from s2mlp_cuda import create_model, decompositions
from s2mlp_cuda.export import decompose
from s2mlp_cuda.ops import PADDING_MODES


def test_decomposed_programs_have_no_custom_operators():
    model = create_model("s2mlpv2_small_7", embed_dims=(8, 16), depths=(1, 1)).eval()
    images = torch.randn(1, 3, 28, 28)
    program = torch.export.export(model, (images,))
    ours = {str(node.target) for node in program.graph.nodes if "s2mlp_cuda" in str(node.target)}
    assert ours == {"s2mlp_cuda.shift_branch_pool.default", "s2mlp_cuda.shift_branch_combine.default"}
    decomposed = decompose(program)
    assert not [node for node in decomposed.graph.nodes if "s2mlp_cuda" in str(node.target)]
    torch.testing.assert_close(decomposed.module()(images), model(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32], ids=str)
def test_every_dtype_and_empty_maps(dtype):
    for shape in ((2, 3, 4, 8), (0, 3, 4, 8), (2, 0, 4, 8), (3, 1, 8)):
        x = (10 * torch.randn(shape)).to(dtype)
        for mode in PADDING_MODES:
            flat = [1, 0, -1, 2, 0, -9]
            assert torch.equal(
                decompositions.spatial_shift(x, flat, None, mode), torch.ops.s2mlp_cuda.spatial_shift(x, flat, None, mode)
            )
