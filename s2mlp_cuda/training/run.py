"""``s2mlp train``: one run, from its arguments to its weights, curves and checkpoints."""

import argparse
import json
import math
import resource
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import dispatch_clip_grad, random_seed, unwrap_model
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard

from s2mlp_cuda._files import remove_leftovers, write_text
from s2mlp_cuda._messages import one_line
from s2mlp_cuda._state_dicts import few
from s2mlp_cuda._system import keep_freed_memory
from s2mlp_cuda.layers import S2MLPBlock, S2MLPv2Block
from s2mlp_cuda.training import checkpoint, config, weights
from s2mlp_cuda.training.checks import check_arguments, check_optimizer
from s2mlp_cuda.training.curves import draw_curves
from s2mlp_cuda.training.data import Split, describe_change, eval_loader, open_split, prepare, train_loader
from s2mlp_cuda.training.datasets import ImageStream
from s2mlp_cuda.training.description import Description, build, check_arguments_of_model
from s2mlp_cuda.training.environment import environment
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.evaluation import evaluate
from s2mlp_cuda.training.files import check_folder, report_full_disk
from s2mlp_cuda.training.lock import locked
from s2mlp_cuda.training.processes import Processes, join, leave
from s2mlp_cuda.training.progress import Progress, spinner

#: Full state dicts on the CPU of the first process: the same for one process, DDP and FSDP2.
_FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class Finished:
    """The result of a run: one dict per epoch (the rows of metrics.csv), numbers of parameters, classes and test images."""

    history: list[dict[str, float]]
    parameters: int
    classes: int
    test_images: int


def train(arguments: argparse.Namespace) -> Finished:
    """Train with the arguments of :func:`s2mlp_cuda.training.config.parse`.

    Writes config.yaml, environment.json, metrics.csv, curves.png, checkpoints/, tensorboard/, last.safetensors and
    best.safetensors (of the epoch with the highest top-1 accuracy) to the folder ``output``. With an EMA, the saved weights are
    the averaged ones.

    A run that was interrupted at any point resumes from its last finished epoch with ``resume="auto"``. An epoch depends only on
    the state before it and on a seed derived from ``seed``, the epoch and the rank. On a CPU, the losses are therefore bitwise
    identical to those of an uninterrupted run.

    Raises:
        TrainingError: incompatible arguments, unusable data or checkpoints, another training in the same folder, a loss that is
            not finite, or a full disk. Saved files are intact.
    """
    check_arguments(arguments)
    check_arguments_of_model(arguments.model, _model_arguments(arguments))  # before files are written
    processes = join(arguments.device, arguments.aug_repeats > 0)
    try:
        progress = Progress(processes.is_first)
        output = Path(arguments.output)
        with report_full_disk(output), locked(output, progress.warn) if processes.is_first else nullcontext():
            if processes.is_first:
                remove_leftovers(output)
                remove_leftovers(checkpoint.folder_of(output))
            processes.wait()
            run = _Run(arguments, processes, progress)
            run.all_epochs()
            processes.wait()  # otherwise a collective's thread may free tensors during interpreter exit, which aborts the process
            return Finished(run.history, run.parameters, run.num_classes, run.test_images)
    finally:
        leave()


class _Run:
    def __init__(self, arguments: argparse.Namespace, processes: Processes, progress: Progress):
        self.arguments, self.processes, self.progress = arguments, processes, progress
        self.output = Path(arguments.output)
        self.memory_format = torch.channels_last if arguments.channels_last else torch.contiguous_format
        if processes.device.type == "cpu":
            keep_freed_memory()
        self.history: list[dict[str, float]] = []
        self.micro_batch = self._micro_batch_size()
        check_optimizer(arguments, processes.device)
        state = self._state_to_resume()
        train_split, val_split = self._open_splits(state)
        self.class_names, self.num_classes = train_split.class_names, train_split.num_classes
        self.test_images = val_split.size
        with spinner("reading the images", progress.console):
            self.train_loader = train_loader(arguments, train_split, self.micro_batch, processes.device)
            self.val_loader = eval_loader(arguments, val_split, self.micro_batch, processes.device)
        self.updates_per_epoch = len(self.train_loader) // arguments.grad_accum_steps
        self.mixup = self._mixup()

        torch.manual_seed(arguments.seed)
        model = self._model()
        weights.check_input(model, arguments.img_size, self.num_classes, self.memory_format)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.task = self._task(model)
        self.optimizer = create_optimizer_v2(
            unwrap_model(self.task.trainable_module), arguments.opt, arguments.lr, arguments.weight_decay
        )
        self.scheduler = self._scheduler()
        self.first_epoch = self._restore(state)

    def _checkpoint(self) -> str:
        return f"the checkpoint to resume ({self.arguments.resume})"

    def _state_to_resume(self) -> dict[str, Any] | None:
        """
        Raises:
            TrainingError: the output folder already has a run and ``resume`` is not set, the checkpoint is not one of a run, or the
                run has different arguments.
        """
        resume = self.arguments.resume
        if not resume:
            if checkpoint.list_checkpoints(self.output):
                raise TrainingError(f"{self.output} already has a run: resume it with --resume auto, or choose another --output")
            return None
        state = checkpoint.load_newest(self.output, self.progress.warn) if resume == "auto" else checkpoint.load(Path(resume))
        if state is not None:
            if not checkpoint.is_state_of_a_run(state):
                raise TrainingError(f"{self._checkpoint()} was not written by this version of s2mlp train")
            now = {**vars(self.arguments), "processes": self.processes.count}
            changed = config.differences(state["arguments"], now)
            if changed:
                raise TrainingError(
                    f"the run was started with different arguments ({'; '.join(changed)}): repeat its command, or start a new run "
                    "in another --output"
                )
            if state["epochs_done"] > self.arguments.epochs:
                raise TrainingError(
                    f"{self._checkpoint()} is of epoch {state['epochs_done']}, but --epochs is {self.arguments.epochs}"
                )
        return state

    def _open_splits(self, state: dict[str, Any] | None) -> tuple[Split, Split]:
        """
        Raises:
            TrainingError: checkpoints cannot be written, the data cannot be used, or is not that of the run to resume.
        """
        arguments = self.arguments
        if self.processes.is_first:
            check_folder(checkpoint.folder_of(self.output))
            prepare(arguments)
        self.processes.wait()
        train_split = open_split(arguments, arguments.train_split, [], True, self.micro_batch)
        val_split = open_split(arguments, arguments.val_split, train_split.class_names, False, self.micro_batch)
        if isinstance(val_split.dataset, ImageStream) and self.processes.count > 1 and arguments.parallel == "fsdp":
            raise TrainingError(
                f"--parallel fsdp does not support streams of images such as {arguments.dataset}: use --parallel ddp"
            )
        self.data = {"training": train_split.identity(), "validation": val_split.identity()}
        if state is not None:
            changes = {name: describe_change(state["data"][name], now) for name, now in self.data.items()}
            changed = ", ".join(f"{name} data: {change}" for name, change in changes.items() if change)
            if changed:
                raise TrainingError(
                    f"the run was started with different data ({changed}): restore it, or start a new run in another --output, "
                    "from last.safetensors with --weights"
                )
        if self.processes.is_first:
            with spinner("checking the images", self.progress.console):
                train_split.check_files()
                val_split.check_files()
        return train_split, val_split

    def _micro_batch_size(self) -> int:
        parts = self.processes.count * self.arguments.grad_accum_steps
        size, remainder = divmod(self.arguments.batch_size, parts)
        if remainder or not size:
            raise TrainingError(
                f"--batch-size {self.arguments.batch_size} must be a multiple of {parts} "
                f"({_count(self.processes.count, 'process', 'processes')}, "
                f"{_count(self.arguments.grad_accum_steps, 'accumulation step', 'accumulation steps')})"
            )
        return size

    def _scheduler(self):
        arguments = self.arguments
        try:
            scheduler, _ = create_scheduler_v2(
                self.optimizer,
                arguments.sched,
                num_epochs=arguments.epochs,
                warmup_epochs=arguments.warmup_epochs,
                warmup_lr=arguments.warmup_lr,
                min_lr=arguments.min_lr,
                step_on_epochs=False,
                updates_per_epoch=self.updates_per_epoch,
            )
        except ValueError as error:
            raise TrainingError(
                f"--sched {arguments.sched} cannot be used for --epochs {arguments.epochs} ({one_line(error)})"
            ) from error
        return scheduler

    def _mixup(self) -> Mixup | None:
        arguments = self.arguments
        if not (arguments.mixup or arguments.cutmix):
            return None
        if self.micro_batch % 2:
            raise TrainingError(
                "Mixup and CutMix pair images, so the batch size per process and accumulation step must be even, "
                f"got {self.micro_batch}"
            )
        return Mixup(
            arguments.mixup,
            arguments.cutmix,
            prob=arguments.mixup_prob,
            switch_prob=arguments.mixup_switch_prob,
            label_smoothing=arguments.smoothing,
            num_classes=self.num_classes,
        )

    def _model(self) -> nn.Module:
        arguments = self.arguments
        model = build(arguments.model, self.num_classes, **_model_arguments(arguments))
        if arguments.weights:
            skipped = weights.load_into(model, Path(arguments.weights), self.class_names)
            if skipped:
                self.progress.warn(f"{arguments.weights}: not loaded, as the classes differ: {', '.join(skipped)}")
        if arguments.grad_checkpointing:
            try:
                model.set_grad_checkpointing()  # type: ignore[operator]
            except Exception as error:  # models of timm that lack it raise AssertionError, AttributeError and others
                raise TrainingError(f"{arguments.model} does not support --grad-checkpointing ({one_line(error)})") from error
        if arguments.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.to(self.processes.device)

    def _task(self, model: nn.Module) -> ClassificationTask:
        arguments, processes = self.arguments, self.processes
        loss = {"smoothing": arguments.smoothing, "soft_targets": self.mixup is not None}
        task = ClassificationTask(model, criterion_kwargs=loss, device=processes.device, verbose=False)
        if arguments.model_ema_decay:
            task.setup_ema(arguments.model_ema_decay, use_warmup=arguments.model_ema_warmup)
        if processes.count > 1 and arguments.parallel == "fsdp":
            for copy in (model, task.trainable_module_ema.module) if task.has_ema() else (model,):
                for block in copy.modules():
                    if isinstance(block, (S2MLPBlock, S2MLPv2Block)):
                        fully_shard(block)
                fully_shard(copy)
        if arguments.torchcompile:
            task.compile()
        if processes.count > 1 and arguments.parallel == "ddp":
            task.prepare_distributed([processes.device] if processes.device.type == "cuda" else None)
        return task

    @property
    def model(self) -> nn.Module:
        """The trained model, without wrappers."""
        return unwrap_model(self.task.trainable_module)

    @property
    def averaged_model(self) -> nn.Module:
        """The EMA model if there is one, else the trained model."""
        return self.task.trainable_module_ema.module if self.task.has_ema() else self.model

    def _restore(self, state: dict[str, Any] | None) -> int:
        """
        Raises:
            TrainingError: the names, shapes or dtypes in the state are not those of this run; nothing is loaded then.
        """
        if state is None:
            return 0
        model, optimizer = get_state_dict(self.model, self.optimizer)
        different = {
            "weights": checkpoint.different_tensors(state["model"], model),
            "averaged weights": checkpoint.different_tensors(state.get("ema", {}), model if self.task.has_ema() else {}),
            "optimizer state": checkpoint.different_optimizer(state["optimizer"], optimizer),
        }
        for part, names in different.items():
            if names:
                raise TrainingError(f"{self._checkpoint()} is of a different model or optimizer ({part}: {few(names)})")
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.processes.count > 1)
        try:
            set_state_dict(
                self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=options
            )
            if self.task.has_ema():
                set_model_state_dict(self.averaged_model, state["ema"], options=options)
        except (RuntimeError, KeyError, ValueError, AssertionError) as error:
            raise TrainingError(f"{self._checkpoint()} is of a different model or optimizer ({one_line(error)})") from error
        self.history = state["history"]
        return state["epochs_done"]

    def all_epochs(self) -> None:
        arguments, first = self.arguments, self.processes.is_first
        events = None
        if first:
            write_text(self.output / "config.yaml", config.as_yaml(arguments))
            write_text(self.output / "environment.json", json.dumps(environment(), indent=1) + "\n")
            self._describe()
            if arguments.tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                # A resumed run rewrites all events, because the last ones may be missing.
                events = SummaryWriter(str(self.output / "tensorboard"), purge_step=0)
                for row in self.history:
                    self._write_events(events, row)
        with self.progress.run(arguments.epochs, self.first_epoch, self.updates_per_epoch) as advance:
            for epoch in range(self.first_epoch, arguments.epochs):
                row = self._one_epoch(epoch, advance)
                self.history.append(row)
                self._save(epoch + 1)
                if events is not None:
                    self._write_events(events, row)
                self.progress.tell_epoch(row, arguments.epochs)
        if events is not None:
            events.close()
        if first:
            if self.history:
                draw_curves(self.history, self.output / "curves.png", self._title())
            self.progress.say(f"{self.output}: last.safetensors, best.safetensors, metrics.csv, curves.png, config.yaml")

    def _title(self) -> str:
        """The model, its changed arguments and its number of parameters."""
        kwargs = config.tuples_to_lists(self.arguments.model_kwargs)
        changes = " with " + ", ".join(f"{name} {value}" for name, value in kwargs.items()) if kwargs else ""
        size = f"{self.parameters / 1e6:.2f}M" if self.parameters >= 1e5 else f"{self.parameters / 1e3:.1f}K"
        return f"{self.arguments.model}{changes}: {size} parameters"

    def _describe(self) -> None:
        arguments, processes = self.arguments, self.processes
        self.progress.say(
            f"{self._title()}, {self.num_classes} classes; "
            f"{self.updates_per_epoch} updates of {arguments.batch_size} images per epoch; "
            f"{_count(processes.count, 'process', 'processes')} on {processes.device.type}"
        )
        if self.first_epoch:
            self.progress.say(f"resumed after epoch {self.first_epoch}")

    def _one_epoch(self, epoch: int, advance) -> dict[str, float]:
        arguments, processes = self.arguments, self.processes
        seed = numpy.random.SeedSequence([arguments.seed, epoch, processes.rank]).generate_state(1)[0]
        random_seed(int(seed) >> 1)
        for seeded in (self.train_loader.sampler, self.train_loader.dataset):
            if hasattr(seeded, "set_epoch"):
                seeded.set_epoch(epoch)
        if self.mixup is not None and arguments.mixup_off_epoch:
            self.mixup.mixup_enabled = epoch < arguments.mixup_off_epoch

        begin = time.perf_counter()
        rate = self.optimizer.param_groups[0]["lr"]
        loss = self._updates(epoch, advance)
        seconds = time.perf_counter() - begin
        row = {
            "epoch": epoch + 1,
            "lr": rate,
            "train_loss": loss,
            **self._evaluations(epoch),
            "images_per_second": self.updates_per_epoch * arguments.batch_size / seconds,
            "seconds": time.perf_counter() - begin,
            "peak_memory_mb": _peak_memory(processes.device) / 1e6,
        }
        return row

    def _updates(self, epoch: int, advance) -> float:
        """Trains for one epoch; returns the mean loss."""
        arguments, processes, task = self.arguments, self.processes, self.task
        task.train()
        total = torch.zeros((), dtype=torch.float64, device=processes.device)
        micro_batches = self.updates_per_epoch * arguments.grad_accum_steps
        index = -1
        for index, (images, labels) in zip(range(micro_batches), self.train_loader):
            if self.mixup is not None:
                images, labels = self.mixup(images, labels)
            is_update = (index + 1) % arguments.grad_accum_steps == 0
            with nullcontext() if is_update else task.no_sync():
                with torch.autocast(processes.device.type, torch.bfloat16, enabled=arguments.amp):
                    loss = task(images.contiguous(memory_format=self.memory_format), labels)["loss"]
                (loss / arguments.grad_accum_steps).backward()
            total += loss.detach()
            if not is_update:
                continue
            if arguments.clip_grad:
                dispatch_clip_grad(task.get_clip_parameters(), arguments.clip_grad)
            self.optimizer.step()
            self.optimizer.zero_grad()
            update = epoch * self.updates_per_epoch + (index + 1) // arguments.grad_accum_steps
            task.update_ema(step=update)
            self.scheduler.step_update(update)
            if update % arguments.log_interval == 0:
                self._check_finite(processes.mean(total), epoch, (index + 1) // arguments.grad_accum_steps)
            advance(arguments.batch_size, total / (index + 1))
        if index + 1 < micro_batches:
            raise TrainingError(
                f"the training data ended after {index + 1} of {micro_batches} batches: it has fewer images than it says, or fewer "
                "than data loading processes (--workers)"
            )
        mean = processes.mean(total) / micro_batches
        self._check_finite(mean, epoch, self.updates_per_epoch)
        return mean

    def _evaluations(self, epoch: int) -> dict[str, float]:
        arguments = self.arguments
        row: dict[str, float] = {}
        models = {"val": self.model, "ema": self.averaged_model} if self.task.has_ema() else {"val": self.model}
        for prefix, model in models.items():
            metrics = evaluate(model, self.val_loader, self.processes, arguments.amp, arguments.channels_last)
            self._check_finite(metrics["loss"], epoch, self.updates_per_epoch)
            row |= {f"{prefix}_{name}": metrics[name] for name in ("loss", "top1", "top5")}
        return row

    def _check_finite(self, loss: float, epoch: int, updates: int) -> None:
        """
        Args:
            loss: a loss after ``updates`` of the epoch.

        Raises:
            TrainingError: it is not finite.
        """
        if not math.isfinite(loss):
            kept = f"; the run in {self.output} is kept up to epoch {epoch}" if epoch else ""
            raise TrainingError(
                f"the loss is {loss} in epoch {epoch + 1}, after {updates} of {self.updates_per_epoch} updates{kept}; "
                "a lower --lr, --clip-grad 1 or more --warmup-epochs usually helps: try that in a new --output"
            )

    def _save(self, epochs_done: int) -> None:
        """Saves the state of the run after an epoch. Collective: all processes must call it, the first one writes."""
        model, optimizer = get_state_dict(self.model, self.optimizer, options=_FULL_STATE)
        averaged = get_model_state_dict(self.averaged_model, options=_FULL_STATE)
        if not self.processes.is_first:
            return
        arguments = config.tuples_to_lists({**vars(self.arguments), "processes": self.processes.count})
        state = {
            "epochs_done": epochs_done,
            "history": self.history,
            "arguments": arguments,
            "data": self.data,
            "model": model,
            "optimizer": optimizer,
        }
        if self.task.has_ema():
            state["ema"] = averaged
        weights.save(self.output / "last.safetensors", averaged, self._description())
        if accuracy(self.history[-1]) == max(map(accuracy, self.history)):
            weights.save(self.output / "best.safetensors", averaged, self._description())
        self._write_metrics()
        # The checkpoint comes last: if the run is killed before, it repeats the epoch and rewrites all of these files.
        checkpoint.save(self.output, epochs_done, state, self.arguments.keep)

    def _write_metrics(self) -> None:
        lines = [",".join(self.history[0]), *(",".join(f"{value:.17g}" for value in row.values()) for row in self.history)]
        write_text(self.output / "metrics.csv", "\n".join(lines) + "\n")

    def _write_events(self, events, row: dict[str, float]) -> None:
        for name, value in row.items():
            events.add_scalar(name, value, int(row["epoch"]) * self.updates_per_epoch)
        events.flush()

    def _description(self) -> Description:
        arguments = self.arguments
        return Description(
            arguments.model,
            arguments.model_kwargs,
            self.num_classes,
            self.class_names,
            arguments.img_size,
            arguments.mean,
            arguments.std,
            arguments.interpolation,
            arguments.crop_pct,
        )


def _model_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    drop_path = {"drop_path_rate": arguments.drop_path} if arguments.drop_path else {}
    return {**drop_path, **arguments.model_kwargs}


def accuracy(row: dict[str, float]) -> float:
    """Top-1 accuracy (percent) of the saved weights: of the EMA if there is one."""
    return row.get("ema_top1", row["val_top1"])


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
