"""The data of a benchmark run, and its file: pytest-benchmark's JSON format, so that its tools can also read it."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from s2mlp_cuda._files import write_text
from s2mlp_cuda._system import commit_facts, machine_facts

#: The unit of times: a copy of the map, which reads and writes it once.
COPY = "copy"


def is_ours(name: str) -> bool:
    """Whether an implementation is this package's."""
    return name.startswith("s2mlp_cuda")


def failure_text(error: Exception) -> str:
    """Type and first line of an error, for :attr:`Measurement.failure`."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@dataclass(frozen=True)
class Case:
    """One operator or model on one kind of input. Implementations of the same case are compared with each other.

    Attributes:
        level: "operator", "model" or "scale" (an operator over all sizes).
        subject: name of the operator or model.
        direction: "forward", "forward + backward", "inference" or "training step".
        shape: (B, H, W, C) of the map, for any data format; (B, C, H, W) of a model's images.
    """

    level: str
    subject: str
    direction: str
    shape: tuple[int, ...]
    data_format: str
    dtype: str
    device: str
    threads: int

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{self.subject} {size} {self.data_format} {self.dtype}, {self.direction}, {self.device}, {self.threads} threads"


@dataclass(frozen=True)
class Measurement:
    """The measurement of one implementation of a case.

    Attributes:
        seconds: time of one call in each round; rounds are interleaved with those of the other implementations. Only one
            round if a call is very slow.
        right: whether output and gradients matched the reference in this run; None if they were not compared.
        peak_bytes: peak memory of tensors during a call, without inputs and weights, or None.
        floor_bytes: the minimum number of bytes to read and write, or None.
        failure: why it did not run; ``seconds`` is then empty.
    """

    case: Case
    name: str
    seconds: tuple[float, ...]
    right: bool | None = None
    peak_bytes: int | None = None
    floor_bytes: int | None = None
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return first, third


@dataclass(frozen=True)
class Breakdown:
    """The time of a model's step by kind of operator: self time in seconds."""

    case: Case
    name: str
    seconds: dict[str, float]


@dataclass
class Run:
    """All results of one run, and its environment."""

    measurements: list[Measurement] = field(default_factory=list)
    breakdowns: list[Breakdown] = field(default_factory=list)
    machine: dict = field(default_factory=machine_facts)
    commit: dict = field(default_factory=commit_facts)
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def cases(self, level: str) -> dict[Case, list[Measurement]]:
        """The measurements of one level by case, in the order of the run."""
        by_case: dict[Case, list[Measurement]] = {}
        for measurement in self.measurements:
            if measurement.case.level == level:
                by_case.setdefault(measurement.case, []).append(measurement)
        return by_case

    def save(self, path: Path) -> None:
        """Writes the run as JSON with one line per measurement, so that files can be compared with diff."""
        parts = []
        for key, value in self._document().items():
            if isinstance(value, list):
                lines = ",\n".join(json.dumps(item) for item in value)
                parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
            else:
                parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
        write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")

    def _document(self) -> dict:
        from pytest_benchmark import __version__

        return {
            "machine_info": self.machine,
            "commit_info": self.commit,
            "benchmarks": [_benchmark(m) for m in self.measurements if m.seconds],
            "datetime": self.date,
            "version": __version__,
            "not_run": [{"case": asdict(m.case), "name": m.name, "failure": m.failure} for m in self.measurements if not m.seconds],
            "breakdowns": [asdict(b) for b in self.breakdowns],
        }


def _benchmark(m: Measurement) -> dict:
    from pytest_benchmark.stats import Stats

    stats = Stats()
    for seconds in m.seconds:
        stats.update(float(f"{seconds:.5g}"))
    return {
        "group": str(m.case),
        "name": m.name,
        "fullname": f"{m.case} [{m.name}]",
        "params": {**asdict(m.case), "name": m.name},
        "param": m.name,
        "extra_info": {"right": m.right, "peak_bytes": m.peak_bytes, "floor_bytes": m.floor_bytes},
        "options": {"disable_gc": False, "timer": "perf_counter", "min_rounds": len(m.seconds), "warmup": True},
        "stats": {**_rounded(stats.as_dict()), "data": stats.data, "iterations": 1},
    }


def _rounded(values: dict) -> dict:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in values.items()}


def load(path: Path) -> Run:
    """
    Raises:
        ValueError: the file was not written by this suite.
    """
    try:
        document = json.loads(path.read_text())
        measurements = []
        for b in document["benchmarks"]:
            case = _case(b["params"])
            measurements.append(Measurement(case, b["name"], tuple(b["stats"]["data"]), **b["extra_info"]))
        for b in document["not_run"]:
            measurements.append(Measurement(_case(b["case"]), b["name"], (), failure=b["failure"]))
        breakdowns = [Breakdown(_case(b["case"]), b["name"], b["seconds"]) for b in document["breakdowns"]]
        return Run(measurements, breakdowns, document["machine_info"], document["commit_info"], document["datetime"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a result of `s2mlp bench`: {type(error).__name__} {error}") from error


def _case(params: dict) -> Case:
    values = {name: params[name] for name in Case.__dataclass_fields__}
    return Case(**{**values, "shape": tuple(values["shape"])})


def fastest(measurements: Iterable[Measurement], ours: bool) -> Measurement | None:
    """The fastest correct implementation of ours, or of the baselines."""
    correct = [m for m in measurements if m.seconds and m.right and m.name != COPY and is_ours(m.name) == ours]
    return min(correct, key=lambda m: m.median, default=None)


def copies(m: Measurement, measurements: Iterable[Measurement]) -> float:
    """The median relative to that of the copy of the map; nan if either is missing."""
    unit = next((measurement for measurement in measurements if measurement.name == COPY), None)
    return m.median / unit.median if unit is not None and unit.seconds and m.seconds else math.nan
