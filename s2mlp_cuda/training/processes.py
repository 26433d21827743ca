"""The device of this process and its place among others: one process, or as many as torchrun starts."""

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
    """``"auto"`` is the GPU if there is one, else the CPU; others stay as they are."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def join(device: str, needs_group: bool) -> Processes:
    """Find this process's device, and the others if torchrun started it: NCCL between GPUs, gloo between CPUs.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        needs_group: make a group of one where there are no others, for timm's sampler of repeated augmentation.

    Raises:
        TrainingError: there is no such device.
    """
    device = resolve_device(device)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(f"--device {device}, but PyTorch sees no GPU here")
    found = init_distributed_device_so(device)
    if needs_group and not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    return Processes(torch.device(found["device"]), found["global_rank"], found["world_size"])


def leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
