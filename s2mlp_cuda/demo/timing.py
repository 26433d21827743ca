"""Forward + backward of the shift and of its usual alternatives, by the means of ``s2mlp bench``."""

from dataclasses import dataclass

import torch

from s2mlp_cuda.bench.baselines import OURS
from s2mlp_cuda.bench.measurement import COPY, copies
from s2mlp_cuda.bench.operators import BOTH, SPATIAL_SHIFT, OperatorJob

#: (B, H, W, C): a block of S2-MLP-deep, and one of the first stage of S2-MLPv2-Small/7 at half its batch of maps.
SHAPES = ((32, 14, 14, 384), (16, 32, 32, 192))
ALTERNATIVES = (
    OURS,
    "slices, cloned and assigned",
    "slices + cat",
    "padded roll",
    "one-hot depthwise conv2d",
    "torch.compile(slices + cat)",
)


@dataclass(frozen=True)
class Timing:
    """``ratio`` is forward + backward in copies of the map, not a number where it did not run, for the reason in ``failure``."""

    name: str
    ratio: float
    right: bool
    failure: str


def time_alternatives(shape: tuple[int, int, int, int], device: torch.device, rounds: int) -> list[Timing]:
    """One Timing per alternative on a float32 map (B, H, W, C), ours first."""
    job = OperatorJob(SPATIAL_SHIFT, shape, "channels_last", torch.float32, device, rounds, frozenset(ALTERNATIVES))
    ways = [m for m in job.run() if m.case.direction == BOTH]
    return [Timing(m.name, copies(m, ways), bool(m.right), m.failure.partition(":")[0]) for m in ways if m.name != COPY]
