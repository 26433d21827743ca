"""A training step of whole models (forward, backward, AdamW): the shifts as slices, as our operator, and fused.

    python benchmarks/training_steps.py      on this machine's CPU, float32, B=8: writes results/training-steps-...json

Every variant computes the same function; after the first step the losses are compared.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager

import torch

from results import write_result
from s2mlp_cuda import create_model, layers, reference, spatial_shift
from s2mlp_cuda.demo.timing import keep_freed_memory

SLICES, NATIVE, FUSED = "slices + cat", "s2mlp_cuda.spatial_shift", "fused"
#: Name: (implementation of the layers, shift inside the composed ones).
FORMS = {
    SLICES: ("composed", reference.spatial_shift),
    NATIVE: ("composed", spatial_shift),
    FUSED: ("fused", spatial_shift),
}
MODELS = ("s2mlp_deep", "s2mlpv2_small_7")


@contextmanager
def shift_by(shift):
    """Composed layers shift by this inside."""
    before, layers.spatial_shift = layers.spatial_shift, shift
    try:
        yield
    finally:
        layers.spatial_shift = before


def tensor_bytes_at_peak(step: Callable[[], None], device: torch.device) -> int:
    """The most bytes of tensors that a step holds beyond what was there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes.sort(key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in changes))


def make_step(name: str, implementation: str, compiled: bool, device, dtype, batch: int, size: int, small: dict):
    """A function that makes one training step and returns the loss; the same weights and images for every variant."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, size, size).to(device, dtype)
    labels = torch.randint(0, 1000, (batch,)).to(device)
    model = create_model(name, implementation=implementation, **small).to(device, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if compiled:  # block by block: all blocks of a stage share one compilation
        for block in model.modules():
            if isinstance(block, (layers.S2MLPBlock, layers.S2MLPv2Block)):
                block.compile(dynamic=False)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def measure_training(name: str, device, dtype, batch: int, rounds: int, size: int = 224, small: dict | None = None) -> list[dict]:
    """One record per variant: milliseconds of interleaved rounds, and the peak of a step's memory."""
    torch._dynamo.reset()
    steps, first_losses = {}, {}
    for mode, (form, (implementation, shift)) in itertools.product(("eager", "compiled"), FORMS.items()):
        if (mode, form) == ("compiled", NATIVE):
            continue
        step = make_step(name, implementation, mode == "compiled", device, dtype, batch, size, small or {})
        with shift_by(shift):
            first_losses[mode, form] = step().item()
            for _ in range(2):
                step()
        steps[mode, form] = (step, shift)
    expected = first_losses["eager", SLICES]
    times: dict[tuple, list[float]] = {variant: [] for variant in steps}
    for _ in range(rounds):
        for variant, (step, shift) in steps.items():
            with shift_by(shift):
                begin = time.perf_counter()
                step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times[variant].append((time.perf_counter() - begin) * 1e3)
    records = []
    for (mode, form), (step, shift) in steps.items():
        with shift_by(shift):
            peak = tensor_bytes_at_peak(step, device)
        first, median, third = statistics.quantiles(times[mode, form], n=4)
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        records.append(
            {
                "model": name,
                "mode": mode,
                "shift": form,
                "batch": batch,
                "dtype": str(dtype)[6:],
                "milliseconds": {"median": median, "first_quartile": first, "third_quartile": third},
                "ratio_to_eager_slices": median / statistics.median(times["eager", SLICES]),
                "peak_memory_bytes": peak,
                "right": abs(first_losses[mode, form] - expected) <= tolerance * abs(expected),
            }
        )
    return records


def table(records: list[dict]) -> list[str]:
    """Markdown, a line per variant."""
    lines = ["| model | mode | shift | ms | against eager slices | peak memory of a step, MB |", "|---|---|---|---|---|---|"]
    for r in records:
        wrong = "" if r["right"] else " wrong"
        lines.append(
            f"| {r['model']} | {r['mode']} | {r['shift']} | {r['milliseconds']['median']:.1f} | "
            f"{r['ratio_to_eager_slices']:.2f}{wrong} | {r['peak_memory_bytes'] / 1e6:.0f} |"
        )
    return lines


def main() -> None:
    keep_freed_memory()
    records = []
    for name in MODELS:
        records += measure_training(name, torch.device("cpu"), torch.float32, batch=8, rounds=9)
    what = "training step at 224x224: time in interleaved rounds, and the most bytes of tensors beyond weights and state"
    write_result("training-steps", {"what": what, "steps": records})
    print("\n".join(table(records)))


if __name__ == "__main__":
    main()
