"""Timing: interleaved rounds, medians and quartiles; on a GPU by CUDA graphs and events."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Microseconds of one call: median and quartiles over the rounds."""

    median: float
    first_quartile: float
    third_quartile: float


def _cuda_timer(work: Work, pool) -> Callable[[], float]:
    """Captures ``work`` into a CUDA graph; each call of the timer replays it once and returns its microseconds."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def timer() -> float:
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3

    return timer


def _cpu_timer(work: Work, _) -> Callable[[], float]:
    work()

    def timer() -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1e6

    return timer


def measure(works: dict[str, Work], calls: dict[str, int] | int, rounds: int, device: torch.device) -> dict[str, Spread]:
    """Times all works in turn, ``rounds`` times over, so that a slow moment hits all alike.

    Args:
        works: what to run; each run makes ``calls`` calls of what is measured.
        calls: by how many to divide, one number for all or one per name.
        rounds: at least two.
        device: where the works run.
    """
    make = _cuda_timer if device.type == "cuda" else _cpu_timer
    # No work keeps its results, and none runs while another does: all graphs can use the same memory.
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    timers = {name: make(work, pool) for name, work in works.items()}
    samples: dict[str, list[float]] = {name: [] for name in works}
    for timer in timers.values():
        timer()
    for _ in range(rounds):
        for name, timer in timers.items():
            samples[name].append(timer() / (calls if isinstance(calls, int) else calls[name]))
    spreads = {}
    for name, values in samples.items():
        first, median, third = statistics.quantiles(values, n=4)
        spreads[name] = Spread(median, first, third)
    return spreads
