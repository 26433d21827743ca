"""Operators in other processes. PyTorch itself hangs in a forked process with several threads, if its parent has used several."""

import pytest

from fresh import in_fresh_process
from loading import fork_to_one_thread, load


@pytest.mark.parametrize(
    ("start_method", "after_threads"), [("fork", False), ("fork", True), ("forkserver", True), ("spawn", True)]
)
def test_workers_of_a_data_loader(start_method, after_threads):
    assert in_fresh_process(load, start_method, after_threads) == []


def test_forked_process_with_one_thread():
    assert in_fresh_process(fork_to_one_thread) == []
