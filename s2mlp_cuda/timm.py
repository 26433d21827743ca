"""``import s2mlp_cuda.timm`` registers the models with timm: ``timm.create_model("s2mlpv2_small_7", ...)``.

Needs timm (``pip install 's2mlp_cuda[timm]'``). Takes the arguments of :func:`s2mlp_cuda.create_model`. There are no pretrained
weights.
"""

from functools import partial
from typing import Any

import torch

from s2mlp_cuda._extras import require
from s2mlp_cuda.models import create_model, list_models

require("timm", "timm")
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model  # noqa: E402

with torch.device("meta"):
    _MODELS: dict[str, Any] = {name: create_model(name) for name in list_models()}

default_cfgs = generate_default_cfgs({f"{name}.untrained": model.default_cfg for name, model in _MODELS.items()})


def _register(name: str, feature_maps: int) -> None:
    def entry_point(pretrained: bool = False, **kwargs):
        features = {"feature_cls": "getter", "out_indices": min(3, feature_maps)}
        return build_model_with_cfg(partial(create_model, name), name, pretrained, feature_cfg=features, **kwargs)

    entry_point.__name__ = entry_point.__qualname__ = name
    entry_point.__doc__ = f"``s2mlp_cuda.create_model({name!r})``, built by timm's ``build_model_with_cfg``."
    register_model(entry_point)


for _name, _model in _MODELS.items():
    _register(_name, len(_model.feature_info))
