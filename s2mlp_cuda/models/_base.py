"""What both architectures share: stages of features, the head, the initial weights, and the choice of norm.

The names and meanings of the public methods are timm's, so that its tools take these models as they take its own.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from s2mlp_cuda.layers import Affine

NORM_LAYERS: dict[str, Callable[[int], nn.Module]] = {"layer_norm": nn.LayerNorm, "affine": Affine}
GLOBAL_POOLS = ("avg", "")
OUTPUT_FORMATS = ("NCHW", "NHWC")


def norm_layer_of(norm_layer: str | Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """
    Raises:
        ValueError: a name that is not in ``NORM_LAYERS``.
    """
    if callable(norm_layer):
        return norm_layer
    if norm_layer not in NORM_LAYERS:
        raise ValueError(f"norm_layer must be one of {', '.join(map(repr, NORM_LAYERS))} or a callable, got {norm_layer!r}")
    return NORM_LAYERS[norm_layer]


def drop_path_rates(depth: int, last: float) -> list[float]:
    """One rate per block, rising linearly from 0 to ``last`` (the rule of arXiv 1603.09382)."""
    return [last * i / max(1, depth - 1) for i in range(depth)]


def feature_indices(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Which of ``count`` feature maps are meant: all (None), the last n (an int), or those listed, negative from the end.

    Raises:
        ValueError: an index that is out of range, or none at all.
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        indices = range(-indices, 0)
    taken = [index + count if index < 0 else index for index in indices]
    if not taken or not all(0 <= index < count for index in taken):
        raise ValueError(f"the model has {count} feature maps, 0 to {count - 1}, got indices {list(indices)}")
    return taken


class Backbone(nn.Module):
    """A classifier on token maps. A subclass defines ``embed``, ``levels_name``, ``group_matcher`` and what follows.

    Attributes:
        stride: side of a final token in pixels: the product of the patch sizes.
        dynamic_img_pad: whether any image size is taken, and padded.
        num_features: channels of the last token map.
        feature_info: one entry per feature map: ``module`` that computes it, ``num_chs`` channels, ``reduction`` of the image.
        default_cfg: what timm's data pipelines read: input size, mean, standard deviation, interpolation.
        grad_checkpointing: whether blocks are computed again in the backward pass instead of being stored.
    """

    #: The attribute that holds the modules whose outputs are the feature maps.
    levels_name: str
    #: Where the images enter, as timm wants to know it.
    first_conv: str
    stride: int
    dynamic_img_pad: bool
    norm: nn.Module
    head: nn.Module
    feature_info: list[dict]
    grad_checkpointing = False

    def set_head(self, num_features: int, num_classes: int, in_chans: int, global_pool: str, drop_rate: float) -> None:
        self.num_features = self.head_hidden_size = num_features
        self.in_chans = in_chans
        self.set_global_pool(global_pool)
        self.num_classes = num_classes
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(num_features, num_classes) if num_classes > 0 else nn.Identity()
        self.default_cfg = self.pretrained_cfg = {
            "num_classes": num_classes,
            "input_size": (in_chans, 224, 224),
            # Crop, interpolation, mean and deviation are DeiT's, whose augmentation the paper uses; it prints none of them.
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": self.first_conv,
            "classifier": "head",
        }

    def set_global_pool(self, global_pool: str) -> None:
        if global_pool not in GLOBAL_POOLS:
            raise ValueError(f"global_pool must be one of {', '.join(map(repr, GLOBAL_POOLS))}, got {global_pool!r}")
        self.global_pool = global_pool

    def init_weights(self) -> None:
        """Truncated normal with deviation 0.02, biases zero. Inferred: the papers give no initialisation."""
        self.apply(_init_weights)

    @property
    def levels(self) -> nn.Sequential:
        """The modules whose outputs are the feature maps, in order."""
        return getattr(self, self.levels_name)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Images to what the first level takes."""
        raise NotImplementedError

    def group_matcher(self, coarse: bool = False) -> dict:
        """Regular expressions that group parameters by depth, for layer-wise learning rates."""
        raise NotImplementedError

    def check_size(self, x: torch.Tensor) -> None:
        height, width = x.shape[-2:]
        if not self.dynamic_img_pad and (height % self.stride or width % self.stride):
            raise ValueError(
                f"the input is {height}x{width}, but this model cuts images into patches of {self.stride}x{self.stride} "
                f"pixels: height and width must be multiples of {self.stride}, or the model be built with dynamic_img_pad=True"
            )

    def run_level(self, level: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if not self.grad_checkpointing or not torch.is_grad_enabled():
            return level(x)
        for module in level if isinstance(level, nn.Sequential) else (level,):
            x = checkpoint(module, x, use_reentrant=False)
        return x

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, in_chans, H, W) to the last token map, (B, H / stride, W / stride, num_features).

        Raises:
            ValueError: the stride does not divide H and W, and ``dynamic_img_pad`` is off.
        """
        self.check_size(x)
        x = self.embed(x)
        for level in self.levels:
            x = self.run_level(level, x)
        return self.norm(x)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """The feature maps of blocks (S2-MLP) or stages (S2-MLPv2), as timm's models give them.

        Args:
            x: images (B, in_chans, H, W).
            indices: which: None for all, an int for the last so many, or a sequence of indices.
            norm: apply the final norm to the last feature map.
            stop_early: leave out what comes after the last index. The last token map is then that of this index.
            output_fmt: ``"NCHW"`` or ``"NHWC"``.
            intermediates_only: return only the feature maps.

        Returns:
            ``(last token map (B, H', W', C), feature maps)``, or the feature maps alone.

        Raises:
            ValueError: an index out of range, an unknown format, or an image size as in ``forward_features``.
        """
        if output_fmt not in OUTPUT_FORMATS:
            raise ValueError(f"output_fmt must be one of {', '.join(map(repr, OUTPUT_FORMATS))}, got {output_fmt!r}")
        self.check_size(x)
        taken = feature_indices(indices, len(self.levels))
        last = len(self.levels) - 1
        found = []
        x = self.embed(x)
        for index, level in enumerate(self.levels):
            x = self.run_level(level, x)
            if index in taken:
                found.append(self.norm(x) if norm and index == last else x)
            if stop_early and index == max(taken):
                break
        else:
            x = self.norm(x)
        if output_fmt == "NCHW":
            found = [feature.permute(0, 3, 1, 2) for feature in found]
        return found if intermediates_only else (x, found)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops what the feature maps at ``indices`` do not need, in place; returns the indices counted from the start."""
        taken = feature_indices(indices, len(self.levels))
        setattr(self, self.levels_name, self.levels[: max(taken) + 1])
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The last token map to logits (B, num_classes), or with ``pre_logits`` to pooled features.

        With ``global_pool=""`` nothing is pooled, and the head applies to every token.
        """
        if self.global_pool == "avg":
            x = x.mean((1, 2))
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another head, with new weights; 0 classes leave it out. ``global_pool`` None keeps what is.

        Raises:
            ValueError: an unknown ``global_pool``.
        """
        if global_pool is not None:
            self.set_global_pool(global_pool)
        self.num_classes = num_classes
        parameter = next(self.parameters())
        self.head = nn.Identity()
        if num_classes > 0:
            self.head = nn.Linear(self.num_features, num_classes, device=parameter.device, dtype=parameter.dtype)
            _init_weights(self.head)
        self.head.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute every block again in the backward pass instead of storing what is in it."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters to leave out of weight decay besides biases and norms, which all optimizer factories leave out: none."""
        return set()


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class FeaturePyramid(nn.Module):
    """A model without its head: images to a list of feature maps (B, C, H', W'), for dense prediction.

    Args:
        model: what computes them; it loses the levels that are not needed, its final norm and its head.
        out_indices: which feature maps, as in :meth:`Backbone.forward_intermediates`.

    Attributes:
        feature_info: ``module``, ``num_chs`` and ``reduction`` of each of them.

    Raises:
        ValueError: an index out of range.
    """

    def __init__(self, model: Backbone, out_indices: int | Sequence[int] | None = None):
        super().__init__()
        self.out_indices = model.prune_intermediate_layers(
            range(len(model.levels)) if out_indices is None else out_indices, prune_norm=True
        )
        self.feature_info = [model.feature_info[index] for index in self.out_indices]
        self.model = model

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.model.forward_intermediates(x, self.out_indices, intermediates_only=True)  # type: ignore[return-value]
