"""No call leaks memory, according to the C library's count of allocated bytes."""

import ctypes
import gc

import pytest
import torch

from test_raw_operators import CASES, OPS, tensors

CALLS = 1000


class MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


def bytes_in_use() -> int:
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocInfo
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def bytes_leaked_per_call(call) -> float:
    for _ in range(100):
        call()
    before = bytes_in_use()
    for _ in range(CALLS):
        call()
    return (bytes_in_use() - before) / CALLS


@pytest.mark.parametrize("name", CASES)
def test_operators_do_not_leak(name):
    function, *shapes = CASES[name]
    inputs = tensors(shapes, "cpu")
    assert bytes_leaked_per_call(lambda: function(*inputs)) < 16


def test_failed_calls_do_not_leak():
    """Arguments are also freed if the call fails."""
    x = torch.randn(2, 3, 2, 4)

    def call():
        with pytest.raises(RuntimeError, match="padding_mode must be"):
            OPS.spatial_shift(x, [0, 1], None, "mirror")

    assert bytes_leaked_per_call(call) < 16
