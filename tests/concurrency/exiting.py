"""Ends processes in which operators are running, and prints for each scenario [status, output] as JSON.

    python exiting.py SCENARIO...

PyTorch is imported once: each scenario is a fork, which ends as a Python process does.
"""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

import s2mlp_cuda

SECONDS = 0.3


def run(function, seconds: float) -> None:
    x = torch.randn(2, 16, 16, 96, requires_grad=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        function(x).sum().backward()


class Shifted(Dataset):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, i: int) -> torch.Tensor:
        return s2mlp_cuda.gelu_spatial_shift(torch.full((16, 16, 96), float(i)))


def threads_of_a_pool() -> None:
    """Python waits for them."""
    pool = ThreadPoolExecutor(4)
    for _ in range(4):
        pool.submit(run, s2mlp_cuda.gelu_spatial_shift, SECONDS)


def daemon_threads(function) -> None:
    """Python does not wait for them."""
    for _ in range(4):
        threading.Thread(target=run, args=(function, 60), daemon=True).start()
    time.sleep(SECONDS)


def persistent_workers() -> None:
    """The workers are alive, and have results that nobody has read."""
    global loader
    loader = iter(DataLoader(Shifted(), num_workers=2, persistent_workers=True, multiprocessing_context="fork"))
    next(loader)


SCENARIOS = {
    "threads of a pool": threads_of_a_pool,
    "persistent workers": persistent_workers,
    "daemon threads": lambda: daemon_threads(s2mlp_cuda.gelu_spatial_shift),
    "daemon threads, torch": lambda: daemon_threads(F.gelu),
}


def main(names: list[str]) -> None:
    results = {}
    for name in names:
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                signal.alarm(60)
                SCENARIOS[name]()
                return
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            results[name] = status, output.read()
    print(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(sys.argv[1:])
