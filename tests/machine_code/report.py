"""Prints the warp instructions that the installed binary's kernels execute per KiB that they must move, counted without a GPU.

    python tests/machine_code/report.py                                   all rows
    python tests/machine_code/report.py --only "gelu forward bf16"        rows whose names contain all these words
    python tests/machine_code/report.py --only "gelu forward bf16 CL" --profile    with the listing, annotated
    python tests/machine_code/report.py --save FOLDER                     counts.md and counts.json as well

After a change to a kernel: `make build`, then this. The share of the copy rate is predicted, not measured.
"""

import argparse
import json
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "cuda_on_cpu"), str(HERE.parent.parent)]

from s2mlp_cuda._files import write_text  # noqa: E402
from s2mlp_cuda._system import commit_name, cpu_name  # noqa: E402

import cubin  # noqa: E402
from counting import BLOCKS, ISSUE_SLOTS_PER_KIB, Count, count, profile  # noqa: E402
from rows import MAP_BYTES, Row, all_rows  # noqa: E402

COLUMNS = (
    "all", "int", "fp", "mem", "ctrl", "unif", "other", "ld sec", "st sec", "confl", *ISSUE_SLOTS_PER_KIB,
)  # fmt: skip
SLOTS = " and ".join(f"{slots} issue slots per KiB for {gpu}" for gpu, slots in ISSUE_SLOTS_PER_KIB.items())
LEGEND = f"""Warp instructions of sm_90 machine code per KiB that the operator must move: its maps, each read or written once.
Counted by interpreting the machine code, without a GPU, for maps of {MAP_BYTES // 2**20} MiB.
{BLOCKS} blocks are sampled of launches that have more.

All instructions, then by class: integer, floating point, memory, control, uniform datapath, other. Sectors of 32 bytes per load
and per store request to global memory: 16 is the least for 16 bytes per lane. Extra cycles per shared memory instruction. Last,
the share of a copy's rate that the issue of instructions allows: *predicted*, from {SLOTS}.
Nothing here was timed."""


def selected(words: str) -> list[Row]:
    return [row for row in all_rows() if all(word in row.name.split() for word in words.split())]


def cells(result: Count) -> list[str]:
    return [
        f"{result.instructions:.1f}",
        *(f"{value:.1f}" for value in result.by_class.values()),
        f"{result.load_sectors:.1f}",
        f"{result.store_sectors:.1f}",
        f"{result.shared_conflicts:.2f}",
        *(f"{result.predicted_share(gpu):.0%}" for gpu in ISSUE_SLOTS_PER_KIB),
    ]


def line(name: str, columns) -> str:
    return f"{name:56}" + "".join(f"{cell:>8}" for cell in columns)


def save(folder: Path, results: list[Count]) -> None:
    made_with = {
        "compiler": cubin.compiler(), "commit": commit_name(), "machine": cpu_name(), "date": date.today().isoformat(),
    }  # fmt: skip
    rows = [
        {
            "name": result.name,
            "instructions_per_kib": round(result.instructions, 2),
            "by_class": {kind: round(value, 2) for kind, value in result.by_class.items()},
            "load_sectors_per_request": round(result.load_sectors, 2),
            "store_sectors_per_request": round(result.store_sectors, 2),
            "shared_conflicts": round(result.shared_conflicts, 3),
            "predicted_share_of_copy": {gpu: round(result.predicted_share(gpu), 3) for gpu in ISSUE_SLOTS_PER_KIB},
            "kernels": result.kernels,
            "blocks": result.blocks,
            "sampled": result.sampled,
        }
        for result in results
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "counts.json", json.dumps({**made_with, "rows": rows}, indent=2) + "\n")
    table = [("", *COLUMNS), ("---", *("---:" for _ in COLUMNS)), *((result.name, *cells(result)) for result in results)]
    lines = ["# Machine code, counted", "", LEGEND, "", *(f"- {key}: {value}" for key, value in made_with.items()), ""]
    lines += ["| " + " | ".join(row) + " |" for row in table]
    write_text(folder / "counts.md", "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS")
    parser.add_argument("--profile", action="store_true", help="print each kernel's listing with how often it was issued")
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="the most blocks of a launch that are run")
    arguments = parser.parse_args()
    if arguments.save and arguments.only:
        parser.error("--save is for all rows")
    print(line("per KiB", COLUMNS))
    results = []
    for row in selected(arguments.only):
        results.append(count(row, arguments.blocks))
        print(line(row.name, cells(results[-1])), flush=True)
        if arguments.profile:
            print("\n".join(profile(record) for record in results[-1].records))
    if arguments.save:
        save(arguments.save, results)


if __name__ == "__main__":
    main()
