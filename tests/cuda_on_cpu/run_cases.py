"""Runs the cases on one library of emulated kernels, in a process that has the sanitizers loaded.

    python run_cases.py LIBRARY ORDER [NAME]

One JSON object per line: {"case": name} before a case runs, {"case": name, "failure": text} when it was wrong, and
{"finished": number of cases} at the end.
"""

import ctypes
import json
import sys

import torch

from cases import Case, all_cases
from s2mlp_cuda import reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def failure_of(case: Case) -> str:
    """Forward to the bit, adjoint to rounding, against the slice reference; empty when both are right."""
    ops = torch.ops.s2mlp_cuda_on_cpu
    x = case.make()
    flat = [d for pair in case.offsets for d in pair]
    keywords = {"padding_mode": case.mode, "data_format": case.data_format}
    out = ops.spatial_shift(x, flat, None, **keywords)
    if not torch.equal(out, reference.spatial_shift(x, case.offsets, **keywords)):
        return "forward differs from the reference"
    if not x.is_floating_point():
        return ""
    ours = ops.spatial_shift_backward(x, flat, None, **keywords)
    leaf = torch.zeros(x.shape, dtype=torch.float64, requires_grad=True)
    shifted = reference.spatial_shift(leaf, case.offsets, **keywords)
    (expected,) = torch.autograd.grad(shifted, leaf, x.double())
    tolerance = TOLERANCE[case.dtype]
    if not torch.allclose(ours.double(), expected, rtol=tolerance, atol=tolerance):
        return "adjoint differs from the reference"
    return ""


def main(library: str, order: str, only: str = "") -> None:
    torch.set_num_threads(1)
    torch.ops.load_library(library)
    control = ctypes.CDLL(library)
    control.s2mlp_set_order(int(order))
    control.s2mlp_launches.restype = ctypes.c_int64
    cases = [case for case in all_cases() if only in case.name]
    for case in cases:
        print(json.dumps({"case": case.name}), flush=True)
        failure = failure_of(case)
        if failure:
            print(json.dumps({"case": case.name, "failure": failure}), flush=True)
    assert control.s2mlp_launches() >= len(cases), "kernels were not launched"
    print(json.dumps({"finished": len(cases)}), flush=True)


main(*sys.argv[1:])
