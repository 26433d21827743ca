"""Bugs planted in a copy of the sources: the emulation must catch each of them, in the expected way."""

import ctypes
import re

import pytest

import switches
from emulated import ORDERS, ROOT, Run, compile_shared, copy_sources, emulation_flags, run_cases
from switches import ELEMENTS

#: The switch of each bug: the cases to run, the expected finding.
PLANTED = {
    "one row too far": ("shift channels_last float32", "AddressSanitizer: heap-buffer-overflow"),
    "a vector at an address that is no multiple of it": ("shift channels_last float32", "misaligned address"),
    "channels that the vector does not divide": ("shift channels_last float32", "forward differs from the reference"),
    "planes behind the last one": ("shift channels_first float32", "AddressSanitizer: heap-buffer-overflow"),
    "the last item of a launch left out": ("shift channels_last float32", "differs from the reference"),
    "the stride of the channels in planes ignored": ("shift channels_first float32", "differs from the reference"),
    "the outer of two leading axes ignored": ("shift channels_last float32", "differs from the reference"),
    "all leading axes merged": ("shift channels_last float32", "differs from the reference"),
    "a vector that is all of its first channel's group": ("shift channels_last float32", "forward differs from the reference"),
    "a second group that begins one channel late": ("shift channels_last float32", "forward differs from the reference"),
    "every table of groups from the first channel on": ("shift channels_last float32", "forward differs from the reference"),
    "only the first of two readers in planes": ("shift channels_first float32", "adjoint differs from the reference"),
    "sources of a group kept for the next": ("shift channels_first float32", "forward differs from the reference"),
    "no barrier before the sums of other threads are read": ("branches float32", "pool differs from the reference"),
    "no barrier before the sums of parts are read": ("branches float32", "pool differs from the reference"),
    "the last token of a combined map left out": ("branches float32", "combine differs from the reference"),
    "only the first of several readers": ("branches float32", "combine_backward differs from the reference"),
    "an infinite weight times the gradient of a token that nobody reads": (
        "branches float32 .*infinite ends",
        "pool_backward differs from the reference",
    ),
    "zero padding left out of the gradient of the weights": (
        "branches float32 .*infinite ends",
        "combine_backward_weights differs from the reference",
    ),
    "pieces that end between the tokens that a thread loads together": (
        "branches float32 2x17x25",
        "pool differs from the reference",
    ),
    "sums of a piece in the place of another's": ("branches float32 2x17x25", "pool differs from the reference"),
    "where an image begins in 32 bits": ("images far apart", "AddressSanitizer: SEGV"),
    "leading axes merged that do not merge": ("leading axes swapped", "AddressSanitizer: heap-buffer-overflow"),
    "float32 weights at an address that is no multiple of 16 bytes": ("branches float32", "misaligned address"),
    "the slope of GELU at the shifted place": ("gelu none channels_last float32", "backward differs from the reference"),
    "infinity times zero in GELU": ("gelu none channels_last float32", "forward differs from the reference"),
    "one approximation for the other": ("gelu none channels_last float32", "forward differs from the reference"),
}


def test_every_switch_is_tried():
    assert {*PLANTED, ELEMENTS} == set(switches.CUDA)


@pytest.fixture(scope="module")
def failures():
    runs = [Run(only=cases, switch=name) for name, (cases, _) in PLANTED.items()]
    return dict(zip(PLANTED, run_cases("cuda", *runs), strict=True))


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_caught(failures, name):
    _, finding = PLANTED[name]
    assert any(finding in text for text in failures[name].values()), failures[name]


def test_forgotten_padding_mode_does_not_compile(tmp_path):
    """After adding an enumerator, the compiler names every function that has a case for each mode."""
    (last,) = re.findall(r"enum class PaddingMode .*, (\w+) };", (ROOT / "csrc" / "padding.h").read_text())
    edit = ("csrc/padding.h", f"{last} }};", f"{last}, kNew }};")
    folder = copy_sources(tmp_path / "sources", [edit])
    with pytest.raises(AssertionError) as failure:
        compile_shared([folder / "csrc/cpu/spatial_shift.cpp"], tmp_path / "library.so", *emulation_flags(folder), "-fsyntax-only")
    assert str(failure.value).count("error: enumeration value ‘kNew’ not handled in switch") == 6


def wrong_results(folder, edits) -> dict[str, int]:
    """The number of wrong elements of the barrier probe, per thread order."""
    copy_sources(folder, edits)
    library = ctypes.CDLL(str(compile_shared([folder / "barrier_probe.cu"], folder / "probe.so", *emulation_flags(folder))))
    return {order: library.s2mlp_probe_barrier(ORDERS.index(order)) for order in ORDERS}


def test_missing_barrier_is_caught(tmp_path):
    assert wrong_results(tmp_path / "right", []) == dict.fromkeys(ORDERS, 0)
    without = wrong_results(tmp_path / "wrong", [("barrier_probe.cu", "  __syncthreads();\n", "")])
    assert max(without.values()) > 0, without
