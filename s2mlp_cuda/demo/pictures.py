"""The figures of the demo."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

from s2mlp_cuda import offsets, spatial_shift
from s2mlp_cuda._files import atomic_file
from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR, STYLE, WRONG_COLOR
from s2mlp_cuda.bench.baselines import OURS, assign_in_place
from s2mlp_cuda.demo.digits import Digits, Training
from s2mlp_cuda.demo.timing import Timing

DIRECTIONS = {(1, 0): "down", (-1, 0): "up", (0, 1): "right", (0, -1): "left"}


def _save(figure: plt.Figure, path: Path) -> Path:
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=90)
    plt.close(figure)
    return path


def draw_groups(path: Path, tokens: int = 40) -> Path:
    """A photograph in all four channel groups, shifted by SS1: with spatial_shift, and with the public in-place version."""
    from sklearn.datasets import load_sample_image

    photo = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float32) / 255
    photo = photo[:420, 40:600]
    distance = tokens
    table = tuple((dh * distance, dw * distance) for dh, dw in offsets.SS1)
    groups = photo.repeat(1, 1, 4)  # (H, W, 4 groups of 3 channels)
    shifted = spatial_shift(groups, table).chunk(4, -1)
    # In place, one token at a time, as in a stack of blocks.
    overlapping = groups[None].clone()
    for _ in range(distance):
        overlapping = assign_in_place(overlapping, offsets.SS1)
    smeared = overlapping[0].chunk(4, -1)
    height, width = photo.shape[:2]
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(15, 6.1))
        rows = figure.subfigures(2, 1, hspace=0)
        for part, images, title in (
            (rows[0], shifted, f"spatial_shift: each group moved by {distance} pixels; dashed: start of the replicated border"),
            (rows[1], smeared, "overlapping in-place slices, as in public implementations: two of four groups are lost"),
        ):
            part.suptitle(title, x=0.01, ha="left", fontsize=13)
            axes = part.subplots(1, 5, gridspec_kw={"wspace": 0.04, "left": 0.01, "right": 0.99, "bottom": 0, "top": 0.82})
            axes[0].imshow(photo)
            axes[0].set_title("input, the same in all groups", fontsize=11, fontweight="normal")
            for g, image in enumerate(images):
                dh, dw = table[g]
                axes[g + 1].imshow(image.clamp(0, 1))
                axes[g + 1].set_title(
                    f"group {g}: {DIRECTIONS[offsets.SS1[g]]} ({dh:+d}, {dw:+d})", fontsize=11, fontweight="normal"
                )
                if images is shifted:
                    _mark_border(axes[g + 1], dh, dw, height, width)
            for axis in axes:
                axis.set_axis_off()
        return _save(figure, path)


def _mark_border(axis, dh: int, dw: int, height: int, width: int) -> None:
    """Draws a dashed line between the moved content and the replicated border."""
    line = {"color": "white", "linestyle": (0, (4, 3)), "linewidth": 1.6}
    if dh:
        axis.axhline(dh - 0.5 if dh > 0 else height + dh - 0.5, **line)
    if dw:
        axis.axvline(dw - 0.5 if dw > 0 else width + dw - 0.5, **line)


def draw_timings(path: Path, results: dict[tuple, list[Timing]], machine: str) -> Path:
    """Bars per implementation, in copies of the map; one panel per shape."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(results), figsize=(6.4 * len(results), 3.4), sharey=True)
        for axis, (shape, timings) in zip(axes, results.items()):
            timings = [timing for timing in timings if not timing.failure][::-1]
            bars = axis.barh(
                [timing.name for timing in timings],
                [timing.ratio for timing in timings],
                color=[OURS_COLOR if timing.name == OURS else OTHER_COLOR for timing in timings],
                height=0.66,
            )
            axis.bar_label(bars, fmt="%.1f", padding=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
            axis.axvline(2, color="#334155", linewidth=1, linestyle=(0, (4, 3)))
            axis.set_xlim(0, 1.12 * max(timing.ratio for timing in timings))
            axis.set_title("{}x{}x{}x{}, float32".format(*shape), fontsize=11)
            axis.set_xlabel("time / time of x.clone(); dashed: both passes at copy speed")
            axis.tick_params(axis="y", length=0)
        figure.suptitle(f"Spatial shift, forward + backward\n{machine}", x=0.01, y=1.0, ha="left", fontsize=12)
        figure.tight_layout()
        return _save(figure, path)


def draw_curves(path: Path, with_shift: Training, without_shift: Training) -> Path:
    """Test accuracy and training loss per epoch of both models."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 3.8))
        for training, label, color in (
            (with_shift, "S2-MLPv2", OURS_COLOR),
            (without_shift, "the same without the shift", OTHER_COLOR),
        ):
            epochs = range(1, len(training.losses) + 1)
            accuracies = [100 * accuracy for accuracy in training.accuracies]
            axes[0].plot(epochs, accuracies, color=color, linewidth=2.2, label=f"{label}, test accuracy {accuracies[-1]:.1f}%")
            axes[1].plot(epochs, training.losses, color=color, linewidth=2.2)
        axes[0].set_ylim(0, 102)
        axes[0].set_title("Test accuracy, %")
        axes[1].set_ylim(0, None)
        axes[1].set_title("Training loss")
        for axis in axes:
            axis.set_xlabel("epoch")
            axis.grid(axis="y", color="#e2e8f0")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_axisbelow(True)
        figure.tight_layout()
        figure.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0))
        return _save(figure, path)


def draw_predictions(path: Path, digits: Digits, probabilities: torch.Tensor, rows: int = 6, columns: int = 12) -> Path:
    """A page of test digits: wrong predictions first (up to half of the page), then correct ones."""
    predicted = probabilities.argmax(1)
    mistakes = (predicted != digits.test_labels).nonzero().flatten()
    wrong = mistakes[: rows * columns // 2]
    correct = (predicted == digits.test_labels).nonzero().flatten()
    shown = torch.cat([wrong, correct])[: rows * columns].tolist()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(columns, rows * 1.22))
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, index in zip(axes.flat, shown):
            axis.imshow(digits.test_images[index, 0].cpu(), cmap="gray_r", interpolation="nearest")
            guess, truth = int(predicted[index]), int(digits.test_labels[index])
            confidence = probabilities[index, guess].item()
            text = f"{guess}  {confidence:.0%}" if guess == truth else f"{guess} (is {truth})"
            axis.set_title(
                text,
                fontsize=10,
                loc="center",
                fontweight="normal",
                pad=3,
                color=OURS_COLOR if guess == truth else WRONG_COLOR,
            )
        figure.suptitle(
            f"{len(correct)} of {len(predicted)} test digits correct\n"
            f"Shown: {len(wrong)} of {len(mistakes)} mistakes, in red, then correct predictions with their confidence",
            x=0.125,
            y=0.97,
            ha="left",
            fontsize=12,
        )
        return _save(figure, path)
