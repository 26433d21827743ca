"""Visualizes a trained model on one image: receptive fields, split attention weights and shifted channel groups."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.style import context
from torch import nn

from s2mlp_cuda._files import atomic_file
from s2mlp_cuda._style import OTHER_COLOR, OURS_COLOR, STYLE
from s2mlp_cuda.layers import GELUSpatialShift, S2MLPBlock, S2MLPv2Block, ShiftSplitAttention, ShiftSum
from s2mlp_cuda.offsets import name_of
from s2mlp_cuda.ops import spatial_shift
from s2mlp_cuda.reference import group_borders
from s2mlp_cuda.training.errors import TrainingError
from s2mlp_cuda.training.files import check_folder

#: The most blocks, or groups of a branch, that are drawn.
_PANELS = 12
#: A pixel belongs to the receptive field if its gradient exceeds this fraction of the largest.
_FIELD_THRESHOLD = 0.01
#: A branch dominates a channel if its weight exceeds this value.
DOMINANT = 0.9
#: The layers whose shifts are known.
_Mixer = GELUSpatialShift | ShiftSplitAttention | ShiftSum
_ARROWS = {
    (1, 0): "↓", (-1, 0): "↑", (0, 1): "→", (0, -1): "←", (1, 1): "↘", (1, -1): "↙", (-1, 1): "↗", (-1, -1): "↖",
    (0, 0): "no shift",
}  # fmt: skip


def explain(model: nn.Module, image: torch.Tensor, out: Path, block: int = 1) -> list[Path]:
    """Draw receptive_field.png, split_attention.png if the model has split attention, and shifted_groups.png.

    The last one shows the layers of this package that shift. A block with a fusion of its own has none, so it is not drawn. Figures
    that are not drawn are removed from the folder.

    Args:
        model: an :class:`~s2mlp_cuda.models.S2MLP` or :class:`~s2mlp_cuda.models.S2MLPv2` in evaluation mode.
        image: (3, H, W), normalized for the model.
        out: folder for the figures.
        block: the block whose groups are drawn, counted from 1.

    Raises:
        TrainingError: the model has no blocks with a spatial shift, or fewer than ``block``, its output is not finite, or the
            folder cannot be written to.
        OSError: a figure cannot be written.
    """
    blocks: list[nn.Module] = [module for module in model.modules() if isinstance(module, (S2MLPBlock, S2MLPv2Block))]
    if not blocks:
        raise TrainingError(f"{type(model).__name__} has no blocks with a spatial shift")
    if not 1 <= block <= len(blocks):
        raise TrainingError(f"the model has blocks 1 to {len(blocks)}, got {block}")
    with torch.inference_mode():
        if not model(image[None]).isfinite().all():
            raise TrainingError("the model cannot be explained: its output has NaN or infinite values")
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    fields, weights, groups = (out / name for name in ("receptive_field.png", "split_attention.png", "shifted_groups.png"))
    paths = [_draw_receptive_field(model, blocks, image, fields)]
    inputs = _inputs_of_mixers(model, image)
    attentions = [
        (number, module)
        for number, each in enumerate(blocks, 1)
        for module in each.modules()
        if isinstance(module, ShiftSplitAttention) and module in inputs
    ]
    if attentions:
        paths.append(_draw_split_attention(model, attentions, image, weights))
    mixers = [module for module in blocks[block - 1].modules() if isinstance(module, _Mixer) and module in inputs]
    if len(mixers) == 1:
        paths.append(_draw_groups(mixers[0], inputs[mixers[0]], block, groups))
    for path in {weights, groups}.difference(paths):
        path.unlink(missing_ok=True)  # an earlier call may have drawn it for a different model
    return paths


def _inputs_of_mixers(model: nn.Module, image: torch.Tensor) -> dict[nn.Module, torch.Tensor]:
    """The inputs of the layers of this package that shift, for one image, without those that the model does not call."""
    with torch.inference_mode():
        return _capture(
            [module for module in model.modules() if isinstance(module, _Mixer)], lambda: model(image[None]), inputs=True
        )


def _capture(modules: list[nn.Module], run: Callable[[], object], inputs: bool = False) -> dict[nn.Module, torch.Tensor]:
    """The outputs (or first inputs) of the modules that are called during a call of ``run``, in the order of the calls."""
    captured: dict[nn.Module, torch.Tensor] = {}

    def hook(module, args, output):
        captured[module] = args[0] if inputs else output

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return captured


def receptive_fields(model: nn.Module, blocks: list[nn.Module], image: torch.Tensor) -> list[numpy.ndarray]:
    """For each block, the effect of each pixel on the center token of its output: effective receptive fields (arXiv 1701.04128).

    Returns:
        One array (H, W) per block: the magnitude of the gradient of half the token's squared norm, summed over color channels
        and divided by the maximum.
    """
    pixels = image[None].clone().requires_grad_()
    fields = []
    for output in _capture(blocks, lambda: model(pixels)).values():
        token = output[0, output.shape[1] // 2, output.shape[2] // 2]
        (gradient,) = torch.autograd.grad(token.square().sum() / 2, pixels, retain_graph=True)
        field = gradient[0].abs().sum(0)
        fields.append((field / field.max().clamp_min(torch.finfo(field.dtype).tiny)).numpy(force=True))
    return fields


def _photo(image: torch.Tensor) -> numpy.ndarray:
    """A normalized image rescaled to [0, 1], (H, W, 3)."""
    pixels = image.movedim(0, -1)
    return ((pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp_min(1e-6)).numpy(force=True)


def _page(columns: int, rows: int, title: str, width: float = 2.2, height: float = 2.45):
    figure = Figure(figsize=(max(6.5, columns * width), rows * height + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Figure, path: Path) -> Path:
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=100)
    return path


def _draw_receptive_field(model: nn.Module, blocks: list[nn.Module], image: torch.Tensor, path: Path) -> Path:
    fields = receptive_fields(model, blocks, image)
    shown = sorted({round(index) for index in numpy.linspace(0, len(blocks) - 1, min(_PANELS, len(blocks)))})
    columns = min(6, len(shown) + 1)
    with context(STYLE):  # type: ignore[arg-type]
        figure, axes = _page(columns, -(-(len(shown) + 1) // columns), "What the center token sees, block by block")
        for panel in axes.flat:
            panel.set_axis_off()
        axes.flat[0].imshow(_photo(image))
        axes.flat[0].set_title("image", fontsize=10)
        heat = None
        for panel, index in zip(axes.flat[1:], shown):
            heat = panel.imshow(numpy.maximum(fields[index], 1e-4), cmap="viridis", norm=LogNorm(1e-4, 1))
            panel.set_title(f"block {index + 1}: {(fields[index] > _FIELD_THRESHOLD).mean():.0%}", fontsize=10)
        figure.colorbar(heat, ax=axes, shrink=0.8, label="gradient relative to the largest")
        figure.supxlabel(f"percentages: pixels with more than {_FIELD_THRESHOLD:.0%} of the largest gradient", fontsize=9)
        return _save(figure, path)


@torch.inference_mode()
def split_attention_weights(model: nn.Module, attentions: list[ShiftSplitAttention], image: torch.Tensor) -> list[torch.Tensor]:
    """The softmax weights (K, C) of each split attention for one image (arXiv 2108.01072, eq. 11)."""
    inputs = _inputs_of_mixers(model, image)
    return [attention.weights(attention.pool(inputs[attention]))[0] for attention in attentions]


def _draw_split_attention(
    model: nn.Module, attentions: list[tuple[int, ShiftSplitAttention]], image: torch.Tensor, path: Path
) -> Path:
    """
    Args:
        attentions: the number of a block and its split attention.
    """
    modules = [module for _, module in attentions]
    weights = [each.float().numpy(force=True) for each in split_attention_weights(model, modules, image)]
    count = max(len(module.branches) for module in modules)
    same_tables = all(module.branches == modules[0].branches for module in modules)
    names = [f"branch {k + 1}" + (f": {_table_name(modules[0].branches[k])}" if same_tables else "") for k in range(count)]
    colors = [OURS_COLOR, "#2dd4bf", OTHER_COLOR, "#64748b", "#b08968"]
    if count > len(colors):
        colors = list(matplotlib.colormaps["viridis"](numpy.linspace(0, 0.95, count)))
    width, step = max(7, 1 + 0.75 * len(weights)), min(0.22, 0.9 / count)
    columns = max(1, min(count, int(width / (0.5 + 0.075 * max(map(len, names))))))
    with context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, 3.8 + 0.2 * -(-count // columns)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for branch, (name, color) in enumerate(zip(names, colors)):
            bars = {place: each[branch].mean() for place, each in enumerate(weights, 1) if branch < len(each)}
            places = [place + (branch - (count - 1) / 2) * step for place in bars]
            axes.bar(places, list(bars.values()), 0.9 * step, color=color, label=name)
        for place, each in enumerate(weights, 1):
            axes.plot([place - 0.5, place + 0.5], [1 / len(each)] * 2, color="#94a3b8", linestyle=(0, (4, 3)), linewidth=1)
        dominated = [(each.max(0) > DOMINANT).mean() for each in weights]
        labels = [f"{number}\n{share:.0%}" for (number, _), share in zip(attentions, dominated)]
        axes.set_xticks(range(1, len(weights) + 1), labels)
        axes.set_xlabel(f"block, and the share of channels in which one branch has more than {DOMINANT:.0%} of the weight")
        axes.set_ylabel("mean weight over channels")
        axes.set_ylim(0, 1)
        figure.legend(frameon=False, ncols=columns, fontsize=9, loc="outside lower center")
        axes.set_title("Split attention, block by block; dashed: equal weights", fontsize=11)
        return _save(figure, path)


def _table_name(table: tuple[tuple[int, int], ...] | None) -> str:
    """Arrows or pairs for up to four offsets; for more, the names of presets, or the number of offsets."""
    if table is None:
        return _ARROWS[0, 0]
    if len(table) <= 4:
        return " ".join(map(_arrow, table))
    name = name_of(table)
    return f"{len(table)} offsets" if name == str(table) else name


def _arrow(offset: tuple[int, int]) -> str:
    return _ARROWS.get(offset, str(offset))


@torch.inference_mode()
def _draw_groups(mixer: _Mixer, x: torch.Tensor, number: int, path: Path) -> Path:
    """Draws one channel per group before and after the shift: the channel with the largest variance over tokens.

    Args:
        mixer: the layer that shifts.
        x: its input.
        number: of its block.
    """
    if isinstance(mixer, GELUSpatialShift):
        branches = [(mixer.offsets, mixer.group_sizes, nn.functional.gelu(x[0], approximate=mixer.approximate))]
    else:
        parts = x[0].chunk(len(mixer.branches), -1)
        branches = [(table or ((0, 0),), None, part) for table, part in zip(mixer.branches, parts)]
    maps = [
        (table, group_borders(part.shape[-1], table, sizes), part,
         spatial_shift(part, table, group_sizes=sizes, padding_mode=mixer.padding_mode))
        for table, sizes, part in branches
    ]  # fmt: skip
    columns = min(_PANELS, max(len(table) for table, *_ in maps))
    with context(STYLE):  # type: ignore[arg-type]
        figure, axes = _page(columns * 2, len(maps), f"The groups of block {number}, before and after the shift", 1.75, 2.0)
        for panel in axes.flat:
            panel.set_axis_off()
        for row, (table, borders, before, after) in enumerate(maps):
            for group, (offset, first, last) in enumerate(zip(table[:_PANELS], borders, borders[1:])):
                channel = first + int(before[..., first:last].flatten(0, -2).var(0).argmax())
                values = before[..., channel].float().numpy(force=True)
                scale = {"cmap": "viridis", "vmin": values.min(), "vmax": values.max(), "interpolation": "nearest"}
                channel_title = f"branch {row + 1}, channel {channel}" if len(maps) > 1 else f"channel {channel}"
                for panel, shown, title in (
                    (axes[row, 2 * group], values, channel_title),
                    (axes[row, 2 * group + 1], after[..., channel].float().numpy(force=True), _arrow(offset)),
                ):
                    panel.imshow(shown, **scale)
                    panel.set_title(title, fontsize=10, fontweight="normal")
        return _save(figure, path)
