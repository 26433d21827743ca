"""Checks of the arguments of ``s2mlp train`` that argparse cannot make, before data and model are built."""

import argparse

import torch
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from torch import nn

from s2mlp_cuda.training.config import MAX_SIDE
from s2mlp_cuda.training.errors import TrainingError, one_line

#: With a smaller alpha, images are not mixed visibly; NumPy's beta distribution gives NaN below about 1e-308.
_MIN_ALPHA = 1e-6


def check_arguments(arguments: argparse.Namespace) -> None:
    """
    Raises:
        TrainingError: the output has no name, images are too large, a range is empty, alpha of Mixup or CutMix is too small,
            stochastic depth is given twice, or timm does not know the augmentation policy.
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


def check_optimizer(arguments: argparse.Namespace, device: torch.device) -> None:
    """Makes one step with one small parameter.

    Raises:
        TrainingError: timm does not know the optimizer, its package is not installed, or it needs more than a gradient.
    """
    weight = nn.Linear(4, 4, device=device)
    try:
        optimizer = create_optimizer_v2(weight, arguments.opt, arguments.lr, arguments.weight_decay)
        weight(torch.ones(1, 4, device=device)).sum().backward()
        optimizer.step()
    except Exception as error:  # as above
        raise TrainingError(
            f"--opt {arguments.opt!r} cannot be used ({one_line(error)}); see timm.optim.list_optimizers()"
        ) from error
