"""What goes wrong with the papers' pseudo-code in eager PyTorch, and a survey of how often.

The pseudo-code assigns overlapping slices in place. NumPy and Paddle copy as if through a temporary; PyTorch does not
promise to, and mostly does not: a +1 group smears its first row or column over the whole map.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch

from s2mlp_cuda import offsets, reference

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8)
# (batch, height, width, channels). Sides of at least 3: the slices of a side of 2 do not overlap. With one channel per
# group and one image, channels first, the slices are contiguous, and then PyTorch notices the overlap and raises.
SHAPES = tuple(
    (batch, *size, channels)
    for batch, channels in ((1, 48), (2, 96), (8, 384))
    for size in ((3, 3), (5, 7), (7, 7), (14, 14), (16, 8), (32, 32))
) + ((1, 7, 7, 4), (1, 14, 14, 4), (2, 7, 7, 4))
THREADS = (1, 2)


def shift_in_place_channels_last(x: torch.Tensor) -> torch.Tensor:
    """SS1 on (B, H, W, C), as public copies have it: overlapping slices, assigned in place."""
    quarter = x.shape[-1] // 4
    x[:, 1:, :, :quarter] = x[:, :-1, :, :quarter]
    x[:, :-1, :, quarter : 2 * quarter] = x[:, 1:, :, quarter : 2 * quarter]
    x[:, :, 1:, 2 * quarter : 3 * quarter] = x[:, :, :-1, 2 * quarter : 3 * quarter]
    x[:, :, :-1, 3 * quarter :] = x[:, :, 1:, 3 * quarter :]
    return x


def shift_in_place_channels_first(x: torch.Tensor) -> torch.Tensor:
    """The same on (B, C, H, W)."""
    quarter = x.shape[1] // 4
    x[:, :quarter, 1:] = x[:, :quarter, :-1]
    x[:, quarter : 2 * quarter, :-1] = x[:, quarter : 2 * quarter, 1:]
    x[:, 2 * quarter : 3 * quarter, :, 1:] = x[:, 2 * quarter : 3 * quarter, :, :-1]
    x[:, 3 * quarter :, :, :-1] = x[:, 3 * quarter :, :, 1:]
    return x


IN_PLACE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "channels_last": shift_in_place_channels_last,
    "channels_first": shift_in_place_channels_first,
}


@dataclass(frozen=True)
class Case:
    data_format: str
    dtype: str
    shape: tuple[int, ...]
    threads: int
    outcome: str  # "right", "wrong" or "raised"


def survey() -> Iterator[Case]:
    """Runs the in-place shift over every combination of layout, dtype, shape and thread count."""
    threads_before = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    try:
        for data_format, dtype, (batch, height, width, channels), threads in product(IN_PLACE, DTYPES, SHAPES, THREADS):
            last = data_format == "channels_last"
            shape = (batch, height, width, channels) if last else (batch, channels, height, width)
            x = torch.randint(0, 200, shape, generator=generator).to(dtype)
            expected = reference.spatial_shift(x, offsets.SS1, data_format=data_format)
            torch.set_num_threads(threads)
            try:
                outcome = "right" if torch.equal(IN_PLACE[data_format](x), expected) else "wrong"
            except RuntimeError:
                outcome = "raised"
            yield Case(data_format, str(dtype).removeprefix("torch."), shape, threads, outcome)
    finally:
        torch.set_num_threads(threads_before)


def count_outcomes(cases: list[Case]) -> dict[str, int]:
    counts = Counter(case.outcome for case in cases)
    return {outcome: counts[outcome] for outcome in ("wrong", "raised", "right")}
