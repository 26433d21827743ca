"""What a conversion did."""

from dataclasses import dataclass, field

import torch


@dataclass
class Report:
    """The result of a conversion.

    Attributes:
        layout: the layout of the weights.
        source: where the weights were in the checkpoint, e.g. ``"model_ema.module"``: the keys that lead to the state dict, and
            the prefix of its keys.
        weights: ``"ema"`` for averaged weights, else ``"model"``.
        layers: the path of each converted layer in the network, and its data format; empty for a whole model.
        dtype: of the weights.
        renamed: old key to new key, for all weights that were loaded.
        zeros: biases that are zero because the copy was built without biases.
        missing: keys of the model that the weights lack; they keep their initial values.
        unexpected: keys that the model does not have, and that were not loaded.
        untouched: weights of the network outside its converted layers.
        siblings: other entries of the checkpoint.
    """

    layout: str
    source: str = ""
    weights: str = "model"
    layers: dict[str, str] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    zeros: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    siblings: list[str] = field(default_factory=list)

    def old_names(self, names: list[str]) -> list[str]:
        """The names in the old model of weights of the new one, where another weight of the same layer tells that of the layer."""
        layers = {new.rpartition(".")[0]: old.rpartition(".")[0] for old, new in self.renamed.items()}
        split = [name.rpartition(".") for name in names]
        return [f"{layers.get(layer, layer)}{dot}{weight}".removeprefix(".") for layer, dot, weight in split]

    def __str__(self) -> str:
        counts = f"{len(self.renamed)} renamed, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        dtype = str(self.dtype).removeprefix("torch.")
        origin = f", from {self.source}" if self.source else ""
        lines = [f"{self.layout}: {counts}", f"  {self.weights} weights, {dtype}{origin}"]
        lines += [f"  layer: {path}, {data_format}" for path, data_format in self.layers.items()]
        lines += [f"  {old} -> {new}" for old, new in self.renamed.items()]
        for name in ("zeros", "missing", "unexpected", "untouched"):
            lines += [f"  {name}: {key}" for key in getattr(self, name)]
        lines += [f"  beside it in the checkpoint: {', '.join(self.siblings)}"] if self.siblings else []
        return "\n".join(lines)
