"""Hypothesis strategies for calls of the public functions and layers under random compositions of transforms."""

import math
from dataclasses import dataclass, replace

import torch
from hypothesis import assume
from hypothesis import strategies as st

from s2mlp_cuda.ops import PADDING_MODES

from public_calls import LAYERS, LINEAR, NAMES, ONE_MAP, Options
from strategies import FLOATING, Layout, any_offset, contiguous, layouts

_sides = st.sampled_from((0, 1, 2, 2, 3, 3, 4, 5))
_channels = st.sampled_from((1, 2, 3, 4, 5, 8, 9, 16, 17))
_leading = st.lists(st.sampled_from((0, 1, 2, 2, 3)), max_size=2)
#: What surrounds the transforms of torch.func: a call with or without gradients, reverse mode once or twice, forward mode, forward
#: over reverse mode, tracing, and tensors without data.
ENGINES = ("call", "backward", "double backward", "dual", "dual of backward", "make_fx", "fake")
DERIVATIVES = ("grad", "vjp", "jvp")


@dataclass(frozen=True)
class Argument:
    shape: tuple[int, ...]  # with the dimensions of all vmaps
    dtype: torch.dtype
    layout: Layout
    scale: float
    requires_grad: bool


@dataclass(frozen=True)
class Step:
    """One transform of torch.func."""

    kind: str  # "vmap", "grad", "vjp" or "jvp"
    in_dims: tuple[int | None, ...]  # of vmap
    out_dim: int  # of vmap
    inputs: tuple[int, ...]  # that are differentiated


@dataclass(frozen=True)
class TransformCase:
    name: str
    options: Options
    channels: int
    hidden: int
    arguments: tuple[Argument, ...]
    steps: tuple[Step, ...]  # from the innermost to the outermost
    engine: str
    grad_mode: str
    tracing_mode: str
    checkpoint: bool
    autocast: bool
    square: bool  # the inputs are squared first, so that linear functions have second derivatives
    change: str  # what is changed in place between forward and backward
    seed: int


@st.composite
def tables(draw, channels: int):
    count = draw(st.integers(1, min(channels, 5)))
    return tuple(draw(st.lists(st.tuples(any_offset, any_offset), min_size=count, max_size=count)))


@st.composite
def _options(draw, name: str, channels: int) -> Options:
    one_map = name in ONE_MAP
    data_format = draw(st.sampled_from(("channels_last", "channels_first"))) if one_map or name == "S2" else "channels_last"
    table = tables(channels)
    chosen = (draw(table),) if one_map else tuple(draw(st.lists(st.one_of(st.none(), table), min_size=1, max_size=4)))
    sizes = None
    if one_map and draw(st.booleans()):
        cuts = sorted(draw(st.lists(st.integers(0, channels), min_size=len(chosen[0]) - 1, max_size=len(chosen[0]) - 1)))
        sizes = tuple(end - begin for begin, end in zip([0, *cuts], [*cuts, channels]))
    approximate = draw(st.sampled_from(("none", "tanh")))
    return Options(chosen, sizes, draw(st.sampled_from(PADDING_MODES)), data_format, approximate, draw(st.booleans()))


def _shapes(name: str, leading: list[int], sides: list[int], channels: int, branches: int, hidden: int, first: bool):
    """The shapes of all inputs, and whether each may have a dtype of its own."""
    expanded = (*leading, *sides, branches * channels)
    if name in ONE_MAP or name == "S2":
        inputs = [((*leading, channels, *sides) if first else (*leading, *sides, channels), False)]
    else:
        inputs = [(expanded, False)]
    if name == "shift_branch_combine":
        inputs.append(((*leading, branches, channels), True))
    if LAYERS.get(name, name) in ("shift_split_attention", "S2"):
        own = name != "S2"
        inputs += [((hidden, channels), own), ((branches * channels, hidden), own)]
    if name == "S2":
        inputs += [((branches * channels, channels), False), ((branches * channels,), False), ((channels, channels), False)]
        inputs.append(((channels,), False))
    return inputs


@st.composite
def _steps(draw, engine: str, count: int, most: int) -> tuple[Step, ...]:
    kinds = draw(st.lists(st.sampled_from(("vmap", "vmap", *DERIVATIVES)), max_size=most))
    steps, derivatives, vmaps = [], 0, 0
    for kind in kinds:
        if kind == "jvp" and engine.startswith("dual"):
            continue  # PyTorch does not nest torch.func.jvp in a level of torch.autograd.forward_ad
        derivatives, vmaps = derivatives + (kind != "vmap"), vmaps + (kind == "vmap")
        if derivatives > 2 or vmaps > 2:
            continue
        inputs = tuple(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1))))
        # vmap moves no dimension of a result that does not depend on its input, such as the gradient of a linear function.
        steps.append(Step(kind, (), 0 if derivatives else draw(st.integers(0, 1)), inputs))
    return tuple(steps)


@st.composite
def _with_in_dims(draw, step: Step, shapes: list[tuple[int, ...]]) -> tuple[Step, list[tuple[int, ...]]]:
    """The step of a vmap with random dimensions, at least one, and the shapes with these."""
    size = draw(st.sampled_from((1, 2, 3)))
    mapped = draw(st.sets(st.integers(0, len(shapes) - 1), min_size=1))
    in_dims = [draw(st.integers(-1, len(shape))) if i in mapped else None for i, shape in enumerate(shapes)]

    def enlarged(shape: tuple[int, ...], dim: int | None) -> tuple[int, ...]:
        if dim is None:
            return shape
        return (*shape, size) if dim == -1 else (*shape[:dim], size, *shape[dim:])

    return Step(step.kind, tuple(in_dims), step.out_dim, ()), [enlarged(*pair) for pair in zip(shapes, in_dims)]


@st.composite
def transform_cases(draw, names: tuple[str, ...] = NAMES, engines: tuple[str, ...] = ENGINES, most_steps: int = 3) -> TransformCase:
    name, engine = draw(st.sampled_from(names)), draw(st.sampled_from(engines))
    channels, hidden, sides, leading = (
        draw(_channels),
        draw(st.sampled_from((1, 3, 4))),
        [draw(_sides), draw(_sides)],
        draw(_leading),
    )
    options = draw(_options(name, channels))
    given = _shapes(name, leading, sides, channels, len(options.tables), hidden, options.data_format == "channels_first")
    shapes = [shape for shape, _ in given]
    steps = []
    for step in draw(_steps(engine, len(shapes), most_steps)):
        if step.kind == "vmap":
            step, shapes = draw(_with_in_dims(step, shapes))
        steps.append(step)
    # Only float64 is differentiated more than once: rounding errors of lower precision would hide wrong results.
    kinds = {step.kind for step in steps}
    order = sum(step.kind != "vmap" for step in steps) + {
        "backward": 1,
        "double backward": 2,
        "dual": 1,
        "dual of backward": 2,
    }.get(engine, 0)
    dtypes = st.sampled_from(FLOATING if order < 2 else (torch.float64,))
    dtype = draw(dtypes)
    # Powers of two, so that squares are exact. Sums over all tokens become logits of about 1.
    scales = [1.0] * len(shapes)
    attention = LAYERS.get(name, name) in ("shift_split_attention", "S2")
    if attention:
        scales[1] = 2.0 ** -round(math.log2(1 + sides[0] * sides[1] * channels * len(options.tables)) / 2)
        scales[3:] = [2.0 ** -round(math.log2(channels) / 2)] * len(scales[3:])
    # PyTorch makes no dual number of a tensor whose elements share memory.
    forward_mode = "jvp" in kinds or engine.startswith("dual")
    # An internal assertion of PyTorch fails in linear layers for empty dual numbers, and for fake ones that are empty or have
    # unusual strides.
    fake_duals = forward_mode and engine in ("fake", "make_fx")
    assume(not (forward_mode and 0 in shapes[0] and (attention or fake_duals)))
    # Nor for fake ones of which one is mapped, because bmm then gets tensors of two devices.
    assume(not (fake_duals and attention and "vmap" in kinds))
    # PyTorch does not trace vmap of linear layers with fake tensors, makes no dual numbers of tensors with symbolic sizes, and an
    # internal assertion fails when it traces derivatives of linear layers on maps with symbolic sizes.
    no_symbols = "jvp" in kinds or (name == "S2" and kinds)
    tracing = ["real"] if attention and "vmap" in kinds else ["real", "fake"] if no_symbols else ["real", "fake", "symbolic"]
    requires_grad = draw(st.sets(st.integers(0, len(shapes) - 1), min_size=1))
    arguments = tuple(
        Argument(
            shape,
            draw(dtypes) if own and draw(st.booleans()) else dtype,
            layout if not forward_mode else replace(layout, expanded=(False,) * len(shape)),
            scales[i],
            i in requires_grad,
        )
        for i, (shape, (_, own)) in enumerate(zip(shapes, given))
        for layout in [contiguous(len(shape)) if fake_duals else draw(layouts(shape))]
    )
    return TransformCase(
        name,
        options,
        channels,
        hidden,
        arguments,
        tuple(steps),
        engine,
        # PyTorch has no torch.func.jvp in inference mode.
        draw(st.sampled_from(("enable_grad", "no_grad", *(["inference_mode"] if kinds.isdisjoint(DERIVATIVES) else [])))),
        draw(st.sampled_from(tracing)),
        draw(st.booleans()) and kinds.isdisjoint(DERIVATIVES),  # derivatives of torch.func take no saved tensor hooks
        # PyTorch's own derivatives of linear layers are in bfloat16 if they are computed under autocast.
        draw(st.booleans()) and order < 2 and name != "S2" and not (attention and order and (engine != "backward" or kinds)),
        draw(st.booleans()),
        draw(st.sampled_from(("nothing", "inputs", "result"))),
        draw(st.integers(0, 2**16)),
    )


def linear_cases() -> st.SearchStrategy[TransformCase]:
    """Calls of the linear functions without transforms."""
    return transform_cases(LINEAR, ("backward",), 0)
