"""Times forward + backward of the shift and its usual baselines, with the code of ``s2mlp bench``."""

from dataclasses import dataclass

import torch

from s2mlp_cuda.bench.baselines import OURS
from s2mlp_cuda.bench.measurement import COPY, copies
from s2mlp_cuda.bench.operators import BOTH, SPATIAL_SHIFT, OperatorJob

#: (B, H, W, C): a block of S2-MLP-deep, and a block of the first stage of S2-MLPv2-Small/7 with half the batch size.
SHAPES = ((32, 14, 14, 384), (16, 32, 32, 192))
ALTERNATIVES = (
    OURS,
    "slices, cloned and assigned",
    "slices + cat",
    "hand-written Function of slices",
    "padded roll",
    "one-hot depthwise conv2d",
    "torch.compile(slices + cat)",
)


@dataclass(frozen=True)
class Timing:
    """``ratio`` is the time of forward + backward in copies of the map. If it did not run, it is nan, and ``failure`` says why."""

    name: str
    ratio: float
    right: bool
    failure: str


def time_alternatives(shape: tuple[int, int, int, int], device: torch.device, rounds: int) -> list[Timing]:
    """One Timing per implementation on a float32 map (B, H, W, C), ours first."""
    job = OperatorJob(SPATIAL_SHIFT, shape, "channels_last", torch.float32, device, rounds, frozenset(ALTERNATIVES))
    measurements = [m for m in job.run() if m.case.direction == BOTH]
    return [
        Timing(m.name, copies(m, measurements), bool(m.right), m.failure.partition(":")[0]) for m in measurements if m.name != COPY
    ]
