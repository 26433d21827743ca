"""The accuracy of GELU and of its derivative in 16 bits, over every value."""

import math

import torch


def exact_gelu(x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    """GELU in float64, without cancellation for negative x."""
    if approximate == "none":
        return 0.5 * x * torch.special.erfc(-x / math.sqrt(2))
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def value_and_slope(gelu, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    out = gelu(x)
    return out.detach().double(), torch.autograd.grad(out, x, torch.ones_like(x))[0].double()


def units_in_the_last_place(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The spacing of the values of ``dtype`` at ``x``, in float64."""
    info = torch.finfo(dtype)
    mantissa = torch.frexp(x).mantissa  # x = mantissa * 2^exponent with 1/2 <= |mantissa| < 1
    binade = (x / torch.where(mantissa == 0, 1, mantissa)).abs() / 2
    return binade.clamp(min=info.smallest_normal) * info.eps


def every_value(dtype: torch.dtype, device: str | torch.device = "cpu") -> torch.Tensor:
    """All 65,536 values of a 16-bit dtype, with zero in place of infinities and NaN."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32, device=device).to(torch.int16).view(dtype)
    return values.where(values.isfinite(), 0)


def inaccuracy(x: torch.Tensor, value: torch.Tensor, slope: torch.Tensor, approximate: str) -> str:
    """Empty if at least 99.9% of the results for every value x are correctly rounded, with errors below one unit in the last place.

    Results below the smallest normal float32 may be zero.
    """
    exact = value_and_slope(lambda x: exact_gelu(x, approximate), x.double())
    for name, ours, right in zip(("value", "slope"), (value, slope), exact):
        error = (ours.double() - right).abs() / units_in_the_last_place(right, x.dtype)
        error = error.where(right.abs() >= torch.finfo(torch.float32).smallest_normal, (error - 2**7).clamp(min=0))
        wrong = int((error > 0.5).sum())
        if wrong > 0.001 * x.numel() or not error.max() < 1:
            return f"{name}: {wrong} results are not correctly rounded, the largest error is {error.max().item():.3f} units"
    return ""
