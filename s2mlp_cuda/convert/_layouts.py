"""The layouts of public copies: their keys, and how to build the module of this package that has these weights."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from s2mlp_cuda.layers import S2
from s2mlp_cuda.models import S2MLP, S2MLPv2
from s2mlp_cuda.offsets import SS1, SS2

_PARAMETER = r"(?:weight|bias)"


class Weights(dict[str, torch.Tensor]):
    """The weights of one model or layer, by their names in the public copy."""

    def __missing__(self, key: str) -> torch.Tensor:
        raise ValueError(f"the weights lack {key}, whose shape gives the size of the model")

    def count(self, pattern: str) -> int:
        """One more than the largest index that the group of the pattern matches at the beginning of a key."""
        return 1 + max((int(match[1]) for match in (re.match(pattern, key) for key in self) if match), default=-1)


@dataclass(frozen=True)
class Layout:
    """
    Attributes:
        name: the class in the public code.
        hallmarks: patterns of keys. The layout is recognized by at least one key of each, so that no single missing key
            hides it.
        names: a pattern of the beginning of a public key to that of our key. ``{place}`` is the block's index plus one: module
            0 of a stage is its embedding.
        build: makes the module, without its weights. For a layer, the second argument is its data format.
        zero_biases: a pattern of our keys. If the public copy has none of them, its layers have no biases, and ours are zero.
    """

    name: str
    hallmarks: Sequence[str]
    names: Mapping[str, str]
    build: Callable[..., nn.Module]
    is_layer: bool = False
    zero_biases: str = "(?!)"

    def prefixes(self, keys: Iterable[str], hallmarks: Sequence[str] | None = None) -> set[str]:
        """The prefixes, empty or ending in a dot, under which keys have this layout, or some of its hallmarks."""
        patterns = [re.compile(rf"(?P<prefix>(?:.*\.)?){hallmark}") for hallmark in hallmarks or self.hallmarks]
        matches = [[pattern.fullmatch(key) for key in keys] for pattern in patterns]
        return set.intersection(*({match["prefix"] for match in group if match} for group in matches))

    def new_name(self, key: str) -> str | None:
        """Our key for a key of the public copy without its prefix, or None."""
        for pattern, template in self.names.items():
            match = re.match(pattern, key)
            if match:
                indices = match.groupdict()
                return template.format(**indices, place=int(indices.get("block") or 0) + 1) + key[match.end() :]
        return None


def _ratio(hidden: int, channels: int) -> float:
    """A ratio r for which ``int(channels * r)`` is ``hidden``."""
    ratio = hidden / channels
    return ratio if int(channels * ratio) == hidden else math.nextafter(ratio, math.inf)


def _patch_size(convolution: torch.Tensor) -> int | tuple[int, int]:
    height, width = convolution.shape[2:]
    return height if height == width else (height, width)


def _check_split_attention(expand: torch.Tensor, fc1: torch.Tensor, fc2: torch.Tensor) -> None:
    """
    Raises:
        ValueError: K is not 3, there are fewer channels than groups, or the shapes do not fit, so that the public copy cannot
            have run.
    """
    rows, channels = expand.shape
    if channels < len(SS1):
        raise ValueError(f"it has {channels} channels, fewer than the {len(SS1)} groups of the shifts")
    if (rows, len(fc2)) != (3 * channels, 3 * channels) and rows == len(fc2) and rows % channels == 0:
        raise ValueError(
            f"the split attention has K = {rows // channels} branches, but weights do not tell how these are shifted; only K = 3 "
            "(SS1, SS2 and unshifted) can be converted"
        )
    if (rows, fc1.shape[1], len(fc2), fc2.shape[1]) != (3 * channels, channels, 3 * channels, len(fc1)):
        raise ValueError(
            f"the split attention has {fc1.shape[1]} channels and {len(fc2)} outputs, but the first linear layer maps {channels} "
            f"channels to {rows}; a module with these weights cannot have run"
        )


def _s2(expand: str, fc1: str, fc2: str, branches: Sequence) -> Callable[[Weights, str], S2]:
    """A builder for an attention layer whose matrices have these names."""

    def build(weights: Weights, data_format: str) -> S2:
        matrices = [weights[name].flatten(1) for name in (expand, fc1, fc2)]  # 1x1 convolutions are linear layers
        _check_split_attention(*matrices)
        hidden, channels = matrices[1].shape
        return S2(channels, branches, attention_channels=hidden, data_format=data_format, attention_pool="sum")

    return build


def _s2_attention(name: str, attention: str, branches: Sequence) -> Layout:
    """The layout of the copies with mlp1, mlp2 and a split attention of this name."""
    return Layout(
        name,
        [rf"{attention}\.mlp[12]\.weight", rf"mlp[12]\.{_PARAMETER}"],
        {r"mlp1\.": "expand.", r"mlp2\.": "project.", rf"{attention}\.mlp(?P<layer>[12])\.": "attention.fc{layer}."},
        _s2("mlp1.weight", f"{attention}.mlp1.weight", f"{attention}.mlp2.weight", branches),
        is_layer=True,
    )


def _s2mlp(embedding: str, blocks: str, mlp: str, head: str, pre_norm: bool) -> Callable[[Weights], S2MLP]:
    """A builder for S2-MLP: the names of its matrices, and the pattern of the indices of its blocks."""

    def build(weights: Weights) -> S2MLP:
        hidden, channels = weights[mlp].shape[:2]
        return S2MLP(
            num_classes=len(weights[head]) if head in weights else 0,
            in_chans=weights[embedding].shape[1],
            patch_size=_patch_size(weights[embedding]),
            embed_dim=channels,
            depth=weights.count(blocks),
            mlp_ratio=_ratio(hidden, channels),
            offsets=SS1,
            pre_norm=pre_norm,
            embed_norm=False,
        )

    return build


def _one_stage(build: Callable[[Weights], S2MLP]) -> Callable[[Weights], S2MLP]:
    def checked(weights: Weights) -> S2MLP:
        stages = weights.count(r"stages\.(\d+)\.")
        if stages > 1:
            raise ValueError(f"only an S2MLPv1 with one stage can be converted, because S2MLP has one; this one has {stages}")
        return build(weights)

    return checked


def _s2mlp_v2(embedding: str, blocks: str, mixer: str, mlp: str, head: str, stages: str | None) -> Callable[[Weights], S2MLPv2]:
    """A builder for S2-MLPv2; in the names, ``{}`` is the index of the stage. ``mixer`` is the prefix of its S2 layer.

    ``stages`` is the pattern of the indices of the stages, or None for one stage.
    """

    def build(weights: Weights) -> S2MLPv2:
        indices = range(1 if stages is None else weights.count(stages))
        for stage in indices:
            layer = mixer.format(stage)
            attention = [weights[f"{layer}split_attention.mlp{i}.weight"] for i in (1, 2)]
            _check_split_attention(weights[f"{layer}mlp1.weight"], *attention)
        embeddings = [weights[embedding.format(stage)] for stage in indices]
        hidden = [weights[f"{mixer.format(stage)}split_attention.mlp1.weight"].shape for stage in indices]
        return S2MLPv2(
            num_classes=len(weights[head]) if head in weights else 0,
            in_chans=embeddings[0].shape[1],
            patch_sizes=[_patch_size(weight) for weight in embeddings],
            embed_dims=[len(weight) for weight in embeddings],
            depths=[weights.count(blocks.format(stage)) for stage in indices],
            mlp_ratio=[_ratio(*weights[mlp.format(stage)].shape) for stage in indices],
            attention_ratio=[_ratio(*shape) for shape in hidden],
            always_embed=True,
            final_norm=False,
            attention_pool="sum",
        )

    return build


def _refuse(reason: str) -> Callable[..., nn.Module]:
    def build(*_) -> nn.Module:
        raise ValueError(reason)

    return build


_BLOCK = r"stages\.(?P<stage>\d+)\.1\.model\.(?P<block>\d+)\."
_V1_MIXER = r"stages\.\d+\.1\.model\.\d+\.0\.fn\.[03]\."
_V2_MIXER = r"stages\.\d+\.1\.model\.\d+\.0\.fn\.(?:mlp|split_attention\.mlp)[12]\."
_EMBEDDING = r"stages\.\d+\.0\."
_MLP = r"stages\.\d+\.1\.model\.\d+\.1\.fn\.\d\."
_FLAT_BLOCK = r"stages\.(?P<block>\d+)\.0\."

#: Whole models.
MODELS = (
    Layout(
        "S2MLPv1",
        [_EMBEDDING + _PARAMETER, _V1_MIXER + _PARAMETER, _MLP + _PARAMETER],
        {
            r"stages\.0\.0\.": "patch_embed.projection.",
            _BLOCK + r"0\.norm\.": "blocks.{block}.norm1.",
            _BLOCK + r"0\.fn\.0\.": "blocks.{block}.fc1.",
            _BLOCK + r"0\.fn\.3\.": "blocks.{block}.fc2.",
            _BLOCK + r"1\.norm\.": "blocks.{block}.norm2.",
            _BLOCK + r"1\.fn\.0\.": "blocks.{block}.mlp.fc1.",
            _BLOCK + r"1\.fn\.[23]\.": "blocks.{block}.mlp.fc2.",
            r"mlp_head\.1\.": "head.",
        },
        _one_stage(
            _s2mlp(
                embedding="stages.0.0.weight",
                blocks=r"stages\.0\.1\.model\.(\d+)\.",
                mlp="stages.0.1.model.0.1.fn.0.weight",
                head="mlp_head.1.weight",
                pre_norm=True,
            )
        ),
    ),
    Layout(
        "S2MLPv2",
        [_EMBEDDING + _PARAMETER, _V2_MIXER + _PARAMETER, _MLP + _PARAMETER],
        {
            r"stages\.(?P<stage>\d+)\.0\.": "stages.{stage}.0.projection.",
            _BLOCK + r"0\.norm\.": "stages.{stage}.{place}.norm1.",
            _BLOCK + r"0\.fn\.mlp1\.": "stages.{stage}.{place}.s2.expand.",
            _BLOCK + r"0\.fn\.mlp2\.": "stages.{stage}.{place}.s2.project.",
            _BLOCK + r"0\.fn\.split_attention\.mlp(?P<layer>[12])\.": "stages.{stage}.{place}.s2.attention.fc{layer}.",
            _BLOCK + r"1\.norm\.": "stages.{stage}.{place}.norm2.",
            _BLOCK + r"1\.fn\.0\.": "stages.{stage}.{place}.mlp.fc1.",
            _BLOCK + r"1\.fn\.[23]\.": "stages.{stage}.{place}.mlp.fc2.",
            r"mlp_head\.1\.": "head.",
        },
        _s2mlp_v2(
            embedding="stages.{}.0.weight",
            blocks=r"stages\.{}\.1\.model\.(\d+)\.",
            mixer="stages.{}.1.model.0.0.fn.",
            mlp="stages.{}.1.model.0.1.fn.0.weight",
            head="mlp_head.1.weight",
            stages=r"stages\.(\d+)\.",
        ),
    ),
    Layout(
        "vision-mlp S2MLP",
        [r"patch_emb\.proj\." + _PARAMETER, rf"stages\.\d+\.channel_mlp[12]\.\d\.{_PARAMETER}"],
        {
            r"patch_emb\.proj\.": "patch_embed.projection.",
            r"stages\.(?P<block>\d+)\.channel_mlp1\.0\.": "blocks.{block}.fc1.",
            r"stages\.(?P<block>\d+)\.channel_mlp1\.3\.": "blocks.{block}.fc2.",
            r"stages\.(?P<block>\d+)\.channel_mlp1\.4\.": "blocks.{block}.norm1.",
            r"stages\.(?P<block>\d+)\.channel_mlp2\.0\.": "blocks.{block}.mlp.fc1.",
            r"stages\.(?P<block>\d+)\.channel_mlp2\.2\.": "blocks.{block}.mlp.fc2.",
            r"stages\.(?P<block>\d+)\.channel_mlp2\.3\.": "blocks.{block}.norm2.",
            r"mlp_head\.1\.": "head.",
        },
        _s2mlp(
            embedding="patch_emb.proj.weight",
            blocks=r"stages\.(\d+)\.",
            mlp="stages.0.channel_mlp2.0.weight",
            head="mlp_head.1.weight",
            pre_norm=False,
        ),
        zero_biases=r"blocks\.\d+\.(?:mlp\.)?fc[12]\.bias",
    ),
    Layout(
        "model_p1 S2MLPv1",
        [r"patch_embed\." + _PARAMETER, rf"stages\.\d+\.0\.model_p1\.4\.{_PARAMETER}"],
        {
            r"patch_embed\.": "patch_embed.projection.",
            _FLAT_BLOCK + r"model_p1\.0\.": "blocks.{block}.norm1.",
            _FLAT_BLOCK + r"model_p1\.1\.": "blocks.{block}.fc1.",
            _FLAT_BLOCK + r"model_p1\.4\.": "blocks.{block}.fc2.",
            _FLAT_BLOCK + r"model_p2\.0\.": "blocks.{block}.norm2.",
            _FLAT_BLOCK + r"model_p2\.1\.": "blocks.{block}.mlp.fc1.",
            _FLAT_BLOCK + r"model_p2\.3\.": "blocks.{block}.mlp.fc2.",
            r"head\.": "head.",
        },
        _s2mlp(
            embedding="patch_embed.weight",
            blocks=r"stages\.(\d+)\.",
            mlp="stages.0.0.model_p2.1.weight",
            head="head.weight",
            pre_norm=True,
        ),
    ),
    Layout(
        "model_p1 S2MLPv2",
        [r"patch_embed\." + _PARAMETER, rf"stages\.\d+\.0\.model_p1\.1\.(?:mlp|split_attention\.mlp)[12]\.{_PARAMETER}"],
        {
            r"patch_embed\.": "stages.0.0.projection.",
            _FLAT_BLOCK + r"model_p1\.0\.": "stages.0.{place}.norm1.",
            _FLAT_BLOCK + r"model_p1\.1\.mlp1\.": "stages.0.{place}.s2.expand.",
            _FLAT_BLOCK + r"model_p1\.1\.mlp2\.": "stages.0.{place}.s2.project.",
            _FLAT_BLOCK + r"model_p1\.1\.split_attention\.mlp(?P<layer>[12])\.": "stages.0.{place}.s2.attention.fc{layer}.",
            _FLAT_BLOCK + r"model_p2\.0\.": "stages.0.{place}.norm2.",
            _FLAT_BLOCK + r"model_p2\.1\.": "stages.0.{place}.mlp.fc1.",
            _FLAT_BLOCK + r"model_p2\.3\.": "stages.0.{place}.mlp.fc2.",
            r"head\.": "head.",
        },
        _s2mlp_v2(
            embedding="patch_embed.weight",
            blocks=r"stages\.(\d+)\.",
            mixer="stages.0.0.model_p1.1.",
            mlp="stages.0.0.model_p2.1.weight",
            head="head.weight",
            stages=None,
        ),
    ),
    Layout(
        "model_p1 with several stages",
        [rf"stage\d+\.\d+\.model_p1\..*\.{_PARAMETER}"],
        {},
        _refuse(
            "a model_p1 copy with several stages (stage0, stage1, ... and down_stage) cannot be converted: its downsampling has "
            "overlapping, padded patches, which S2MLP and S2MLPv2 do not have"
        ),
    ),
)
#: Layers that occur inside other networks, too.
LAYERS = (
    _s2_attention("S2Attention", "split_attention", (SS1, SS2, None)),
    _s2_attention("S2Attention", "split_attn", (SS1, SS2, None)),
    _s2_attention("S2_MLPv2", "SplitAtt", (SS2, SS1, None)),  # the first branch moves the width first
    Layout(
        "S2Att",
        [r"split_att\.mlp\.[02]\.weight", rf"fc_[12]\.{_PARAMETER}"],
        {
            r"fc_1\.": "expand.",
            r"fc_2\.": "project.",
            r"split_att\.mlp\.0\.": "attention.fc1.",
            r"split_att\.mlp\.2\.": "attention.fc2.",
        },
        _s2("fc_1.weight", "split_att.mlp.0.weight", "split_att.mlp.2.weight", (SS1, SS2, None)),
        is_layer=True,
    ),
    Layout(
        "S2Attention with depthwise convolutions",
        [rf"dw_conv[12]\.{_PARAMETER}", rf"mlp[12]\.{_PARAMETER}"],
        {},
        _refuse("an S2Attention with depthwise convolutions (dw_conv1, dw_conv2) cannot be converted: S2 has none"),
        is_layer=True,
    ),
)
