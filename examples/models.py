"""Create the models by name, with other arguments, with timm, and from a folder that save_pretrained wrote.

python examples/models.py      (needs the extras timm and hub: pip install timm huggingface_hub safetensors)
"""

import tempfile

import torch
from torch import nn

import s2mlp_cuda


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --8<-- [start:create]
def create() -> None:
    model = s2mlp_cuda.create_model("s2mlpv2_small_7", num_classes=10, drop_path_rate=0.1)
    logits = model(torch.randn(2, 3, 224, 224))
    print(f"s2mlpv2_small_7: {parameters(model):,} parameters, logits {tuple(logits.shape)}")

    small = s2mlp_cuda.create_model("s2mlpv2_small_7", num_classes=10, patch_sizes=(2, 2), embed_dims=(32, 64), depths=(1, 4))
    logits = small(torch.randn(2, 3, 32, 48))  # any image size that is a multiple of the patches
    print(f"smaller: {parameters(small):,} parameters, logits {tuple(logits.shape)}")


# --8<-- [end:create]


# --8<-- [start:timm]
def with_timm() -> None:
    import timm

    import s2mlp_cuda.timm  # noqa: F401, registers the names

    model = timm.create_model("s2mlpv2_small_7", num_classes=10, drop_path_rate=0.1)
    print(f"timm: {type(model).__name__}, {parameters(model):,} parameters")


# --8<-- [end:timm]


# --8<-- [start:hub]
def save_and_load(folder: str) -> None:
    from s2mlp_cuda import hub

    model = hub.create_model("s2mlp_wide", num_classes=10, patch_size=4, embed_dim=64, depth=2).eval()
    model.save_pretrained(folder)  # or model.push_to_hub("name/of-a-repository")
    loaded = hub.S2MLP.from_pretrained(folder).eval()
    images = torch.randn(2, 3, 32, 32)
    print(f"loaded from a folder: outputs equal: {torch.equal(loaded(images), model(images))}")


# --8<-- [end:hub]


def main() -> None:
    torch.manual_seed(0)
    create()
    with_timm()
    with tempfile.TemporaryDirectory() as folder:
        save_and_load(folder)


if __name__ == "__main__":
    main()
