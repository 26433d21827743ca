"""Models that can be saved to, loaded from and pushed to the Hugging Face Hub, or a folder, as safetensors.

Needs huggingface_hub and safetensors (``pip install 's2mlp_cuda[hub]'``)::

    from s2mlp_cuda import hub

    model = hub.create_model("s2mlpv2_small_7", num_classes=10)
    model.save_pretrained("folder")  # or model.push_to_hub("user/name")
    model = hub.S2MLPv2.from_pretrained("folder")  # or "user/name"

The arguments that a model was built with are saved with its weights, so they must be JSON-serializable.
"""

from s2mlp_cuda import models
from s2mlp_cuda._extras import require
from s2mlp_cuda.models._registry import configuration

require("hub", "huggingface_hub", "safetensors")
from huggingface_hub import PyTorchModelHubMixin  # noqa: E402

_CARD = {"library_name": "s2mlp_cuda", "license": "apache-2.0", "pipeline_tag": "image-classification"}


class S2MLP(models.S2MLP, PyTorchModelHubMixin, tags=["s2mlp"], paper_url="https://arxiv.org/abs/2106.07477", **_CARD):
    """:class:`s2mlp_cuda.models.S2MLP` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``."""


class S2MLPv2(models.S2MLPv2, PyTorchModelHubMixin, tags=["s2mlp"], paper_url="https://arxiv.org/abs/2108.01072", **_CARD):
    """:class:`s2mlp_cuda.models.S2MLPv2` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``."""


_WITH_HUB = {models.S2MLP: S2MLP, models.S2MLPv2: S2MLPv2}


def create_model(name: str, **kwargs) -> S2MLP | S2MLPv2:
    """:func:`s2mlp_cuda.create_model`, with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Raises:
        ValueError: the name is unknown.
    """
    architecture, arguments = configuration(name)
    return _WITH_HUB[architecture](**{**arguments, **kwargs})
