"""What one benchmark run is made of, and its file: pytest-benchmark's JSON, so that its own tools read it, too."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from s2mlp_cuda._system import commit_facts, machine_facts

#: What a map costs that is only read and written once.
COPY = "copy"


def is_ours(name: str) -> bool:
    """Whether a way to compute something is this package's."""
    return name.startswith("s2mlp_cuda")


def failure_text(error: Exception) -> str:
    """Type and first line of an error, as :class:`Measurement` has it."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@dataclass(frozen=True)
class Case:
    """What is compared with each other: one operator or model on one kind of input.

    Attributes:
        level: "operator", "model" or "scale" (an operator over all sizes).
        subject: operator or model.
        direction: "forward", "forward + backward", "inference" or "training step".
        shape: of the map, (B, H, W, C) whatever the format; of a model's images, (B, C, H, W).
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
    """One way to compute a case.

    Attributes:
        seconds: of one call, one number per round; rounds are interleaved with those of the other implementations. A single
            number where a call is hopelessly slow.
        right: whether value and gradients were those of the reference in this run; None where there is nothing to compare.
        peak_bytes: the most that tensors took beyond inputs and weights during a call, or None.
        floor_bytes: what must be read and written at the least, or None.
        failure: why it did not run; then ``seconds`` is empty.
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
    """Where the time of a model's step goes: seconds per kind of operator, of the operators themselves."""

    case: Case
    name: str
    seconds: dict[str, float]


@dataclass
class Run:
    """All of one run and where it was made."""

    measurements: list[Measurement] = field(default_factory=list)
    breakdowns: list[Breakdown] = field(default_factory=list)
    machine: dict = field(default_factory=machine_facts)
    commit: dict = field(default_factory=commit_facts)
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def cases(self, level: str) -> dict[Case, list[Measurement]]:
        """Measurements by case, in the order of the run."""
        found: dict[Case, list[Measurement]] = {}
        for measurement in self.measurements:
            if measurement.case.level == level:
                found.setdefault(measurement.case, []).append(measurement)
        return found

    def save(self, path: Path) -> None:
        """One line per measurement, so that two files can be compared by eye, too."""
        parts = []
        for key, value in self._document().items():
            if isinstance(value, list):
                lines = ",\n".join(json.dumps(item) for item in value)
                parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
            else:
                parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n")

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
        "stats": {**_short(stats.as_dict()), "data": stats.data, "iterations": 1},
    }


def _short(values: dict) -> dict:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in values.items()}


def load(path: Path) -> Run:
    """
    Raises:
        ValueError: not a file that this suite wrote.
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
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a result of `s2mlp bench`: {type(error).__name__} {error}") from error


def _case(params: dict) -> Case:
    values = {name: params[name] for name in Case.__dataclass_fields__}
    return Case(**{**values, "shape": tuple(values["shape"])})


def fastest(ways: Iterable[Measurement], ours: bool) -> Measurement | None:
    """The fastest right implementation of ours, or of the others."""
    right = [m for m in ways if m.seconds and m.right and m.name != COPY and is_ours(m.name) == ours]
    return min(right, key=lambda m: m.median, default=None)


def copies(m: Measurement, ways: Iterable[Measurement]) -> float:
    """Time in copies of the map, by medians; nan where either is missing."""
    unit = next((way for way in ways if way.name == COPY), None)
    return m.median / unit.median if unit is not None and unit.seconds and m.seconds else math.nan
