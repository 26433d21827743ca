"""Converts weights of public PyTorch copies of S2-MLP to models and layers with a correct shift.

Layouts, recognized by their keys, under any prefix such as ``module.``, ``_orig_mod.`` or ``backbone.``:

- Whole models ``S2MLPv1`` and ``S2MLPv2``, whose stages are a convolution and pre-norm residual blocks, and the models of the same
  names whose blocks consist of ``model_p1`` and ``model_p2``; also ``S2MLP`` of rentainhe/vision-mlp, with ``channel_mlp1`` and
  ``channel_mlp2``. Converted to :class:`~s2mlp_cuda.models.S2MLPv2` with ``final_norm=False, always_embed=True``, or to
  :class:`~s2mlp_cuda.models.S2MLP` with ``embed_norm=False`` and the table SS1: these copies move the height first.
- Layers: ``S2Attention`` with ``split_attention`` (or ``split_attn``), ``S2Att`` with ``split_att``, and ``S2_MLPv2`` with
  ``SplitAtt``, whose first branch moves the width first. Converted to :class:`~s2mlp_cuda.layers.S2`, wherever they are in a
  network.

All sizes come from the weights (c̄ = c in all known copies). State dicts do not tell strides, paddings and epsilons: convolutions
are taken for patch embeddings without overlap and padding, and the epsilon of LayerNorm for 1e-5. If the source is a module, this
is checked, and activations, dropout and hooks that the converted module would not have are refused. What no check can see is code:
a copy whose ``forward`` was changed converts into the original function.

*Correct shift.* The converted model computes what the copy would compute if its slice assignments did not overlap. vision-mlp
indexes maps of shape (B, C, H, W) as if they were (B, H, W, C); what it means is the shift of the height first, SS1. Weights that
were trained with such a copy in eager PyTorch have adapted to its wrong shift and need fine-tuning. Weights that were trained with
torch.compile do not.

*Comparing outputs.* Split attention sums over all tokens, so its logits grow with the image, and the softmax of a trained model is
often nearly one-hot. Rounding errors in float32 can then change the output visibly, in the copy as well as here. To check a
conversion, compare both in float64.
"""

import copy
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from s2mlp_cuda._model_size import build_on_meta
from s2mlp_cuda._state_dicts import few
from s2mlp_cuda.convert._checkpoints import Found, names_in, read, search
from s2mlp_cuda.convert._layouts import LAYERS, MODELS
from s2mlp_cuda.convert._loading import check_module, load
from s2mlp_cuda.convert._report import Report
from s2mlp_cuda.layers import S2

__all__ = ["Report", "convert"]

WEIGHTS = ("auto", "model", "ema")
DATA_FORMATS = ("auto", "channels_first", "channels_last")
#: Attention layers whose input is the output of a LayerNorm, and the name of that norm: their maps are (B, H, W, C).
_AFTER_NORM = {r"(.*\.)?fn": "norm.weight", r"(.*\.)?model_p1\.1": "model_p1.0.weight"}


def convert(
    source: str | os.PathLike | Mapping[str, Any] | nn.Module,
    *,
    weights: str = "auto",
    data_format: str = "auto",
    allow_missing: bool = False,
    allow_unexpected: bool = False,
) -> tuple[nn.Module | dict[str, S2], Report]:
    """Build the model or the layers of a public copy with its weights, and a correct shift.

    Args:
        source: one of

            - a state dict,
            - a checkpoint: a dict that contains state dicts or modules, at any depth and under any names,
            - the path of a ``.safetensors`` file, or of a file for ``torch.load(weights_only=True)``,
            - a module: a whole model, or any network that contains attention layers.
        weights: ``"model"`` or ``"ema"``, if a checkpoint has both; ``"auto"`` prefers EMA weights, as timm does. Names that
            contain the word "ema" or "averaged", and state dicts of :class:`torch.optim.swa_utils.AveragedModel`, are EMA.
            ``report.source`` names the entry that was taken.
        data_format: of attention layers: ``"channels_first"`` for maps (B, C, H, W), as most copies have; ``"channels_last"`` for
            (B, H, W, C); or ``"auto"``: channels last where the layer is the ``fn`` of a residual block with ``norm``, or follows
            the LayerNorm of a ``model_p1``, else channels first. ``report.layers`` names the format of each layer.
        allow_missing: let weights that the source lacks keep their initial, random values.
        allow_unexpected: ignore weights that the model does not have.

    Returns:
        ``(result, report)``. The result is

        - for a whole model, an :class:`~s2mlp_cuda.models.S2MLP` or :class:`~s2mlp_cuda.models.S2MLPv2`; without a head in the
          weights, with ``num_classes=0``,
        - for the weights of one attention layer, an :class:`~s2mlp_cuda.layers.S2`,
        - for a module that contains attention layers, a copy of it with these replaced; it is not compiled or parallel. Attributes
          that the network has set on a layer, such as YOLO's ``f`` and ``i``, and frozen weights stay as they are,
        - for a state dict of such a network, a dict of the path of each attention layer to its :class:`~s2mlp_cuda.layers.S2`.

        Sizes, dtype and device are those of the weights, which are copied: weights in half precision give a module in half
        precision.

    Raises:
        TypeError: the source is none of these.
        ValueError: the layout is unknown, or this package cannot build it; several models; missing or unexpected weights that are
            not allowed; an unknown argument.
        OSError: the file cannot be opened.
        MissingExtraError: the file is a ``.safetensors`` file, and safetensors is not installed.

    Example:
        A detector with attention layers of a public copy, and an old checkpoint ``{"model": state dict, "epoch": ...}``. With the
        code of the detector, load the checkpoint as before and convert the module::

            detector.load_state_dict(torch.load("old.pth")["model"])
            detector, report = convert(detector)
            print(report)

        Without the code of the copy, put the layers into a network that has the same paths, then load all weights by their new
        names::

            old = torch.load("old.pth")["model"]
            consume_prefix_in_state_dict_if_present(old, "module.")  # of torch.nn.modules.utils, if it was saved from DataParallel
            layers, report = convert(old)
            for path, layer in layers.items():
                network.set_submodule(path, layer)
            network.load_state_dict({report.renamed.get(name, name): weight for name, weight in old.items()})

        The converted network has other names of weights than the old one, in another order, so that old states of optimizers do
        not fit. To keep both, do not convert: replace the two shift functions in the code of the copy by
        :func:`s2mlp_cuda.spatial_shift` with ``offsets.SS1`` and ``offsets.SS2``.
    """
    for name, value, allowed in (("weights", weights, WEIGHTS), ("data_format", data_format, DATA_FORMATS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    if not isinstance(source, (str, os.PathLike, Mapping, nn.Module)):
        raise TypeError(f"source must be a state dict, a checkpoint, a path or a module, got {type(source).__name__}")
    checkpoint = read(Path(source)) if isinstance(source, (str, os.PathLike)) else source
    found = _choose(checkpoint, weights)
    layouts = sorted({layout.name for layout in found.parts.values()})
    report = Report(", ".join(layouts), found.source, "ema" if found.averaged else "model")
    report.siblings += found.siblings + found.counters
    (report.untouched if found.is_network else report.unexpected).extend(found.outside)
    converted = {prefix.removesuffix("."): _convert_part(found, prefix, data_format, report) for prefix in found.parts}
    _check_leftovers(report, allow_missing, allow_unexpected)
    if found.is_network:
        report.layers |= {path: layer.data_format for path, layer in converted.items()}
        return converted if found.net is None else _replaced(found.net, converted), report
    (module,) = converted.values()
    return module if found.net is None else module.train(found.net.training), report


def _choose(checkpoint: Any, weights: str) -> Found:
    """
    Raises:
        ValueError: nothing is found, or not exactly one model of the kind that is asked for.
    """
    all_found = search(checkpoint)
    if not all_found:
        raise ValueError(_why_nothing_is_found(checkpoint))
    averaged = [found for found in all_found if found.averaged]
    raw = [found for found in all_found if not found.averaged]
    chosen = {"auto": averaged or raw, "model": raw, "ema": averaged}[weights]
    sources = ", ".join(found.source or "the state dict itself" for found in chosen or all_found)
    if not chosen:
        raise ValueError(f"weights={weights!r} is not in the checkpoint, which has only {sources}")
    if len(chosen) > 1:
        raise ValueError(f"the checkpoint has several models, {sources}; pass one of them")
    return chosen[0]


def _why_nothing_is_found(checkpoint: Any) -> str:
    names = names_in(checkpoint)
    if not names:
        entries = ", ".join(map(repr, list(checkpoint)[:5])) if isinstance(checkpoint, Mapping) else ""
        return f"the source has no weights, {f'only {entries}' if entries else 'nothing'}"
    if _are_ours(names):
        return "these weights have the names of this package already: load them with load_state_dict"
    known = ", ".join(dict.fromkeys(layout.name for layout in (*MODELS, *LAYERS) if layout.names))
    return f"the keys are of no known layout ({known}), got {few(names)}"


def _are_ours(names: list[str]) -> bool:
    """Whether these are names of weights in the layers or models of this package."""
    return any(
        re.fullmatch(rf"(|.*\.){first}", name) and name.removesuffix(first) + second in names
        for first, second in (("attention.fc1.weight", "expand.weight"), ("fc1.weight", "mlp.fc1.weight"))
        for name in names
    )


def _convert_part(found: Found, prefix: str, data_format: str, report: Report) -> Any:
    """Build and load one model or layer, and report it."""
    layout, weights, path = found.parts[prefix], found.weights(prefix), prefix.removesuffix(".")
    if data_format == "auto":
        norms = [f"{match[1] or ''}{norm}" for fn, norm in _AFTER_NORM.items() if (match := re.fullmatch(fn, path))]
        data_format = "channels_last" if any(norm in found.tensors for norm in norms) else "channels_first"
    old = None if found.net is None else found.net.get_submodule(path)
    if old is not None:
        check_module(old, path)
    try:
        build = partial(layout.build, weights, *([data_format] if layout.is_layer else []))
        build_on_meta(build, weights.values())
        module = build()
    except ValueError as error:
        raise ValueError(f"cannot convert the {layout.name} weights{f' at {path}' if path else ''}: {error}") from error
    renamed = load(module, layout, weights, prefix, report, prefix if found.is_network else "")
    if old is not None:
        for old_name, name in renamed.items():
            module.get_parameter(name).requires_grad_(old.get_parameter(old_name).requires_grad)
    return module


def _check_leftovers(report: Report, allow_missing: bool, allow_unexpected: bool) -> None:
    """
    Raises:
        ValueError: weights are missing or unexpected, and this is not allowed.
    """
    leftovers = (
        ("missing", report.old_names(report.missing), allow_missing, "lets them be random"),
        ("unexpected", report.unexpected, allow_unexpected, "ignores them"),
    )
    for kind, names, allowed, effect in leftovers:
        if names and not allowed:
            raise ValueError(
                f"the converted {report.layout} may be a different function, because of {kind} weights: {few(names)}; "
                f"allow_{kind}=True {effect}"
            )


def _replaced(net: nn.Module, layers: dict[str, nn.Module]) -> nn.Module:
    """A copy of a network with these layers at these paths."""
    originals = {path: net.get_submodule(path) for path in layers}
    # A layer that is used at several paths stays one layer.
    shared = {original: layers[path] for path, original in originals.items()}
    net = copy.deepcopy(net)
    for path, original in originals.items():
        layer = shared[original].train(original.training)
        # What the network knows of its layers, such as the f, i and type of YOLO, is in their attributes.
        own = {*vars(layer), *dict(layer.named_children())}
        for name, value in vars(net.get_submodule(path)).items():
            if not name.startswith("_") and name not in own:
                setattr(layer, name, value)
        parent, _, name = path.removesuffix("._orig_mod").rpartition(".")  # a compiled layer would keep the original
        setattr(net.get_submodule(parent), name, layer)
    return net
