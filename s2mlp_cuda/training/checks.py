"""Checks of the arguments of ``s2mlp train`` that argparse cannot make, before data and model are built."""

import argparse
import io

import torch
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from s2mlp_cuda._messages import one_line
from s2mlp_cuda._state_dicts import few
from s2mlp_cuda.training.cache import check_options
from s2mlp_cuda.training.checkpoint import different_optimizer
from s2mlp_cuda.training.config import MAX_SIDE
from s2mlp_cuda.training.errors import TrainingError

#: With a smaller alpha, images are not mixed visibly; NumPy's beta distribution gives NaN below about 1e-308.
_MIN_ALPHA = 1e-6


def check_arguments(arguments: argparse.Namespace) -> None:
    """
    Raises:
        TrainingError: the output has no name, images are too large, a range is empty, alpha of Mixup or CutMix is too small,
            stochastic depth is given twice, timm does not know the augmentation policy, or ``cache`` does not support an option.
        MissingExtraError: ``cache`` is set and Kornia is not installed.
    """
    if not arguments.output:
        raise TrainingError("--output must be the name of a folder, got ''")
    if arguments.img_size > MAX_SIDE * arguments.crop_pct:
        raise TrainingError(
            f"--img-size must be at most {MAX_SIDE} times --crop-pct, got {arguments.img_size} and {arguments.crop_pct:g}"
        )
    if arguments.drop_path and "drop_path_rate" in arguments.model_kwargs:
        raise TrainingError("--drop-path and drop_path_rate in --model-kwargs are the same: give one of them")
    for name in ("scale", "ratio"):
        low, high = getattr(arguments, name)
        if low > high:
            raise TrainingError(f"--{name} must be two numbers in increasing order, got {low} and {high}")
    for name in ("mixup", "cutmix"):
        alpha = getattr(arguments, name)
        if 0 < alpha < _MIN_ALPHA:
            raise TrainingError(f"--{name} must be 0 or at least {_MIN_ALPHA:g}, got {alpha:g}")
    try:
        create_transform((3, 8, 8), is_training=True, auto_augment=arguments.aa)
    except Exception as error:  # timm raises AssertionError, ValueError, KeyError and others
        raise TrainingError(f"--aa {arguments.aa!r} is not an augmentation policy of timm ({one_line(error)})") from error
    if arguments.cache:
        check_options(arguments)


@torch.compiler.set_stance("force_eager")  # some optimizers compile their step, which takes a minute
def check_optimizer(arguments: argparse.Namespace, device: torch.device) -> None:
    """Trains a tiny model for one step, saves and restores the state as a run does, and makes one more step.

    Raises:
        TrainingError: timm does not know the optimizer, its package is not installed, it needs more than a gradient, or its state
            cannot be saved or restored.
    """
    trouble = "cannot be used"
    try:
        model, optimizer = _one_step(arguments, device)
        trouble = "cannot be used, because its state cannot be saved and restored"
        saved = io.BytesIO()
        torch.save(get_state_dict(model, optimizer, options=StateDictOptions(cpu_offload=True)), saved)
        weights, state = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
        model, optimizer = _one_step(arguments, device)
        names = different_optimizer(state, get_state_dict(model, optimizer)[1])
        if names:
            raise ValueError(f"it is different for another model of the same shape: {few(names)}")
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
        optimizer.step()
    except Exception as error:  # as above
        raise TrainingError(f"--opt {arguments.opt!r} {trouble} ({one_line(error)}); see timm.optim.list_optimizers()") from error


def _one_step(arguments: argparse.Namespace, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A tiny model with a convolution, a matrix and biases, and its optimizer, after one step."""
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4, 4)).to(device)
    optimizer = create_optimizer_v2(model, arguments.opt, arguments.lr, arguments.weight_decay)
    model(torch.ones(1, 3, 2, 2, device=device)).sum().backward()
    optimizer.step()
    return model, optimizer
