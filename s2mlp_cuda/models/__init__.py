"""S2-MLP and S2-MLPv2, and their named configurations."""

from s2mlp_cuda.models._base import FeaturePyramid
from s2mlp_cuda.models._registry import create_model, list_models, register_models
from s2mlp_cuda.models.s2mlp import S2MLP
from s2mlp_cuda.models.s2mlp_v2 import S2MLPv2

__all__ = ["FeaturePyramid", "S2MLP", "S2MLPv2", "create_model", "list_models", "register_models"]
