"""Times the shifts of other networks against this package, as the scripts in examples/migrate define them.

python benchmarks/migration.py

Writes results/migration-torch<version>.json and its table, docs/guides/migrate/speed.md. Run it on an otherwise idle machine.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from statistics import median, quantiles

import torch

from s2mlp_cuda._files import write_text
from s2mlp_cuda._system import keep_freed_memory

from results import FOLDER, document, write_json

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "examples" / "migrate"
PAGE = ROOT / "docs" / "guides" / "migrate" / "speed.md"
#: Title of the page of each script, in the order of the table.
NETWORKS = {
    "external_attention": "External-Attention",
    "jittor_mlp": "Jittor-MLP",
    "vision_mlp": "vision-mlp",
    "as_mlp": "AS-MLP",
    "shift_vit": "ShiftViT",
    "unext": "UNeXt",
    "tsm": "TSM",
    "hire_mlp": "Hire-MLP",
    "ms_mlp": "MS-MLP",
    "cycle_mlp": "CycleMLP",
}


#: One process with one thread has a load of 1.
BUSY = (
    "**Other processes used the machine during this measurement.** Under such a load, repeated runs differ severalfold, in times\n"
    "and in ratios. Take them as orders of magnitude, and measure on an idle machine."
)


def measure_all(seconds: float) -> dict:
    sys.path.insert(0, str(SCRIPTS))
    side_by_side = import_module("side_by_side")
    rows = []
    for name in NETWORKS:
        for pair in import_module(name).PAIRS:
            side_by_side.check(pair)
            theirs, ours = side_by_side.measure(pair, seconds)
            ratios = quantiles([a / b for a, b in zip(theirs, ours)], n=10)
            rows.append(
                {
                    "script": name,
                    "pair": pair.name,
                    "shape": pair.shape,
                    "wrong_values": pair.wrong_values,
                    "rounds": len(ours),
                    "theirs_ms": median(theirs) * 1e3,
                    "ours_ms": median(ours) * 1e3,
                    "ratio": ratios[4],
                    "ratio_10_percent": ratios[0],
                    "ratio_90_percent": ratios[8],
                }
            )
    what = "medians of forward and backward, float32, interleaved rounds; quantiles of the ratio of each round"
    return {"what": what, "rows": rows}


def page(result: dict) -> str:
    """The table as Markdown."""
    before, after = result["load_average"]
    lines = [
        "# Speed",
        "",
        "<!-- Written by benchmarks/migration.py -->",
        "",
        f"Forward and backward pass in float32 on {result['machine']}, PyTorch {result['torch']}, commit {result['commit'][:10]}.",
        "Times are medians over rounds that alternate between both. The ratio is their time divided by ours in the same round,",
        "above 1 if ours is faster: its median, and its 10th to 90th percentile. Freed memory is kept by the process.",
        "Each script in `examples/migrate/` prints the ratio on your machine.",
        "",
        f"Load average over one minute, before and after: {before:.1f} and {after:.1f}, on {result['processors']} processors.",
        *([BUSY] if max(before, after) > 1.5 else []),
        "",
        "| code | shift | map | theirs, ms | ours, ms | ratio |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        size = "x".join(map(str, row["shape"]))
        wrong = " (**wrong values**)" if row["wrong_values"] else ""
        ratio = f"{row['ratio']:.1f} ({row['ratio_10_percent']:.1f} to {row['ratio_90_percent']:.1f})"
        times = f"{row['theirs_ms']:.2f}{wrong} | {row['ours_ms']:.2f} | {ratio}"
        lines.append(f"| [{NETWORKS[row['script']]}]({row['script']}.md) | {row['pair']} | {size} | {times} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    keep_freed_memory()
    before = os.getloadavg()[0]
    measured = measure_all(seconds=3.0)
    result = document({**measured, "load_average": [before, os.getloadavg()[0]], "processors": os.cpu_count()})
    write_json(FOLDER / f"migration-torch{torch.__version__.partition('+')[0]}.json", result)
    write_text(PAGE, page(result))
    print(page(result))


if __name__ == "__main__":
    main()
