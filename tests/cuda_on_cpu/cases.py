"""The test cases of the emulated kernels: every kernel, element size, vector width, padding mode and memory layout."""

import mmap
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from s2mlp_cuda import offsets
from s2mlp_cuda._arguments import even_group_sizes
from s2mlp_cuda.ops import PADDING_MODES

from gelu_accuracy import every_value

DTYPES = (torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64)
STAY = ((0, 0),)
TABLES = {
    "stay": STAY,
    "V1": offsets.V1,
    "eight-way": offsets.EIGHT_WAY,
    "far": ((2, -3), (0, 0), (-1, 40), (-50, 1)),
    "unequal": ((1, -2), (0, 1), (-1, 0), (0, -1)),
    "a group for each channel": tuple((i % 7 - 3, i % 2) for i in range(50)),
}
#: Shift tables of the branches of split attention.
BRANCHES = {
    "one": (offsets.SS1,),
    "two": (TABLES["far"], offsets.V1),
    "paper": (offsets.SS1, offsets.SS2, STAY),
    "five": (offsets.SS2, STAY, offsets.EIGHT_WAY, TABLES["far"], offsets.SS1),
}


def many_offsets(count: int) -> tuple[tuple[int, int], ...]:
    return tuple((i % 5 - 2, i % 7 - 3) for i in range(count))


def make_map(
    shape: tuple[int, ...], dtype: torch.dtype, data_format: str, memory: str, device: str = "cpu", seed: int = 0
) -> torch.Tensor:
    """A random map. In every memory layout, its last element is the last one of its allocation."""
    torch.manual_seed(seed)

    def empty(shape) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    def fill(x: torch.Tensor) -> torch.Tensor:
        if dtype == torch.uint8:
            return x.copy_(torch.randint(0, 255, x.shape))
        return x.copy_(torch.randn(x.shape))

    count = torch.Size(shape).numel()
    if memory == "exact":
        return fill(empty(shape))
    if memory.startswith("skip "):  # the first element is this many elements into an aligned buffer
        skip = int(memory.removeprefix("skip "))
        return fill(empty(count + skip)[skip:].view(shape))
    if memory == "slice":  # a corner of a larger map, along every axis
        larger = empty([n + 3 for n in shape])
        return fill(larger[tuple(slice(3, None) for _ in shape)])
    if memory == "every other":  # every other channel and image of a larger map
        channel = -1 if data_format == "channels_last" else -3
        larger = list(shape)
        larger[0] *= 2
        larger[channel] *= 2
        cut = [slice(None)] * len(shape)
        cut[0] = cut[channel] = slice(1, None, 2)
        return fill(empty(larger)[tuple(cut)])
    if memory == "infinities":  # of both signs
        return empty(shape).copy_(torch.randn(shape).sign() * torch.inf)
    if memory == "infinite ends":  # random, but the first and the last element are infinite
        x = fill(empty(shape))
        x.view(-1)[[0, -1]] = torch.inf
        return x
    if memory == "every value":
        return empty(shape).copy_(every_value(dtype).view(shape))
    if memory == "ones":
        return empty(shape).fill_(1)
    if memory == "frames":  # all frames of each image but the last: the two leading axes do not merge
        return fill(empty((shape[0], shape[1] + 1, *shape[2:]))[:, :-1])
    if memory == "transposed":  # the memory layout of the other data format
        last = data_format == "channels_last"
        inner = (shape[-1], *shape[-3:-1]) if last else (*shape[-2:], shape[-3])
        dense = fill(empty((*shape[:-3], *inner)))
        return dense.movedim(-3, -1) if last else dense.movedim(-1, -3)
    if memory == "leading axes swapped":  # two axes that do not merge
        return fill(empty((shape[1], shape[0], *shape[2:]))).transpose(0, 1)
    if memory == "images far apart":  # 2^31 elements apart; on a CPU, the gap is never touched and takes no memory
        return fill(far_apart(shape, dtype, device))
    assert memory == "expanded"
    return fill(empty((1, *shape[1:]))).expand(shape)


#: Begin and size of memory on the CPU that PyTorch did not allocate, while it exists: see ``far_apart``.
FAR_MEMORY: dict[int, int] = {}


def far_apart(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """An uninitialized map. On a CPU, its memory is mapped here: a sanitizer would touch all of an allocation when it is freed."""
    count = 2**31 * (shape[0] - 1) + torch.Size(shape[1:]).numel()
    if device == "cpu":
        no_reserve = 0x4000  # MAP_NORESERVE of Linux
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
        memory = mmap.mmap(-1, count * dtype.itemsize, flags=flags)
        buffer = torch.frombuffer(memory, dtype=dtype)
        FAR_MEMORY[buffer.data_ptr()] = len(memory)
        weakref.finalize(memory, FAR_MEMORY.pop, buffer.data_ptr())
    else:
        buffer = torch.empty(count, dtype=dtype, device=device)
    return buffer.as_strided(shape, (2**31, *torch.empty(shape[1:], device="meta").stride()))


@dataclass(frozen=True)
class Case:
    """``memory`` is the memory layout of the map in its buffer: see ``make_map``."""

    table: str
    mode: str
    dtype: torch.dtype
    data_format: str
    shape: tuple[int, ...]
    memory: str = "exact"

    @property
    def name(self) -> str:
        return f"shift {self.description}"

    @property
    def description(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{self.data_format} {str(self.dtype)[6:]} {size} {self.memory} {self.mode} {self.table}"

    @property
    def channels(self) -> int:
        return self.shape[-1 if self.data_format == "channels_last" else -3]

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        return many_offsets(self.channels) if self.table == "many groups" else TABLES[self.table]

    @property
    def group_sizes(self) -> list[int] | None:
        """Channels per group of the table "unequal": one group is empty, the others are no multiple of any vector."""
        return [self.channels // 5, 0, self.channels - self.channels // 5 - 3, 3] if self.table == "unequal" else None

    def make(self, device: str = "cpu") -> torch.Tensor:
        return make_map(self.shape, self.dtype, self.data_format, self.memory, device)


@dataclass(frozen=True)
class GeluCase(Case):
    """The shift after GELU; ``grad_memory`` is the memory layout of the gradient."""

    grad_memory: str = "exact"
    approximate: str = "none"

    @property
    def name(self) -> str:
        return f"gelu {self.approximate} {self.description} {self.grad_memory}"

    def make_grad(self, device: str = "cpu") -> torch.Tensor:
        return make_map(self.shape, self.dtype, self.data_format, self.grad_memory, device, seed=1)


@dataclass(frozen=True)
class BranchCase:
    """The branch ops of split attention; ``shape`` is the shape of one branch's map, (..., H, W, C)."""

    table: str  # of BRANCHES
    mode: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    memory: str = "exact"  # of the expanded map
    grad_memory: str = "exact"
    weights_memory: str = "exact"

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.shape))
        memory = f"{self.memory}, {self.grad_memory}, {self.weights_memory}"
        return f"branches {str(self.dtype)[6:]} {size} {memory} {self.mode} {self.table}"

    @property
    def tables(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        if self.table == "many groups":  # more than fit into one launch
            return many_offsets(40), STAY, many_offsets(40)[::-1]
        return BRANCHES[self.table]

    @property
    def group_sizes(self) -> list[int]:
        """Channels per group, through all branches."""
        sizes = []
        for table in self.tables:
            sizes += even_group_sizes(self.shape[-1], len(table))
        return sizes

    def make(self, device: str = "cpu") -> dict[str, torch.Tensor]:
        """The expanded map, the weights, and the gradients of the combined map and of the pooled sums."""
        *leading, height, width, channels = self.shape
        numbers = torch.float64 if self.dtype == torch.float64 else torch.float32
        expanded = (*leading, height, width, len(self.tables) * channels)
        return {
            "x": make_map(expanded, self.dtype, "channels_last", self.memory, device),
            "weights": make_map(
                (*leading, len(self.tables), channels), numbers, "channels_last", self.weights_memory, device, seed=1
            ),
            "grad": make_map(self.shape, self.dtype, "channels_last", self.grad_memory, device, seed=2),
            "pool_grad": make_map((*leading, channels), numbers, "channels_last", self.weights_memory, device, seed=3),
        }


def all_cases() -> Iterator[Case]:
    """Cases of the shift alone."""
    for dtype in DTYPES:
        full = 16 // dtype.itemsize
        for mode in PADDING_MODES:
            vector = full
            while vector >= 1:  # four groups of 3 * vector channels: the widest vector that fits is `vector`
                for table in ("V1", "far"):
                    yield Case(table, mode, dtype, "channels_last", (2, 5, 7, 12 * vector))
                vector //= 2
            yield Case("eight-way", mode, dtype, "channels_last", (3, 4, 8 * full))
            yield Case("V1", mode, dtype, "channels_last", (2, 3, 4, 13))
            yield Case("V1", mode, dtype, "channels_last", (1, 14, 14, 8 * full), "skip 1")
            yield Case("far", mode, dtype, "channels_last", (2, 5, 3, 8 * full), "slice")
            yield Case("V1", mode, dtype, "channels_last", (2, 5, 6, 8), "transposed")
            yield Case("many groups", mode, dtype, "channels_last", (1, 3, 4, 150))
            yield Case("many groups", mode, dtype, "channels_last", (1, 3, 4, 16 * full))
            yield Case("unequal", mode, dtype, "channels_last", (2, 5, 4, 4 * full))
            yield Case("unequal", mode, dtype, "channels_last", (2, 3, 4, 23))
            yield Case("unequal", mode, dtype, "channels_first", (2, 23, 5, 4))
            yield Case("V1", mode, dtype, "channels_last", (3, 2, 5, 4, 4 * full), "frames")
            yield Case("V1", mode, dtype, "channels_last", (3, 5, 4, 4 * full), "every other")
            yield Case("V1", mode, dtype, "channels_first", (3, 8, 5, 4), "every other")
            yield Case("V1", mode, dtype, "channels_first", (3, 2, 8, 5, 4), "frames")
            yield Case("V1", mode, dtype, "channels_last", (1, 1, 4 * full + 1))  # no stride matters, the number of channels does
            yield Case("V1", mode, dtype, "channels_first", (3, 5, 3, 3))  # the last period of planes is partial
            yield Case("V1", mode, dtype, "channels_first", (5, 4, 3, 3))  # a period has more planes than an image
            for data_format, shape in (("channels_last", (2, 5, 6, 50)), ("channels_first", (1, 50, 5, 6))):
                yield Case("a group for each channel", mode, dtype, data_format, shape)
            for table in ("V1", "eight-way", "far"):
                for height, width in ((14, 14), (5, 7), (4, 33)):
                    yield Case(table, mode, dtype, "channels_first", (2, 8, height, width))
            for table in ("V1", "eight-way"):  # enough consecutive planes per group for the CPU to blend them
                yield Case(table, mode, dtype, "channels_first", (1, 24, 14, 14))
            for height, width in ((1, 1), (1, 9), (9, 1), (32, 32)):
                yield Case("V1", mode, dtype, "channels_first", (2, 4, height, width))
            for skip in (1, 3):
                yield Case("V1", mode, dtype, "channels_first", (2, 6, 7, 9), f"skip {skip}")
            yield Case("eight-way", mode, dtype, "channels_first", (2, 3, 8, 6, 5), "slice")
            yield Case("V1", mode, dtype, "channels_first", (3, 8, 6, 5), "expanded")
            yield Case("V1", mode, dtype, "channels_first", (2, 4, 6, 5), "transposed")
            yield Case("many groups", mode, dtype, "channels_first", (1, 70, 3, 4))


def gelu_cases() -> Iterator[GeluCase]:
    for dtype in DTYPES[1:]:
        full = 16 // dtype.itemsize
        for mode in PADDING_MODES:
            for approximate in ("none", "tanh"):
                yield GeluCase("V1", mode, dtype, "channels_last", (2, 5, 7, 12 * full), approximate=approximate)
                yield GeluCase("V1", mode, dtype, "channels_first", (2, 8, 5, 7), approximate=approximate)
            yield GeluCase("far", mode, dtype, "channels_last", (2, 14, 14, 8 * full))
            yield GeluCase("V1", mode, dtype, "channels_last", (2, 3, 4, 13), approximate="tanh")
            yield GeluCase("eight-way", mode, dtype, "channels_last", (3, 4, 8 * full))
            yield GeluCase("V1", mode, dtype, "channels_last", (1, 9, 4 * full))
            yield GeluCase("V1", mode, dtype, "channels_last", (9, 1, 4 * full), approximate="tanh")
            yield GeluCase("V1", mode, dtype, "channels_last", (1, 6, 6, 8 * full), "skip 1")
            yield GeluCase("V1", mode, dtype, "channels_last", (1, 6, 6, 8 * full), "exact", "skip 1")
            yield GeluCase("far", mode, dtype, "channels_last", (2, 5, 3, 8 * full), "slice", "slice", "tanh")
            yield GeluCase("V1", mode, dtype, "channels_last", (2, 5, 6, 4 * full), "exact", "transposed")
            yield GeluCase("V1", mode, dtype, "channels_last", (2, 5, 6, 4 * full), "transposed", "exact", "tanh")
            yield GeluCase("V1", mode, dtype, "channels_first", (3, 8, 6, 5), "expanded")
            yield GeluCase("many groups", mode, dtype, "channels_last", (1, 3, 4, 150))
            yield GeluCase("a group for each channel", mode, dtype, "channels_last", (1, 5, 6, 50))
            yield GeluCase("V1", mode, dtype, "channels_first", (1, 24, 14, 14))
            yield GeluCase("unequal", mode, dtype, "channels_last", (2, 5, 4, 4 * full))
            yield GeluCase("unequal", mode, dtype, "channels_first", (3, 5, 3, 3), "exact", "exact", "tanh")
            yield GeluCase("V1", mode, dtype, "channels_last", (3, 2, 5, 4, 4 * full), "frames", "frames")
            for approximate in ("none", "tanh"):
                yield GeluCase("V1", mode, dtype, "channels_last", (1, 3, 4, 4 * full), "infinities", "exact", approximate)


def every_value_cases() -> Iterator[GeluCase]:
    for dtype in (torch.bfloat16, torch.float16):
        for approximate in ("none", "tanh"):
            yield GeluCase("stay", "replicate", dtype, "channels_last", (32, 32, 64), "every value", "ones", approximate)


def branch_cases() -> Iterator[BranchCase]:
    for dtype in DTYPES[1:]:
        full = 16 // dtype.itemsize
        for mode in PADDING_MODES:
            for table in BRANCHES:
                yield BranchCase(table, mode, dtype, (2, 5, 7, 8 * full))
            yield BranchCase("paper", mode, dtype, (14, 14, 4 * full))
            yield BranchCase("paper", mode, dtype, (2, 1, 3, 4, 13))  # no vector fits, and two leading axes
            yield BranchCase("two", mode, dtype, (1, 9, 12 * full))  # more vectors than a block's lanes
            yield BranchCase("two", mode, dtype, (9, 1, 8))
            yield BranchCase("paper", mode, dtype, (2, 4, 4, 4 * full), weights_memory="expanded")
            yield BranchCase("paper", mode, dtype, (2, 4, 4, 4 * full), weights_memory="skip 1")
            yield BranchCase("paper", mode, dtype, (2, 4, 5, 4 * full), "skip 1")
            yield BranchCase("two", mode, dtype, (2, 4, 5, 4 * full), "exact", "skip 1")
            yield BranchCase("two", mode, dtype, (2, 5, 3, 8 * full), "slice", "slice")
            yield BranchCase("two", mode, dtype, (2, 5, 3, 4 * full), "transposed", "expanded")
            yield BranchCase("paper", mode, dtype, (2, 17, 25, 4 * full))  # enough tokens to be divided among blocks
            yield BranchCase("two", mode, dtype, (1, 17, 25, 13))
            swapped = "leading axes swapped"
            yield BranchCase("two", mode, dtype, (2, 3, 4, 3, 4 * full), swapped, swapped, swapped)
            yield BranchCase("many groups", mode, dtype, (1, 3, 4, 40 * full))
            yield BranchCase("many groups", mode, dtype, (1, 3, 4, 50))
        # Infinity times zero padding, and times the gradient of a token that nobody reads.
        for memories in (("exact", "exact", "infinite ends"), ("exact", "infinite ends"), ("infinite ends",)):
            yield BranchCase("two", "zeros", dtype, (2, 5, 7, 4 * full), *memories)
            yield BranchCase("paper", "zeros", dtype, (1, 3, 4, 13), *memories)


def far_cases() -> Iterator[BranchCase]:
    """Image offsets need 64 bits: in vectors of one element, and in bytes."""
    far = "images far apart"
    for dtype in (torch.bfloat16, torch.float32):
        yield BranchCase("paper", "replicate", dtype, (2, 4, 5, 13), far, far)


def every_case() -> Iterator[Case | BranchCase]:
    yield from all_cases()
    yield from gelu_cases()
    yield from every_value_cases()
    yield from branch_cases()
    yield from far_cases()
