"""The benchmark suite: the jobs of a quick or full run on one device."""

import math
from dataclasses import replace
from importlib.util import find_spec

import torch

from s2mlp_cuda.bench import baselines
from s2mlp_cuda.bench.models import FUSED, NATIVE, SLICES, VARIANTS, BreakdownJob, ModelJob
from s2mlp_cuda.bench.operators import (
    GELU_SPATIAL_SHIFT,
    OPERATORS,
    SHIFT_SPLIT_ATTENTION,
    SINGLE_CHANNELS,
    SPATIAL_SHIFT,
    UNEQUAL_GROUPS,
    OperatorJob,
)

Job = OperatorJob | ModelJob | BreakdownJob

#: (B, H, W, C) of maps in blocks of the models, and one map much larger than a cache.
SHAPES = {
    "cpu": [(32, 14, 14, c) for c in (384, 768, 1152, 1536)] + [(32, 32, 32, 256), (32, 16, 16, 512), (64, 56, 56, 384)],
    "cuda": [
        (128, 14, 14, 384), (128, 32, 32, 192), (128, 14, 14, 1536), (32, 16, 16, 512), (64, 56, 56, 384), (256, 56, 56, 384),
    ],
}  # fmt: skip
#: First stages of networks with these channel groups, at 224x224.
GROUP_SHAPES = {UNEQUAL_GROUPS: (32, 56, 56, 96), SINGLE_CHANNELS: (32, 56, 56, 64)}
#: float32 maps from 1 KiB to 1 GiB, in powers of four.
SCALE_SHAPES = [
    (1, 2, 2, 64), (1, 4, 4, 64), (1, 8, 8, 64), (1, 16, 16, 64), (1, 16, 16, 256), (4, 16, 16, 256), (16, 16, 16, 256),
    (64, 16, 16, 256), (256, 16, 16, 256), (1024, 16, 16, 256), (4096, 16, 16, 256),
]  # fmt: skip
SCALE_NAMES = frozenset({baselines.OURS, baselines.ASSIGNED, "slices + cat", "hand-written Function of slices"})
#: Implementations without temporary maps. For maps of 1 GiB, the others fragment memory until 24 GiB are not enough.
LOW_MEMORY_NAMES = frozenset({baselines.OURS, "hand-written Function of slices"})
LOW_MEMORY_ELEMENTS = 2**27
#: More than 2^31 elements, for GPUs: 4.4 GB in bfloat16.
HUGE_SHAPE = (40, 512, 256, 416)
MODELS = ("s2mlp_wide", "s2mlp_deep", "s2mlpv2_small_7", "s2mlpv2_medium_7")
TIMM_MODELS = ("mixer_b16_224", "resmlp_36_224", "vit_small_patch16_224", "convnext_tiny")
#: Takes hundreds of copies per call: skipped in quick runs and for all but small maps, where it would take minutes.
SLOW = baselines.DEFORM
SLOW_ELEMENTS = 2**22
#: Maps with more elements are timed in fewer rounds.
LARGE_ELEMENTS = 2**25
#: Its backward pass clones the expanded map for each assignment, and fragments memory: skipped for large maps, where it would take
#: 24 GiB.
HIGH_MEMORY = baselines.IN_PLACE_STACK
QUICK_TIMM_MODELS = ("vit_small_patch16_224", "convnext_tiny")


def jobs(full: bool, device: torch.device, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[Job]:
    """The jobs of a run, in order.

    Args:
        full: the full suite instead of the quick one.
        device: the device to run on.
        only: run only jobs whose description contains one of these words.
        skip: skip jobs whose description contains any of these words.
    """
    selected = _full(device) if full else _quick(device)
    selected = [job for job in selected if not only or any(word in str(job) for word in only)]
    return [job for job in selected if not any(word in str(job) for word in skip)]


def _quick(device: torch.device) -> list[Job]:
    shape = SHAPES[device.type][0]
    operators = [
        OperatorJob(operator, shape, data_format, dtype, device, _rounds(shape))
        for operator, data_format, dtype in (
            (SPATIAL_SHIFT, "channels_last", torch.float32),
            (SPATIAL_SHIFT, "channels_last", torch.bfloat16),
            (SPATIAL_SHIFT, "channels_first", torch.float32),
            (GELU_SPATIAL_SHIFT, "channels_last", torch.float32),
            (GELU_SPATIAL_SHIFT, "channels_last", torch.bfloat16),
            (SHIFT_SPLIT_ATTENTION, "channels_last", torch.float32),
            (SHIFT_SPLIT_ATTENTION, "channels_last", torch.bfloat16),
        )
    ]
    return [
        *(replace(job, names=_quick_names(job)) for job in operators),
        *_scale(device, SCALE_SHAPES[:9]),
        *_models(("s2mlpv2_small_7",), QUICK_TIMM_MODELS, (SLICES, NATIVE, FUSED), device, torch.float32, batch=2, rounds=3),
    ]


def _quick_names(job: OperatorJob) -> frozenset[str]:
    """Compilation takes most of the time, so only float32 channels-last maps have compiled baselines, except the slowest one."""
    names = set(job.implementations()) - {SLOW, f"torch.compile({baselines.ASSIGNED})"}
    if (job.data_format, job.dtype) == ("channels_last", torch.float32):
        return frozenset(names)
    return frozenset(name for name in names if not name.startswith("torch.compile"))


def _full(device: torch.device) -> list[Job]:
    jobs: list[Job] = []
    for operator in (*OPERATORS, *GROUP_SHAPES):
        shapes = [GROUP_SHAPES[operator]] if operator in GROUP_SHAPES else SHAPES[device.type]
        for data_format in ("channels_last", "channels_first"):
            if not operator.exact and data_format == "channels_first":
                continue  # the models do not use such maps
            for dtype in (torch.float32, torch.bfloat16):
                for shape in shapes:
                    job = OperatorJob(operator, shape, data_format, dtype, device, _rounds(shape))
                    names = set(job.implementations())
                    if math.prod(shape) > SLOW_ELEMENTS:
                        names.discard(SLOW)
                    if math.prod(shape) > LARGE_ELEMENTS:
                        names.discard(HIGH_MEMORY)
                    if device.type == "cuda" and shape not in SHAPES["cuda"][:2]:  # compilation takes most of the time
                        names = {name for name in names if not name.startswith("torch.compile")}
                    jobs.append(replace(job, names=frozenset(names)))
    jobs += _scale(device, SCALE_SHAPES)
    if device.type == "cuda":
        huge = OperatorJob(SPATIAL_SHIFT, HUGE_SHAPE, "channels_last", torch.bfloat16, device, 5, frozenset({baselines.OURS}))
        jobs += [huge, replace(huge, data_format="channels_first")]
    dtype, batch = (torch.bfloat16, 128) if device.type == "cuda" else (torch.float32, 4)
    return jobs + _models(MODELS, TIMM_MODELS, tuple(VARIANTS), device, dtype, batch, rounds=5)


def _rounds(shape: tuple) -> int:
    return 11 if math.prod(shape) <= LARGE_ELEMENTS else 5


def _scale(device: torch.device, shapes: list) -> list[Job]:
    return [
        OperatorJob(
            SPATIAL_SHIFT,
            shape,
            "channels_last",
            torch.float32,
            device,
            _rounds(shape),
            LOW_MEMORY_NAMES if math.prod(shape) > LOW_MEMORY_ELEMENTS else SCALE_NAMES,
            "scale",
        )
        for shape in shapes
    ]


def _models(ours, timm_models, variants, device, dtype, batch: int, rounds: int) -> list[Job]:
    jobs = [ModelJob(name, batch, 224, dtype, device, rounds, variants) for name in ours]
    return [
        *jobs,
        *(ModelJob(name, batch, 224, dtype, device, rounds) for name in timm_models if find_spec("timm")),
        *(BreakdownJob(replace(job, rounds=3)) for job in jobs),
    ]
