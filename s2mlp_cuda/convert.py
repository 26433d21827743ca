"""Converts state dicts of public PyTorch copies of S2-MLP to models with a correct shift.

Known layouts, recognized by their keys:

- ``"S2Attention"``: the module of that name in collections of attention layers, with ``mlp1``, ``mlp2`` and
  ``split_attention``. Converted to a channels-first :class:`~s2mlp_cuda.layers.S2`.
- ``"S2MLPv1"`` and ``"S2MLPv2"``: whole models; each stage is a convolution and pre-norm residual blocks. Converted to
  :class:`~s2mlp_cuda.models.S2MLP` with ``pre_norm=True, embed_norm=False`` and the table SS1, which their code applies, and to
  :class:`~s2mlp_cuda.models.S2MLPv2` with ``final_norm=False``. Hidden sizes come from the weights (c̄ = c in all known copies).

Weights trained with such a copy in eager PyTorch have adapted to its wrong shift and need fine-tuning. Weights trained with
torch.compile, NumPy or Paddle do not.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from s2mlp_cuda.layers import S2
from s2mlp_cuda.models import S2MLP, S2MLPv2
from s2mlp_cuda.offsets import SS1

_BLOCK = r"^stages\.(?P<stage>\d+)\.1\.model\.(?P<block>\d+)"
_LAYOUTS = {
    "S2Attention": {
        r"^mlp1\.": "expand.",
        r"^mlp2\.": "project.",
        r"^split_attention\.mlp(?P<layer>[12])\.weight": "attention.fc{layer}.weight",
    },
    "S2MLPv1": {
        r"^stages\.0\.0\.": "patch_embed.projection.",
        _BLOCK + r"\.0\.norm\.": "blocks.{block}.norm1.",
        _BLOCK + r"\.0\.fn\.0\.": "blocks.{block}.fc1.",
        _BLOCK + r"\.0\.fn\.3\.": "blocks.{block}.fc2.",
        _BLOCK + r"\.1\.norm\.": "blocks.{block}.norm2.",
        _BLOCK + r"\.1\.fn\.0\.": "blocks.{block}.mlp.fc1.",
        _BLOCK + r"\.1\.fn\.3\.": "blocks.{block}.mlp.fc2.",
        r"^mlp_head\.1\.": "head.",
    },
    "S2MLPv2": {
        r"^stages\.(?P<stage>\d+)\.0\.": "stages.{stage}.0.projection.",
        _BLOCK + r"\.0\.norm\.": "stages.{stage}.{place}.norm1.",
        _BLOCK + r"\.0\.fn\.mlp1\.": "stages.{stage}.{place}.s2.expand.",
        _BLOCK + r"\.0\.fn\.mlp2\.": "stages.{stage}.{place}.s2.project.",
        _BLOCK + r"\.0\.fn\.split_attention\.mlp(?P<layer>[12])\.weight": "stages.{stage}.{place}.s2.attention.fc{layer}.weight",
        _BLOCK + r"\.1\.norm\.": "stages.{stage}.{place}.norm2.",
        _BLOCK + r"\.1\.fn\.0\.": "stages.{stage}.{place}.mlp.fc1.",
        _BLOCK + r"\.1\.fn\.3\.": "stages.{stage}.{place}.mlp.fc2.",
        r"^mlp_head\.1\.": "head.",
    },
}
#: One key per layout that no other layout has.
_DISTINCTIVE_KEYS = {
    "S2Attention": "split_attention.mlp1.weight",
    "S2MLPv1": "stages.0.1.model.0.0.fn.0.weight",
    "S2MLPv2": "stages.0.1.model.0.0.fn.split_attention.mlp1.weight",
}


@dataclass(frozen=True)
class Report:
    """The result of a conversion, key by key.

    Attributes:
        layout: the layout of the state dict.
        renamed: old key to new key, for all keys that were loaded.
        missing: keys of the model that the state dict lacks; they keep their initial weights.
        unexpected: keys of the state dict that the model does not have.
    """

    layout: str
    renamed: dict[str, str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        lines = [f"{self.layout}: {len(self.renamed)} renamed, {len(self.missing)} missing, {len(self.unexpected)} unexpected"]
        lines += [f"  {old} -> {new}" for old, new in self.renamed.items()]
        lines += [f"  missing: {name}" for name in self.missing]
        lines += [f"  unexpected: {name}" for name in self.unexpected]
        return "\n".join(lines)


def convert(state_dict: Mapping[str, torch.Tensor]) -> tuple[nn.Module, Report]:
    """Build the model of a public state dict, and load the state dict into it.

    Args:
        state_dict: a state dict of a known layout; see the module's documentation. May be wrapped in ``"state_dict"`` or
            ``"model"``; a ``"module."`` prefix of its keys is removed.

    Returns:
        ``(model, report)``. The sizes of the model come from the weights.

    Raises:
        ValueError: the layout is unknown, or an S2MLPv1 with several stages, which :class:`~s2mlp_cuda.models.S2MLP` does not
            support.
    """
    for wrapper in ("state_dict", "model"):
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping):
            state_dict = inner
    state = {key.removeprefix("module."): value for key, value in state_dict.items()}
    layout = next((name for name, key in _DISTINCTIVE_KEYS.items() if key in state), None)
    if layout is None:
        known = "; ".join(f"{name} has {key}" for name, key in _DISTINCTIVE_KEYS.items())
        raise ValueError(f"the keys are of no known layout ({known}), got {', '.join(list(state)[:5])}, ...")
    names = {key: new_name(layout, key) for key in state}
    model = _BUILDERS[layout](state)
    own = model.state_dict()
    renamed = {old: new for old, new in names.items() if new in own}
    model.load_state_dict({new: state[old] for old, new in renamed.items()}, strict=False)
    missing = sorted(set(own) - set(renamed.values()))
    return model, Report(layout, renamed, missing, sorted(set(state) - set(renamed)))


def new_name(layout: str, key: str) -> str | None:
    """The key in this package's models for a key of a public copy, or None."""
    for pattern, template in _LAYOUTS[layout].items():
        match = re.match(pattern, key)
        if match:
            indices = match.groupdict()
            # Module 0 of a stage is its embedding.
            return template.format(**indices, place=int(indices.get("block", 0)) + 1) + key[match.end() :]
    return None


def _count(state: dict, pattern: str) -> int:
    """The number of distinct values of the pattern's group among the keys."""
    return len({match.group(1) for match in (re.match(pattern, key) for key in state) if match})


def _model_arguments(state: dict, mlp_fc1: str) -> dict:
    """Arguments of both architectures that come from the weights; ``mlp_fc1`` is the key of the MLP's first linear layer."""
    hidden, channels = state[mlp_fc1].shape
    arguments = {"in_chans": state["stages.0.0.weight"].shape[1], "mlp_ratio": hidden / channels, "num_classes": 0}
    if "mlp_head.1.weight" in state:
        arguments["num_classes"] = len(state["mlp_head.1.weight"])
    return arguments


def _s2_attention(state: dict) -> S2:
    hidden, channels = state["split_attention.mlp1.weight"].shape
    return S2(channels, attention_channels=hidden, data_format="channels_first")


def _s2mlp(state: dict) -> S2MLP:
    stages = _count(state, r"stages\.(\d+)\.")
    if stages > 1:
        raise ValueError(f"only an S2MLPv1 with one stage can be converted, this one has {stages}")
    channels, _, patch_size, _ = state["stages.0.0.weight"].shape
    return S2MLP(
        patch_size=patch_size,
        embed_dim=channels,
        depth=_count(state, r"stages\.0\.1\.model\.(\d+)\."),
        offsets=SS1,
        pre_norm=True,
        embed_norm=False,
        **_model_arguments(state, "stages.0.1.model.0.1.fn.0.weight"),
    )


def _s2mlp_v2(state: dict) -> S2MLPv2:
    embeddings = [state[f"stages.{stage}.0.weight"] for stage in range(_count(state, r"stages\.(\d+)\."))]
    hidden, channels = state[_DISTINCTIVE_KEYS["S2MLPv2"]].shape
    return S2MLPv2(
        patch_sizes=[weight.shape[-1] for weight in embeddings],
        embed_dims=[len(weight) for weight in embeddings],
        depths=[_count(state, rf"stages\.{stage}\.1\.model\.(\d+)\.") for stage in range(len(embeddings))],
        attention_ratio=hidden / channels,
        final_norm=False,
        **_model_arguments(state, "stages.0.1.model.0.1.fn.0.weight"),
    )


_BUILDERS = {"S2Attention": _s2_attention, "S2MLPv1": _s2mlp, "S2MLPv2": _s2mlp_v2}
