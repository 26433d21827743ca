"""Operators and models in ONNX Runtime."""

import pytest
import torch
from torch import nn
from torch.export import Dim

import s2mlp_cuda
from s2mlp_cuda import create_model, offsets
from s2mlp_cuda.export import to_onnx

onnxruntime = pytest.importorskip("onnxruntime")

#: Functions of a map x with 12 channels, and whether their results are exact.
FUNCTIONS = {
    "V1": (lambda x: s2mlp_cuda.spatial_shift(x), True),
    "zeros": (lambda x: s2mlp_cuda.spatial_shift(x, offsets.SHIFT_VIT, group_sizes=(2, 1, 0, 1, 8), padding_mode="zeros"), True),
    "circular": (lambda x: s2mlp_cuda.spatial_shift(x, ((2, -1), (-3, 9)), padding_mode="circular"), True),
    "reflect": (lambda x: s2mlp_cuda.spatial_shift(x, ((2, -1), (-3, 9)), padding_mode="reflect"), True),
    "eight-way": (lambda x: s2mlp_cuda.spatial_shift(x, offsets.EIGHT_WAY), True),
    "larger than the map": (lambda x: s2mlp_cuda.spatial_shift(x, ((9, -9), (-99, 0))), True),
    "channels-first": (lambda x: s2mlp_cuda.spatial_shift(x, data_format="channels_first"), True),
    "GELU": (lambda x: s2mlp_cuda.gelu_spatial_shift(x), False),
    "GELU, tanh": (lambda x: s2mlp_cuda.gelu_spatial_shift(x, approximate="tanh"), False),
    "pool": (lambda x: s2mlp_cuda.shift_branch_pool(x, (offsets.SS1, offsets.SS2, None)), False),
}


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def session(program, path):
    program.save(path)
    domains = {node.domain for node in program.model.graph}
    assert domains <= {"", "ai.onnx"}, domains
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(runtime, x):
    return torch.from_numpy(runtime.run(None, {runtime.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators_of_any_size(name, tmp_path):
    function, exact = FUNCTIONS[name]
    dims = {d: Dim(f"d{d}", min=1) for d in ((0, 2, 3) if name == "channels-first" else (0, 1, 2))}
    shape = (2, 12, 6, 5) if name == "channels-first" else (2, 6, 5, 12)
    program = to_onnx(Call(function), (torch.randn(shape),), dynamic_shapes={"x": dims})
    runtime = session(program, tmp_path / "op.onnx")
    for sizes in ((2, 6, 5), (1, 1, 1), (3, 4, 17)):
        x = torch.randn([sizes[0], 12, *sizes[1:]] if name == "channels-first" else [*sizes, 12])
        if exact:
            assert torch.equal(run(runtime, x), function(x))
        else:
            torch.testing.assert_close(run(runtime, x), function(x), rtol=1e-5, atol=1e-5)


def test_operators_by_pytorchs_own_export(tmp_path):
    """``torch.onnx.export`` of a module, without ``to_onnx``, all operators at once."""

    def every(x):
        return torch.cat([FUNCTIONS[name][0](x).flatten() for name in FUNCTIONS])

    dims = {0: "batch", 2: "height"}
    program = torch.onnx.export(Call(every), (torch.randn(2, 12, 6, 12),), dynamo=True, dynamic_shapes={"x": dims})
    runtime = session(program, tmp_path / "ops.onnx")
    for batch, height in ((2, 6), (3, 17)):
        x = torch.randn(batch, 12, height, 12)
        torch.testing.assert_close(run(runtime, x), every(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("s2mlp_deep", {"embed_dim": 32, "depth": 2, "padding_mode": "zeros"}),
        ("s2mlpv2_small_7", {"embed_dims": (16, 32), "depths": (1, 1)}),
        ("s2mlpv2_small_7", {"embed_dims": (16, 32), "depths": (1, 1), "attention_pool": "mean"}),
        ("s2mlpv2_small_14", {"embed_dims": (16, 16), "depths": (1, 1), "fusion": "mean"}),
    ],
)
def test_models_of_any_batch_and_size(name, kwargs, tmp_path):
    model = create_model(name, num_classes=10, **kwargs).eval()
    batch, height, width = (Dim(dim, min=1) for dim in ("batch", "height", "width"))
    sizes = {"x": {0: batch, 2: model.stride * height, 3: model.stride * width}}
    program = to_onnx(model, (torch.randn(2, 3, 8 * model.stride, 6 * model.stride),), dynamic_shapes=sizes)
    runtime = session(program, tmp_path / "model.onnx")
    for batch, height, width in ((2, 8, 6), (1, 3, 5), (5, 9, 2)):
        images = torch.randn(batch, 3, height * model.stride, width * model.stride)
        with torch.no_grad():
            torch.testing.assert_close(run(runtime, images), model(images), rtol=1e-4, atol=1e-5)


def test_files_are_written_completely_or_not_at_all(tmp_path, monkeypatch):
    model = nn.Linear(64, 64)
    x, path = torch.randn(2, 64), tmp_path / "model.onnx"
    to_onnx(model, (x,), path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    torch.testing.assert_close(run(runtime, x), model(x), rtol=1e-4, atol=1e-5)

    def fail(program, args, file, **_):
        file.write_text("half")
        raise OSError("no space")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(OSError, match="no space"):
        to_onnx(model, (x,), path)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
