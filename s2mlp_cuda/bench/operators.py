"""Benchmark of one operator on one kind of map: all implementations, checked against the reference and timed side by side."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from s2mlp_cuda import reference
from s2mlp_cuda._system import release_freed_memory
from s2mlp_cuda.bench import baselines
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, failure_text
from s2mlp_cuda.bench.settings import exact_convolutions
from s2mlp_cuda.bench.stopwatch import interleave, rotate, tensor_bytes_at_peak
from s2mlp_cuda.offsets import AXIAL_5_WIDTH, chunk_sizes

FORWARD, BOTH = "forward", "forward + backward"
#: Calls rotate through inputs of more bytes than a last-level cache holds, and their results are kept as long. All maps are
#: therefore read from memory and written to memory, regardless of what ran before and of where the allocator places them.
ROTATE_BYTES = {"cpu": 128 * 2**20, "cuda": 256 * 2**20}
#: The maximum number of input sets; on a GPU, one graph contains all.
MAX_SETS = {"cpu": 32, "cuda": 8}
#: For maps with more elements, only two images are compared with the reference, which computes in float64.
CHECKED_ELEMENTS = 2**26
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def _one_map(shape, data_format, dtype, device) -> list[torch.Tensor]:
    batch, height, width, channels = shape
    size = shape if data_format == "channels_last" else (batch, channels, height, width)
    return [torch.empty(size, dtype=dtype, device=device).normal_()]


def _expanded_map_and_weights(shape, data_format, dtype, device) -> list[torch.Tensor]:
    """An expanded map of three branches of C channels, and the two matrices of a split attention with C / 4 hidden units."""
    *image, channels = shape
    hidden = max(1, channels // 4)
    x = torch.empty(*image, 3 * channels, dtype=dtype, device=device).normal_()
    fc1_weight = torch.empty(hidden, channels, dtype=dtype, device=device).normal_(std=0.02)
    fc2_weight = torch.empty(3 * channels, hidden, dtype=dtype, device=device).normal_(std=0.02)
    return [x, fc1_weight, fc2_weight]


@dataclass(frozen=True)
class Operator:
    """An operator under test.

    Attributes:
        implementations: data format to implementations by name.
        oracle: reference, called as ``oracle(*inputs, data_format)``.
        forward_maps, backward_maps: minimum number of maps of B*H*W*C elements that must be read and written.
        exact: compare outputs bitwise.
    """

    name: str
    implementations: Callable[[str], dict[str, Callable]]
    make_inputs: Callable
    oracle: Callable
    forward_maps: int
    backward_maps: int
    exact: bool = False


def _spatial_shift(name: str, **groups) -> Operator:
    """The shift with the given ``offsets`` and ``group_sizes`` of :func:`s2mlp_cuda.spatial_shift`."""
    return Operator(
        name,
        partial(baselines.shift_implementations, **groups),
        _one_map,
        partial(reference.spatial_shift, **groups),
        forward_maps=2,
        backward_maps=2,
        exact=True,
    )


SPATIAL_SHIFT = _spatial_shift("spatial_shift")
#: The groups of AS-MLP and UNeXt for 96 channels: 20, 20, 20, 20 and 16 channels, moved by -2 to 2 tokens.
UNEQUAL_GROUPS = _spatial_shift("spatial_shift, 5 unequal groups", offsets=AXIAL_5_WIDTH, group_sizes=chunk_sizes(96, 5))
#: The groups of CycleFC (CycleMLP, arXiv 2107.10224) for 64 channels: one group per channel, with offsets in cycles of 0, -1, 1.
SINGLE_CHANNELS = _spatial_shift("spatial_shift, single-channel groups", offsets=tuple((0, 1 - (c + 1) % 3) for c in range(64)))
GELU_SPATIAL_SHIFT = Operator(
    "gelu_spatial_shift",
    baselines.gelu_implementations,
    _one_map,
    lambda x, data_format: reference.spatial_shift(functional.gelu(x), data_format=data_format),
    forward_maps=2,
    backward_maps=3,
)
SHIFT_SPLIT_ATTENTION = Operator(
    "shift_split_attention",
    baselines.split_attention_implementations,
    _expanded_map_and_weights,
    lambda x, fc1, fc2, data_format: baselines.split_attention(x, fc1, fc2, shift=reference.spatial_shift),
    forward_maps=7,
    backward_maps=8,
)
#: All operators of the benchmark; add new ones here.
OPERATORS = (SPATIAL_SHIFT, GELU_SPATIAL_SHIFT, SHIFT_SPLIT_ATTENTION)


def checked_inputs(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of the inputs for the correctness check, with only two images of large maps. In-place implementations modify the
    original inputs."""
    images = inputs[0] if inputs[0].numel() <= CHECKED_ELEMENTS else inputs[0][:2]
    return [x.clone() for x in (images, *inputs[1:])]


class Oracle:
    """Checks implementations of an operator against its reference in float64: outputs with and without autograd, and gradients.

    Tolerances are relative to the largest element, and allow for sums of thousands of terms in any order. If that is larger, the
    tolerance is three times the error of the reference in the inputs' dtype: accumulation in bfloat16 is inaccurate, not wrong.
    """

    def __init__(self, operator: Operator, inputs: list[torch.Tensor], data_format: str):
        oracle = partial(operator.oracle, data_format=data_format)
        self._inputs = inputs
        self._grad = torch.randn_like(oracle(*inputs))
        rounded = self._results(oracle, inputs)
        self._exact = self._results(oracle, [x.double() for x in inputs])
        self._limits: list[torch.Tensor | int] = [
            max(TOLERANCES[inputs[0].dtype] * exact.abs().max(), 3 * _error(value, exact))
            for value, exact in zip(rounded, self._exact)
        ]
        if operator.exact:
            self._limits[:2] = [0, 0]

    def _results(self, function: Callable, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Results on copies of the inputs, because some implementations work in place."""
        with torch.no_grad():
            value = function(*(x.clone() for x in inputs))
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        return [value, out.detach(), *torch.autograd.grad(out, leaves, self._grad.to(out.dtype))]

    def accepts(self, function: Callable) -> bool:
        """Whether an implementation is correct."""
        results = self._results(function, self._inputs)
        return all(_error(result, exact) <= limit for result, exact, limit in zip(results, self._exact, self._limits))


def _error(result: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    return (result.double() - exact).abs().max()


class Arguments:
    """The arguments of a call: inputs, the same tensors as leaves that require a gradient, and the gradient of the output."""

    def __init__(self, inputs: list[torch.Tensor], grad: torch.Tensor):
        self.inputs = inputs
        self.leaves = [x.detach().requires_grad_() for x in inputs]
        self.grad = grad


def _copy(arguments: Arguments) -> torch.Tensor:
    return arguments.grad.clone()


def _forward(function: Callable, arguments: Arguments) -> torch.Tensor:
    with torch.no_grad():
        return function(*arguments.inputs)


def _forward_backward(function: Callable, arguments: Arguments) -> tuple[torch.Tensor, ...]:
    out = function(*arguments.leaves)
    return out.detach(), *torch.autograd.grad(out, arguments.leaves, arguments.grad)


@dataclass(frozen=True)
class OperatorJob:
    """Benchmark of one operator on one kind of map.

    Attributes:
        shape: (B, H, W, C), for any data format.
        names: names of the implementations to run; None for all.
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

    def implementations(self) -> dict[str, Callable]:
        """Functions of the operator's inputs by name, ours first."""
        functions = self.operator.implementations(self.data_format)
        return {name: function for name, function in functions.items() if self.names is None or name in self.names}

    def results(self) -> list[tuple[str, str]]:
        """(direction, name) of each measurement that :meth:`run` returns, in its order."""
        return [(direction, name) for direction in (FORWARD, BOTH) for name in (COPY, *self.implementations())]

    @exact_convolutions()
    def run(self) -> list[Measurement]:
        """Checks all implementations, which also warms them up, then times them. Failures and wrong results are reported."""
        torch._dynamo.reset()
        arguments = (self.shape, self.data_format, self.dtype, self.device)
        inputs = self.operator.make_inputs(*arguments)
        grad = _one_map(*arguments)[0]
        count = self._set_count(inputs[0].nbytes)
        sets = [Arguments(inputs, grad), *(Arguments([x.clone() for x in inputs], grad.clone()) for _ in range(1, count))]

        checked = checked_inputs(inputs)
        oracle = Oracle(self.operator, checked, self.data_format)
        workloads: dict[tuple[str, str], Callable] = {(BOTH, COPY): _copy}
        right: dict[str, bool | None] = {COPY: None}
        size = grad.nbytes
        failures, peaks = {}, {(FORWARD, COPY): size, (BOTH, COPY): size}
        for name, function in self.implementations().items():
            both: dict[tuple[str, str], Callable] = {
                (FORWARD, name): partial(_forward, function),
                (BOTH, name): partial(_forward_backward, function),
            }
            try:
                right[name] = None if name == baselines.GELU_ALONE else oracle.accepts(function)
                if checked[0].shape != inputs[0].shape:  # a compiled function needs a warm-up call for this shape
                    for workload in both.values():
                        workload(sets[0])
                peaks.update({key: tensor_bytes_at_peak(partial(call, sets[0]), self.device) for key, call in both.items()})
                workloads.update(both)
            except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
                failures[name] = failure_text(error)
            release_freed_memory()
        del oracle
        samples = interleave(self._rotated(workloads, sets), self.rounds, self.device, unit=(BOTH, COPY))
        calls = count if self.device.type == "cuda" else 1
        return list(self._measurements(samples, calls, size, right, failures, peaks))

    def _set_count(self, map_bytes: int) -> int:
        device = self.device.type
        if (device, self.level) == ("cpu", "scale"):
            return 1  # this level shows the effect of caches on small maps
        return min(MAX_SETS[device], -(-ROTATE_BYTES[device] // map_bytes))

    def _rotated(self, workloads: dict[tuple[str, str], Callable], sets: list[Arguments]) -> dict[tuple[str, str], Callable]:
        """Workloads that use the next set of arguments on each call; on a GPU all sets on each call, captured in one graph."""
        if self.device.type == "cuda":
            return {key: lambda call=call: [call(arguments) for arguments in sets] for key, call in workloads.items()}
        results: deque = deque(maxlen=len(sets) - 1)
        return {key: rotate(call, sets, results) for key, call in workloads.items()}

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
