"""Draw the figures of ``s2mlp explain`` for a trained model, and print the numbers behind them.

python examples/read_explain.py      (needs the extra train)
"""

from pathlib import Path

import torch

from s2mlp_cuda.layers import S2MLPv2Block, ShiftSplitAttention
from s2mlp_cuda.training.explain import receptive_fields, split_attention_weights
from s2mlp_cuda.training.predict import read_image
from s2mlp_cuda.training.weights import load

from commands import run


def main() -> None:
    run("s2mlp train --recipe digits --model-kwargs embed_dims=[24] depths=[3] --lr 0.01 --epochs 3 --output out/digits")

    # --8<-- [start:draw]
    weights, photo = Path("out/digits/best.safetensors"), min(Path("out/digits/digits/validation/7").iterdir())
    run(f"s2mlp explain {photo} --weights {weights} --block 1 --out out/explain")
    # --8<-- [end:draw]

    # --8<-- [start:numbers]
    model, description = load(weights)
    image = read_image(photo, description)
    blocks = [module for module in model.modules() if isinstance(module, S2MLPv2Block)]
    attentions = [module for module in model.modules() if isinstance(module, ShiftSplitAttention)]
    print("\nShare of pixels with more than 1% of the largest gradient, and mean weight of each branch:")
    fields = receptive_fields(model, blocks, image)
    weights_of_blocks = split_attention_weights(model, attentions, image)
    for number, (field, branches) in enumerate(zip(fields, weights_of_blocks), 1):
        means = ", ".join(f"{mean:.2f}" for mean in branches.mean(1))
        dominated = (branches.max(0).values > 0.9).float().mean()
        pixels = (field > 0.01).mean()
        print(f"block {number}: {pixels:.0%} of pixels; SS1, SS2, no shift: {means}; above 0.9 in {dominated:.0%} of channels")
        torch.testing.assert_close(branches.sum(0), torch.ones(branches.shape[1]))  # a softmax over branches
    # --8<-- [end:numbers]


if __name__ == "__main__":
    main()
