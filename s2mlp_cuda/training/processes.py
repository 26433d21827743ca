"""The device and the rank of this process, with or without torchrun."""

import os
import re
from dataclasses import dataclass

import torch
from timm.utils.distributed import init_distributed_device_so
from torch import distributed

from s2mlp_cuda.training.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    device: torch.device
    rank: int
    count: int

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a scalar over all processes."""
        if self.count > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.count
        return value.item()

    def wait(self) -> None:
        if self.count > 1:
            distributed.barrier()


def resolve_device(device: str) -> str:
    """Replaces ``"auto"`` by ``"cuda"`` if available, else ``"cpu"``; returns other devices unchanged.

    Raises:
        TrainingError: the device does not exist.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise TrainingError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(f"--device {device}: PyTorch finds no GPU on this machine")
    number = int(os.environ.get("LOCAL_RANK", device.partition(":")[2] or 0)) if device != "cpu" else 0
    if device != "cpu" and number >= torch.cuda.device_count():
        raise TrainingError(f"there is no GPU {number}: PyTorch finds {torch.cuda.device_count()}, counted from 0")
    return device


def join(device: str, needs_group: bool) -> Processes:
    """Select the device, and initialize the process group if torchrun started this process: NCCL for GPUs, gloo for CPUs.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        needs_group: create a group of one for a single process, for timm's repeated augmentation sampler.

    Raises:
        TrainingError: the device is not available.
    """
    device = resolve_device(device)
    info = init_distributed_device_so(device)
    if needs_group and not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    return Processes(torch.device(info["device"]), info["global_rank"], info["world_size"])


def leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
