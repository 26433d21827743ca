"""Calls the raw operators of a library with wrong arguments, with the sanitizers loaded: python run_wrong_calls.py LIBRARY"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent))

from test_wrong_calls import EXPANDED, RAW

torch.ops.load_library(sys.argv[1])
for call, text in RAW:
    with pytest.raises(RuntimeError) as raised:
        call(torch.ops.s2mlp_cuda_on_cpu, EXPANDED)
    assert str(raised.value).endswith(text), raised.value
print(f"{len(RAW)} calls refused")
