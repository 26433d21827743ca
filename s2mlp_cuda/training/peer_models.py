"""timm's MLP models with configurable arguments: timm's own named models have a fixed patch size and width.

Importing this module registers ``mlp_mixer``, ``resmlp`` and ``gmlp`` with timm.
"""

from timm.layers import GatedMlp
from timm.models import build_model_with_cfg, register_model
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock


@register_model
def mlp_mixer(pretrained: bool = False, **kwargs) -> MlpMixer:
    """MLP-Mixer (arXiv 2105.01601)."""
    return build_model_with_cfg(MlpMixer, "mixer_s16_224", pretrained, **kwargs)


@register_model
def resmlp(pretrained: bool = False, **kwargs) -> MlpMixer:
    """ResMLP (arXiv 2105.03404), with timm's values for 12 blocks."""
    kwargs |= {"mlp_ratio": 4, "block_layer": ResBlock, "norm_layer": Affine}
    return build_model_with_cfg(MlpMixer, "resmlp_12_224", pretrained, **kwargs)


@register_model
def gmlp(pretrained: bool = False, **kwargs) -> MlpMixer:
    """gMLP (arXiv 2105.08050)."""
    kwargs |= {"mlp_ratio": 6, "block_layer": SpatialGatingBlock, "mlp_layer": GatedMlp}
    return build_model_with_cfg(MlpMixer, "gmlp_s16_224", pretrained, **kwargs)
