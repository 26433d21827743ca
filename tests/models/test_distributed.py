"""A training step in several processes, on CPUs with gloo, equals the same step in one process."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from test_models import small

WORLD = 2


def step(model, images):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(images).square().mean().backward()
    optimizer.step()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def work(rank, kind, name, address, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    model = small(name).double()
    images = torch.randn(2 * WORLD, 3, 16, 24, dtype=torch.float64)
    expected = copy.deepcopy(model)
    step(expected, images)
    if kind == "DDP":
        trained = DistributedDataParallel(model)
    else:
        mesh = dist.init_device_mesh("cpu", (WORLD,))
        for block in [module for module in model.modules() if hasattr(module, "drop_path")]:
            fully_shard(block, mesh=mesh)
        trained = fully_shard(model, mesh=mesh)
    step(trained, images.chunk(WORLD)[rank])
    for (key, ours), theirs in zip(model.named_parameters(), expected.parameters()):
        torch.testing.assert_close(whole(ours), theirs, msg=lambda text: f"{key}: {text}")
    dist.barrier()  # as in s2mlp_cuda.training.run
    dist.destroy_process_group()
    (folder / f"{rank}").touch()


@pytest.mark.parametrize("name", ["s2mlp_deep", "s2mlpv2_small_7"])
@pytest.mark.parametrize("kind", ["DDP", "FSDP2"])
def test_one_step_by_two_processes(kind, name, tmp_path):
    mp.spawn(work, (kind, name, f"file://{tmp_path / 'rendezvous'}", tmp_path), WORLD)
    assert all((tmp_path / str(rank)).exists() for rank in range(WORLD))
