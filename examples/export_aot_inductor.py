"""Compile a model ahead of time with AOTInductor, load the package, and compare it with the model.

python examples/export_aot_inductor.py      (needs a C++ compiler; takes under a minute)
"""

import torch

import s2mlp_cuda


def main() -> None:
    torch.manual_seed(0)
    # --8<-- [start:export]
    # A small model; create_model("s2mlpv2_small_7", num_classes=10) is exported in the same way.
    model = s2mlp_cuda.create_model("s2mlpv2_small_7", num_classes=10, patch_sizes=(7,), embed_dims=(8,), depths=(1,)).eval()
    images = torch.randn(2, 3, 28, 28)
    sizes = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=sizes)
        path = torch._inductor.aoti_compile_and_package(program, package_path="model.pt2")
    # --8<-- [end:export]
    calls = sorted({str(node.target) for node in program.graph.nodes if "s2mlp_cuda" in str(node.target)})
    print("The package calls this package's kernels:", ", ".join(calls))

    # --8<-- [start:run]
    compiled = torch._inductor.aoti_load_package(path)
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 28, 28)
        with torch.no_grad():
            difference = (compiled(images) - model(images)).abs().max().item()
        print(f"{batch} images: the compiled model differs by at most {difference:.1g}")
        assert difference < 1e-4
    # --8<-- [end:run]


if __name__ == "__main__":
    main()
