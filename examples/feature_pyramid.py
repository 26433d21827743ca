"""Use S2-MLPv2 as the backbone of a dense prediction model: a class for each pixel, at any image size.

python examples/feature_pyramid.py
"""

import torch
from torch import nn
from torch.nn.functional import interpolate

import s2mlp_cuda


# --8<-- [start:model]
class Segmenter(nn.Module):
    """Images (B, 3, H, W) to logits (B, classes, H, W): lateral 1x1 convolutions, top-down sum, one classifier per pixel."""

    def __init__(self, classes: int, channels: int = 32, **backbone):
        super().__init__()
        self.backbone = s2mlp_cuda.create_model("s2mlpv2_small_7", features_only=True, dynamic_img_pad=True, **backbone)
        infos = self.backbone.feature_info
        self.lateral = nn.ModuleList(nn.Conv2d(info["num_chs"], channels, 1) for info in infos)
        self.classify = nn.Conv2d(channels, classes, 1)
        #: Height and width of a token of each map, in pixels, fine to coarse.
        self.reductions = [info["reduction"] for info in infos]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Fine to coarse, (B, channels, H / r, W / r) each, where r is the size of a token in pixels.
        maps = [lateral(x) for lateral, x in zip(self.lateral, self.backbone(images))]
        top, reduction = maps[-1], self.reductions[-1]
        for finer, finer_reduction in zip(maps[-2::-1], self.reductions[-2::-1]):
            # Each stage pads to a multiple of its patch size, so a coarse map may reach beyond the finer one: upsample, then crop.
            upsampled = interpolate(top, scale_factor=reduction // finer_reduction)
            top, reduction = finer + upsampled[..., : finer.shape[-2], : finer.shape[-1]], finer_reduction
        logits = interpolate(self.classify(top), scale_factor=reduction, mode="bilinear")
        return logits[..., : images.shape[-2], : images.shape[-1]]


# --8<-- [end:model]


def main() -> None:
    torch.manual_seed(0)
    model = Segmenter(classes=5, embed_dims=(16, 32), depths=(1, 1))  # small; without these arguments: S2-MLPv2 Small/7
    for info in model.backbone.feature_info:
        print(f"feature map {info['module']}: {info['num_chs']} channels, one token per {info['reduction']} pixels")
    for height, width in ((56, 56), (100, 75), (61, 130)):
        images = torch.randn(2, 3, height, width)
        sizes = ", ".join("x".join(map(str, x.shape[-2:])) for x in model.backbone(images))
        logits = model(images)
        nn.functional.cross_entropy(logits, torch.randint(5, (2, height, width))).backward()
        print(f"images of {height}x{width}: feature maps of {sizes} tokens; logits {tuple(logits.shape)}, with gradients")


if __name__ == "__main__":
    main()
