"""Loss, accuracy and learning rate of a run, epoch by epoch."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context

from s2mlp_cuda._files import atomic_file
from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR, STYLE


def draw_curves(history: list[dict[str, float]], path: Path, title: str) -> Path:
    """
    Args:
        history: rows of metrics.csv.
        path: PNG file to write.
        title: title of the figure.
    """
    with context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(13, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        losses, accuracies, rates = figure.subplots(1, 3)
        epochs = [row["epoch"] for row in history]
        marker = "o" if len(epochs) == 1 else ""

        def line(axes, key: str, label: str, color: str, style: str = "-") -> None:
            if key in history[0]:
                values = [row[key] for row in history]
                label = f"{label}: {values[-1]:.4g}"
                axes.plot(epochs, values, color=color, linestyle=style, linewidth=2, marker=marker, label=label)

        line(losses, "train_loss", "training (augmented, smoothed)", OTHER_COLOR)
        line(losses, "val_loss", "validation", OURS_COLOR, "--" if "ema_loss" in history[0] else "-")
        line(losses, "ema_loss", "validation, moving average", OURS_COLOR)
        line(accuracies, "val_top1", "top-1", OURS_COLOR, "--" if "ema_top1" in history[0] else "-")
        line(accuracies, "ema_top1", "top-1, moving average", OURS_COLOR)
        line(rates, "lr", "last", OTHER_COLOR)
        losses.set_title("Loss")
        accuracies.set_title("Validation accuracy, %")
        rates.set_title("Learning rate")
        for axes in (losses, accuracies, rates):
            axes.set_xlabel("epoch")
            axes.grid(axis="y", color="#e2e8f0")
            axes.set_axisbelow(True)
            axes.xaxis.get_major_locator().set_params(integer=True)
        losses.legend(frameon=False, fontsize=9)
        accuracies.legend(frameon=False, fontsize=9, loc="lower right")
        rates.set_ylim(0, None)
        figure.suptitle(title, x=0.01, ha="left")
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=90)
    return path
