"""Runs the cases on one library of emulated kernels, in a process with the sanitizers loaded.

    python run_cases.py LIBRARY ORDER SWITCH [NAME]

Prints one JSON object per line: {"case": name} before a case runs, {"case": name, "failure": text} if it failed, and
{"finished": number of cases, "launches": number of emulated launches} at the end.
"""

import ctypes
import json
import sys

import torch

from cases import every_case
from oracle import failure_of


def main(library: str, order: str, switch: str, only: str = "") -> None:
    torch.set_num_threads(1)
    torch.ops.load_library(library)
    control = ctypes.CDLL(library)
    control.s2mlp_set_order(int(order))
    control.s2mlp_set_switch(int(switch))
    control.s2mlp_launches.restype = ctypes.c_int64
    cases = [case for case in every_case() if only in case.name]
    for case in cases:
        print(json.dumps({"case": case.name}), flush=True)
        failure = failure_of(case, torch.ops.s2mlp_cuda_on_cpu)
        if failure:
            print(json.dumps({"case": case.name, "failure": failure}), flush=True)
    print(json.dumps({"finished": len(cases), "launches": control.s2mlp_launches()}), flush=True)


main(*sys.argv[1:])
