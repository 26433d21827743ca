"""How an operator and its alternatives are timed and checked, on any device."""

import dataclasses
from collections.abc import Callable

import torch
from torch.nn import functional

import peers
from measure import measure
from s2mlp_cuda import reference
from s2mlp_cuda.demo.timing import OURS, exact_convolutions


def one_map(shape, data_format, dtype, device) -> list[torch.Tensor]:
    """A random map; ``shape`` is (B, H, W, C) whatever the format."""
    batch, height, width, channels = shape
    size = shape if data_format == "channels_last" else (batch, channels, height, width)
    return [torch.empty(size, dtype=dtype, device=device).normal_()]


def wide_map_and_weights(shape, data_format, dtype, device) -> list[torch.Tensor]:
    """Three branches of C channels, and the two matrices of a split attention with a hidden layer of C / 4."""
    *image, channels = shape
    hidden = max(1, channels // 4)
    x = torch.empty(*image, 3 * channels, dtype=dtype, device=device).normal_()
    fc1_weight = torch.empty(hidden, channels, dtype=dtype, device=device).normal_(std=0.02)
    fc2_weight = torch.empty(3 * channels, hidden, dtype=dtype, device=device).normal_(std=0.02)
    return [x, fc1_weight, fc2_weight]


@dataclasses.dataclass(frozen=True)
class Op:
    """An operator under test. The floors count maps of B*H*W*C read and written, forward and backward."""

    name: str
    ours: str
    alternatives: Callable[[str], dict[str, Callable]]
    make_inputs: Callable
    judge: Callable  # (*inputs, data_format)
    forward_floor: int
    backward_floor: int
    formats: tuple[str, ...] = ("channels_last", "channels_first")
    exact: bool = False  # values are compared to the bit
    unchecked: frozenset[str] = frozenset()


#: A new operator joins with an entry.
OPS = [
    Op(
        "spatial_shift",
        OURS,
        peers.shift_peers,
        one_map,
        lambda x, data_format: reference.spatial_shift(x, data_format=data_format),
        forward_floor=2,
        backward_floor=2,
        exact=True,
    ),
    Op(
        "gelu_spatial_shift",
        peers.FUSED_GELU,
        peers.gelu_peers,
        one_map,
        lambda x, data_format: reference.spatial_shift(functional.gelu(x), data_format=data_format),
        forward_floor=2,
        backward_floor=3,
        unchecked=frozenset({peers.GELU_ALONE}),
    ),
    Op(
        "shift_split_attention",
        peers.FUSED_ATTENTION,
        peers.split_attention_peers,
        wide_map_and_weights,
        lambda *inputs, data_format: peers.split_attention(*inputs, shift=reference.spatial_shift),
        forward_floor=7,
        backward_floor=8,
        formats=("channels_last",),
    ),
]


def close(ours: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> bool:
    """Relative to the largest element, with room for sums of thousands of terms of either sign in the peers' own order."""
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 3e-2}[dtype]
    return bool((ours.double() - exact).abs().max() <= tolerance * exact.abs().max().clamp(min=1e-30))


def is_right(function, op: Op, inputs, data_format) -> bool | None:
    """Values and gradients against the judge in float64; of large maps two images. None: dtype not supported."""
    images = inputs[0] if inputs[0].numel() < 2**27 else inputs[0][:2]
    leaves = [x.detach().clone().requires_grad_() for x in (images, *inputs[1:])]
    try:
        out = function(*leaves)
    except NotImplementedError:
        return None
    if op.exact and not torch.equal(out, op.judge(*leaves, data_format=data_format)):
        return False
    exact_leaves = [x.detach().double().requires_grad_() for x in leaves]
    exact = op.judge(*exact_leaves, data_format=data_format)
    grad = torch.randn_like(out)
    ours = (out, *torch.autograd.grad(out, leaves, grad))
    theirs = (exact, *torch.autograd.grad(exact, exact_leaves, grad.double()))
    return all(close(a, b, out.dtype) for a, b in zip(ours, theirs))


@exact_convolutions()
def measure_op(
    op: Op, shape, data_format, dtype, device, rounds, rotate_bytes, wanted, directions=("forward", "forward + backward")
) -> list[dict]:
    """One record per alternative and direction.

    Args:
        rotate_bytes: calls go through so many bytes of inputs in turn (at most eight sets), so that no cache holds them.
        wanted: which alternatives, by name.
    """
    inputs = op.make_inputs(shape, data_format, dtype, device)
    count = max(1, min(8, -(-rotate_bytes // inputs[0].nbytes)))
    sets = [inputs] + [op.make_inputs(shape, data_format, dtype, device) for _ in range(count - 1)]
    leaves = [[x.detach().requires_grad_() for x in one] for one in sets]
    units = [one_map(shape, data_format, dtype, device)[0] for _ in range(count)]
    torch._dynamo.reset()
    functions = {name: function for name, function in op.alternatives(data_format).items() if wanted(name)}
    right = {
        name: True if name in op.unchecked else is_right(function, op, inputs, data_format)
        for name, function in functions.items()
    }
    functions = {name: function for name, function in functions.items() if right[name] is not None}

    def forward(function):
        with torch.no_grad():
            for one in sets:
                function(*one)

    def both(function):
        for one, unit in zip(leaves, units):
            torch.autograd.grad(function(*one), one, unit)

    runs = {"forward": forward, "forward + backward": both}
    works = {("copy", "copy"): lambda: [x.clone() for x in units]}
    for name, function in functions.items():
        for direction in directions:
            works[name, direction] = lambda run=runs[direction], function=function: run(function)
    spreads = measure(works, count, rounds, device)
    copy = spreads.pop(("copy", "copy"))
    records = []
    for (name, direction), spread in spreads.items():
        floor = op.forward_floor + (op.backward_floor if direction != "forward" else 0)
        records.append(
            {
                "op": op.name,
                "shape": shape,
                "data_format": data_format,
                "dtype": str(dtype)[6:],
                "name": name,
                "direction": direction,
                "microseconds": dataclasses.asdict(spread),
                "copy_microseconds": dataclasses.asdict(copy),
                "copy_bytes_per_second": 2 * units[0].nbytes / (copy.median * 1e-6),
                "ratio_to_copy": spread.median / copy.median,
                "share_of_copy_rate": floor / 2 * copy.median / spread.median,
                "right": right[name],
            }
        )
    return records
