"""Code shared by both architectures: feature extraction, the head, weight initialization and the choice of norm.

The public methods follow timm's interface, so timm's tools work with these models.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from s2mlp_cuda._arguments import check_count
from s2mlp_cuda._extras import require
from s2mlp_cuda.layers import Affine, check_drop_path_rate, pair

NORM_LAYERS: dict[str, Callable[[int], nn.Module]] = {"layer_norm": nn.LayerNorm, "affine": Affine}
#: Poolings besides ``"avg"`` and ``""``, which are timm's. Those that start with "fast" are the same for (B, H, W, C) maps.
TIMM_POOLS = ("max", "avgmax", "catavgmax", "fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax")
GLOBAL_POOLS = ("avg", "", *TIMM_POOLS)
OUTPUT_FORMATS = ("NCHW", "NHWC")
INITS = ("trunc_normal", "fan_in")


def norm_layer_of(norm_layer: str | Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    """
    Raises:
        ValueError: a name that is not in ``NORM_LAYERS``.
    """
    if callable(norm_layer):
        return norm_layer
    if not isinstance(norm_layer, str) or norm_layer not in NORM_LAYERS:
        raise ValueError(f"norm_layer must be one of {', '.join(map(repr, NORM_LAYERS))} or a callable, got {norm_layer!r}")
    return NORM_LAYERS[norm_layer]


def size_cfg(input_size: Sequence[int], token_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The fields of timm's ``default_cfg`` that follow from the input size (channels, height, width) and the height and width of
    a token of the last map in pixels."""
    channels, height, width = input_size
    rows, columns = token_size
    return {"min_input_size": (channels, rows, columns), "pool_size": (-(-height // rows), -(-width // columns))}


class AveragePool(nn.Module):
    """Token map (B, H, W, C) to the mean over its tokens, (B, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2))


def pool_of(global_pool: str) -> nn.Module:
    """A module from token maps (B, H, W, C) to features (B, C), (B, 2C) for "catavgmax", or (B, H, W, C) for ``""``.

    Raises:
        ValueError: a name that is not in ``GLOBAL_POOLS``.
        MissingExtraError: one of timm's poolings, without timm.
    """
    if global_pool not in GLOBAL_POOLS:
        raise ValueError(f"global_pool must be one of {', '.join(map(repr, GLOBAL_POOLS))}, got {global_pool!r}")
    if global_pool not in TIMM_POOLS:
        return AveragePool() if global_pool == "avg" else nn.Identity()
    require("timm", "timm")
    from timm.layers import SelectAdaptivePool2d

    return SelectAdaptivePool2d(pool_type=global_pool, flatten=True, input_fmt="NHWC")


def drop_path_rates(depth: int, last: float) -> Iterator[float]:
    """One rate per block, increasing linearly from 0 to ``last`` (the linear decay rule of arXiv 1603.09382).

    Raises:
        TypeError, ValueError: ``last`` is not a number in [0, 1).
    """
    check_drop_path_rate("drop_path_rate", last)
    return (last * i / max(1, depth - 1) for i in range(depth))


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


def _multiples(rows: int, columns: int) -> str:
    return f"{rows}" if rows == columns else f"{rows} and {columns}"


@torch.fx.wrap  # symbolic tracing records the call, since sizes are not known there
def check_image_size(x: torch.Tensor, rows: int, columns: int) -> None:
    """
    Raises:
        ValueError: height is not a multiple of ``rows``, or width not of ``columns``.
    """
    height, width = x.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(
            f"the input is {height}x{width}, but height and width must be multiples of {_multiples(rows, columns)}, the patch size "
            "of this model in pixels; to pad images of other sizes, build the model with dynamic_img_pad=True"
        )


class Backbone(nn.Module):
    """Base class: a classifier on token maps. Subclasses define ``embed``, ``group_matcher`` and the attributes declared below.

    Attributes:
        token_size: height and width of a token of the last map in pixels: the product of the patch sizes.
        dynamic_img_pad: whether images of any size are accepted and padded.
        output_fmt: the format of token maps, as timm names it: ``"NHWC"``.
        num_features: channels of the last token map.
        head_hidden_size: channels of the pooled features: twice ``num_features`` for "catavgmax".
        feature_info: one entry per feature map: the ``module`` that computes it, its channels ``num_chs`` and its ``reduction``.
        default_cfg: timm's data configuration: input size, mean, standard deviation, interpolation.
        init: how linear layers and convolutions are initialized, ``"trunc_normal"`` or ``"fan_in"``.
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
    init: str
    output_fmt = "NHWC"
    grad_checkpointing = False

    def set_head(
        self,
        num_features: int,
        num_classes: int,
        in_chans: int,
        global_pool: str,
        drop_rate: float,
        img_size: int | Sequence[int] | None,
    ) -> None:
        self.num_features = num_features
        self.in_chans = in_chans
        self.set_global_pool(global_pool)
        self.num_classes = num_classes = check_count("num_classes", num_classes, least=0)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes > 0 else nn.Identity()
        height, width = self.image_size_of(img_size)
        self.default_cfg = self.pretrained_cfg = {
            "num_classes": num_classes,
            "input_size": (in_chans, height, width),
            **size_cfg((in_chans, height, width), self.token_size),
            # The paper uses DeiT's augmentation but does not give crop, interpolation, mean or std, so these are DeiT's.
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": self.first_conv,
            "classifier": "head",
        }

    def image_size_of(self, img_size: int | Sequence[int] | None) -> tuple[int, int]:
        """Height and width of the images that the model is built for, 224x224 by default. Nothing in the model depends on them.

        Raises:
            ValueError: not one or two positive integers, or not multiples of the token size without ``dynamic_img_pad``.
        """
        if img_size is None:
            return 224, 224
        sides = pair("img_size", img_size)
        if not self.dynamic_img_pad and any(side % token for side, token in zip(sides, self.token_size)):
            raise ValueError(
                f"img_size must be a multiple of {_multiples(*self.token_size)}, the patch size of this model in pixels, unless "
                f"dynamic_img_pad=True, got {sides[0]}x{sides[1]}"
            )
        return sides

    def set_global_pool(self, global_pool: str) -> None:
        self.pool = pool_of(global_pool).train(self.training)
        self.global_pool = global_pool
        self.head_hidden_size = self.num_features * (2 if global_pool.endswith("catavgmax") else 1)

    def set_init(self, init: str) -> None:
        """Sets ``init``, and initializes the model.

        Raises:
            ValueError: an initialization that is not in ``INITS``.
        """
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")
        self.init = init
        self.init_weights()

    def init_weights(self) -> None:
        """Initializes all parameters, also those of a model that was built on the meta device and moved by ``to_empty``.

        Linear layers and convolutions have zero biases, and weights by ``init``: ``"trunc_normal"``, a truncated normal
        distribution with standard deviation 0.02, as in vision transformers (arXiv 2012.12877); or ``"fan_in"``, a normal
        distribution with standard deviation 1 / sqrt(inputs per output) (LeCun et al., Efficient BackProp, 1998), which keeps the
        variance in narrow models, too. Inferred: the papers give no initialization. The first is the default, because in small
        models, trained for a few epochs on CIFAR-10, it is better for S2-MLP and no worse for S2-MLPv2. Other modules, such as
        norms, are initialized by their ``reset_parameters``.
        """
        self.apply(self._init_module)

    def _init_module(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            if self.init == "fan_in":
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
            else:
                nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            return
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()

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
        if not self.dynamic_img_pad:
            check_image_size(x, *self.token_size)
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
        if not self.dynamic_img_pad:
            check_image_size(x, *self.token_size)
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
        x = self.head_drop(self.pool(x))
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by one with new weights, or removes it if ``num_classes`` is 0.

        As in timm, ``default_cfg["num_classes"]`` stays that of the model as it was built.

        Args:
            num_classes: outputs of the new head.
            global_pool: as for the constructor; None keeps the current pooling.

        Raises:
            TypeError, ValueError: ``num_classes`` is not an integer, or negative; ``global_pool`` is unknown.
            MissingExtraError: one of timm's poolings, without timm.
        """
        num_classes = check_count("num_classes", num_classes, least=0)
        if global_pool is not None:
            self.set_global_pool(global_pool)
        self.num_classes = num_classes
        parameter = next(self.parameters())
        self.head = nn.Identity()
        if num_classes > 0:
            self.head = nn.Linear(self.head_hidden_size, num_classes, device=parameter.device, dtype=parameter.dtype)
            self._init_module(self.head)
        self.head.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations inside every block in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay, besides biases and norms, which optimizer factories exclude anyway: none."""
        return set()


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
