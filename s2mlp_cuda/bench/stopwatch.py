"""Timing: interleaved rounds; on a GPU by events, and CUDA graphs where the host is not to count."""

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch

Work = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

#: A sample on a CPU takes at least so long, if need be by repetition.
LEAST_SECONDS = 5e-3
#: What the caches hold makes a difference of a few milliseconds at the most: a call on a CPU that takes longer than this is not
#: repeated for it.
LONG_SECONDS = 0.05
#: What takes more than so many of the unit, and more than so many seconds, is timed once. The overhead of a call alone is a
#: hundred copies of a tiny map.
SLOW_UNITS, SLOW_SECONDS = 100, 0.1


def _graph_timer(work: Work, pool) -> Callable[[], float]:
    """Captures ``work`` into a CUDA graph; each call of the timer replays it once and returns its seconds."""
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
    graph.replay()

    def timer() -> float:
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3

    return timer


def _synchronized_timer(work: Work, _) -> Callable[[], float]:
    """With what it costs the host to launch it all."""

    def timer() -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    return timer


def _cpu_timer(work: Work, _) -> Callable[[], float]:
    """A sample follows a call that is not counted, so that it finds in the caches what the work itself leaves there."""

    def seconds(repetitions: int) -> float:
        begin = time.perf_counter()
        for _ in range(repetitions):
            work()
        return (time.perf_counter() - begin) / repetitions

    def timer() -> float:
        first = seconds(1)
        return first if first > LONG_SECONDS else seconds(max(1, round(LEAST_SECONDS / max(first, 1e-7))))

    return timer


def interleave(
    works: Mapping[Key, Work], rounds: int, device: torch.device, graphs: bool = True, unit: Key | None = None
) -> dict[Key, list[float]]:
    """Seconds of each work, one number per round: all in turn, so that a slow moment hits all alike. A first round, which
    still gets memory from the system, does not count.

    Args:
        works: what to run; each has run before.
        rounds: how often.
        device: where the works run.
        graphs: on a GPU, time a CUDA graph of each; then none may keep its results.
        unit: the work that others are measured in; those that are hopelessly slow relative to it run in that first round alone,
            and for them it counts.
    """
    make = _cpu_timer if device.type == "cpu" else _graph_timer if graphs else _synchronized_timer
    # None runs while another does: all graphs can use the same memory.
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    timers = {name: make(work, pool) for name, work in works.items()}
    first = {name: timer() for name, timer in timers.items()}
    limit = math.inf if unit is None else max(SLOW_UNITS * first[unit], SLOW_SECONDS)
    samples = {name: [] if seconds <= limit else [seconds] for name, seconds in first.items()}
    repeated = {name: timer for name, timer in timers.items() if not samples[name]}
    for _ in range(rounds):
        for name, timer in repeated.items():
            samples[name].append(timer())
    return samples


def in_turn(work: Callable[[Item], object], items: Sequence[Item], kept: deque) -> Work:
    """``work`` on the next of ``items`` each time, its results in ``kept``: with many of both, all maps come from memory and go to
    memory."""
    turns = itertools.cycle(items)
    return lambda: kept.append(work(next(turns)))


def tensor_bytes_at_peak(work: Work, device: torch.device) -> int:
    """The most bytes of tensors that a run of ``work`` holds beyond what was there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        work()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes.sort(key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in changes), default=0)
