"""The named configurations: what ``create_model`` builds."""

from collections.abc import Callable

from torch import nn

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def register_model(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Decorator: makes a function ``(**kwargs) -> Module`` known to ``create_model`` under its own name."""
    _BUILDERS[builder.__name__] = builder
    return builder


def list_models() -> list[str]:
    """The names that :func:`create_model` knows, sorted."""
    return sorted(_BUILDERS)


def create_model(name: str, num_classes: int = 1000, in_chans: int = 3, **kwargs) -> nn.Module:
    """Build a model by name, with random weights (the papers published none).

    Args:
        name: one of :func:`list_models`.
        num_classes: outputs of the head; 0 leaves the head out, and the model returns pooled features.
        in_chans: channels of the input images.
        **kwargs: any argument of :class:`~s2mlp_cuda.models.S2MLP` (``s2mlp_*``) or
            :class:`~s2mlp_cuda.models.S2MLPv2` (``s2mlpv2_*``), in place of the configuration's value.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> model = create_model("s2mlpv2_small_7", num_classes=10, drop_path_rate=0.1)
        >>> model(torch.randn(1, 3, 224, 224)).shape
        torch.Size([1, 10])
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(list_models())}")
    return _BUILDERS[name](num_classes=num_classes, in_chans=in_chans, **kwargs)
