"""What all figures share: the colors of the light and the dark theme, and maps drawn as cells."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR, STYLE, WRONG_COLOR


@dataclass(frozen=True)
class Theme:
    """Colors of one theme of the site. ``groups`` are those of channel groups, ``surface`` is the page."""

    name: str
    ink: str
    surface: str
    ours: str
    other: str
    wrong: str
    groups: tuple[str, ...]


THEMES = (
    Theme(
        name="light", ink="#1e293b", surface="#ffffff", ours=OURS_COLOR, other=OTHER_COLOR, wrong=WRONG_COLOR,
        groups=(OURS_COLOR, "#b45309", "#4338ca", "#be185d"),
    ),
    Theme(
        name="dark", ink="#e2e8f0", surface="#1e2129", ours="#2dd4bf", other="#64748b", wrong="#f87171",
        groups=("#2dd4bf", "#fbbf24", "#a5b4fc", "#f9a8d4"),
    ),
)  # fmt: skip


@contextmanager
def _style(theme: Theme) -> Iterator[None]:
    colors = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    with plt.rc_context(
        {**STYLE, **dict.fromkeys(colors, theme.ink), "font.size": 12, "svg.hashsalt": "s2mlp_cuda", "hatch.linewidth": 0.7}
    ):
        yield


def themed(draw: Callable[[Theme], plt.Figure]) -> Iterator[tuple[str, bytes]]:
    """Draws a figure for each theme: the theme's name, and an SVG with a transparent background."""
    for theme in THEMES:
        with _style(theme):
            figure, file = draw(theme), BytesIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
            plt.close(figure)
        yield theme.name, file.getvalue()


def cells(
    axis, texts: torch.Tensor | list[list[str]], fills: list[list[tuple]], theme: Theme, marked: torch.Tensor | None = None
) -> None:
    """Draws a map as a grid of cells with a text and a (color, alpha) each; ``marked`` cells are hatched."""
    rows, columns = len(texts), len(texts[0])
    for row in range(rows):
        for column in range(columns):
            color, alpha = fills[row][column]
            at = (column - 0.5, row - 0.5)
            axis.add_patch(Rectangle(at, 1, 1, facecolor=color, alpha=alpha, linewidth=0))
            if marked is not None and marked[row][column]:
                axis.add_patch(Rectangle(at, 1, 1, fill=False, hatch="////", edgecolor=theme.ink, linewidth=0, alpha=0.45))
            axis.add_patch(Rectangle(at, 1, 1, fill=False, edgecolor=theme.surface, linewidth=1.5))
            text = texts[row][column]
            axis.text(column, row, str(text), ha="center", va="center", fontsize=12)
    axis.set_xlim(-0.55, columns - 0.45)
    axis.set_ylim(rows - 0.45, -0.55)
    axis.set_aspect("equal")
    axis.set_axis_off()


def arrow(dh: int, dw: int) -> str:
    """The direction in which content moves, as one character."""
    sign = lambda d: (d > 0) - (d < 0)  # noqa: E731
    return {
        (0, 0): "·", (0, 1): "→", (0, -1): "←", (1, 0): "↓", (-1, 0): "↑", (1, 1): "↘", (1, -1): "↙", (-1, 1): "↗", (-1, -1): "↖"
    }[sign(dh), sign(dw)]  # fmt: skip
