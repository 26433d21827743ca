"""Runs functions in fresh processes, which have imported PyTorch and done nothing with it."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def in_fresh_process(function: Callable, *arguments):
    """The result of a function of a module. PyTorch is imported only once for all of these processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result(timeout=120)
