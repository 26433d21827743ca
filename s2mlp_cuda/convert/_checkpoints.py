"""Finds the models in a checkpoint: files, nested dicts, averaged (EMA) weights and prefixes of keys."""

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s2mlp_cuda._extras import require
from s2mlp_cuda.convert._layouts import LAYERS, MODELS, Layout, Weights

#: The words of a name: "model_ema", "modelEMA" and "ModelEma" are two.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AVERAGED = {"ema", "averaged"}
#: The first byte of a file in the format of torch.save before PyTorch 1.6. A newer one is a ZIP archive.
_PICKLE = b"\x80"
#: The counter of torch.optim.swa_utils.AveragedModel, which is not a weight.
_AVERAGED_MODEL_COUNTER = "n_averaged"


@dataclass(frozen=True)
class Found:
    """A model, or the layers of a network, in a checkpoint.

    Attributes:
        keys: the keys of the checkpoint that lead to the state dict or module.
        parts: the layout and the prefix of the names of each model or layer. Several parts are layers of one network.
        tensors: all weights of this state dict or module, by their full names.
        outside: names in this state dict or module that belong to no part.
        siblings: other entries of the checkpoint.
        counters: names of the counters of AveragedModel that these weights have.
        net: the module that the weights are from, if it is a module.
    """

    keys: tuple[str, ...]
    parts: dict[str, Layout]
    tensors: dict[str, torch.Tensor]
    outside: list[str]
    siblings: list[str]
    counters: list[str]
    net: nn.Module | None

    @property
    def source(self) -> str:
        """The keys, and the prefix of the names of a whole model or single layer, joined by dots."""
        prefixes = [] if self.is_network else [prefix.removesuffix(".") for prefix in self.parts]
        return ".".join(filter(None, [*self.keys, *prefixes]))

    @property
    def averaged(self) -> bool:
        """Whether these are EMA weights."""
        return bool(self.counters) or any(word.lower() in _AVERAGED for word in _WORDS.findall(self.source))

    @property
    def is_network(self) -> bool:
        """Whether the parts are layers inside somebody's network, which keeps its other weights."""
        if list(self.parts) == [""] or not all(layout.is_layer for layout in self.parts.values()):
            return False
        return self.net is not None or len(self.parts) > 1 or any(name in self.tensors for name in self.outside)

    def weights(self, prefix: str) -> Weights:
        return Weights({key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)})


def read(path: Path) -> Any:
    """
    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is empty, damaged or of another kind, or contains Python objects that only an unsafe load would
            restore.
        MissingExtraError: it is a .safetensors file, and safetensors is not installed.
    """
    if path.suffix == ".safetensors":
        require("hub", "safetensors")
        from s2mlp_cuda import _safetensors

        return _safetensors.read(path)[0]
    with path.open("rb") as file:
        magic = file.read(2)
    if magic != b"PK" and magic[:1] != _PICKLE:
        raise ValueError(f"{path} is {'not a file that torch.save wrote' if magic else 'empty'}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(
            f"torch.load(weights_only=True) cannot read {path}, which is damaged or contains more than tensors; if you trust it, "
            "pass what torch.load(weights_only=False) returns instead of the path"
        ) from error


def search(checkpoint: Any) -> list[Found]:
    """All models in a checkpoint, in the order of its entries."""
    names = [str(name) for name in checkpoint] if isinstance(checkpoint, Mapping) else []
    return [
        found
        for keys, entry in _entries(checkpoint, ())
        for found in _models_in(keys, entry, [name for name in names if keys and name != keys[0]])
    ]


def names_in(checkpoint: Any) -> list[str]:
    """The names of all weights in a checkpoint, for error messages."""
    return [key for _, entry in _entries(checkpoint, ()) for key in _tensors_of(entry)]


def _entries(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping | nn.Module]]:
    """The checkpoint itself and, recursively, the dicts and modules in it, each with the keys that lead to it."""
    if isinstance(value, nn.Module):
        yield keys, _unwrapped(value)
    elif isinstance(value, Mapping):
        yield keys, value
        for key, inner in value.items():
            yield from _entries(inner, (*keys, str(key)))


def _unwrapped(net: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            net = net.module
        elif isinstance(getattr(net, "_orig_mod", None), nn.Module):
            net = net._orig_mod  # type: ignore[assignment]
        else:
            return net


def _tensors_of(entry: Mapping | nn.Module) -> dict[str, torch.Tensor]:
    items = entry.state_dict() if isinstance(entry, nn.Module) else entry
    return {key: value for key, value in items.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def _models_in(keys: tuple[str, ...], entry: Mapping | nn.Module, siblings: list[str]) -> list[Found]:
    tensors = _tensors_of(entry)
    net = entry if isinstance(entry, nn.Module) else None
    counters = [name for name in tensors if name.split(".")[-1] == _AVERAGED_MODEL_COUNTER]
    names = [name for name in map(str, tensors if isinstance(entry, nn.Module) else entry) if name not in counters]

    def found(parts: dict[str, Layout], rest: list[str]) -> Found:
        counted = [name for name in counters if all(prefix.startswith(name[: -len(_AVERAGED_MODEL_COUNTER)]) for prefix in parts)]
        return Found(keys, parts, tensors, rest, siblings, counted, net)

    models, layers = _matches(MODELS, tensors), _matches(LAYERS, tensors)
    layers |= _incomplete(layers, tensors)

    def outside(prefixes: Iterable[str]) -> list[str]:
        return [name for name in names if name not in tensors or not name.startswith(tuple(prefixes))]

    if models and not (net is not None and layers and _foreign(names, models)):
        return [found({prefix: layout}, outside(models)) for prefix, layout in models.items()]
    return [found(layers, outside(layers))] if layers else []


def _matches(layouts: Sequence[Layout], names: Iterable[str]) -> dict[str, Layout]:
    """The layout of each prefix that has one, in the order of the names."""
    found = [(prefix, layout) for layout in layouts for prefix in layout.prefixes(names)]
    return dict(sorted(found, key=lambda part: next(i for i, name in enumerate(names) if name.startswith(part[0]))))


def _incomplete(layers: Mapping[str, Layout], tensors: Mapping[str, torch.Tensor]) -> dict[str, Layout]:
    """Other layers with the linear layers of one of these layouts. They lack the split attention, so they cannot be built."""
    found: dict[str, Layout] = {}
    for layout in [layout for layout in LAYERS if layout in layers.values() and layout.names]:
        for prefix in layout.prefixes(tensors, layout.hallmarks[1:]) - layers.keys():
            names = {layout.new_name(name.removeprefix(prefix)): name for name in tensors if name.startswith(prefix)}
            shapes = [tuple(tensors[names[name]].shape[:2]) for name in ("expand.weight", "project.weight") if name in names]
            channels = shapes[-1][0] if len(shapes) == 2 else 0
            if channels and shapes == [(3 * channels, channels), (channels, channels)]:
                found[prefix] = layout
    return found


def _foreign(names: list[str], models: dict[str, Layout]) -> bool:
    """Whether a network has weights that no layout of a whole model knows, so that only its layers can be converted."""
    return not all(any(layout.new_name(name.removeprefix(prefix)) for prefix, layout in models.items()) for name in names)
