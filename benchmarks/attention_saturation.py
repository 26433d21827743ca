"""How far the softmax of split attention is saturated in trained models: writes results/attention-saturation-torch<version>.json.

python benchmarks/attention_saturation.py IMAGES NAME=WEIGHTS [NAME=WEIGHTS ...]

IMAGES is a folder with one folder per class, such as the test split. For each model and block: the share of channels in which one
branch has more than 90% of the weight, averaged over the first 100 images of each class.
"""

import itertools
import sys
from pathlib import Path

import torch

from s2mlp_cuda.layers import ShiftSplitAttention
from s2mlp_cuda.training.explain import DOMINANT, split_attention_weights
from s2mlp_cuda.training.predict import read_image
from s2mlp_cuda.training.weights import load

from results import write_result

IMAGES_PER_CLASS = 100


def shares(weights: Path, folder: Path) -> dict:
    """The pooling, and the share of channels with a dominant branch, by block."""
    model, description = load(weights)
    attentions = [module for module in model.modules() if isinstance(module, ShiftSplitAttention)]
    classes = (sorted((folder / name).iterdir())[:IMAGES_PER_CLASS] for name in description.class_names)
    found = []
    for path in itertools.chain.from_iterable(classes):
        blocks = split_attention_weights(model, attentions, read_image(path, description))
        found.append([(branches.max(0).values > DOMINANT).float().mean() for branches in blocks])
    return {"pool": attentions[0].attention_pool, "blocks": torch.tensor(found).mean(0).tolist()}


def main() -> None:
    folder, *named = sys.argv[1:]
    models = {name: shares(Path(path), Path(folder)) for name, _, path in (argument.partition("=") for argument in named)}
    what = f"share of channels in which one branch has more than {DOMINANT:.0%} of the weight, by block"
    write_result("attention-saturation", {"what": what, "images_per_class": IMAGES_PER_CLASS, "models": models})


if __name__ == "__main__":
    main()
