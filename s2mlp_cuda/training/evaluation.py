"""Loss and accuracy of a model on a split."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from timm.task.evaluator import ClassificationEvaluator, evaluation_sample_limit
from torch import nn

from s2mlp_cuda.training import config, weights
from s2mlp_cuda.training.data import eval_loader, open_split
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.processes import Processes, join, leave
from s2mlp_cuda.training.progress import track


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader,
    processes: Processes,
    amp: bool = False,
    channels_last: bool = False,
    watch: Callable[[Iterable], Iterable] = iter,
) -> dict[str, float]:
    """
    Args:
        model: maps images (B, 3, H, W) to logits (B, classes). Set to evaluation mode.
        loader: batches of images and labels of this process's shard.
        processes: the processes that share the evaluation.
        amp: autocast to bfloat16.
        channels_last: memory format of the images.
        watch: iterates over the loader and shows the progress.

    Returns:
        ``loss`` (cross-entropy, nats), ``top1`` and ``top5`` (percent) over the images of all processes, and the number of
        ``images``; each image counts once.
    """
    evaluator = ClassificationEvaluator(processes.device, max_samples=evaluation_sample_limit(loader))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model.eval()
    for images, labels in watch(loader):
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=amp):
            output = model(images.contiguous(memory_format=memory_format))
        evaluator.update(output, labels)
    images = torch.tensor(float(evaluator.num_samples), dtype=torch.float64, device=processes.device)
    metrics = evaluator.compute(distributed=processes.count > 1)
    return {**metrics, "images": round(processes.mean(images) * processes.count)}


def evaluate_file(
    file: Path,
    data: str | None,
    split: str = "validation",
    dataset: str = "",
    batch_size: int = 256,
    workers: int = 4,
    device: str = "auto",
    amp: bool = False,
    input_key: str | None = None,
    target_key: str | None = None,
) -> dict[str, float]:
    """``s2mlp eval``: evaluate weights that ``s2mlp train`` wrote, in one process or under torchrun.

    Returns:
        As :func:`evaluate`. Empty in all processes except the first.

    Raises:
        TrainingError: weights, data or device cannot be used, or the loss is not finite.
    """
    if dataset == "digits" and not data:
        written = file.parent / "digits"
        raise TrainingError(f"--dataset digits needs --data: train wrote the images to the folder digits in --output, as {written}")
    processes = join(device, needs_group=False)
    try:
        model, description = weights.load(file)
        arguments = config.parse([])
        for name in ("img_size", "mean", "std", "interpolation", "crop_pct"):
            setattr(arguments, name, getattr(description, name))
        arguments.data, arguments.dataset, arguments.workers = data, dataset, workers
        arguments.input_key, arguments.target_key, arguments.num_classes = input_key, target_key, description.num_classes
        images = open_split(arguments, split, description.class_names, False, batch_size)
        loader = eval_loader(arguments, images, batch_size, processes.device)
        watch = partial(track, text="evaluating") if processes.is_first else iter
        metrics = evaluate(model.to(processes.device), loader, processes, amp, watch=watch)
        if not math.isfinite(metrics["loss"]):
            raise TrainingError(f"the loss of {file} is {metrics['loss']}: the model's output has NaN or infinite values")
        return metrics if processes.is_first else {}
    finally:
        leave()
