"""SIGINT while operators run."""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable

import torch

from calls import differences, make_calls, make_model


def _call_until_interrupted(calls: Iterable[Callable], seconds: float) -> None:
    # A process that was started in the background, as by nohup, ignores SIGINT otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        for call in itertools.cycle(calls):
            call()
    except KeyboardInterrupt:
        timer.join()


def interrupt(times: int) -> list[str]:
    """Interrupts the operators of the main thread, while another thread calls them, too.

    Returns the names of calls whose results have changed after an interrupt.
    """
    torch.set_num_threads(2)
    calls = make_calls(make_model())
    expected = {name: call() for name, call in calls.items()}
    end = threading.Event()

    def call_in_background() -> None:
        while not end.is_set():
            for call in calls.values():
                call()

    background = threading.Thread(target=call_in_background)
    background.start()
    wrong = set()
    for number in range(times):
        _call_until_interrupted(calls.values(), 0.001 * (1 + number % 40))
        wrong |= set(differences({name: call() for name, call in calls.items()}, expected))
    end.set()
    background.join()
    return sorted(wrong)


def interrupt_small_maps(times: int) -> int:
    """The number of interrupts, out of ``times``, after which autograd still records."""
    from s2mlp_cuda import spatial_shift

    torch.set_num_threads(1)
    x = torch.randn(3, 3, 8, requires_grad=True)
    detached = x.detach()
    recorded = 0
    for number in range(times):
        _call_until_interrupted([lambda: spatial_shift(x), lambda: spatial_shift(detached)], 1e-5 * (number % 30))
        recorded += spatial_shift(x).requires_grad
    return recorded
