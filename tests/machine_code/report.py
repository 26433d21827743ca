"""Prints what the kernels of the installed binary execute per KB that they must move, counted without a GPU.

    python tests/machine_code/report.py                                   all rows
    python tests/machine_code/report.py --only "gelu forward bf16"        rows whose names have all these words
    python tests/machine_code/report.py --only "gelu forward bf16 CL" --profile    with the listing, annotated
    python tests/machine_code/report.py --save benchmarks/results/machine-code

After a change to a kernel: `make build`, then this. The share of the copy rate is predicted, not measured.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "cuda_on_cpu"), str(HERE.parent.parent)]

from counting import BLOCKS, Count, count, profile, quietly  # noqa: E402
from rows import Row, all_rows  # noqa: E402

HEADER = (
    f"{'per KB, ' + str(BLOCKS) + ' blocks sampled':58}{'all':>7}{'int':>7}{'fp':>7}{'mem':>7}{'ctrl':>7}{'unif':>7}{'other':>7}"
    f"{'ld sec':>8}{'st sec':>8}{'confl':>7}{'H100':>7}{'H200':>7}"
)


def selected(words: str) -> list[Row]:
    return [row for row in all_rows() if all(word in row.name.split() for word in words.split())]


def line(result: Count) -> str:
    classes = "".join(f"{value:7.1f}" for value in result.by_class.values())
    shares = "".join(f"{result.predicted_share(gpu):7.0%}" for gpu in ("H100", "H200"))
    return (
        f"{result.name:58}{result.instructions:7.1f}{classes}{result.load_sectors:8.1f}{result.store_sectors:8.1f}"
        f"{result.shared_conflicts:7.2f}{shares}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS")
    parser.add_argument("--profile", action="store_true", help="print each kernel's listing with how often it was issued")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="how many blocks of each launch are run")
    arguments = parser.parse_args()
    quietly()
    print(HEADER)
    for row in selected(arguments.only):
        result = count(row, arguments.blocks)
        print(line(result), flush=True)
        if arguments.profile:
            for record in result.records:
                print(profile(record))


if __name__ == "__main__":
    main()
