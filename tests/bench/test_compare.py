"""Comparison of two benchmark runs: which differences count as changes."""

import io
import random
from dataclasses import replace
from statistics import NormalDist

import pytest
from rich.console import Console

from s2mlp_cuda.bench.compare import compare, environment_differences, show, summary
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run

OURS = "s2mlp_cuda.spatial_shift"
SHIFT = Case("operator", "spatial_shift", "forward + backward", (32, 14, 14, 384), "channels_last", "float32", "cpu", 2)
MODEL = replace(SHIFT, level="model", subject="s2mlp_deep", direction="training step", shape=(8, 3, 224, 224))
MACHINE = {"name": "a processor, 2 threads", "torch": "2.11.0"}


def seconds(median: float, noise: float = 0.01, rounds: int = 15, seed: int = 0) -> tuple[float, ...]:
    """Normally distributed rounds in random order, with a relative standard deviation of ``noise``."""
    spread = [NormalDist().inv_cdf((i + 0.5) / rounds) for i in range(rounds)]
    random.Random(seed).shuffle(spread)
    return tuple(median * (1 + noise * deviation) for deviation in spread)


def run(*measurements: Measurement, **machine: str) -> Run:
    return Run(list(measurements), [], {**MACHINE, **machine}, {}, "")


def copy(times: tuple[float, ...] = seconds(1e-3, seed=1)) -> Measurement:
    return Measurement(SHIFT, COPY, times)


def measurement(times: tuple[float, ...], name: str = OURS, case: Case = SHIFT, **fields) -> Measurement:
    return Measurement(case, name, times, **{"right": True, **fields})


def kinds(a: Run, b: Run) -> list[str]:
    return [change.kind for change in compare(a, b)]


def shown(a: Run, b: Run) -> tuple[int, str]:
    """Exit status and text."""
    console = Console(file=io.StringIO(), width=200, markup=False)
    return show(compare(a, b), a, b, console), console.file.getvalue()


@pytest.mark.parametrize(
    "factor, noise, kind",
    [
        (1.2, 0.01, "slower"),
        (1 / 1.2, 0.01, "faster"),
        (1.2, 0.4, "the same"),  # within the noise
        (1.02, 0.001, "the same"),  # significant, but too small
        (1 / 1.02, 0.001, "the same"),
        (1.0, 0.0, "the same"),
    ],
)
@pytest.mark.parametrize("case", [SHIFT, MODEL], ids=["copies", "seconds"])
def test_change_must_be_beyond_noise_and_five_percent(case, factor, noise, kind):
    before = run(copy(), measurement(seconds(2e-3, noise, seed=2), case=case))
    after = run(copy(), measurement(seconds(2e-3 * factor, noise, seed=3), case=case))
    assert kinds(before, after) == [kind]


def test_noise_is_rarely_reported_as_a_change():
    generator = random.Random(0)
    names = [f"implementation {i}" for i in range(400)]
    noisy = [run(*(measurement(tuple(generator.gauss(1, 0.1) for _ in range(15)), name) for name in names)) for _ in range(2)]
    assert kinds(*noisy).count("the same") >= 0.95 * len(names)


def test_a_slower_machine_does_not_change_times_in_copies():
    before = run(copy(), measurement(seconds(2e-3)))
    after = run(copy(seconds(1.3e-3, seed=1)), measurement(seconds(2.6e-3)))
    assert kinds(before, after) == ["the same"]


def test_slow_rounds_cancel_out():
    """Rounds slow down the implementation and the copy alike, by up to ten times. A change of 20% is still detected."""
    slowness = [random.Random(seed).uniform(1, 10) for seed in range(15)]
    before = run(copy(tuple(1e-3 * s for s in slowness)), measurement(tuple(2e-3 * s for s in slowness)))
    after = run(copy(tuple(1e-3 * s for s in slowness[::-1])), measurement(tuple(2.4e-3 * s for s in slowness[::-1])))
    (change,) = compare(before, after)
    assert (change.kind, change.unit) == ("slower", "copies")
    assert change.before == pytest.approx(2.0) and change.after == pytest.approx(2.4)


def test_with_a_different_number_of_rounds_times_are_divided_by_the_median_copy():
    unit = copy((3e-3,) * 7 + (1e-3,) * 8)
    before = run(unit, measurement(seconds(2e-3, rounds=9)))
    after = run(unit, measurement(seconds(3e-3, rounds=9)))
    (change,) = compare(before, after)
    assert (change.kind, change.unit) == ("slower", "copies")
    assert change.before == pytest.approx(2, rel=0.02)


def test_unless_both_runs_have_a_copy_times_are_in_milliseconds():
    (change,) = [c for c in compare(run(measurement(seconds(2e-3))), run(copy(), measurement(seconds(2e-3)))) if c.unit]
    assert (change.kind, change.unit) == ("the same", "ms")
    assert change.before == pytest.approx(2, rel=0.02)


def test_a_single_round_is_never_a_change():
    assert kinds(run(measurement((1e-3,))), run(measurement((9e-3,)))) == ["the same"]
    assert kinds(run(copy(), measurement((0.1,))), run(copy(), measurement(seconds(0.9)))) == ["the same"]


@pytest.mark.parametrize(
    "before, after, kind",
    [
        (True, False, "became wrong"),
        (None, False, "became wrong"),
        (False, True, "became right"),
        (False, False, "faster"),
        (True, None, "faster"),
    ],
)
def test_correctness_takes_precedence_over_speed(before, after, kind):
    a, b = run(measurement(seconds(2e-3), right=before)), run(measurement(seconds(1e-3), right=after))
    assert kinds(a, b) == [kind]


def test_implementations_of_only_one_run():
    failed = measurement((), failure="RuntimeError: no")
    assert kinds(run(measurement(seconds(1e-3))), run(failed)) == ["stopped running"]
    assert kinds(run(failed), run(measurement(seconds(1e-3)))) == ["started running"]
    assert kinds(run(failed), run(failed)) == []
    assert kinds(run(measurement(seconds(1e-3))), run()) == ["only in A"]
    assert kinds(run(), run(measurement(seconds(1e-3)))) == ["only in B"]


def test_exit_status_depends_only_on_our_implementations():
    fast, slow = seconds(2e-3), seconds(3e-3)
    assert shown(run(measurement(fast)), run(measurement(fast)))[0] == 0
    assert shown(run(measurement(slow)), run(measurement(fast)))[0] == 0
    assert shown(run(measurement(fast, "slices + cat")), run(measurement(slow, "slices + cat")))[0] == 0
    assert shown(run(measurement(fast)), run(measurement(slow)))[0] == 1
    assert shown(run(measurement(fast)), run(measurement(fast, right=False)))[0] == 1
    assert shown(run(measurement(fast)), run(measurement((), failure="RuntimeError: no")))[0] == 1
    fused = [run(measurement(times, "s2mlp_cuda, fused", MODEL)) for times in (fast, slow)]
    assert shown(*fused)[0] == 1


def test_table_is_sorted_by_size_and_the_summary_counts_all_kinds():
    names = {"a": 1.5, "b": 3, "c": 1, "d": 0.5, "e": 1, "[f]": 2}
    before = run(*(measurement(seconds(1e-3), name) for name in names), measurement(seconds(1e-3), "gone"))
    after = run(*(measurement(seconds(factor * 1e-3), name) for name, factor in names.items()))
    status, text = shown(before, after)
    assert status == 0
    rows = [line.split()[:3] for line in text.splitlines() if "operator" not in line and "x " in line]
    assert rows == [
        ["3.00x", "slower", "b"], ["2.00x", "slower", "[f]"], ["1.50x", "slower", "a"], ["2.00x", "faster", "d"],
    ]  # fmt: skip
    assert text.splitlines()[-1] == "3 slower, 1 faster, 2 the same, 1 only in A"


def test_summary_without_changes():
    assert summary([]) == "0 slower, 0 faster, 0 the same"


def test_different_machines_and_versions_are_reported_first():
    a = run(measurement(seconds(1e-3), case=MODEL))
    b = run(measurement(seconds(2e-3), case=MODEL), name="another", torch="2.12.0")
    text = shown(a, b)[1]
    assert text.startswith(
        "The machines differ: a processor, 2 threads in A, another in B.\n"
        "Changes in ms therefore include the difference between the machines; changes in copies do not.\n"
        "The PyTorch versions differ: 2.11.0 in A, 2.12.0 in B.\n"
    )
    assert environment_differences(compare(a, a), a, a) == []
    avx2, avx512 = (run(copy(), measurement(seconds(1e-3)), cpu_capability=name) for name in ("AVX2", "AVX512"))
    assert environment_differences(compare(avx2, avx512), avx2, avx512) == [
        "The CPU capabilities differ: AVX2 in A, AVX512 in B. Times in copies also depend on them."
    ]
    assert environment_differences(compare(a, avx2), a, avx2) == []  # older files have no capability
    both = [run(copy(), measurement(seconds(1e-3)), name=name) for name in ("one", "another")]
    assert len(environment_differences(compare(*both), *both)) == 1  # all times are in copies, so there is no second warning
