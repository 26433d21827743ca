"""Times the shifts of other networks against this package, as the scripts in examples/migrate define them.

python benchmarks/migration.py

Writes results/migration-torch<version>.json and its table, docs/guides/migrate/speed.md. Run it on an otherwise idle machine.
"""

import sys
from importlib import import_module
from pathlib import Path

import torch

from s2mlp_cuda._files import write_text

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


def measure_all(seconds: float) -> dict:
    sys.path.insert(0, str(SCRIPTS))
    side_by_side = import_module("side_by_side")
    rows = []
    for name in NETWORKS:
        for pair in import_module(name).PAIRS:
            side_by_side.check(pair)
            theirs, ours = side_by_side.measure(pair, seconds)
            times = {"theirs_ms": theirs * 1e3, "ours_ms": ours * 1e3}
            rows.append({"script": name, "pair": pair.name, "shape": pair.shape, "wrong_values": pair.wrong_values, **times})
    return {
        "what": "medians of forward and backward, float32, interleaved rounds",
        "rows": rows,
    }


def page(result: dict) -> str:
    """The table as Markdown."""
    lines = [
        "# Speed",
        "",
        "<!-- Written by benchmarks/migration.py -->",
        "",
        f"Forward and backward pass in float32 on {result['machine']}, PyTorch {result['torch']},",
        f"commit {result['commit'][:10]}. The ratio is their time divided by ours: above 1, ours is faster. Each script in",
        "`examples/migrate/` prints the ratios of your machine.",
        "",
        "| code | shift | map | theirs, ms | ours, ms | ratio |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        size, ratio = "x".join(map(str, row["shape"])), row["theirs_ms"] / row["ours_ms"]
        wrong = " (**wrong values**)" if row["wrong_values"] else ""
        times = f"{row['theirs_ms']:.2f}{wrong} | {row['ours_ms']:.2f} | {ratio:.1f}"
        lines.append(f"| [{NETWORKS[row['script']]}]({row['script']}.md) | {row['pair']} | {size} | {times} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    result = document(measure_all(seconds=3.0))
    write_json(FOLDER / f"migration-torch{torch.__version__.partition('+')[0]}.json", result)
    write_text(PAGE, page(result))
    print(page(result))


if __name__ == "__main__":
    main()
