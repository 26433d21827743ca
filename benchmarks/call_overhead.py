"""Per-call overhead, measured on a map of 32 elements: writes results/call-overhead-torch<version>.json.

python benchmarks/call_overhead.py
"""

import time

import torch

from s2mlp_cuda import spatial_shift

from results import write_result


def microseconds(function, calls: int = 2000, rounds: int = 15) -> float:
    """The minimum over rounds of the mean time of a call."""
    seconds = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        seconds = min(seconds, time.perf_counter() - begin)
    return seconds / calls * 1e6


def main() -> None:
    x = torch.randn(1, 2, 2, 8)
    leaf, grad = x.clone().requires_grad_(), torch.ones_like(x)
    with torch.no_grad():
        shift, clone = microseconds(lambda: spatial_shift(x)), microseconds(lambda: x.clone())
    overhead = {
        "clone, no grad": clone,
        "spatial_shift, no grad": shift,
        "spatial_shift, forward with grad": microseconds(lambda: spatial_shift(leaf)),
        "spatial_shift, forward + backward": microseconds(lambda: torch.autograd.grad(spatial_shift(leaf), leaf, grad)),
    }
    write_result("call-overhead", {"what": "microseconds per call, minimum of 15 rounds of 2000 calls", "microseconds": overhead})


if __name__ == "__main__":
    main()
