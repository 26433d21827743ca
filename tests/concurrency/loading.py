"""Operators in the worker processes of a DataLoader, and in a forked process with one thread."""

import multiprocessing
from functools import cache

import torch
from torch.utils.data import DataLoader, Dataset

from calls import differences, make_calls, make_model


@cache
def calls() -> dict:
    return make_calls(make_model())


class Results(Dataset):
    """Item i is the result of call i, computed by the worker."""

    def __len__(self) -> int:
        return len(calls())

    def __getitem__(self, i: int) -> list[torch.Tensor]:
        return list(calls().values())[i]()


def load(start_method: str, after_threads: bool) -> list[str]:
    """The names of calls with other results in workers than in the parent, which may have used two threads before."""
    torch.set_num_threads(2)

    def of_parent() -> dict:
        return {name: call() for name, call in calls().items()}

    before = of_parent() if after_threads else {}
    loader = DataLoader(Results(), batch_size=None, num_workers=1, multiprocessing_context=start_method, timeout=60)
    results = dict(zip(calls(), loader, strict=True))
    return differences(results, before or of_parent())


def _forked(queue) -> None:
    torch.set_num_threads(1)
    queue.put({name: [tensor.numpy() for tensor in call()] for name, call in calls().items()})


def fork_to_one_thread() -> list[str]:
    """As ``load``, for a process forked after the parent has used two threads."""
    torch.set_num_threads(2)
    expected = {name: call() for name, call in calls().items()}
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_forked, args=(queue,))
    process.start()
    arrays = queue.get(timeout=60)
    process.join()
    return differences({name: list(map(torch.from_numpy, of_call)) for name, of_call in arrays.items()}, expected)
