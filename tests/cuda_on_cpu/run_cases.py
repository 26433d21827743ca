"""Runs cases on one library of emulated kernels, with the sanitizers loaded, each run in a process of its own.

    python run_cases.py LIBRARY "[[ORDER, SWITCH, ONLY, CALLERS], ...]"

ONLY is a regular expression for the names of cases. As many threads as CALLERS says run each case at the same time. Prints one JSON
object per run: "status" of its process (minus the signal that ended it), its "errors" (standard error), and "events":
{"case": name} before a case runs, {"case": name, "failure": text} if it failed, and {"finished": number of cases, "launches":
number of emulated launches} at the end.
"""

import ctypes
import json
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import torch

from cases import every_case
from oracle import failure_of


def run(control: ctypes.CDLL, order: int, switch: int, only: str, callers: int) -> None:
    control.s2mlp_set_order(order)
    control.s2mlp_set_switch(switch)
    cases = [case for case in every_case() if re.search(only, case.name)]
    for case in cases:
        print(json.dumps({"case": case.name}), flush=True)
        failure = failure_in_threads(case, callers) if callers > 1 else failure_of(case, torch.ops.s2mlp_cuda_on_cpu)
        if failure:
            print(json.dumps({"case": case.name, "failure": failure}), flush=True)
    print(json.dumps({"finished": len(cases), "launches": control.s2mlp_launches()}), flush=True)


def failure_in_threads(case, callers: int) -> str:
    with ThreadPoolExecutor(callers) as pool:
        failures = pool.map(failure_of, [case] * callers, [torch.ops.s2mlp_cuda_on_cpu] * callers)
    return max(failures)


def in_a_process(control: ctypes.CDLL, *arguments) -> dict:
    """A fork, so that the imports and the library are loaded once."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            run(control, *arguments)
            sys.stdout.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        errors.seek(0)
        events = [json.loads(line) for line in out if line.startswith("{")]
        return {"status": status, "events": events, "errors": errors.read()}


def main(library: str, runs: str) -> None:
    torch.set_num_threads(1)
    torch.ops.load_library(library)
    control = ctypes.CDLL(library)
    control.s2mlp_launches.restype = ctypes.c_int64
    for arguments in json.loads(runs):
        print(json.dumps(in_a_process(control, *arguments)), flush=True)


main(*sys.argv[1:])
