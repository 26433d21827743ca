"""What a conversion did."""

from dataclasses import dataclass, field


@dataclass
class Report:
    """The result of a conversion.

    Attributes:
        layout: the layout of the weights.
        source: where the weights were in the checkpoint, e.g. ``"model_ema.module"``: the keys that lead to the state dict, and
            the prefix of its keys.
        weights: ``"ema"`` for averaged weights, else ``"model"``.
        paths: where the converted layers are in the network; empty for a whole model.
        renamed: old key to new key, for all weights that were loaded.
        zeros: biases that are zero because the copy was built without biases.
        missing: keys of the model that the weights lack; they keep their initial values.
        unexpected: keys that the model does not have, and that were not loaded.
        untouched: other entries of the checkpoint, and weights of the network outside its converted layers.
    """

    layout: str
    source: str = ""
    weights: str = "model"
    paths: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    zeros: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{len(self.renamed)} renamed, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        lines = [f"{self.layout}: {counts}", f"  {self.weights} weights" + (f" from {self.source}" if self.source else "")]
        lines += [f"  layer: {path}" for path in self.paths]
        lines += [f"  {old} -> {new}" for old, new in self.renamed.items()]
        for name in ("zeros", "missing", "unexpected"):
            lines += [f"  {name}: {key}" for key in getattr(self, name)]
        lines += [f"  untouched: {len(self.untouched)} others"] if self.untouched else []
        return "\n".join(lines)
