"""The test cases of the interpreted kernels."""

from collections.abc import Iterator
from dataclasses import replace

from s2mlp_cuda.ops import PADDING_MODES

from cases import DTYPES, BranchCase, Case, GeluCase, every_case, every_value_cases


def half_of_the_cases() -> Iterator[Case | BranchCase]:
    """Every case of the emulated kernels, each with every other padding mode, which differ between neighboring cases."""
    number: dict[Case | BranchCase, int] = {}
    for case in (case for case in every_case() if "every value" not in case.name):
        position = number.setdefault(replace(case, mode=""), len(number))
        if (position + PADDING_MODES.index(case.mode)) % 2 == 0:
            yield case


def cases_of_64_bit_indices() -> Iterator[Case]:
    """Maps whose offsets do not fit into 32 bits, at full vectors and at single elements."""
    far = "images far apart"
    for mode in PADDING_MODES:
        for dtype in DTYPES:
            full = 16 // dtype.itemsize
            for data_format, shape in (
                ("channels_last", (2, 3, 5, 4 * full)),
                ("channels_last", (2, 3, 4, 13)),
                ("channels_first", (2, 4, 5, 7)),
            ):
                yield Case("V1", mode, dtype, data_format, shape, far)
                if dtype.is_floating_point:
                    yield GeluCase("V1", mode, dtype, data_format, shape, far, far)
        for dtype in DTYPES[1:]:
            yield BranchCase("paper", mode, dtype, (2, 3, 5, 64 // dtype.itemsize), far, far)


def selected_cases() -> Iterator[Case | BranchCase]:
    yield from half_of_the_cases()
    yield from every_value_cases()
    yield from cases_of_64_bit_indices()
