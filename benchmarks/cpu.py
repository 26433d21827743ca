"""Every operator on this machine's CPU against a copy and against every other way to compute it.

    python benchmarks/cpu.py              all operators, or those named: writes results/<operator>-cpu-torch<version>.json

Most of the time goes into compiling some of the alternatives. Ratios are to a copy of one map of B*H*W*C in the same run. Freed memory is kept by the process: otherwise every fresh
output is faulted in page by page, which takes longer than what is measured and hides all differences.
"""

import argparse
import itertools
import statistics

import torch

from operators import OPS, measure_op
from results import write_result
from s2mlp_cuda.demo.timing import keep_freed_memory

#: (B, H, W, C): blocks of the models at B = 32, and one map far larger than a cache.
SHAPES = [(32, 14, 14, c) for c in (384, 768, 1152, 1536)] + [(32, 32, 32, 256), (32, 16, 16, 512), (64, 56, 56, 384)]
DTYPES = [torch.float32, torch.bfloat16]
ROUNDS = 11
DIRECTIONS = ("forward + backward",)  # each takes a compilation of its own


def summary(records: list[dict], name: str) -> list[str]:
    """Markdown of one operator, a line per alternative: forward + backward, median and range over the sizes."""
    records = [r for r in records if r["op"] == name and r["direction"] == "forward + backward"]
    lines = [f"| `{name}`, forward + backward | float32 | bfloat16 |", "|---|---|---|"]
    for alternative in dict.fromkeys(r["name"] for r in records):
        cells = []
        for dtype in ("float32", "bfloat16"):
            found = [r for r in records if r["name"] == alternative and r["dtype"] == dtype]
            ratios = [r["ratio_to_copy"] for r in found]
            wrong = "" if all(r["right"] for r in found) else " wrong"
            cells.append(f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}){wrong}")
        lines.append(f"| {alternative} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(op.name for op in OPS)}; default: all")
    names = parser.parse_args().names
    keep_freed_memory()
    for op in OPS:
        if names and op.name not in names:
            continue
        records = []
        for dtype, shape in itertools.product(DTYPES, SHAPES):
            found = measure_op(
                op, shape, "channels_last", dtype, torch.device("cpu"), ROUNDS, 0, lambda name: True, DIRECTIONS
            )
            records += found
            for r in found:
                wrong = "" if r["right"] else " wrong"
                print(f"{r['dtype']} {shape} {r['name']}, {r['direction']}: {r['ratio_to_copy']:.2f}{wrong}", flush=True)
        write_result(f"{op.name}-cpu", {"what": "time in copies of one map", "operators": records})
        print("\n".join(["", *summary(records, op.name)]))


if __name__ == "__main__":
    main()
