"""Errors of GELU and its derivative in units in the last place (ulp), of gelu_spatial_shift and of PyTorch's gelu: writes
results/gelu-errors-torch<version>.json.

python benchmarks/gelu_errors.py

float16 and bfloat16: every finite value. float32: a million evenly spaced values from -10 to 10. The reference is computed in
float64, without cancellation for negative values. Where its magnitude is below 1e-36, results may be flushed to zero and are
left out.
"""

import sys
from pathlib import Path

import torch
from torch.nn import functional

from s2mlp_cuda import gelu_spatial_shift, offsets

from results import write_result

sys.path.append(str(Path(__file__).parent.parent / "tests" / "cuda_on_cpu"))
from gelu_accuracy import every_value, exact_gelu, units_in_the_last_place, value_and_slope  # noqa: E402

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def values_of(dtype: torch.dtype) -> torch.Tensor:
    if dtype.itemsize == 2:
        return every_value(dtype)
    return torch.linspace(-10, 10, 1_000_000, dtype=torch.float64).to(dtype)


def rows(dtype: torch.dtype, approximate: str):
    x = values_of(dtype).reshape(1, 1, -1)
    exact = value_and_slope(lambda x: exact_gelu(x, approximate), x.double())
    implementations = {
        "gelu_spatial_shift": lambda x: gelu_spatial_shift(x, offsets.IDENTITY, approximate=approximate),
        "F.gelu": lambda x: functional.gelu(x, approximate=approximate),
    }
    for implementation, gelu in implementations.items():
        for result, computed, right in zip(("GELU", "derivative"), value_and_slope(gelu, x), exact):
            counted = right.abs() >= 1e-36
            finite = counted & computed.isfinite()
            error = ((computed - right).abs() / units_in_the_last_place(right, dtype))[finite]
            yield {
                "dtype": str(dtype)[6:],
                "approximate": approximate,
                "result": result,
                "implementation": implementation,
                "largest error": error.max().item(),
                "mean error": error.mean().item(),
                "correctly rounded": (error <= 0.5).sum().item() / counted.sum().item(),
                "infinite or NaN": (counted & ~finite).sum().item(),
            }


table = [row for dtype in DTYPES for approximate in ("none", "tanh") for row in rows(dtype, approximate)]
for row in table:
    print("{:9}{:5}{:11}{:19} {:10.3g} {:10.3g} {:8.2%} {:6}".format(*row.values()))
write_result("gelu-errors", {"what": "errors in units in the last place, see gelu_errors.py", "rows": table})
