"""One operator on one kind of map: every way to compute it, checked against the reference and timed side by side."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from s2mlp_cuda import reference
from s2mlp_cuda._system import release_freed_memory
from s2mlp_cuda.bench import peers
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, failure_text
from s2mlp_cuda.bench.settings import exact_convolutions
from s2mlp_cuda.bench.stopwatch import in_turn, interleave, tensor_bytes_at_peak
from s2mlp_cuda.offsets import AXIAL_5_WIDTH, chunk_sizes

FORWARD, BOTH = "forward", "forward + backward"
#: Calls go through more bytes of inputs in turn than a last-level cache holds, and their results are kept as long: all maps come
#: from memory and go to memory, whatever ran before and wherever the allocator puts them.
ROTATE_BYTES = {"cpu": 128 * 2**20, "cuda": 256 * 2**20}
#: At most so many sets of inputs: on a GPU, all are in one graph.
MOST_SETS = {"cpu": 32, "cuda": 8}
#: Above this many elements only two images are compared with the reference, which works in float64.
CHECKED_ELEMENTS = 2**26
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def _one_map(shape, data_format, dtype, device) -> list[torch.Tensor]:
    batch, height, width, channels = shape
    size = shape if data_format == "channels_last" else (batch, channels, height, width)
    return [torch.empty(size, dtype=dtype, device=device).normal_()]


def _wide_map_and_weights(shape, data_format, dtype, device) -> list[torch.Tensor]:
    """Three branches of C channels, and the two matrices of a split attention with a hidden layer of C / 4."""
    *image, channels = shape
    hidden = max(1, channels // 4)
    x = torch.empty(*image, 3 * channels, dtype=dtype, device=device).normal_()
    fc1_weight = torch.empty(hidden, channels, dtype=dtype, device=device).normal_(std=0.02)
    fc2_weight = torch.empty(3 * channels, hidden, dtype=dtype, device=device).normal_(std=0.02)
    return [x, fc1_weight, fc2_weight]


@dataclass(frozen=True)
class Operator:
    """An operator under test. ``forward_maps`` and ``backward_maps`` count maps of B*H*W*C read and written at the least."""

    name: str
    peers: Callable[[str], dict[str, Callable]]  # by data format
    make_inputs: Callable
    oracle: Callable  # (*inputs, data_format)
    forward_maps: int
    backward_maps: int
    exact: bool = False  # values are compared bitwise


def _spatial_shift(name: str, **groups) -> Operator:
    """The shift of one kind of channel groups: ``offsets`` and ``group_sizes`` of :func:`s2mlp_cuda.spatial_shift`."""
    return Operator(
        name,
        partial(peers.shift_peers, **groups),
        _one_map,
        partial(reference.spatial_shift, **groups),
        forward_maps=2,
        backward_maps=2,
        exact=True,
    )


SPATIAL_SHIFT = _spatial_shift("spatial_shift")
#: The groups of AS-MLP and UNeXt, for 96 channels: 20, 20, 20, 20 and 16, moved by -2 to 2 tokens.
UNEQUAL_GROUPS = _spatial_shift("spatial_shift, 5 unequal groups", offsets=AXIAL_5_WIDTH, group_sizes=chunk_sizes(96, 5))
#: Those of CycleFC (CycleMLP, arXiv 2107.10224), for 64 channels: one per channel, offsets in cycles of three.
SINGLE_CHANNELS = _spatial_shift("spatial_shift, single-channel groups", offsets=tuple((0, 1 - (c + 1) % 3) for c in range(64)))
GELU_SPATIAL_SHIFT = Operator(
    "gelu_spatial_shift",
    peers.gelu_peers,
    _one_map,
    lambda x, data_format: reference.spatial_shift(functional.gelu(x), data_format=data_format),
    forward_maps=2,
    backward_maps=3,
)
SHIFT_SPLIT_ATTENTION = Operator(
    "shift_split_attention",
    peers.split_attention_peers,
    _wide_map_and_weights,
    lambda x, fc1, fc2, data_format: peers.split_attention(x, fc1, fc2, shift=reference.spatial_shift),
    forward_maps=7,
    backward_maps=8,
)
#: A new operator joins with an entry.
OPERATORS = (SPATIAL_SHIFT, GELU_SPATIAL_SHIFT, SHIFT_SPLIT_ATTENTION)


def checked_inputs(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """A copy of what results are checked on, of two images where maps are large. Ways that work in place change the inputs
    each time they run."""
    images = inputs[0] if inputs[0].numel() <= CHECKED_ELEMENTS else inputs[0][:2]
    return [x.clone() for x in (images, *inputs[1:])]


class Oracle:
    """The value without autograd, the value and the gradients of an operator on given inputs, by its reference in float64.

    Errors are relative to the largest element, with room for sums of thousands of terms in an implementation's own order, or
    three times those of the reference in the inputs' dtype: whoever sums up bfloat16 in bfloat16 is inaccurate, not wrong.
    """

    def __init__(self, operator: Operator, inputs: list[torch.Tensor], data_format: str):
        oracle = partial(operator.oracle, data_format=data_format)
        self._inputs = inputs
        self._grad = torch.randn_like(oracle(*inputs))
        rounded = self._results(oracle, inputs)
        self._exact = self._results(oracle, [x.double() for x in inputs])
        self._limits: list[torch.Tensor | int] = [
            max(TOLERANCES[inputs[0].dtype] * right.abs().max(), 3 * _error(value, right))
            for value, right in zip(rounded, self._exact)
        ]
        if operator.exact:
            self._limits[:2] = [0, 0]

    def _results(self, function: Callable, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of copies of the inputs, because some implementations work in place."""
        with torch.no_grad():
            value = function(*(x.clone() for x in inputs))
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        return [value, out.detach(), *torch.autograd.grad(out, leaves, self._grad.to(out.dtype))]

    def accepts(self, function: Callable) -> bool:
        """Whether an implementation is right."""
        found = self._results(function, self._inputs)
        return all(_error(ours, right) <= limit for ours, right, limit in zip(found, self._exact, self._limits))


def _error(found: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    return (found.double() - exact).abs().max()


class Arguments:
    """What a call works on: inputs, the same as leaves that require a gradient, and the gradient of the output."""

    def __init__(self, inputs: list[torch.Tensor], grad: torch.Tensor):
        self.inputs = inputs
        self.leaves = [x.detach().requires_grad_() for x in inputs]
        self.grad = grad


def _copy(on: Arguments) -> torch.Tensor:
    return on.grad.clone()


def _forward(way: Callable, on: Arguments) -> torch.Tensor:
    with torch.no_grad():
        return way(*on.inputs)


def _forward_backward(way: Callable, on: Arguments) -> tuple[torch.Tensor, ...]:
    out = way(*on.leaves)
    return out.detach(), *torch.autograd.grad(out, on.leaves, on.grad)


@dataclass(frozen=True)
class OperatorJob:
    """One operator on one kind of map.

    Attributes:
        shape: (B, H, W, C), whatever the format.
        names: which ways to compute it; None for all.
        level: as in :class:`Case`.
    """

    operator: Operator
    shape: tuple[int, int, int, int]
    data_format: str
    dtype: torch.dtype
    device: torch.device
    rounds: int
    names: frozenset[str] | None = None
    level: str = "operator"

    def __str__(self) -> str:
        return f"{self.operator.name} {'x'.join(map(str, self.shape))} {self.data_format} {str(self.dtype)[6:]}"

    def case(self, direction: str) -> Case:
        return Case(
            self.level,
            self.operator.name,
            direction,
            tuple(self.shape),
            self.data_format,
            str(self.dtype)[6:],
            self.device.type,
            torch.get_num_threads(),
        )

    def ways(self) -> dict[str, Callable]:
        """Name: function of the operator's inputs; ours first."""
        ways = self.operator.peers(self.data_format)
        return {name: way for name, way in ways.items() if self.names is None or name in self.names}

    def results(self) -> list[tuple[str, str]]:
        """(direction, name) of each measurement that :meth:`run` returns, in its order."""
        return [(direction, name) for direction in (FORWARD, BOTH) for name in (COPY, *self.ways())]

    @exact_convolutions()
    def run(self) -> list[Measurement]:
        """Every way is checked first, which also warms it up; what fails or is wrong is reported as such."""
        torch._dynamo.reset()
        arguments = (self.shape, self.data_format, self.dtype, self.device)
        inputs = self.operator.make_inputs(*arguments)
        grad = _one_map(*arguments)[0]
        count = self._set_count(inputs[0].nbytes)
        sets = [Arguments(inputs, grad), *(Arguments([x.clone() for x in inputs], grad.clone()) for _ in range(1, count))]

        checked = checked_inputs(inputs)
        oracle = Oracle(self.operator, checked, self.data_format)
        works: dict[tuple[str, str], Callable] = {(BOTH, COPY): _copy}
        right: dict[str, bool | None] = {COPY: None}
        size = grad.nbytes
        failures, peaks = {}, {(FORWARD, COPY): size, (BOTH, COPY): size}
        for name, way in self.ways().items():
            own: dict[tuple[str, str], Callable] = {
                (FORWARD, name): partial(_forward, way),
                (BOTH, name): partial(_forward_backward, way),
            }
            try:
                right[name] = None if name == peers.GELU_ALONE else oracle.accepts(way)
                if checked[0].shape != inputs[0].shape:  # it may have been compiled for those alone
                    for work in own.values():
                        work(sets[0])
                peaks.update({key: tensor_bytes_at_peak(partial(work, sets[0]), self.device) for key, work in own.items()})
                works.update(own)
            except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
                failures[name] = failure_text(error)
            release_freed_memory()
        del oracle
        samples = interleave(self._on_all(works, sets), self.rounds, self.device, unit=(BOTH, COPY))
        calls = count if self.device.type == "cuda" else 1
        return list(self._measurements(samples, calls, size, right, failures, peaks))

    def _set_count(self, map_bytes: int) -> int:
        device = self.device.type
        if (device, self.level) == ("cpu", "scale"):
            return 1  # what caches do for small maps is to be seen
        return min(MOST_SETS[device], -(-ROTATE_BYTES[device] // map_bytes))

    def _on_all(self, works: dict[tuple[str, str], Callable], sets: list[Arguments]) -> dict[tuple[str, str], Callable]:
        """The works on one set of arguments after the other; on a GPU on all of them each time, because a graph holds them all."""
        if self.device.type == "cuda":
            return {key: lambda work=work: [work(one) for one in sets] for key, work in works.items()}
        kept: deque = deque(maxlen=len(sets) - 1)
        return {key: in_turn(work, sets, kept) for key, work in works.items()}

    def _measurements(self, samples, calls, map_bytes, right, failures, peaks) -> Iterator[Measurement]:
        maps = {FORWARD: self.operator.forward_maps, BOTH: self.operator.forward_maps + self.operator.backward_maps}
        for direction, name in self.results():
            case = self.case(direction)
            if name in failures:
                yield Measurement(case, name, (), failure=failures[name])
                continue
            seconds = samples[BOTH if name == COPY else direction, name]
            yield Measurement(
                case,
                name,
                tuple(s / calls for s in seconds),
                right[name],
                peaks[direction, name],
                map_bytes * (2 if name == COPY else maps[direction]),
            )
