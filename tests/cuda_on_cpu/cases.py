"""What the emulated kernels are run on: every kernel, element size, vector width, padding mode and memory layout."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from s2mlp_cuda import offsets

DTYPES = (torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64)
MODES = ("replicate", "zeros", "circular")
TABLES = {
    "V1": offsets.V1,
    "eight-way": offsets.EIGHT_WAY,
    "far": ((2, -3), (0, 0), (-1, 40), (-50, 1)),
}


@dataclass(frozen=True)
class Case:
    """``memory`` says how the map lies in its buffer: see ``make``."""

    table: str
    mode: str
    dtype: torch.dtype
    data_format: str
    shape: tuple[int, ...]
    memory: str = "exact"

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{str(self.dtype)[6:]} {self.data_format} {size} {self.memory} {self.mode} {self.table}"

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        if self.table == "many groups":
            channels = self.shape[-1 if self.data_format == "channels_last" else -3]
            return tuple((i % 5 - 2, i % 7 - 3) for i in range(channels))
        return TABLES[self.table]

    def make(self, device: str = "cpu") -> torch.Tensor:
        """A random map. Whatever the memory, its last element is the last of its allocation."""
        torch.manual_seed(0)

        def empty(shape) -> torch.Tensor:
            return torch.empty(shape, dtype=self.dtype, device=device)

        def fill(x: torch.Tensor) -> torch.Tensor:
            if self.dtype == torch.uint8:
                return x.copy_(torch.randint(0, 255, x.shape))
            return x.copy_(torch.randn(x.shape))

        count = torch.Size(self.shape).numel()
        if self.memory == "exact":
            return fill(empty(self.shape))
        if self.memory.startswith("skip "):  # the first element is so many elements into an aligned buffer
            skip = int(self.memory.removeprefix("skip "))
            return fill(empty(count + skip)[skip:].view(self.shape))
        if self.memory == "slice":  # a corner of a larger map, along every axis
            larger = empty([n + 3 for n in self.shape])
            return fill(larger[tuple(slice(3, None) for _ in self.shape)])
        if self.memory == "transposed":  # the other data format's memory
            last = self.data_format == "channels_last"
            inner = (self.shape[-1], *self.shape[-3:-1]) if last else (*self.shape[-2:], self.shape[-3])
            dense = fill(empty((*self.shape[:-3], *inner)))
            return dense.movedim(-3, -1) if last else dense.movedim(-1, -3)
        assert self.memory == "expanded"
        return fill(empty((1, *self.shape[1:]))).expand(self.shape)


def all_cases() -> Iterator[Case]:
    for dtype in DTYPES:
        full = 16 // dtype.itemsize
        for mode in MODES:
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
            for table in TABLES:
                for height, width in ((14, 14), (5, 7), (4, 33)):
                    yield Case(table, mode, dtype, "channels_first", (2, 8, height, width))
            for height, width in ((1, 1), (1, 9), (9, 1), (32, 32)):
                yield Case("V1", mode, dtype, "channels_first", (2, 4, height, width))
            for skip in (1, 3):
                yield Case("V1", mode, dtype, "channels_first", (2, 6, 7, 9), f"skip {skip}")
            yield Case("eight-way", mode, dtype, "channels_first", (2, 3, 8, 6, 5), "slice")
            yield Case("V1", mode, dtype, "channels_first", (3, 8, 6, 5), "expanded")
            yield Case("V1", mode, dtype, "channels_first", (2, 4, 6, 5), "transposed")
            yield Case("many groups", mode, dtype, "channels_first", (1, 70, 3, 4))
