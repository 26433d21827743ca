"""All tensors of a call must be on one device, for real, meta and fake tensors alike: nothing is computed from memory that nobody
wrote."""

import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from s2mlp_cuda import shift_branch_combine, shift_split_attention

from conftest import require_device
from test_raw_operators import CASES, tensors

SEVERAL = [name for name, (_, *shapes) in CASES.items() if len(shapes) > 1]


@pytest.mark.parametrize("elsewhere", ["meta", "cuda"])
@pytest.mark.parametrize("name", SEVERAL)
def test_raw_operators(name, elsewhere):
    """Each tensor in turn is on another device than the others."""
    other = require_device(elsewhere)
    function, *shapes = CASES[name]
    for index in range(len(shapes)):
        inputs = list(tensors(shapes, "cpu"))
        inputs[index] = inputs[index].to(other)
        with pytest.raises(RuntimeError, match=r"on the same device, but got \w+ on \S+ and \w+ on \S+$"):
            function(*inputs)


@pytest.mark.parametrize("name", SEVERAL)
def test_fake_tensors(name):
    function, *shapes = CASES[name]
    with FakeTensorMode():
        inputs = list(tensors(shapes, "cpu"))
        assert function(*inputs).device.type == "cpu"
        inputs[-1] = inputs[-1].to("cuda")
        with pytest.raises(RuntimeError, match="same device"):
            function(*inputs)


@pytest.mark.parametrize("compiled", [False, True])
def test_functions(compiled):
    x, weights = torch.zeros(2, 3, 4, 8), torch.zeros(2, 2, 4, device="meta")
    fc1, fc2 = torch.zeros(3, 4), torch.zeros(8, 3)
    calls = {
        "weights on meta and x on cpu": lambda: shift_branch_combine(x, weights, (None, None)),
        "fc1_weight on meta and x on cpu": lambda: shift_split_attention(x, fc1.to("meta"), fc2, (None, None)),
        "fc2_weight on cpu and x on meta": lambda: shift_split_attention(x.to("meta"), fc1.to("meta"), fc2, (None, None)),
    }
    for text, call in calls.items():
        with pytest.raises(RuntimeError, match=re.escape(f"Expected all tensors to be on the same device, but got {text}")):
            (torch.compile(call, backend="eager") if compiled else call)()


def test_meta_tensors_stay_on_meta():
    x = torch.zeros(2, 3, 4, 8, device="meta", requires_grad=True)
    out = shift_split_attention(x, torch.zeros(3, 4, device="meta"), torch.zeros(8, 3, device="meta"), (None, None))
    out.sum().backward()
    assert out.device.type == x.grad.device.type == "meta" and out.shape == (2, 3, 4, 4)
