"""Every operator on a GPU against a device copy and against every other way to compute it, and training steps.

    python benchmarks/gpu.py            full: writes results/<gpu>-<date>.json and .md
    python benchmarks/gpu.py --smoke    a small part of it on tiny maps, on the CPU where there is no GPU; writes nothing

Ratios are to a copy of the same bytes in the same run. Inputs rotate through more memory than the L2 cache holds.
"""

import argparse
import dataclasses
import itertools
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import date

import torch

from measure import measure
from peers import OURS, peers
from results import FOLDER, document, write_json
from s2mlp_cuda import create_model, layers, reference, spatial_shift
from s2mlp_cuda.demo.timing import exact_convolutions
from s2mlp_cuda.offsets import V1

#: (B, H, W, C). All alternatives are measured on these ...
SHAPES = [(128, 14, 14, 384), (128, 32, 32, 192), (64, 56, 56, 384)]
#: ... and these are for ours and the copy alone: small maps, and one beyond 2^31 elements.
MORE_SHAPES = [(32, 14, 14, 384), (32, 14, 14, 1536), (32, 16, 16, 512), (256, 56, 56, 384), (40, 512, 256, 416)]
SMOKE_SHAPES = [(2, 6, 7, 16)]
DTYPES = [torch.float32, torch.bfloat16]
FORMATS = ["channels_last", "channels_first"]
MODELS = ["s2mlp_deep", "s2mlpv2_small_7"]


@dataclasses.dataclass(frozen=True)
class Op:
    """An operator under test. ``floor``: maps read and written, forward and backward, for the targets."""

    name: str
    alternatives: Callable[[str], dict]
    judge: Callable
    forward_floor: int
    backward_floor: int


#: A new operator joins with a line.
OPS = [Op("spatial_shift", peers, reference.spatial_shift, forward_floor=2, backward_floor=2)]


def make_maps(shape, data_format, dtype, device, smoke) -> list[torch.Tensor]:
    """Equal-sized random maps, together larger than any L2 cache (up to eight, at least one)."""
    batch, height, width, channels = shape
    size = shape if data_format == "channels_last" else (batch, channels, height, width)
    bytes_per_map = torch.Size(size).numel() * dtype.itemsize
    count = 1 if smoke else max(1, min(8, -(-256 * 2**20 // bytes_per_map)))
    return [torch.empty(size, dtype=dtype, device=device).normal_() for _ in range(count)]


def is_right(shift, judge, x, data_format) -> bool | None:
    """Values to the bit and gradients to rounding; of very large maps the first image alone. None: dtype not supported."""
    leaf = (x if x.numel() <= 2**28 else x[:1]).detach().clone().requires_grad_()
    grad = torch.randn_like(leaf)
    expected = judge(leaf, V1, data_format=data_format)
    try:
        out = shift(leaf)
    except NotImplementedError:
        return None
    if not torch.equal(out, expected):
        return False
    ours, theirs = (torch.autograd.grad(y, leaf, grad)[0].float() for y in (out, expected))
    tolerance = 1e-5 if x.dtype == torch.float32 else 2e-2
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@exact_convolutions()
def measure_op(op: Op, shape, data_format, dtype, device, rounds, smoke, all_peers) -> list[dict]:
    """One record per alternative and direction."""
    maps = make_maps(shape, data_format, dtype, device, smoke)
    leaves = [x.detach().requires_grad_() for x in maps]
    torch._dynamo.reset()
    shifts = op.alternatives(data_format)
    if not all_peers:
        shifts = {OURS: shifts[OURS]}
    right = {name: is_right(shift, op.judge, maps[0], data_format) for name, shift in shifts.items()}
    shifts = {name: shift for name, shift in shifts.items() if right[name] is not None}

    def forward(shift):
        with torch.no_grad():
            for x in maps:
                shift(x)

    def both(shift):
        for x in leaves:
            torch.autograd.grad(shift(x), x, maps[0])

    works = {("copy", "copy"): lambda: [x.clone() for x in maps]}
    for name, shift in shifts.items():
        works[name, "forward"] = lambda shift=shift: forward(shift)
        works[name, "forward + backward"] = lambda shift=shift: both(shift)
    spreads = measure(works, len(maps), rounds, device)
    copy = spreads.pop(("copy", "copy"))
    bytes_moved = 2 * maps[0].numel() * maps[0].element_size()
    records = []
    for (name, direction), spread in spreads.items():
        floor = op.forward_floor + (op.backward_floor if direction != "forward" else 0)
        records.append(
            {
                "op": op.name,
                "shape": shape,
                "data_format": data_format,
                "dtype": str(dtype)[6:],
                "name": name,
                "direction": direction,
                "microseconds": dataclasses.asdict(spread),
                "copy_microseconds": dataclasses.asdict(copy),
                "copy_bytes_per_second": bytes_moved / (copy.median * 1e-6),
                "ratio_to_copy": spread.median / copy.median,
                "share_of_copy_rate": floor / 2 * copy.median / spread.median,
                "right": right[name],
            }
        )
    return records


@contextmanager
def shift_by(implementation):
    """Models built of this package's layers shift by another implementation inside."""
    before, layers.spatial_shift = layers.spatial_shift, implementation
    try:
        yield
    finally:
        layers.spatial_shift = before


def measure_training(name: str, device, rounds: int, smoke: bool) -> list[dict]:
    """A training step (forward, backward, AdamW) in bfloat16, B=128, eager and compiled, with slices and with ours."""
    batch, size = (2, 28 if "v2" in name else 32) if smoke else (128, 224)
    small = ({"depths": (1, 1)} if "v2" in name else {"depth": 2}) if smoke else {}
    images = torch.randn(batch, 3, size, size, device=device, dtype=torch.bfloat16)
    labels = torch.randint(0, 1000, (batch,), device=device)
    records = []
    for mode, (label, shift) in itertools.product(
        ("eager", "compiled"), {"slices + cat": reference.spatial_shift, OURS: spatial_shift}.items()
    ):
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = create_model(name, **small).to(device, torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
        if mode == "compiled":  # block by block: all blocks of a stage share one compilation
            for block in model.modules():
                if isinstance(block, (layers.S2MLPBlock, layers.S2MLPv2Block)):
                    block.compile()

        def step():
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(images).float(), labels).backward()
            optimizer.step()

        with shift_by(shift):
            for _ in range(3):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            times = []
            for _ in range(rounds):
                times.append(wall_milliseconds(step, device))
        times.sort()
        records.append(
            {
                "model": name,
                "mode": mode,
                "shift": label,
                "batch": batch,
                "milliseconds": {"median": times[len(times) // 2], "least": times[0], "most": times[-1]},
                "peak_memory_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
            }
        )
        del model, optimizer
    return records


def wall_milliseconds(step, device) -> float:
    """One step, launches included: what a training loop sees."""
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


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
    lines += ["## Training steps, bfloat16", "", "| model | mode | shift | batch | ms | peak memory, GB |", "|---|---|---|---|---|---|"]
    for r in result["training"]:
        memory = "" if r["peak_memory_bytes"] is None else f"{r['peak_memory_bytes'] / 1e9:.2f}"
        lines.append(f"| {r['model']} | {r['mode']} | {r['shift']} | {r['batch']} | {r['milliseconds']['median']:.2f} | {memory} |")
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
    wanted = [(shape, True) for shape in (SMOKE_SHAPES if smoke else SHAPES)]
    wanted += [] if smoke else [(shape, False) for shape in MORE_SHAPES]
    formats, dtypes, models = (FORMATS[:1], DTYPES[:1], MODELS[1:]) if smoke else (FORMATS, DTYPES, MODELS)
    for op, (shape, all_peers), data_format, dtype in itertools.product(OPS, wanted, formats, dtypes):
        if torch.Size(shape).numel() > 2**31 and dtype == torch.float32:
            continue  # bfloat16 alone is 4.4 GB a map
        print(f"{op.name} {shape} {data_format} {dtype}", flush=True)
        records += measure_op(op, shape, data_format, dtype, device, rounds, smoke, all_peers)
    training = []
    for name in models:
        print(f"training step of {name}", flush=True)
        training += measure_training(name, device, rounds, smoke)
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
