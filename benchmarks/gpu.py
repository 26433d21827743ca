"""Every operator on a GPU against a device copy and against every other way to compute it, and training steps.

    python benchmarks/gpu.py            full: writes results/<gpu>-<date>.json and .md
    python benchmarks/gpu.py --smoke    a small part of it on tiny maps, on the CPU where there is no GPU; writes nothing

Ratios are to a copy of the same bytes in the same run. Inputs rotate through more memory than the L2 cache holds.
"""

import argparse
import itertools
import re
import subprocess
from datetime import date

import torch

from operators import OPS, measure_op
from results import FOLDER, document, write_json
from training_steps import MODELS, measure_training, table

#: (B, H, W, C). All alternatives are measured on these ...
SHAPES = [(128, 14, 14, 384), (128, 32, 32, 192), (64, 56, 56, 384)]
#: ... and these are for ours and the copy alone: small maps, and one beyond 2^31 elements.
MORE_SHAPES = [(32, 14, 14, 384), (32, 14, 14, 1536), (32, 16, 16, 512), (256, 56, 56, 384), (40, 512, 256, 416)]
SMOKE_SHAPES = [(2, 6, 7, 16)]
DTYPES = [torch.float32, torch.bfloat16]
L2_BYTES = 256 * 2**20  # more than any GPU's L2 cache


def markdown(result: dict) -> str:
    """The tables that people read."""
    lines = [f"# {result['machine']}", ""]
    lines += [f"PyTorch {result['torch']}, driver {result['driver']}, commit {result['commit']}, {result['date']}.", ""]
    for op in OPS:
        for direction in ("forward", "forward + backward"):
            records = [r for r in result["ops"] if r["op"] == op.name and r["direction"] == direction]
            columns = list(dict.fromkeys((r["dtype"], r["data_format"], tuple(r["shape"])) for r in records))
            cells = {(r["name"], (r["dtype"], r["data_format"], tuple(r["shape"]))): r for r in records}
            lines += [f"## {op.name}, {direction}: time in copies of the map (share of the copy rate)", ""]
            lines.append("| dtype | layout | shape | copy, TB/s | " + " | ".join(dict.fromkeys(r["name"] for r in records)) + " |")
            names = list(dict.fromkeys(r["name"] for r in records))
            lines.append("|---" * (4 + len(names)) + "|")
            for column in columns:
                row = [cells.get((name, column)) for name in names]
                rate = next(r for r in row if r)["copy_bytes_per_second"] / 1e12
                texts = [
                    "" if r is None else f"{r['ratio_to_copy']:.2f} ({r['share_of_copy_rate']:.0%})" + ("" if r["right"] else " wrong")
                    for r in row
                ]  # fmt: skip
                shape = "x".join(map(str, column[2]))
                lines.append(f"| {column[0]} | {column[1]} | {shape} | {rate:.2f} | " + " | ".join(texts) + " |")
            lines.append("")
    lines += ["## Training steps, bfloat16", "", *table(result["training"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny maps, few rounds, no result file")
    smoke = parser.parse_args().smoke
    if not smoke and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU; --smoke runs the same code on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds = 3 if smoke else 21
    records = []
    shapes = [(shape, True) for shape in (SMOKE_SHAPES if smoke else SHAPES)]
    shapes += [] if smoke else [(shape, False) for shape in MORE_SHAPES]
    dtypes, models = (DTYPES[:1], MODELS[1:]) if smoke else (DTYPES, MODELS)
    for op, (shape, all_peers), dtype in itertools.product(OPS, shapes, dtypes):
        if torch.Size(shape).numel() > 2**31 and dtype == torch.float32:
            continue  # bfloat16 alone is 4.4 GB a map
        for data_format in op.formats[: 1 if smoke else None]:
            print(f"{op.name} {shape} {data_format} {dtype}", flush=True)
            rotate = 0 if smoke else L2_BYTES

            def wanted(name: str) -> bool:
                return name == op.ours if not all_peers else not (smoke and name.startswith("torch.compile"))

            records += measure_op(op, shape, data_format, dtype, device, rounds, rotate, wanted)
    training = []
    for name in models:
        print(f"training step of {name}", flush=True)
        if smoke:
            training += measure_training(name, device, torch.bfloat16, 2, rounds, 28, {"depths": (1, 1)})
        else:
            training += measure_training(name, device, torch.bfloat16, 128, rounds)
    driver = ""
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.check_output(query, text=True).splitlines()[0]
    result = document({"driver": driver, "ops": records, "training": training})
    print(markdown(result))
    if not smoke:
        gpu = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
        stem = f"{gpu}-{date.today().isoformat()}"
        write_json(FOLDER / f"{stem}.json", result)
        (FOLDER / f"{stem}.md").write_text(markdown(result))
        print(f"written to {FOLDER / stem}.json and .md")


if __name__ == "__main__":
    main()
