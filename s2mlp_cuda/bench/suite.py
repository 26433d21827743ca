"""What a run consists of: quick or full, on one device."""

import math
from dataclasses import replace
from importlib.util import find_spec

import torch

from s2mlp_cuda.bench import peers
from s2mlp_cuda.bench.models import FORMS, FUSED, NATIVE, SLICES, BreakdownJob, ModelJob
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

#: (B, H, W, C): blocks of the models, and one map far larger than a cache.
SHAPES = {
    "cpu": [(32, 14, 14, c) for c in (384, 768, 1152, 1536)] + [(32, 32, 32, 256), (32, 16, 16, 512), (64, 56, 56, 384)],
    "cuda": [
        (128, 14, 14, 384), (128, 32, 32, 192), (128, 14, 14, 1536), (32, 16, 16, 512), (64, 56, 56, 384), (256, 56, 56, 384),
    ],
}  # fmt: skip
#: First stages of the networks that have such channel groups, at 224x224.
GROUP_SHAPES = {UNEQUAL_GROUPS: (32, 56, 56, 96), SINGLE_CHANNELS: (32, 56, 56, 64)}
#: Maps of float32 from 1 KB to 1 GB, by powers of four.
SCALE_SHAPES = [
    (1, 2, 2, 64), (1, 4, 4, 64), (1, 8, 8, 64), (1, 16, 16, 64), (1, 16, 16, 256), (4, 16, 16, 256), (16, 16, 16, 256),
    (64, 16, 16, 256), (256, 16, 16, 256), (1024, 16, 16, 256), (4096, 16, 16, 256),
]  # fmt: skip
SCALE_NAMES = frozenset({peers.OURS, peers.ASSIGNED, "slices + cat", "hand-written Function of slices"})
#: Those that make no temporary maps: at 1 GB the others fragment memory until 24 GiB do not suffice.
LEAN_NAMES = frozenset({peers.OURS, "hand-written Function of slices"})
LEAN_ELEMENTS = 2**27
#: More than 2^31 elements, for GPUs: 4.4 GB in bfloat16.
HUGE_SHAPE = (40, 512, 256, 416)
MODELS = ("s2mlp_wide", "s2mlp_deep", "s2mlpv2_small_7", "s2mlpv2_medium_7")
TIMM_MODELS = ("mixer_b16_224", "resmlp_36_224", "vit_small_patch16_224", "convnext_tiny")
#: Hundreds of copies a call: left out of quick runs and of all but small maps, where it takes minutes.
SLOW = peers.DEFORM
SLOW_ELEMENTS = 2**22
#: Maps of more elements get fewer rounds.
MANY_ELEMENTS = 2**25
#: Its backward pass takes a clone of the expanded map per assignment, and fragments memory: left out of large maps, of which it
#: would take 24 GiB.
HUNGRY = peers.IN_PLACE_STACK
QUICK_TIMM_MODELS = ("vit_small_patch16_224", "convnext_tiny")


def jobs(full: bool, device: torch.device, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[Job]:
    """The jobs of a run in order.

    Args:
        only: words; jobs are left out whose description has none of them.
        skip: words; jobs are left out whose description has any of them.
    """
    found = _full(device) if full else _quick(device)
    found = [job for job in found if not only or any(word in str(job) for word in only)]
    return [job for job in found if not any(word in str(job) for word in skip)]


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
    """Compiling takes most of the time: on channels-last maps of float32 alone, and not of the slowest."""
    names = set(job.ways()) - {SLOW, f"torch.compile({peers.ASSIGNED})"}
    if (job.data_format, job.dtype) == ("channels_last", torch.float32):
        return frozenset(names)
    return frozenset(name for name in names if not name.startswith("torch.compile"))


def _full(device: torch.device) -> list[Job]:
    found: list[Job] = []
    for operator in (*OPERATORS, *GROUP_SHAPES):
        shapes = [GROUP_SHAPES[operator]] if operator in GROUP_SHAPES else SHAPES[device.type]
        for data_format in ("channels_last", "channels_first"):
            if not operator.exact and data_format == "channels_first":
                continue  # the models have no such maps
            for dtype in (torch.float32, torch.bfloat16):
                for shape in shapes:
                    job = OperatorJob(operator, shape, data_format, dtype, device, _rounds(shape))
                    names = set(job.ways())
                    if math.prod(shape) > SLOW_ELEMENTS:
                        names.discard(SLOW)
                    if math.prod(shape) > MANY_ELEMENTS:
                        names.discard(HUNGRY)
                    if device.type == "cuda" and shape not in SHAPES["cuda"][:2]:  # compiling takes most of the time
                        names = {name for name in names if not name.startswith("torch.compile")}
                    found.append(replace(job, names=frozenset(names)))
    found += _scale(device, SCALE_SHAPES)
    if device.type == "cuda":
        huge = OperatorJob(SPATIAL_SHIFT, HUGE_SHAPE, "channels_last", torch.bfloat16, device, 5, frozenset({peers.OURS}))
        found += [huge, replace(huge, data_format="channels_first")]
    dtype, batch = (torch.bfloat16, 128) if device.type == "cuda" else (torch.float32, 4)
    return found + _models(MODELS, TIMM_MODELS, tuple(FORMS), device, dtype, batch, rounds=5)


def _rounds(shape: tuple) -> int:
    return 11 if math.prod(shape) <= MANY_ELEMENTS else 5


def _scale(device: torch.device, shapes: list) -> list[Job]:
    return [
        OperatorJob(
            SPATIAL_SHIFT,
            shape,
            "channels_last",
            torch.float32,
            device,
            _rounds(shape),
            LEAN_NAMES if math.prod(shape) > LEAN_ELEMENTS else SCALE_NAMES,
            "scale",
        )
        for shape in shapes
    ]


def _models(ours, timms, forms, device, dtype, batch: int, rounds: int) -> list[Job]:
    jobs = [ModelJob(name, batch, 224, dtype, device, rounds, forms) for name in ours]
    return [
        *jobs,
        *(ModelJob(name, batch, 224, dtype, device, rounds) for name in timms if find_spec("timm")),
        *(BreakdownJob(replace(job, rounds=3)) for job in jobs),
    ]
