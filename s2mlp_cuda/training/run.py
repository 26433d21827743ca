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

from s2mlp_cuda._system import keep_freed_memory
from s2mlp_cuda.layers import S2MLPBlock, S2MLPv2Block
from s2mlp_cuda.training import checkpoint, config, weights
from s2mlp_cuda.training.curves import draw_curves
from s2mlp_cuda.training.data import eval_loader, open_split, prepare, train_loader
from s2mlp_cuda.training.environment import environment
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.evaluation import evaluate
from s2mlp_cuda.training.files import told_if_full, write_text
from s2mlp_cuda.training.processes import Processes, join, leave
from s2mlp_cuda.training.progress import Progress

#: Whole states on the CPU of the first process: the same for one process, DDP and FSDP2.
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class Finished:
    """A finished run: one dict per epoch (the rows of metrics.csv), the number of parameters and of validation images."""

    history: list[dict[str, float]]
    parameters: int
    test_images: int


def train(arguments: argparse.Namespace) -> Finished:
    """Train as the arguments say; see :func:`s2mlp_cuda.training.config.parse`.

    The folder ``output`` gets config.yaml, environment.json, metrics.csv, curves.png, checkpoints/, tensorboard/,
    last.safetensors and best.safetensors (of the epoch with the highest top-1 accuracy). Where there is a moving average
    of the weights, the weights saved are the average.

    A run that was stopped, at any moment and by anything, goes on with ``resume="auto"`` from its last finished epoch: an
    epoch depends on nothing but the state before it and a seed made of ``seed``, its number and the process, so
    on a CPU the losses are bitwise identical to those of a run without a stop.

    Raises:
        TrainingError: arguments that do not fit together, data or checkpoints that cannot be used, a loss that is
            not finite, a full disk. What was saved is intact.
    """
    processes = join(arguments.device, arguments.aug_repeats > 0)
    try:
        with told_if_full(Path(arguments.output)):
            run = _Run(arguments, processes)
            run.all_epochs()
            processes.wait()  # a collective's thread that frees tensors while the interpreter exits would abort the process
            return Finished(run.history, run.parameters, len(run.val_loader.dataset))
    finally:
        leave()


class _Run:
    def __init__(self, arguments: argparse.Namespace, processes: Processes):
        self.arguments, self.processes = arguments, processes
        self.output = Path(arguments.output)
        if processes.device.type == "cpu":
            keep_freed_memory()
        self.progress = Progress(processes.is_first)
        self.history: list[dict[str, float]] = []
        state = self._state_to_resume()

        if processes.is_first:
            prepare(arguments)
        processes.wait()
        train_split = open_split(arguments, arguments.train_split, [], True)
        val_split = open_split(arguments, arguments.val_split, train_split.class_names, False)
        self.class_names = train_split.class_names
        self.num_classes = arguments.num_classes or len(self.class_names)
        if not self.num_classes:
            raise TrainingError("the data does not say how many classes it has: give --num-classes")
        self.micro_batch = self._micro_batch_size()
        self.train_loader = train_loader(arguments, train_split, self.micro_batch, processes.device)
        self.val_loader = eval_loader(arguments, val_split, self.micro_batch, processes.device)
        self.updates_per_epoch = len(self.train_loader) // arguments.grad_accum_steps
        self.mixup = self._mixup()

        torch.manual_seed(arguments.seed)
        model = self._model()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.task = self._task(model)
        self.optimizer = create_optimizer_v2(
            unwrap_model(self.task.trainable_module), arguments.opt, arguments.lr, arguments.weight_decay
        )
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            arguments.sched,
            num_epochs=arguments.epochs,
            warmup_epochs=arguments.warmup_epochs,
            warmup_lr=arguments.warmup_lr,
            min_lr=arguments.min_lr,
            step_on_epochs=False,
            updates_per_epoch=self.updates_per_epoch,
        )
        self.first_epoch = self._restore(state)

    def _state_to_resume(self) -> dict[str, Any] | None:
        """
        Raises:
            TrainingError: the output folder has a run that is not to be resumed, or one of other arguments.
        """
        resume = self.arguments.resume
        if not resume:
            if checkpoint.list_checkpoints(self.output):
                raise TrainingError(f"{self.output} has a run already: go on with it by --resume auto, or choose another --output")
            return None
        state = checkpoint.load_newest(self.output, self.progress.warn) if resume == "auto" else checkpoint.load(Path(resume))
        if state is not None:
            now = {**vars(self.arguments), "processes": self.processes.count}
            changed = config.differences(state["arguments"], now)
            if changed:
                raise TrainingError(f"the run was begun with other arguments ({'; '.join(changed)})")
        return state

    def _micro_batch_size(self) -> int:
        parts = self.processes.count * self.arguments.grad_accum_steps
        size, rest = divmod(self.arguments.batch_size, parts)
        if rest or not size:
            raise TrainingError(
                f"--batch-size {self.arguments.batch_size} cannot be cut into {parts} equal parts "
                f"({self.processes.count} processes, {self.arguments.grad_accum_steps} accumulation steps)"
            )
        return size

    def _mixup(self) -> Mixup | None:
        arguments = self.arguments
        if not (arguments.mixup or arguments.cutmix):
            return None
        if self.micro_batch % 2:
            raise TrainingError(f"Mixup and CutMix pair images, so a process's batch must be even; it is {self.micro_batch}")
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
        drop_path = {"drop_path_rate": arguments.drop_path} if arguments.drop_path else {}
        model = weights.build(arguments.model, self.num_classes, **drop_path, **arguments.model_kwargs)
        if arguments.weights:
            left_out = weights.load_into(model, Path(arguments.weights))
            if left_out:
                self.progress.warn(f"{arguments.weights}: not used are {', '.join(left_out)}, of another number of classes")
        if arguments.grad_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]
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
        """The model that learns, without what is wrapped around it."""
        return unwrap_model(self.task.trainable_module)

    @property
    def averaged_model(self) -> nn.Module:
        """The moving average where there is one, else the model that learns."""
        return self.task.trainable_module_ema.module if self.task.has_ema() else self.model

    def _restore(self, state: dict[str, Any] | None) -> int:
        if state is None:
            return 0
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.processes.count > 1)
        set_state_dict(
            self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=options
        )
        if self.task.has_ema():
            set_model_state_dict(self.averaged_model, state["ema"], options=options)
        self.history = state["history"]
        return state["epochs_done"]

    def all_epochs(self) -> None:
        arguments, first = self.arguments, self.processes.is_first
        events = None
        if first:
            self.output.mkdir(parents=True, exist_ok=True)
            write_text(self.output / "config.yaml", config.as_yaml(arguments))
            write_text(self.output / "environment.json", json.dumps(environment(), indent=1) + "\n")
            self._describe()
            if arguments.tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                # The events of a run that is resumed are written again: it may have been stopped before it wrote the last ones.
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
        """The model, how it differs from that of its name, and its size."""
        kwargs = config.plain(self.arguments.model_kwargs)
        changes = " with " + ", ".join(f"{name} {value}" for name, value in kwargs.items()) if kwargs else ""
        return f"{self.arguments.model}{changes}: {self.parameters / 1e6:.2f}M parameters"

    def _describe(self) -> None:
        arguments, processes = self.arguments, self.processes
        self.progress.say(
            f"{self._title()}, {self.num_classes} classes; "
            f"{self.updates_per_epoch} updates of {arguments.batch_size} images per epoch; "
            f"{processes.count} process{'es' if processes.count > 1 else ''} on {processes.device.type}"
        )
        if self.first_epoch:
            self.progress.say(f"resumed after epoch {self.first_epoch}")

    def _one_epoch(self, epoch: int, advance) -> dict[str, float]:
        arguments, processes = self.arguments, self.processes
        seed = numpy.random.SeedSequence([arguments.seed, epoch, processes.rank]).generate_state(1)[0]
        random_seed(int(seed) >> 1)
        for part in (self.train_loader.sampler, self.train_loader.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
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
        """One pass over the training images; returns the mean loss."""
        arguments, processes, task = self.arguments, self.processes, self.task
        memory_format = torch.channels_last if arguments.channels_last else torch.contiguous_format
        task.train()
        total = torch.zeros((), dtype=torch.float64, device=processes.device)
        micro_batches = self.updates_per_epoch * arguments.grad_accum_steps
        for index, (images, labels) in zip(range(micro_batches), self.train_loader):
            if self.mixup is not None:
                images, labels = self.mixup(images, labels)
            is_update = (index + 1) % arguments.grad_accum_steps == 0
            with nullcontext() if is_update else task.no_sync():
                with torch.autocast(processes.device.type, torch.bfloat16, enabled=arguments.amp):
                    loss = task(images.contiguous(memory_format=memory_format), labels)["loss"]
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
                self._check_finite(processes.mean(total), epoch)
            advance(arguments.batch_size, total / (index + 1))
        mean = processes.mean(total) / micro_batches
        self._check_finite(mean, epoch)
        return mean

    def _evaluations(self, epoch: int) -> dict[str, float]:
        arguments = self.arguments
        row: dict[str, float] = {}
        models = {"val": self.model, "ema": self.averaged_model} if self.task.has_ema() else {"val": self.model}
        for prefix, model in models.items():
            found = evaluate(model, self.val_loader, self.processes, arguments.amp, arguments.channels_last)
            row |= {f"{prefix}_{name}": value for name, value in found.items()}
        self._check_finite(row["val_loss"], epoch)
        return row

    def _check_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} in epoch {epoch + 1}. The run in {self.output} is intact up to epoch {epoch}. "
                "A lower --lr, --clip-grad 1 or more --warmup-epochs, in a new --output, usually helps"
            )

    def _save(self, epochs_done: int) -> None:
        """Everything of the run, after an epoch. All processes take part; the first one writes."""
        model, optimizer = get_state_dict(self.model, self.optimizer, options=_WHOLE)
        averaged = get_model_state_dict(self.averaged_model, options=_WHOLE)
        if not self.processes.is_first:
            return
        arguments = config.plain({**vars(self.arguments), "processes": self.processes.count})
        state = {
            "epochs_done": epochs_done,
            "history": self.history,
            "arguments": arguments,
            "model": model,
            "optimizer": optimizer,
        }
        if self.task.has_ema():
            state["ema"] = averaged
        weights.save(self.output / "last.safetensors", averaged, self._description())
        if accuracy(self.history[-1]) == max(map(accuracy, self.history)):
            weights.save(self.output / "best.safetensors", averaged, self._description())
        self._write_metrics()
        # Last: a run that is killed before this does the epoch, and all of these files, again.
        checkpoint.save(self.output, epochs_done, state, self.arguments.keep)

    def _write_metrics(self) -> None:
        lines = [",".join(self.history[0]), *(",".join(f"{value:.17g}" for value in row.values()) for row in self.history)]
        write_text(self.output / "metrics.csv", "\n".join(lines) + "\n")

    def _write_events(self, events, row: dict[str, float]) -> None:
        for name, value in row.items():
            events.add_scalar(name, value, int(row["epoch"]) * self.updates_per_epoch)
        events.flush()

    def _description(self) -> weights.Description:
        arguments = self.arguments
        return weights.Description(
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


def accuracy(row: dict[str, float]) -> float:
    """Top-1 accuracy (percent) of the weights that are saved: the moving average's where there is one."""
    return row.get("ema_top1", row["val_top1"])


def _peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU those of tensors, on a CPU those of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
