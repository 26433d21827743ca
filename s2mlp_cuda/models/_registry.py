"""The model registry: named configurations for ``create_model``."""

import re
import sys
from collections.abc import Sequence

from torch import nn

from s2mlp_cuda.models._base import Backbone, FeaturePyramid

_CONFIGURATIONS: dict[str, tuple[type[Backbone], dict]] = {}


class ConfigurationError(ValueError):
    """A registered model cannot be built. The message names it."""


def register_models(architecture: type[Backbone], configurations: dict[str, dict]) -> None:
    """Register models for :func:`create_model` and, through ``s2mlp_cuda.timm``, for timm and ``s2mlp train``.

    Names must be registered before ``s2mlp_cuda.timm`` is imported. A program that registers its own models and then calls
    :func:`s2mlp_cuda.cli.main` is an ``s2mlp`` that trains, evaluates and exports them, also under torchrun.

    A weights file has the name and the arguments of its model, not its configuration and its code. If a table or fusion is changed,
    earlier weights are loaded without an error and give other results: register the changed model by a new name.

    Args:
        architecture: the class of the models, such as a subclass of :class:`~s2mlp_cuda.models.S2MLPv2`.
        configurations: arguments of the architecture, by model name: ASCII letters, digits and underscores.

    Raises:
        TypeError: ``architecture`` is not a class of models, or ``configurations`` not a dict of dicts by name.
        ValueError: a name has other characters, or is that of another class or other arguments.
        RuntimeError: a name is new, and ``s2mlp_cuda.timm`` was imported before.

    Example:
        An S2-MLPv2 with larger offsets, whose branches are fused by their maximum. As ``mine.py`` it is trained by
        ``torchrun --standalone --nproc-per-node 2 mine.py train --recipe digits --model s2mlpv2_max --output out/max``, and then
        used by ``python mine.py eval ...``::

            import sys
            import torch
            from torch import nn
            from s2mlp_cuda import cli, spatial_shift
            from s2mlp_cuda.layers import S2
            from s2mlp_cuda.models import S2MLPv2, register_models

            class MaxFusion(nn.Module):  # (B, H, W, K*C) to (B, H, W, C)
                def __init__(self, branches, padding_mode):
                    super().__init__()
                    self.branches, self.padding_mode = branches, padding_mode

                def forward(self, x):
                    parts = x.chunk(len(self.branches), -1)
                    shifted = [
                        part if table is None else spatial_shift(part, table, padding_mode=self.padding_mode)
                        for part, table in zip(parts, self.branches)
                    ]
                    return torch.stack(shifted).amax(0)

            class MaxS2MLPv2(S2MLPv2):
                def __init__(self, **kwargs):
                    super().__init__(fusion="split_attention", **kwargs)  # so that another fusion is refused
                    for layer in self.modules():
                        if isinstance(layer, S2):
                            layer.attention = MaxFusion(layer.attention.branches, layer.attention.padding_mode)

            BRANCHES = (((2, 0), (-2, 0)), ((0, 2), (0, -2)), None)
            register_models(MaxS2MLPv2, {"s2mlpv2_max": {"branches": BRANCHES}})

            if __name__ == "__main__":
                sys.exit(cli.main())
    """
    if not isinstance(architecture, type) or not issubclass(architecture, Backbone):
        raise TypeError(f"architecture must be a class of models, such as a subclass of S2MLPv2, got {architecture!r}")
    if not isinstance(configurations, dict):
        raise TypeError(f"configurations must be a dict of arguments by model name, got {configurations!r}")
    for name, arguments in configurations.items():
        if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_]+", name):
            raise ValueError(f"the name of a model must be ASCII letters, digits and underscores, got {name!r}")
        if not isinstance(arguments, dict):
            raise TypeError(f"the configuration of {name} must be a dict of arguments, got {arguments!r}")
        if name in _CONFIGURATIONS:
            _check_same(name, architecture, arguments)
        elif "s2mlp_cuda.timm" in sys.modules:
            raise RuntimeError(f"cannot register {name}, because s2mlp_cuda.timm was imported before: register models first")
    for name, arguments in configurations.items():
        _CONFIGURATIONS[name] = (architecture, arguments)


def _check_same(name: str, architecture: type[Backbone], arguments: dict) -> None:
    """A class of the same name in the same module is the same: a cell of a notebook that is run again defines it again.

    Raises:
        ValueError: another class or other arguments have the name.
    """
    registered, registered_arguments = _CONFIGURATIONS[name]
    same_class = (registered.__module__, registered.__qualname__) == (architecture.__module__, architecture.__qualname__)
    if not same_class or not _equal(registered_arguments, arguments):
        raise ValueError(f"{name} is registered already, as {registered.__name__} with {registered_arguments}: choose another name")


def _equal(arguments: dict, others: dict) -> bool:
    try:
        return arguments == others
    except ValueError:  # an array of NumPy in both, whose comparison has no single truth value
        return False


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
