"""Timing in interleaved rounds. On a GPU, CUDA graphs and events exclude the host's overhead."""

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch

Workload = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

#: The minimum duration of a sample on a CPU; shorter calls are repeated.
MIN_SECONDS = 5e-3
#: CPU calls that take longer than this are not preceded by a warm-up call: cache effects are a few milliseconds at most.
LONG_SECONDS = 0.05
#: Workloads that take longer than both limits are timed once. The limit in seconds is needed because call overhead alone is a
#: hundred copies of a tiny map.
SLOW_UNITS, SLOW_SECONDS = 100, 0.1


def _graph_timer(workload: Workload, pool) -> Callable[[], float]:
    """Captures ``workload`` in a CUDA graph. Each call of the timer replays it once and returns the elapsed seconds."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            workload()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        workload()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()

    def timer() -> float:
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3

    return timer


def _synchronized_timer(workload: Workload, _) -> Callable[[], float]:
    """Includes the host's launch overhead."""

    def timer() -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        workload()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    return timer


def _cpu_timer(workload: Workload, _) -> Callable[[], float]:
    """Each sample follows an uncounted warm-up call, so that the caches are in the state that the workload itself leaves."""

    def seconds(repetitions: int) -> float:
        begin = time.perf_counter()
        for _ in range(repetitions):
            workload()
        return (time.perf_counter() - begin) / repetitions

    def timer() -> float:
        first = seconds(1)
        return first if first > LONG_SECONDS else seconds(max(1, round(MIN_SECONDS / max(first, 1e-7))))

    return timer


def interleave(
    workloads: Mapping[Key, Workload], rounds: int, device: torch.device, graphs: bool = True, unit: Key | None = None
) -> dict[Key, list[float]]:
    """The seconds of each workload in each round. Rounds are interleaved, so that variations of the machine's speed affect all
    workloads alike. A first round, in which memory is still allocated from the system, is not counted.

    Args:
        workloads: functions to time; each must have been called before.
        rounds: number of rounds.
        device: the device that the workloads run on.
        graphs: on a GPU, time a CUDA graph of each workload; workloads must then not keep their results.
        unit: the workload that times are relative to. Workloads that are much slower run only in the first round, which is then
            counted for them.
    """
    make = _cpu_timer if device.type == "cpu" else _graph_timer if graphs else _synchronized_timer
    # Graphs never run concurrently, so they can share one memory pool.
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    timers = {name: make(workload, pool) for name, workload in workloads.items()}
    first = {name: timer() for name, timer in timers.items()}
    limit = math.inf if unit is None else max(SLOW_UNITS * first[unit], SLOW_SECONDS)
    samples = {name: [] if seconds <= limit else [seconds] for name, seconds in first.items()}
    repeated = {name: timer for name, timer in timers.items() if not samples[name]}
    for _ in range(rounds):
        for name, timer in repeated.items():
            samples[name].append(timer())
    return samples


def rotate(workload: Callable[[Item], object], items: Sequence[Item], results: deque) -> Workload:
    """A workload that rotates through ``items`` and appends its results to ``results``. With many of both, all maps are read from
    memory and written to memory."""
    cycle = itertools.cycle(items)
    return lambda: results.append(workload(next(cycle)))


def tensor_bytes_at_peak(workload: Workload, device: torch.device) -> int:
    """The peak memory of tensors that a call of ``workload`` allocates, in bytes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        workload()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        workload()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes.sort(key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in changes), default=0)
