"""The models that ``s2mlp ablate`` trains: the papers' ablations, choices that the papers leave open, and timm's models."""

import json
from dataclasses import dataclass
from typing import Any

import s2mlp_cuda.training.peer_models  # noqa: F401, registers them with timm
from s2mlp_cuda.offsets import ABLATION, SS1, SS2

V1, V2 = "s2mlp_wide", "s2mlpv2_small_7"
VERSIONS, FUSION = "S2-MLP and S2-MLPv2", "Fusion (S2-MLPv2)"
SHIFTS, BLOCKS, PATCHES = "Shift (S2-MLP)", "Blocks (S2-MLP)", "Patch size (S2-MLP)"
PADDING, INIT = "Padding (S2-MLP)", "Initialization"
BRANCHES, PYRAMID, PEERS = "Branches (S2-MLPv2)", "Pyramid (S2-MLPv2)", "Models of equal parameters"
#: Groups whose models are trained for twice as many epochs as the recipe's.
_LONG = (VERSIONS, FUSION)
_LETTERS = {
    "a": "four directions", "b": "eight directions", "c": "up, right", "d": "left, down", "e": "up, down", "f": "left, right",
    "g": "up", "h": "down", "i": "left", "j": "right", "none": "no shift",
}  # fmt: skip
#: Top-1 accuracy (percent) of the shift settings on ImageNet-100, wide model: arXiv 2106.07477. The accuracies of S2-MLPv2 below
#: are on ImageNet-1K: arXiv 2108.01072.
_PAPER_SHIFTS = {
    "a": 87.1, "b": 87.0, "c": 85.0, "d": 85.1, "e": 79.5, "f": 80.5, "g": 77.7, "h": 77.5, "i": 78.3, "j": 78.4, "none": 56.7,
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """The size of the models for one device type: arguments of the base models, which the rows modify."""

    recipe: str
    v1: dict[str, Any]
    v2: dict[str, Any]
    flat: dict[str, Any]
    blocks: tuple[int, ...]
    peer_models: dict[str, tuple[str, dict[str, Any]]]


def _peer_models(mixer: dict, resmlp: dict, gmlp: dict, vit: dict, convnext: dict) -> dict[str, tuple[str, dict[str, Any]]]:
    tokens = {"img_size": 32, "patch_size": 4}
    return {
        "MLP-Mixer": ("mlp_mixer", tokens | mixer),
        "ResMLP": ("resmlp", tokens | resmlp),
        "gMLP": ("gmlp", tokens | gmlp),
        "ViT": ("vit_tiny_patch16_224", tokens | vit),
        "ConvNeXt": ("convnext_tiny", convnext),
    }


SCALES = {
    "cpu": Scale(
        "ablation_cpu",
        v1={"patch_size": 4, "embed_dim": 64, "depth": 5},
        v2={"patch_sizes": (2, 2), "embed_dims": (32, 64), "depths": (1, 4), "attention_pool": "mean"},
        flat={"patch_sizes": (4,), "embed_dims": (64,), "depths": (4,), "attention_pool": "mean"},
        blocks=(1, 2, 5, 7),
        peer_models=_peer_models(
            {"embed_dim": 64, "num_blocks": 5}, {"embed_dim": 64, "num_blocks": 5}, {"embed_dim": 64, "num_blocks": 5},
            {"embed_dim": 64, "depth": 4, "num_heads": 2},
            {"depths": (1, 1, 1, 1), "dims": (32, 56, 72, 88), "patch_size": 2},
        ),
    ),
    "cuda": Scale(
        "ablation_gpu",
        v1={"patch_size": 4, "embed_dim": 256, "depth": 8},
        v2={"patch_sizes": (2, 2), "embed_dims": (128, 256), "depths": (2, 7), "attention_pool": "mean"},
        flat={"patch_sizes": (4,), "embed_dims": (256,), "depths": (7,), "attention_pool": "mean"},
        blocks=(1, 3, 8, 12),
        peer_models=_peer_models(
            {"embed_dim": 256, "num_blocks": 10}, {"embed_dim": 256, "num_blocks": 10}, {"embed_dim": 256, "num_blocks": 9},
            {"embed_dim": 256, "depth": 7, "num_heads": 4},
            {"depths": (2, 2, 4, 2), "dims": (64, 128, 256, 384), "patch_size": 2},
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A model to train. ``paper`` is the top-1 accuracy (percent) of the paper's corresponding model, on the group's dataset."""

    group: str
    name: str
    model: str
    model_kwargs: dict[str, Any]
    paper: float | None = None

    @property
    def epochs_factor(self) -> int:
        """The epochs of this row, in multiples of the recipe's."""
        return 2 if self.group in _LONG else 1

    @property
    def key(self) -> str:
        """Identifies the training: rows with the same key share one."""
        return json.dumps([self.model, self.model_kwargs, self.epochs_factor])

    @property
    def slug(self) -> str:
        text = f"{self.group.partition(' (')[0]} {self.name}".lower()
        return "".join(letter if letter.isalnum() else "-" for letter in text)


def all_rows(scale: Scale) -> list[Row]:
    """All rows. A model that several groups compare has a row in each."""
    v1, v2 = scale.v1, scale.v2
    pooled_by_sum = {**v2, "attention_pool": "sum"}
    result = [
        Row(VERSIONS, "S2-MLP", V1, v1, 80.7),
        Row(VERSIONS, "S2-MLP, norms first", V1, {**v1, "pre_norm": True}),
        Row(VERSIONS, "S2-MLPv2, pools by mean", V2, v2, 82.0),
        Row(VERSIONS, "S2-MLPv2, pools by sum", V2, pooled_by_sum, 82.0),
        Row(VERSIONS, "S2-MLPv2, norms last", V2, {**v2, "pre_norm": False}),
        Row(FUSION, "attention, pools by mean", V2, v2, 82.0),
        Row(FUSION, "attention, pools by sum", V2, pooled_by_sum, 82.0),
        Row(FUSION, "sum", V2, {**v2, "fusion": "sum"}),
        # The paper calls it sum-pooling, but its formula is the sum over k of X_k / 3.
        Row(FUSION, "mean", V2, {**v2, "fusion": "mean"}, 79.8),
    ]
    result += [
        Row(SHIFTS, f"({letter}) {_LETTERS[letter]}" if letter != "none" else "no shift", V1,
            v1 if letter == "a" else {**v1, "offsets": table}, _PAPER_SHIFTS[letter])
        for letter, table in ABLATION.items()
    ]  # fmt: skip
    paper_blocks = dict(zip(scale.blocks, (56.7, 79.6, 87.1, 86.3)))  # the paper's 1, 3, 12 and 16
    result += [
        Row(BLOCKS, f"{count} block{'s' if count > 1 else ''}", V1, {**v1, "depth": count}, paper_blocks[count])
        for count in scale.blocks
    ]
    result += [Row(PATCHES, f"{size}x{size}", V1, {**v1, "patch_size": size}, paper) for size, paper in ((8, 81.0), (4, 87.1))]
    result.append(Row(PADDING, "replicate", V1, v1, 87.1))
    result += [Row(PADDING, mode, V1, {**v1, "padding_mode": mode}) for mode in ("zeros", "circular", "reflect")]
    for name, model, kwargs in (("S2-MLP", V1, v1), ("S2-MLPv2", V2, v2)):
        result += [
            Row(INIT, f"{name}, trunc_normal", model, kwargs),
            Row(INIT, f"{name}, fan_in", model, {**kwargs, "init": "fan_in"}),
        ]
    result += [
        Row(BRANCHES, "x1 + x2 + x3", V2, v2, 82.0),
        Row(BRANCHES, "x1 + x2", V2, {**v2, "branches": (SS1, SS2)}, 81.7),
        Row(BRANCHES, "x1 + x3", V2, {**v2, "branches": (SS1, None)}, 81.6),
        Row(PYRAMID, "pyramid", V2, v2, 82.0),
        Row(PYRAMID, "flat", V2, scale.flat, 80.9),
        Row(PEERS, "S2-MLPv2", V2, v2, 82.0),
        Row(PEERS, "S2-MLP", V1, v1, 80.7),
    ]
    return result + [Row(PEERS, name, model, kwargs) for name, (model, kwargs) in scale.peer_models.items()]
