"""Sets of lanes. A lane is one CUDA thread of the blocks that are interpreted together; a warp is 32 neighboring lanes."""

from __future__ import annotations

from functools import cached_property

import numpy as np

WARP = 32


class Lanes:
    """A non-empty subset of ``total`` lanes. ``index`` selects them in an array over all lanes; it is a slice if they are all."""

    def __init__(self, index: np.ndarray | slice, total: int):
        self.index = index
        self.total = total

    @classmethod
    def of(cls, index: np.ndarray, total: int) -> Lanes | None:
        """From sorted lane numbers; None if there are none."""
        if index.size == 0:
            return None
        return cls(slice(None), total) if index.size == total else cls(index, total)

    @property
    def everywhere(self) -> bool:
        return isinstance(self.index, slice)

    @cached_property
    def numbers(self) -> np.ndarray:
        return np.arange(self.total) if isinstance(self.index, slice) else self.index

    @cached_property
    def warp_of(self) -> np.ndarray:
        """The warp of each of these lanes."""
        return self.numbers // WARP

    @cached_property
    def warps(self) -> np.ndarray | slice:
        """The warps of these lanes, as an index into an array over all warps."""
        return slice(None) if self.everywhere else self.warp_of[self._first_of_warp]

    @cached_property
    def warp_count(self) -> int:
        return self.total // WARP if self.everywhere else int(np.count_nonzero(self._first_of_warp))

    @cached_property
    def _first_of_warp(self) -> np.ndarray:
        first = np.ones(self.warp_of.size, bool)
        np.not_equal(self.warp_of[1:], self.warp_of[:-1], out=first[1:])
        return first

    @cached_property
    def first_of_warp(self) -> np.ndarray:
        """For each of these warps, the position of its first lane among these lanes."""
        return np.flatnonzero(self._first_of_warp)

    @cached_property
    def bits(self) -> np.ndarray:
        """One word per warp of the machine: the mask of its lanes in this set."""
        if self.everywhere:
            return np.full(self.total // WARP, 0xFFFFFFFF, np.uint32)
        flags = np.zeros(self.total, np.uint8)
        flags[self.index] = 1
        return np.packbits(flags, bitorder="little").view("<u4")

    def split(self, mask: np.ndarray | np.bool_) -> tuple[Lanes | None, Lanes | None]:
        """The lanes where ``mask`` (one value per lane of this set, or one for all) is true, and the others."""
        if np.ndim(mask) == 0:
            return (self, None) if mask else (None, self)
        if mask.all():
            return self, None
        if not mask.any():
            return None, self
        numbers = self.numbers
        return Lanes(numbers[mask], self.total), Lanes(numbers[~mask], self.total)

    def where(self, mask: np.ndarray | np.bool_) -> Lanes | None:
        return self.split(mask)[0]

    def __or__(self, other: Lanes) -> Lanes:
        """The union of two sets."""
        numbers = np.concatenate([self.numbers, other.numbers])
        numbers.sort()
        return Lanes(slice(None), self.total) if numbers.size == self.total else Lanes(numbers, self.total)
