"""Threads that call everything at once, in a process in which nothing has been called before."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from calls import differences, make_calls, make_model

THREADS = 16


def import_package(_) -> bool:
    import s2mlp_cuda

    return s2mlp_cuda.convert.convert is not None and s2mlp_cuda.export.to_onnx is not None


def race(intra_op_threads: int) -> list[str]:
    """The first import, then the first call of each operator, by all threads at the same time; then all operators at the same time.

    Returns the names of calls that did not return in every thread the same bits as in a single one. Every thread has its own
    tensors, tables and padding mode; the model is shared.
    """
    assert "s2mlp_cuda" not in sys.modules
    torch.set_num_threads(intra_op_threads)
    barrier = threading.Barrier(THREADS, timeout=60)

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(lambda _: barrier.wait() >= 0 and import_package(_), range(THREADS)))
        model = make_model()
        calls = [make_calls(model, number) for number in range(THREADS)]

        def work(calls: dict) -> list[dict]:
            first = {}
            for name, call in calls.items():
                barrier.wait()
                first[name] = call()
            return [first, *({name: call() for name, call in calls.items()} for _ in range(2))]

        results = list(pool.map(work, calls))
    wrong = set()
    for number, of_thread in enumerate(results):
        expected = {name: call() for name, call in calls[number].items()}
        wrong |= {name for result in of_thread for name in differences(result, expected)}
    return sorted(wrong)
