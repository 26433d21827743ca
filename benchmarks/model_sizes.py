"""Parameters and multiply-adds of all named models at 224x224: writes results/model-sizes-torch<version>.json.

python benchmarks/model_sizes.py
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

import s2mlp_cuda

from results import write_result

sizes = {}
for name in s2mlp_cuda.list_models():
    with torch.device("meta"):
        model = s2mlp_cuda.create_model(name)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    sizes[name] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
    }
write_result("model-sizes", {"what": "models with a 1000-class head, one 3x224x224 image", "models": sizes})
