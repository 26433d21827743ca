"""Export a model to ONNX, for any batch and image size, and compare ONNX Runtime with PyTorch.

python examples/export_onnx.py      (needs the extra onnx, and onnxruntime: pip install onnx onnxscript onnxruntime)
"""

import onnxruntime
import torch

import s2mlp_cuda
from s2mlp_cuda.export import to_onnx


def main() -> None:
    torch.manual_seed(0)
    # --8<-- [start:export]
    # A small model; create_model("s2mlpv2_small_7", num_classes=10) is exported in the same way.
    model = s2mlp_cuda.create_model("s2mlpv2_small_7", num_classes=10, embed_dims=(16, 32), depths=(1, 1)).eval()
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    # Sizes are multiples of 14: patches of 7 pixels, then of 2 tokens.
    sizes = {"x": {0: batch, 2: 14 * height, 3: 14 * width}}
    program = to_onnx(model, (torch.randn(2, 3, 56, 56),), "model.onnx", sizes, verbose=False, external_data=False)
    # --8<-- [end:export]
    operators = {node.op_type for node in program.model.graph if node.domain in ("", "ai.onnx")}
    others = {node.op_type for node in program.model.graph} - operators
    print(f"model.onnx: {len(operators)} kinds of ONNX's standard operators, {len(others)} others")

    # --8<-- [start:run]
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    for shape in ((2, 3, 56, 56), (1, 3, 28, 84), (3, 3, 70, 42)):
        images = torch.randn(shape)
        (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            difference = (torch.from_numpy(output) - model(images)).abs().max().item()
        print(f"images {shape}: ONNX Runtime differs from PyTorch by at most {difference:.1g}")
        assert difference < 1e-4
    # --8<-- [end:run]


if __name__ == "__main__":
    main()
