"""``import s2mlp_cuda.timm`` registers the models with timm: ``timm.create_model("s2mlpv2_small_7", ...)``.

Needs timm (``pip install 's2mlp_cuda[timm]'``). Takes the arguments of :func:`s2mlp_cuda.create_model`. There are no pretrained
weights. Token maps are (B, H, W, C) (``model.output_fmt`` is ``"NHWC"``). With ``features_only=True``, feature maps are
(B, C, H, W), or (B, H, W, C) where outputs of modules are taken as they are, as by ``feature_cls="hook"``; ``output_fmt`` of the
feature extractor says which.
"""

from typing import Any

import torch

from s2mlp_cuda._extras import require
from s2mlp_cuda._messages import one_line
from s2mlp_cuda.models import create_model, list_models
from s2mlp_cuda.models._base import size_cfg
from s2mlp_cuda.models._registry import ConfigurationError

require("timm", "timm")
from timm.models import (  # noqa: E402
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    model_entrypoint,
    register_model,
)


def _default_cfg(name: str) -> dict[str, Any]:
    """
    Raises:
        ConfigurationError: the model cannot be built.
    """
    try:
        with torch.device("meta"):
            model = create_model(name)
        return model.default_cfg  # type: ignore[return-value]
    except Exception as error:  # of any architecture
        raise ConfigurationError(f"the registered model {name} cannot be built: {one_line(error)}") from error


default_cfgs = generate_default_cfgs({f"{name}.untrained": _default_cfg(name) for name in list_models()})


def _register(name: str) -> None:
    def entry_point(pretrained: bool = False, **kwargs):
        features: dict[str, Any] = {"feature_cls": "getter"}
        token_size = (0, 0)

        def build(**arguments):
            nonlocal token_size
            model = create_model(name, **arguments)
            token_size = model.token_size
            if "out_indices" not in kwargs:
                features["out_indices"] = min(3, len(model.feature_info))  # the last three
            return model

        model = build_model_with_cfg(build, name, pretrained, feature_cfg=features, **kwargs)
        # The registered values are for the default patch sizes.
        model.pretrained_cfg.update(size_cfg(model.pretrained_cfg["input_size"], token_size))
        return model

    if is_model(name) and model_entrypoint(name).__module__ != __name__:
        raise ConfigurationError(f"the registered model {name} has the name of a model of timm: choose another name")
    entry_point.__name__ = entry_point.__qualname__ = name
    entry_point.__doc__ = f"``s2mlp_cuda.create_model({name!r})``, built by timm's ``build_model_with_cfg``."
    register_model(entry_point)


for _name in list_models():
    _register(_name)
