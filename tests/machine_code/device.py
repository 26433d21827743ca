"""A virtual device: the host code launches kernels, whose machine code is interpreted."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch

import cubin
import sass
from cases import FAR_MEMORY
from cubin import Kernel
from emulated import build_kernels
from machine import Launch, Program, Statistics, run_launch
from machine_memory import GlobalMemory, Range

NAMESPACE = "s2mlp_machine_code"
WORDS, BYTES, ADDRESSES = (ctypes.POINTER(kind) for kind in (ctypes.c_uint32, ctypes.c_uint8, ctypes.c_uint64))
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_char_p, WORDS, WORDS, BYTES, ctypes.c_int64, ADDRESSES, ctypes.c_int64)


@dataclass(frozen=True)
class Limits:
    """Limits of a device, from which grids are computed."""

    multiprocessors: int
    threads_per_multiprocessor: int


#: So small that grids are capped and their loops run more than once.
SMALL = Limits(1, 256)
HOPPER = Limits(132, 2048)


@dataclass
class Record:
    """An interpreted launch: ``sampled`` of its blocks were run."""

    kernel: Kernel
    blocks: int
    sampled: int
    statistics: Statistics


def sampled_blocks(blocks: int, sample: int | None) -> list[int]:
    """The numbers of ``sample`` blocks; of all blocks if ``sample`` is None.

    One block at a random place in each of ``sample`` equal parts of the grid: equal distances could be in step with the rows of
    the maps. The same in every run.
    """
    if sample is None or sample >= blocks:
        return list(range(blocks))
    places = np.arange(sample) + np.random.default_rng(0).random(sample)
    return (places * blocks / sample).astype(int).tolist()


@cache
def _library() -> ctypes.CDLL:
    path = str(build_kernels("recorded"))
    torch.ops.load_library(path)
    return ctypes.CDLL(path)


@cache
def _kernel_of(type_name: bytes) -> str:
    (plain,) = sass.demangle(["_ZTI" + type_name.decode().lstrip("*")])
    _, _, kernel = plain.partition("Named<&(")
    return sass.short_name(kernel)


@cache
def installed_program(name: str) -> Program:
    """A kernel of the installed binary."""
    return Program(cubin.kernels()[name])


@dataclass
class Device:
    """While it is open, ``ops`` are the package's operators for CPU tensors, computed by interpreted machine code.

    ``sample``: only this many blocks of each launch are run, which suffices for counts, but not for results. ``program`` maps the
    name of a kernel to its program; tests replace it.
    """

    limits: Limits = SMALL
    sample: int | None = None
    program: Callable[[str], Program] = installed_program
    records: list[Record] = field(default_factory=list)
    _failure: BaseException | None = None

    def __enter__(self) -> Device:
        library = _library()
        self._callback = CALLBACK(self._launched)
        library.s2mlp_recorder_set(self._callback, self.limits.multiprocessors, self.limits.threads_per_multiprocessor)
        library.s2mlp_known_memory_begin()
        return self

    def __exit__(self, *_) -> None:
        _library().s2mlp_known_memory_end()

    @property
    def ops(self) -> Operators:
        return Operators(self)

    def _launched(self, type_name, grid, block, parameters, parameter_bytes, const_pointers, const_pointer_count) -> None:
        if self._failure is not None:
            return
        try:
            launch = Launch(
                self.program(_kernel_of(type_name)),
                tuple(grid[:3]),
                tuple(block[:3]),
                bytes(parameters[:parameter_bytes]),
                GlobalMemory(_ranges(bytes(parameters[:parameter_bytes]), set(const_pointers[:const_pointer_count]))),
            )
            blocks = sampled_blocks(launch.blocks, self.sample)
            statistics = run_launch(launch, blocks)
            self.records.append(Record(launch.program.kernel, launch.blocks, len(blocks), statistics))
        except BaseException as failure:  # must not pass through C++
            self._failure = failure

    def raise_failure(self) -> None:
        """Raises the failure of a launch since the last call, if any."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _allocation(address: int) -> tuple[int, int] | None:
    """Begin and size of the tensor memory that contains an address."""
    begin, size = ctypes.c_uint64(), ctypes.c_uint64()
    _library().s2mlp_allocation_of(ctypes.c_uint64(address), ctypes.byref(begin), ctypes.byref(size))
    if size.value:
        return begin.value, size.value
    return next(((first, size) for first, size in FAR_MEMORY.items() if first <= address < first + size), None)


def _ranges(parameters: bytes, const_pointers: set[int]) -> list[Range]:
    """The allocations that any word of the parameters points into. Those with pointers to const only are read-only."""
    words = np.frombuffer(parameters[: len(parameters) // 8 * 8], np.uint64)
    writable: dict[tuple[int, int], bool] = {}
    for address in set(words.tolist()):
        if allocation := _allocation(address):
            writable[allocation] = writable.get(allocation, False) or address not in const_pointers
    return [Range(begin, size, may_write) for (begin, size), may_write in writable.items()]


@dataclass
class Operators:
    """``torch.ops.s2mlp_machine_code``, except that the failure of a launch is raised."""

    device: Device

    def __getattr__(self, name: str):
        operator = getattr(getattr(torch.ops, NAMESPACE), name)

        def call(*arguments, **keywords):
            result = operator(*arguments, **keywords)
            self.device.raise_failure()
            return result

        return call
