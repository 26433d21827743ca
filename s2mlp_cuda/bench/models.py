"""Whole models: inference and a training step (forward, backward, AdamW), for variants of ours and timm models of similar size."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from s2mlp_cuda import create_model, layers, list_models
from s2mlp_cuda.bench.measurement import Breakdown, Case, Measurement, failure_text
from s2mlp_cuda.bench.stopwatch import interleave, tensor_bytes_at_peak

INFERENCE, TRAINING = "inference", "training step"
SLICES, NATIVE, FUSED = "slices + cat", "s2mlp_cuda.spatial_shift", "s2mlp_cuda, fused"
TIMM = "timm"


@dataclass(frozen=True)
class Variant:
    """The implementation of a model's shifts (see :mod:`s2mlp_cuda.layers`), and whether it is compiled."""

    implementation: str
    compiled: bool = False


VARIANTS = {
    SLICES: Variant("reference"),
    NATIVE: Variant("composed"),
    FUSED: Variant("fused"),
    f"torch.compile({SLICES})": Variant("reference", compiled=True),
    f"torch.compile({FUSED})": Variant("fused", compiled=True),
}

#: Kinds of operators and the prefixes of their names; the first match counts.
KINDS = {
    "spatial shift, fused operators": ("s2mlp_cuda::",),
    "matrix products": (
        "aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "aten::mkldnn", "aten::_addmm", "aten::convolution",
    ),
    "LayerNorm": ("aten::native_layer_norm",),
    "GELU": ("aten::gelu",),
    "copies and slices": (
        "aten::copy_", "aten::cat", "aten::slice", "aten::stack", "aten::fill_", "aten::zero_", "aten::index", "aten::empty",
        "aten::clone", "aten::contiguous", "aten::narrow", "aten::select", "aten::split",
    ),
    "sums and products": ("aten::add", "aten::mul", "aten::sum", "aten::mean", "aten::_softmax", "aten::div", "aten::sub"),
    "optimizer": ("aten::_fused_adamw", "Optimizer"),
}  # fmt: skip
OTHER = "other"


def _make(name: str, variant: Variant | None, arguments: dict) -> torch.nn.Module:
    if variant is None:
        import timm

        return timm.create_model(name, **arguments)
    model = create_model(name, implementation=variant.implementation, **arguments)
    if variant.compiled:  # regional compilation: all blocks of a stage share one compilation
        for block in model.modules():
            if isinstance(block, (layers.S2MLPBlock, layers.S2MLPv2Block)):
                block.compile(dynamic=False)
    return model


@dataclass(frozen=True)
class ModelJob:
    """Benchmark of one model for one image size and dtype.

    Attributes:
        name: a model of this package, or else of timm.
        names: names of :data:`VARIANTS` to run; timm models have a single variant.
        arguments: arguments of ``create_model`` as (name, value) pairs, for small models.
    """

    name: str
    batch: int
    size: int
    dtype: torch.dtype
    device: torch.device
    rounds: int
    names: tuple[str, ...] = tuple(VARIANTS)
    arguments: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.batch}x3x{self.size}x{self.size} {str(self.dtype)[6:]}"

    def case(self, direction: str) -> Case:
        shape = (self.batch, 3, self.size, self.size)
        dtype, device = str(self.dtype)[6:], self.device.type
        return Case("model", self.name, direction, shape, "channels_first", dtype, device, torch.get_num_threads())

    def variants(self) -> dict[str, Variant | None]:
        if self.name not in list_models():
            return {TIMM: None}
        return {name: VARIANTS[name] for name in self.names}

    def results(self) -> list[tuple[str, str]]:
        """(direction, name) of each measurement that :meth:`run` returns, in its order."""
        return [(direction, name) for direction in (INFERENCE, TRAINING) for name in self.variants()]

    def run(self) -> list[Measurement]:
        """Runs all variants with the same weights and images; logits and losses are compared with those of eager slices."""
        torch._dynamo.reset()
        workloads, outcomes, peaks, failures = {}, {}, {}, {}
        for name, variant in self.variants().items():
            both = {}
            try:
                for direction, make in ((INFERENCE, self.inference), (TRAINING, self.training_step)):
                    workload = make(variant)
                    outcomes[direction, name] = workload().float()
                    peaks[direction, name] = tensor_bytes_at_peak(workload, self.device)
                    both[direction, name] = workload
                workloads.update(both)
            except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
                failures[name] = failure_text(error)
        samples = interleave(workloads, self.rounds, self.device, graphs=False)
        return [
            Measurement(self.case(direction), name, (), failure=failures[name])
            if name in failures
            else Measurement(
                self.case(direction),
                name,
                tuple(samples[direction, name]),
                self._is_right(outcomes[direction, name], outcomes.get((direction, SLICES))),
                peaks[direction, name],
            )
            for direction, name in self.results()
        ]

    def _is_right(self, outcome: torch.Tensor, expected: torch.Tensor | None) -> bool | None:
        if expected is None:
            return None
        tolerance = 1e-4 if self.dtype == torch.float32 else 5e-2
        return bool((outcome - expected).abs().max() <= tolerance * expected.abs().max())

    def _start(self, variant: Variant | None) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        images = torch.randn(self.batch, 3, self.size, self.size).to(self.device, self.dtype)
        labels = torch.randint(0, 1000, (self.batch,)).to(self.device)
        return _make(self.name, variant, dict(self.arguments)).to(self.device, self.dtype), images, labels

    def inference(self, variant: Variant | None) -> Callable[[], torch.Tensor]:
        model, images, _ = self._start(variant)
        model.eval()

        def infer() -> torch.Tensor:
            with torch.no_grad():
                return model(images)

        return infer

    def training_step(self, variant: Variant | None) -> Callable[[], torch.Tensor]:
        """A function that performs one step and returns the loss. The learning rate is zero, so that all rounds are the same."""
        model, images, labels = self._start(variant)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)

        def step() -> torch.Tensor:
            loss = functional.cross_entropy(model(images).float(), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        return step


@dataclass(frozen=True)
class BreakdownJob:
    """Breakdown of a training step by kind of operator, for the eager variants of a model: medians of interleaved rounds."""

    job: ModelJob

    def __str__(self) -> str:
        return f"{self.job.name}, by kind of operator"

    def run(self) -> list[Breakdown]:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.job.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        steps = {}
        for name, variant in self.job.variants().items():
            if variant is not None and not variant.compiled:
                steps[name] = self.job.training_step(variant)
                steps[name]()
        samples: dict[str, list] = {name: [] for name in steps}
        for _ in range(self.job.rounds):
            for name, step in steps.items():
                with torch.profiler.profile(activities=activities, acc_events=True) as profile:
                    step()
                samples[name].append(self._seconds(profile))
        return [
            Breakdown(self.job.case(TRAINING), name, {kind: statistics.median(r[kind] for r in rounds) for kind in (*KINDS, OTHER)})
            for name, rounds in samples.items()
        ]

    def _seconds(self, profile: torch.profiler.profile) -> dict[str, float]:
        seconds = dict.fromkeys((*KINDS, OTHER), 0.0)
        for event in profile.key_averages():
            self_time = event.self_device_time_total if self.job.device.type == "cuda" else event.self_cpu_time_total
            seconds[_kind(event.key)] += self_time * 1e-6
        return seconds


def _kind(operator: str) -> str:
    return next((kind for kind, prefixes in KINDS.items() if operator.startswith(prefixes)), OTHER)
