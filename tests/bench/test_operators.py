"""Benchmarks of all implementations of all operators on a tiny map: checked, timed, and marked if wrong."""

import time
from dataclasses import replace

import pytest
import torch

from s2mlp_cuda import spatial_shift
from s2mlp_cuda.bench import baselines, operators, stopwatch
from s2mlp_cuda.bench.measurement import COPY
from s2mlp_cuda.bench.operators import (
    BOTH,
    FORWARD,
    OPERATORS,
    SINGLE_CHANNELS,
    SPATIAL_SHIFT,
    UNEQUAL_GROUPS,
    Operator,
    OperatorJob,
    Oracle,
)

SHAPE = (2, 6, 7, 16)
MAP_BYTES = 2 * 6 * 7 * 16 * 4


def job(operator, data_format="channels_last", dtype=torch.float32, names=None, device="cpu"):
    return OperatorJob(operator, SHAPE, data_format, dtype, torch.device(device), 2, names)


def eager(operator, data_format):
    return frozenset(name for name in operator.implementations(data_format) if not name.startswith("torch.compile"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "operator, data_format",
    [(op, "channels_last") for op in OPERATORS] + [(SPATIAL_SHIFT, "channels_first")],
    ids=lambda value: getattr(value, "name", value),
)
def test_all_but_in_place_slices_are_correct(operator, data_format, dtype, device, monkeypatch):
    monkeypatch.setattr(stopwatch, "SLOW_SECONDS", 60)  # a busy machine must not make a call look slow, which is timed once
    names = eager(operator, data_format)
    found = job(operator, data_format, dtype, names, device).run()
    assert [(m.case.direction, m.name) for m in found] == job(operator, data_format, dtype, names, device).results()
    for m in found:
        if m.failure:
            assert m.name == baselines.DEFORM and dtype == torch.bfloat16, m  # torchvision has no such kernel for CPUs
            continue
        expected = None if m.name == COPY or m.name == baselines.GELU_ALONE else baselines.IN_PLACE not in m.name
        assert m.right is expected, m
        assert len(m.seconds) == 2 and min(m.seconds) > 0
        assert m.floor_bytes > 0


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("operator, channels", [(UNEQUAL_GROUPS, 96), (SINGLE_CHANNELS, 64)])
def test_all_are_correct_with_other_groups(operator, channels, data_format):
    names = eager(operator, data_format)
    assert {baselines.OURS, "slices + cat", "hand-written Function of slices", "padded roll", "index_select + cat"} < names
    found = replace(job(operator, data_format, names=names), shape=(2, 6, 7, channels)).run()
    assert all(m.right for m in found if m.name != COPY), found
    assert found[0].case.subject == operator.name


def test_maps_are_read_from_memory_and_written_to_memory(monkeypatch):
    """Between two uses of the same input, and between two outputs at the same address, calls go through ``ROTATE_BYTES`` of other
    maps."""
    monkeypatch.setitem(operators.ROTATE_BYTES, "cpu", 5 * MAP_BYTES)
    monkeypatch.setattr(stopwatch, "MIN_SECONDS", 0.05)  # enough calls on any machine
    calls = []  # requires_grad, address of the input, address of the output

    def recorded_shift(x):
        y = spatial_shift(x)
        calls.append((x.requires_grad, x.data_ptr(), y.data_ptr()))
        return y

    replace(job(replace(SPATIAL_SHIFT, implementations=lambda _: {"shift": recorded_shift})), rounds=1).run()
    timed = calls[4:]  # the first four are two checks and two profiled calls
    for with_grad in (False, True):
        inputs, outputs = zip(*((x, y) for grad, x, y in timed if grad is with_grad))
        assert len(inputs) >= 40 and len(set(inputs)) == 5 and inputs[5:] == inputs[:-5]
        assert all(len(set(outputs[i : i + 5])) == 5 for i in range(10))  # later calls alternate with copies


def test_very_slow_implementations_are_timed_once():
    calls = []

    def slow(x):
        calls.append(x)
        time.sleep(0.15)
        return spatial_shift(x)

    functions = {"s2mlp_cuda.spatial_shift": spatial_shift, "slow": slow}
    found = replace(job(replace(SPATIAL_SHIFT, implementations=lambda _: functions)), rounds=5).run()
    assert {(m.name, len(m.seconds)) for m in found if m.name != COPY} == {("s2mlp_cuda.spatial_shift", 5), ("slow", 1)}
    assert all(m.right for m in found if m.name == "slow")
    assert len(calls) == 6  # check, profile and timing, each with and without autograd


@pytest.mark.parametrize("name", ["torch.compile(slices + cat)", "torch.compile(index_select + cat)"])
def test_compiled_implementations_are_correct(name):
    found = job(SPATIAL_SHIFT, names=frozenset({name})).run()
    assert all(m.right for m in found if m.name == name)


def test_peak_memory_of_a_call():
    found = {(m.case.direction, m.name): m for m in job(SPATIAL_SHIFT, names=frozenset({baselines.OURS, "padded roll"})).run()}
    assert found[FORWARD, baselines.OURS].peak_bytes == MAP_BYTES
    assert found[BOTH, baselines.OURS].peak_bytes == 2 * MAP_BYTES  # the output is still alive when the gradient is allocated
    assert found[FORWARD, "padded roll"].peak_bytes > 2 * MAP_BYTES


def _wrong_gradient(x):
    return x.detach() * 0 + spatial_shift(x) * 2 - spatial_shift(x).detach()


def _fails(x):
    raise RuntimeError("not today\nand more")


def _fails_silently(x):
    raise NotImplementedError


def test_wrong_gradients_and_failures_are_reported():
    functions = {"s2mlp_cuda.spatial_shift": spatial_shift, "wrong": _wrong_gradient, "fails": _fails, "silent": _fails_silently}
    operator = Operator("spatial_shift", lambda _: functions, operators._one_map, SPATIAL_SHIFT.oracle, 2, 2, exact=False)
    found = {(m.case.direction, m.name): m for m in job(operator).run()}
    assert torch.allclose(_wrong_gradient(torch.ones(SHAPE)), torch.ones(SHAPE))  # its output is correct
    assert found[FORWARD, "wrong"].right is False and found[BOTH, "s2mlp_cuda.spatial_shift"].right
    assert found[BOTH, "fails"].failure == "RuntimeError: not today" and found[BOTH, "fails"].seconds == ()
    assert found[FORWARD, "silent"].failure == "NotImplementedError: "


def _modifies_its_input(x):
    x.data.fill_(float("nan"))
    return x * 1


def test_implementations_that_modify_their_input_do_not_affect_others():
    functions = {"modifies": _modifies_its_input, "s2mlp_cuda.spatial_shift": spatial_shift}
    operator = Operator("spatial_shift", lambda _: functions, operators._one_map, SPATIAL_SHIFT.oracle, 2, 2, exact=False)
    right = {m.name: m.right for m in job(operator).run()}
    assert right == {COPY: None, "modifies": False, "s2mlp_cuda.spatial_shift": True}


def test_inaccurate_sums_are_accepted_but_a_wrong_table_is_not():
    """In bfloat16, where rounding errors are largest: the oracle accepts the accuracy of the reference, but no other function."""
    x = torch.randn(2, 9, 9, 48).bfloat16()
    weights = torch.randn(4, 16).bfloat16(), torch.randn(48, 4).bfloat16()
    attention = OPERATORS[2]
    swapped = lambda *inputs: baselines.split_attention(*inputs, shift=lambda m, table: spatial_shift(m, table[::-1]))  # noqa: E731
    slices = attention.implementations("channels_last")["stack, slices + cat"]
    oracle = Oracle(attention, [x, *weights], "channels_last")
    assert oracle.accepts(slices) and not oracle.accepts(swapped)


def test_an_implementation_that_is_wrong_only_without_autograd_is_wrong():
    """Compiled functions, and functions that check ``x.requires_grad``, run different code without autograd."""
    oracle = Oracle(SPATIAL_SHIFT, [torch.randn(SHAPE)], "channels_last")
    assert oracle.accepts(spatial_shift)
    assert not oracle.accepts(lambda x: spatial_shift(x) if x.requires_grad else x * 1)
    assert not oracle.accepts(lambda x: spatial_shift(x) * (1 + 1e-6))  # a shift must be bitwise exact
