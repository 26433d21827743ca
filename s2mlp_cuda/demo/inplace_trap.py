"""A survey of how often the papers' pseudo-code is wrong in eager PyTorch.

The pseudo-code assigns overlapping slices in place. NumPy copies as if through a temporary. PyTorch does not guarantee this,
and mostly does not do it: a +1 group smears its first row or column over the whole map.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch

from s2mlp_cuda import offsets, reference
from s2mlp_cuda.bench.baselines import assign_in_place

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8)
# (batch, height, width, channels). Sides are at least 3, since the slices of a side of 2 do not overlap. With one channel per
# group, one image and channels first, the slices are contiguous; PyTorch then detects the overlap and raises an error.
SHAPES = tuple(
    (batch, *size, channels)
    for batch, channels in ((1, 48), (2, 96), (8, 384))
    for size in ((3, 3), (5, 7), (7, 7), (14, 14), (16, 8), (32, 32))
) + ((1, 7, 7, 4), (1, 14, 14, 4), (2, 7, 7, 4))
THREADS = (1, 2)
DATA_FORMATS = ("channels_last", "channels_first")


@dataclass(frozen=True)
class Case:
    data_format: str
    dtype: str
    shape: tuple[int, ...]
    threads: int
    outcome: str  # "right", "wrong" or "raised"


def survey() -> Iterator[Case]:
    """Runs the in-place shift for all combinations of layout, dtype, shape and thread count."""
    threads_before = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    try:
        for data_format, dtype, (batch, height, width, channels), threads in product(DATA_FORMATS, DTYPES, SHAPES, THREADS):
            last = data_format == "channels_last"
            shape = (batch, height, width, channels) if last else (batch, channels, height, width)
            x = torch.randint(0, 200, shape, generator=generator).to(dtype)
            expected = reference.spatial_shift(x, offsets.SS1, data_format=data_format)
            torch.set_num_threads(threads)
            try:
                outcome = "right" if torch.equal(assign_in_place(x, offsets.SS1, data_format), expected) else "wrong"
            except RuntimeError:
                outcome = "raised"
            yield Case(data_format, str(dtype).removeprefix("torch."), shape, threads, outcome)
    finally:
        torch.set_num_threads(threads_before)


def count_outcomes(cases: list[Case]) -> dict[str, int]:
    counts = Counter(case.outcome for case in cases)
    return {outcome: counts[outcome] for outcome in ("wrong", "raised", "right")}
