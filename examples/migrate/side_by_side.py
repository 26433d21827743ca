"""Compares two implementations of one function: values and gradients in float64, and their times in float32."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pair:
    """Two functions of one map.

    Attributes:
        name: what is compared.
        theirs, ours: the functions. Each must leave its input unchanged, except ``theirs`` with ``wrong_values``.
        shape: of the map.
        rounding: the largest difference that rounding in float64 explains; 0 for functions that only copy.
        wrong_values: whether the values of ``theirs`` are wrong in eager PyTorch, although its gradients are those of ``ours``.
    """

    name: str
    theirs: Callable[[torch.Tensor], torch.Tensor]
    ours: Callable[[torch.Tensor], torch.Tensor]
    shape: tuple[int, ...]
    rounding: float = 0.0
    wrong_values: bool = False


def _largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def _text(difference: float) -> str:
    return "bitwise identical" if difference == 0 else f"equal up to rounding, {difference:.0e} in float64"


def check(pair: Pair) -> None:
    """Prints how values and gradients of the two compare.

    Raises:
        AssertionError: they differ by more than rounding, or do not differ where ``wrong_values`` says so.
    """
    torch.manual_seed(0)
    x = torch.randn(pair.shape, dtype=torch.float64, requires_grad=True)
    results = [function(x.clone()) for function in (pair.theirs, pair.ours)]
    grad = torch.randn_like(results[0])
    gradients = [torch.autograd.grad(result, x, grad)[0] for result in results]
    value, gradient = _largest_difference(*results), _largest_difference(*gradients)
    if pair.wrong_values:
        wrong = (results[0] != results[1]).double().mean().item()
        assert wrong > 0.1, f"{pair.name}: only {wrong:.0%} of the values differ"
        print(f"{pair.name}: {wrong:.0%} of their values are wrong; gradients: {_text(gradient)}")
    else:
        assert value <= pair.rounding, f"{pair.name}: values differ by {value}"
        print(f"{pair.name}: values: {_text(value)}; gradients: {_text(gradient)}")
    assert gradient <= pair.rounding, f"{pair.name}: gradients differ by {gradient}"


def measure(pair: Pair, seconds: float = 0.5) -> tuple[list[float], list[float]]:
    """Times in seconds of forward and backward pass in float32, theirs and ours, one of each per round."""
    x = torch.randn(pair.shape, requires_grad=True)
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[1]) < 4:
        for function, found in zip((pair.theirs, pair.ours), times):
            maps = x.clone()  # not timed: an in-place implementation needs a map that it may write to
            begin = time.perf_counter()
            result = function(maps)
            torch.autograd.grad(result, x, result.detach())
            found.append(time.perf_counter() - begin)
    return times[0][1:], times[1][1:]  # the first round is a warm-up


def report(pairs: tuple[Pair, ...]) -> None:
    """Checks and times all pairs, and prints the results."""
    for pair in pairs:
        check(pair)
        theirs, ours = map(statistics.median, measure(pair))
        size = "x".join(map(str, pair.shape))
        print(f"  forward + backward of {size}: theirs {theirs * 1e3:.2f} ms, ours {ours * 1e3:.2f} ms, ratio {theirs / ours:.1f}")
