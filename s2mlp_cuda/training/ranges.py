"""Types of command-line numbers with a range, for argparse."""

import argparse
import math
from collections.abc import Callable


def integer(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A parser of integers from ``low`` to ``high``, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be an integer from {low} to {high}, got {text!r}")
        return value

    return parse


def real(low: float = -math.inf, high: float = math.inf, above: bool = False, below: bool = False) -> Callable[[str], float]:
    """A parser of finite numbers from ``low`` to ``high``.

    Args:
        low: smallest number.
        high: largest number.
        above: exclude ``low``.
        below: exclude ``high``.
    """
    bounds = [f"{'above' if above else 'of at least'} {low:g}"] if low > -math.inf else []
    bounds += [f"{'below' if below else 'of at most'} {high:g}"] if high < math.inf else []
    allowed = " ".join(["a finite number", " and ".join(bounds)]).strip()

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = (value > low if above else value >= low) and (value < high if below else value <= high)
        if not inside or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}")
        return value

    return parse
