"""Code shared by both architectures: feature extraction, the head, weight initialization and the choice of norm.

The public methods follow timm's interface, so timm's tools work with these models.
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
    """One rate per block, increasing linearly from 0 to ``last`` (the linear decay rule of arXiv 1603.09382)."""
    return [last * i / max(1, depth - 1) for i in range(depth)]


def feature_indices(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Non-negative indices into ``count`` feature maps, from None (all), an int n (the last n) or a sequence of indices.

    Raises:
        ValueError: an index is out of range, or there are none.
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        indices = range(-indices, 0)
    selected = [index + count if index < 0 else index for index in indices]
    if not selected or not all(0 <= index < count for index in selected):
        raise ValueError(f"the model has {count} feature maps, 0 to {count - 1}, got indices {list(indices)}")
    return selected


class Backbone(nn.Module):
    """Base class: a classifier on token maps. Subclasses define ``embed``, ``group_matcher`` and the attributes declared below.

    Attributes:
        token_size: height and width of a token of the last map in pixels: the product of the patch sizes.
        dynamic_img_pad: whether images of any size are accepted and padded.
        num_features: channels of the last token map.
        feature_info: one entry per feature map: the ``module`` that computes it, its channels ``num_chs`` and its ``reduction``.
        default_cfg: timm's data configuration: input size, mean, standard deviation, interpolation.
        grad_checkpointing: whether the backward pass recomputes the activations inside blocks instead of storing them.
    """

    #: Name of the attribute that holds the modules whose outputs are the feature maps.
    levels_name: str
    #: Name of the first convolution, for timm's ``default_cfg``.
    first_conv: str
    token_size: tuple[int, int]
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
            # The paper uses DeiT's augmentation but does not give crop, interpolation, mean or std, so these are DeiT's.
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
        """Truncated normal with standard deviation 0.02, zero biases. Inferred: the papers give no initialization."""
        self.apply(_init_weights)

    @property
    def levels(self) -> nn.Sequential:
        """The modules whose outputs are the feature maps, in order."""
        return getattr(self, self.levels_name)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Images to the input of the first level."""
        raise NotImplementedError

    def group_matcher(self, coarse: bool = False) -> dict:
        """Regular expressions that group parameters by depth, for layer-wise learning rates."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """The side of a token of the last map in pixels; for rectangular tokens, the longer one, as in timm."""
        return max(self.token_size)

    def check_size(self, x: torch.Tensor) -> None:
        height, width = x.shape[-2:]
        rows, columns = self.token_size
        if not self.dynamic_img_pad and (height % rows or width % columns):
            multiples = f"{rows}" if rows == columns else f"{rows} and {columns}"
            raise ValueError(
                f"the input is {height}x{width}, but height and width must be multiples of {multiples}, the patch size of this "
                "model in pixels; to pad images of other sizes, build the model with dynamic_img_pad=True"
            )

    def run_level(self, level: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if not self.grad_checkpointing or not torch.is_grad_enabled():
            return level(x)
        for module in level if isinstance(level, nn.Sequential) else (level,):
            x = checkpoint(module, x, use_reentrant=False)
        return x

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, in_chans, H, W) to the last token map, (B, H / token height, W / token width, num_features).

        Raises:
            ValueError: H or W is not a multiple of the token size, and ``dynamic_img_pad`` is False.
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
        """The feature maps of blocks (S2-MLP) or stages (S2-MLPv2), with timm's interface.

        Args:
            x: images (B, in_chans, H, W).
            indices: None for all, an int n for the last n, or a sequence of indices.
            norm: apply the final norm to the last feature map.
            stop_early: skip the levels after the last index. The last token map is then the output of that level.
            output_fmt: ``"NCHW"`` or ``"NHWC"``.
            intermediates_only: return only the feature maps.

        Returns:
            ``(last token map (B, H', W', C), feature maps)``, or only the feature maps.

        Raises:
            ValueError: an index is out of range, the format is unknown, or the image size is invalid as in
                ``forward_features``.
        """
        if output_fmt not in OUTPUT_FORMATS:
            raise ValueError(f"output_fmt must be one of {', '.join(map(repr, OUTPUT_FORMATS))}, got {output_fmt!r}")
        self.check_size(x)
        selected = feature_indices(indices, len(self.levels))
        last = len(self.levels) - 1
        intermediates = []
        x = self.embed(x)
        for index, level in enumerate(self.levels):
            x = self.run_level(level, x)
            if index in selected:
                intermediates.append(self.norm(x) if norm and index == last else x)
            if stop_early and index == max(selected):
                break
        else:
            x = self.norm(x)
        if output_fmt == "NCHW":
            intermediates = [feature.permute(0, 3, 1, 2) for feature in intermediates]
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes, in place, the modules that the feature maps at ``indices`` do not need; returns non-negative indices."""
        selected = feature_indices(indices, len(self.levels))
        setattr(self, self.levels_name, self.levels[: max(selected) + 1])
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return selected

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """The last token map to logits (B, num_classes), or to pooled features if ``pre_logits``.

        With ``global_pool=""`` there is no pooling, and the head is applied to every token.
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
        """Replaces the head by one with new weights, or removes it if ``num_classes`` is 0.

        Args:
            num_classes: outputs of the new head.
            global_pool: ``"avg"`` or ``""``; None keeps the current pooling.

        Raises:
            ValueError: ``global_pool`` is unknown.
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
        """Recompute the activations inside every block in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay, besides biases and norms, which optimizer factories exclude anyway: none."""
        return set()


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class FeaturePyramid(nn.Module):
    """A model without its head: images to a list of feature maps (B, C, H', W'), for dense prediction.

    Args:
        model: the model to wrap. Levels that are not needed, the final norm and the head are removed from it in place.
        out_indices: indices of the feature maps, as in :meth:`Backbone.forward_intermediates`.

    Attributes:
        feature_info: ``module``, ``num_chs`` and ``reduction`` of each feature map.

    Raises:
        ValueError: an index is out of range.
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
