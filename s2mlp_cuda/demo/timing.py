"""Forward + backward of the shift and of its alternatives: ratios to a copy, interleaved rounds, outputs checked."""

import ctypes
import logging
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from s2mlp_cuda import reference, spatial_shift
from s2mlp_cuda.offsets import V1

#: (B, H, W, C): a block of S2-MLP-deep, and one of the first stage of S2-MLPv2-Small/7 at half its batch of maps.
SHAPES = ((32, 14, 14, 384), (16, 32, 32, 192))
OURS = "s2mlp_cuda.spatial_shift"


def clone_and_assign(x: torch.Tensor, data_format: str = "channels_last") -> torch.Tensor:
    """V1 by slices of clones, assigned: the safe eager form of the papers' pseudo-code."""
    out = x.clone()
    view = out if data_format == "channels_last" else out.movedim(-3, -1)
    quarter = view.shape[-1] // 4
    view[..., 1:, :quarter] = view[..., :-1, :quarter].clone()
    view[..., :-1, quarter : 2 * quarter] = view[..., 1:, quarter : 2 * quarter].clone()
    view[..., 1:, :, 2 * quarter : 3 * quarter] = view[..., :-1, :, 2 * quarter : 3 * quarter].clone()
    view[..., :-1, :, 3 * quarter :] = view[..., 1:, :, 3 * quarter :].clone()
    return out


def alternatives() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Name: V1 shift on (B, H, W, C), ours first."""
    return {
        OURS: spatial_shift,
        "slices, cloned and assigned": clone_and_assign,
        "slices + cat": reference.spatial_shift,
        "padded roll": reference.spatial_shift_roll,
        "one-hot depthwise conv2d": reference.spatial_shift_conv2d,
        "torch.compile(slices + cat)": torch.compile(lambda x: reference.spatial_shift(x), dynamic=False),
    }


@dataclass(frozen=True)
class Timing:
    """``ratio`` is forward + backward in copies of the map; None, with the reason in ``failure``, where it did not run."""

    name: str
    milliseconds: float | None = None
    ratio: float | None = None
    right: bool = False
    failure: str = ""


def keep_freed_memory() -> None:
    """Stops glibc from handing big freed blocks back to the system.

    Otherwise every fresh output is faulted in page by page, which takes longer than any of the shifts and hides what
    this measures. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_mmap_max, 0)


@contextmanager
def exact_convolutions():
    """On a GPU, float32 convolutions round their inputs to TF32 by default, and then a one-hot one is no shift."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@exact_convolutions()
def time_alternatives(
    shape: tuple[int, int, int, int],
    device: torch.device,
    rounds: int,
    on_round: Callable[[], None] = lambda: None,
) -> tuple[float, list[Timing]]:
    """Milliseconds of one copy of the map, and one Timing per alternative; ``on_round`` is called after each round.

    Every output and gradient is compared with the reference first. Each round takes all of them in turn, so that a
    slow second of the machine hits all alike; medians over the rounds.
    """
    # The compiler's remark that it found a CUDA toolkit but no GPU is no news here.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    x = torch.randn(shape, device=device, requires_grad=True)
    grad = torch.randn(shape, device=device)
    expected = reference.spatial_shift(x, V1)
    (expected_grad,) = torch.autograd.grad(expected, x, grad)

    def step(shift: Callable) -> None:
        torch.autograd.grad(shift(x), x, grad)

    checked: dict[str, Timing] = {}
    steps: dict[str, Callable[[], object]] = {"": lambda: x.detach().clone()}
    for name, shift in alternatives().items():
        try:
            out = shift(x)
            (ours,) = torch.autograd.grad(out, x, grad)
        except torch._dynamo.exc.TorchDynamoException as error:
            checked[name] = Timing(name, failure=f"does not compile here: {type(error).__name__}")
            continue
        right = torch.equal(out, expected) and torch.allclose(ours, expected_grad, rtol=1e-5, atol=1e-5)
        checked[name] = Timing(name, right=right)
        steps[name] = lambda shift=shift: step(shift)
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, run in steps.items():
            run()
            _synchronize(device)
            begin = time.perf_counter()
            run()
            _synchronize(device)
            samples[name].append((time.perf_counter() - begin) * 1e3)
        on_round()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    copy = medians.pop("")
    timings = [
        Timing(name, medians[name], medians[name] / copy, timing.right) if name in medians else timing
        for name, timing in checked.items()
    ]
    return copy, timings
