"""The model registry: named configurations for ``create_model``."""

from collections.abc import Sequence

from torch import nn

from s2mlp_cuda.models._base import Backbone, FeaturePyramid

_CONFIGURATIONS: dict[str, tuple[type[Backbone], dict]] = {}


def register_models(architecture: type[Backbone], configurations: dict[str, dict]) -> None:
    """Register models for :func:`create_model` and, through ``s2mlp_cuda.timm``, for timm and ``s2mlp train``.

    Names must be registered before ``s2mlp_cuda.timm`` is imported. A program that registers its own models and then calls
    :func:`s2mlp_cuda.cli.main` is an ``s2mlp`` that trains, evaluates and exports them, also under torchrun.

    Args:
        architecture: the class of the models, such as a subclass of :class:`~s2mlp_cuda.models.S2MLPv2`.
        configurations: arguments of the architecture, by model name.

    Example:
        An S2-MLPv2 with larger offsets, whose branches are fused by their maximum. As ``mine.py`` it is trained by
        ``torchrun --nproc-per-node 2 mine.py train --recipe digits --model s2mlpv2_max``::

            import sys
            import torch
            from torch import nn
            from s2mlp_cuda import cli, spatial_shift
            from s2mlp_cuda.layers import S2
            from s2mlp_cuda.models import S2MLPv2, register_models

            BRANCHES = (((2, 0), (-2, 0)), ((0, 2), (0, -2)), None)

            class MaxFusion(nn.Module):  # (B, H, W, K*C) to (B, H, W, C)
                def forward(self, x):
                    parts = x.chunk(len(BRANCHES), -1)
                    shifted = [part if table is None else spatial_shift(part, table) for part, table in zip(parts, BRANCHES)]
                    return torch.stack(shifted).amax(0)

            class MaxS2MLPv2(S2MLPv2):
                def __init__(self, **kwargs):
                    super().__init__(branches=BRANCHES, **kwargs)
                    for layer in self.modules():
                        if isinstance(layer, S2):
                            layer.attention = MaxFusion()

            register_models(MaxS2MLPv2, {"s2mlpv2_max": {}})

            if __name__ == "__main__":
                sys.exit(cli.main())
    """
    for name, arguments in configurations.items():
        _CONFIGURATIONS[name] = (architecture, arguments)


def list_models() -> list[str]:
    """The names of all registered models, sorted."""
    return sorted(_CONFIGURATIONS)


def configuration(name: str) -> tuple[type[Backbone], dict]:
    """The architecture of a model and its arguments.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in _CONFIGURATIONS:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(list_models())}")
    return _CONFIGURATIONS[name]


def create_model(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    *,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **kwargs,
) -> nn.Module:
    """Create a model by name, with random weights (the papers published none).

    Args:
        name: one of :func:`list_models`.
        num_classes: outputs of the head. If 0, there is no head, and the model returns pooled features.
        in_chans: channels of the input images.
        features_only: create a :class:`~s2mlp_cuda.models.FeaturePyramid` instead, which returns a list of feature maps.
        out_indices: indices of the feature maps, for ``features_only``; default all.
        **kwargs: any argument of :class:`~s2mlp_cuda.models.S2MLP` (``s2mlp_*``) or
            :class:`~s2mlp_cuda.models.S2MLPv2` (``s2mlpv2_*``); overrides the configuration.

    Raises:
        ValueError: the name is unknown, or an index is out of range.

    Example:
        >>> model = create_model("s2mlpv2_small_7", num_classes=10, drop_path_rate=0.1)
        >>> model(torch.randn(1, 3, 224, 224)).shape
        torch.Size([1, 10])
    """
    architecture, arguments = configuration(name)
    model = architecture(**{**arguments, "num_classes": num_classes, "in_chans": in_chans, **kwargs})
    return FeaturePyramid(model, out_indices) if features_only else model
