"""Terminal output. Of a run: a progress bar with images per second and time left, and a line per epoch. Of other commands: a bar or
a spinner on the standard error."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from s2mlp_cuda._terminal import printable

_UPDATE_INTERVAL = 0.5  # seconds; reading the loss synchronizes with the GPU


def _bar(console: Console, *columns) -> Bar:
    """A bar that disappears at the end, and is not drawn if the console is quiet or not a terminal."""
    return Bar(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal)


@contextmanager
def spinner(text: str, console: Console | None = None) -> Iterator[None]:
    """Shows a text and the elapsed time during a step of unknown length."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with _bar(console or Console(stderr=True), *columns) as bar:
        bar.add_task(printable(text), total=None)
        yield


def track(items: Iterable, text: str) -> Iterator:
    """Iterates over items, which have a length, with a progress bar."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("left"),
    )  # fmt: skip
    with _bar(Console(stderr=True), *columns) as bar:
        yield from bar.track(items, total=len(items) if isinstance(items, Sized) else None, description=printable(text))


class Progress:
    """Prints in the first process only."""

    def __init__(self, is_first: bool):
        self.console = Console(highlight=False, markup=False, emoji=False, quiet=not is_first)

    def say(self, text: str) -> None:
        self.console.print(printable(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        self.console.print(printable(text), soft_wrap=True, style="yellow")

    def tell_epoch(self, row: dict[str, float], epochs: int) -> None:
        average = f", moving average {row['ema_top1']:.2f}%" if "ema_top1" in row else ""
        self.say(
            f"epoch {row['epoch']:.0f} of {epochs}: loss {row['train_loss']:.4f}, top-1 {row['val_top1']:.2f}%{average}, "
            f"{row['images_per_second']:.0f} images/s, {row['seconds']:.0f} s"
        )

    @contextmanager
    def run(self, epochs: int, first_epoch: int, updates_per_epoch: int) -> Iterator[Callable[[int, torch.Tensor], None]]:
        """A progress bar over all updates; yields ``advance(images, mean_loss)``, to be called after each update."""
        columns = [
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} images/s"),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        ]
        silent = self.console.quiet or not self.console.is_terminal
        with Bar(*columns, console=self.console, transient=True, speed_estimate_period=120, disable=silent) as bar:
            done = first_epoch * updates_per_epoch
            task = bar.add_task("", total=epochs * updates_per_epoch, completed=done, epoch=first_epoch + 1, rate="-", loss="-")
            last_update, images = time.perf_counter(), 0

            def advance(count: int, mean_loss: torch.Tensor) -> None:
                nonlocal last_update, images, done
                images += count
                done += 1
                bar.advance(task)
                elapsed = time.perf_counter() - last_update
                if elapsed > _UPDATE_INTERVAL and not silent:
                    epoch = (done - 1) // updates_per_epoch + 1
                    bar.update(task, epoch=epoch, rate=f"{images / elapsed:.0f}", loss=f"{mean_loss.item():.3f}")
                    last_update, images = time.perf_counter(), 0

            yield advance
