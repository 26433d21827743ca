"""What counts as a change from one benchmark run to another."""

import io
import random
from dataclasses import replace
from statistics import NormalDist

import pytest
from rich.console import Console

from s2mlp_cuda.bench.compare import compare, remarks, show, summary
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run

OURS = "s2mlp_cuda.spatial_shift"
SHIFT = Case("operator", "spatial_shift", "forward + backward", (32, 14, 14, 384), "channels_last", "float32", "cpu", 2)
MODEL = replace(SHIFT, level="model", subject="s2mlp_deep", direction="training step", shape=(8, 3, 224, 224))
MACHINE = {"name": "a processor, 2 threads", "torch": "2.11.0"}


def seconds(median: float, noise: float = 0.01, rounds: int = 15, seed: int = 0) -> tuple[float, ...]:
    """Rounds in any order, spread as a normal distribution is, with a relative deviation of ``noise``."""
    spread = [NormalDist().inv_cdf((i + 0.5) / rounds) for i in range(rounds)]
    random.Random(seed).shuffle(spread)
    return tuple(median * (1 + noise * deviation) for deviation in spread)


def run(*measurements: Measurement, **machine: str) -> Run:
    return Run(list(measurements), [], {**MACHINE, **machine}, {}, "")


def copy(times: tuple[float, ...] = seconds(1e-3, seed=1)) -> Measurement:
    return Measurement(SHIFT, COPY, times)


def way(times: tuple[float, ...], name: str = OURS, case: Case = SHIFT, **fields) -> Measurement:
    return Measurement(case, name, times, **{"right": True, **fields})


def kinds(a: Run, b: Run) -> list[str]:
    return [change.kind for change in compare(a, b)]


def shown(a: Run, b: Run) -> tuple[int, str]:
    """Exit status and text."""
    console = Console(file=io.StringIO(), width=200)
    return show(compare(a, b), a, b, console), console.file.getvalue()


@pytest.mark.parametrize(
    "factor, noise, kind",
    [
        (1.2, 0.01, "slower"),
        (1 / 1.2, 0.01, "faster"),
        (1.2, 0.4, "the same"),  # inside the noise
        (1.02, 0.001, "the same"),  # sure, but of no account
        (1 / 1.02, 0.001, "the same"),
        (1.0, 0.0, "the same"),
    ],
)
@pytest.mark.parametrize("case", [SHIFT, MODEL], ids=["copies", "seconds"])
def test_change_must_be_beyond_noise_and_five_percent(case, factor, noise, kind):
    before = run(copy(), way(seconds(2e-3, noise, seed=2), case=case))
    after = run(copy(), way(seconds(2e-3 * factor, noise, seed=3), case=case))
    assert kinds(before, after) == [kind]


def test_noise_alone_is_seldom_a_change():
    generator = random.Random(0)
    names = [f"way {i}" for i in range(400)]
    noisy = [run(*(way(tuple(generator.gauss(1, 0.1) for _ in range(15)), name) for name in names)) for _ in range(2)]
    assert kinds(*noisy).count("the same") >= 0.95 * len(names)


def test_slower_machine_is_no_change_of_what_is_counted_in_copies():
    before = run(copy(), way(seconds(2e-3)))
    after = run(copy(seconds(1.3e-3, seed=1)), way(seconds(2.6e-3)))
    assert kinds(before, after) == ["the same"]


def test_slow_rounds_divide_out():
    """Each round slows down way and copy alike, by up to ten times: a change of 20% is seen all the same."""
    slowness = [random.Random(seed).uniform(1, 10) for seed in range(15)]
    before = run(copy(tuple(1e-3 * s for s in slowness)), way(tuple(2e-3 * s for s in slowness)))
    after = run(copy(tuple(1e-3 * s for s in slowness[::-1])), way(tuple(2.4e-3 * s for s in slowness[::-1])))
    (change,) = compare(before, after)
    assert (change.kind, change.unit) == ("slower", "copies")
    assert change.before == pytest.approx(2.0) and change.after == pytest.approx(2.4)


def test_other_number_of_rounds_is_divided_by_the_median_copy():
    unit = copy((3e-3,) * 7 + (1e-3,) * 8)
    before = run(unit, way(seconds(2e-3, rounds=9)))
    after = run(unit, way(seconds(3e-3, rounds=9)))
    (change,) = compare(before, after)
    assert (change.kind, change.unit) == ("slower", "copies")
    assert change.before == pytest.approx(2, rel=0.02)


def test_without_a_copy_in_both_runs_times_are_milliseconds():
    (change,) = [c for c in compare(run(way(seconds(2e-3))), run(copy(), way(seconds(2e-3)))) if c.unit]
    assert (change.kind, change.unit) == ("the same", "ms")
    assert change.before == pytest.approx(2, rel=0.02)


def test_one_round_shows_no_change():
    assert kinds(run(way((1e-3,))), run(way((9e-3,)))) == ["the same"]
    assert kinds(run(copy(), way((0.1,))), run(copy(), way(seconds(0.9)))) == ["the same"]


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
def test_wrong_result_is_wrong_not_fast(before, after, kind):
    a, b = run(way(seconds(2e-3), right=before)), run(way(seconds(1e-3), right=after))
    assert kinds(a, b) == [kind]


def test_what_ran_in_one_run_only():
    failed = way((), failure="RuntimeError: no")
    assert kinds(run(way(seconds(1e-3))), run(failed)) == ["stopped running"]
    assert kinds(run(failed), run(way(seconds(1e-3)))) == ["started running"]
    assert kinds(run(failed), run(failed)) == []
    assert kinds(run(way(seconds(1e-3))), run()) == ["only in A"]
    assert kinds(run(), run(way(seconds(1e-3)))) == ["only in B"]


def test_exit_status_is_that_of_our_own_ways():
    fast, slow = seconds(2e-3), seconds(3e-3)
    assert shown(run(way(fast)), run(way(fast)))[0] == 0
    assert shown(run(way(slow)), run(way(fast)))[0] == 0
    assert shown(run(way(fast, "slices + cat")), run(way(slow, "slices + cat")))[0] == 0
    assert shown(run(way(fast)), run(way(slow)))[0] == 1
    assert shown(run(way(fast)), run(way(fast, right=False)))[0] == 1
    assert shown(run(way(fast)), run(way((), failure="RuntimeError: no")))[0] == 1
    fused = [run(way(times, "s2mlp_cuda, fused", MODEL)) for times in (fast, slow)]
    assert shown(*fused)[0] == 1


def test_table_has_changes_by_size_and_the_summary_counts_the_rest():
    names = {"a": 1.5, "b": 3, "c": 1, "d": 0.5, "e": 1, "[f]": 2}
    before = run(*(way(seconds(1e-3), name) for name in names), way(seconds(1e-3), "gone"))
    after = run(*(way(seconds(factor * 1e-3), name) for name, factor in names.items()))
    status, text = shown(before, after)
    assert status == 0
    rows = [line.split()[:3] for line in text.splitlines() if "operator" not in line and "x " in line]
    assert rows == [
        ["3.00x", "slower", "b"], ["2.00x", "slower", "[f]"], ["1.50x", "slower", "a"], ["2.00x", "faster", "d"],
    ]  # fmt: skip
    assert text.splitlines()[-1] == "3 slower, 1 faster, 2 the same, 1 only in A"


def test_summary_of_nothing():
    assert summary([]) == "0 slower, 0 faster, 0 the same"


def test_other_machine_and_version_are_said_first():
    a = run(way(seconds(1e-3), case=MODEL))
    b = run(way(seconds(2e-3), case=MODEL), name="another", torch="2.12.0")
    text = shown(a, b)[1]
    assert text.startswith(
        "The machines differ: a processor, 2 threads in A, another in B.\n"
        "Changes in ms are therefore those of the machine, too; only times in copies are free of it.\n"
        "The versions of PyTorch differ: 2.11.0 in A, 2.12.0 in B.\n"
    )
    assert remarks(compare(a, a), a, a) == []
    avx2, avx512 = (run(copy(), way(seconds(1e-3)), cpu_capability=name) for name in ("AVX2", "AVX512"))
    assert remarks(compare(avx2, avx512), avx2, avx512) == [
        "The CPU capabilities differ: AVX2 in A, AVX512 in B. Times in copies depend on it, too."
    ]
    assert remarks(compare(a, avx2), a, avx2) == []  # older files do not have it
    both = [run(copy(), way(seconds(1e-3)), name=name) for name in ("one", "another")]
    assert len(remarks(compare(*both), *both)) == 1  # copies only: nothing to be careful about
