"""Operators and models that several threads call at the same time."""

import inspect

import pytest

from s2mlp_cuda import _arguments, ops

from calls import make_calls, make_model
from fresh import in_fresh_process
from racing import race


def test_all_public_operators_are_called():
    operators = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert operators <= make_calls(make_model()).keys()


@pytest.mark.parametrize("intra_op_threads", [1, 2])
def test_first_calls_in_sixteen_threads_are_bitwise_those_of_one(intra_op_threads):
    assert in_fresh_process(race, intra_op_threads) == []


def test_shift_tables_of_several_threads_do_not_outgrow_their_cache(monkeypatch):
    """Two threads find room for one more table at the same time."""
    cached = _arguments._cached(lambda table: table)
    cache = inspect.getclosurevars(cached).nonlocals["cache"]
    tables = [((i, 0),) for i in range(1000)]
    for table in tables[: _arguments._CACHE_SIZE - 1]:
        cached(table)

    def size_before_the_other_thread(entries) -> int:
        monkeypatch.undo()
        size = len(entries)
        cached(((0, 1),))
        return size

    monkeypatch.setattr(_arguments, "len", size_before_the_other_thread, raising=False)
    for table in tables[_arguments._CACHE_SIZE :]:
        cached(table)
    assert len(cache) <= _arguments._CACHE_SIZE
