"""Tables and summary of a run."""

from dataclasses import replace

from s2mlp_cuda.bench import tables
from s2mlp_cuda.bench.baselines import GELU_ALONE
from s2mlp_cuda.bench.headline import headline, shortfalls
from s2mlp_cuda.bench.measurement import COPY, Case, Measurement, Run

OURS = "s2mlp_cuda.spatial_shift"
SHIFT = Case("operator", "spatial_shift", "forward + backward", (32, 14, 14, 384), "channels_last", "float32", "cpu", 2)
LARGE = replace(SHIFT, shape=(64, 56, 56, 384), data_format="channels_first")


def measurements(case: Case = SHIFT, ours: float = 2.0, ours_right: bool = True, **others: float) -> list[Measurement]:
    """A copy of 1 s, ours, and baselines with the given medians in seconds."""
    found = [Measurement(case, COPY, (1.0,) * 3), Measurement(case, OURS, (ours,) * 3, ours_right)]
    return found + [Measurement(case, name, (median,) * 3, True) for name, median in others.items()]


def run(*measurements: Measurement) -> Run:
    return Run(list(measurements), [], {"name": "a processor", "torch": "2.11.0"}, {"id": "1", "dirty": False}, "")


def test_a_single_sample_is_marked():
    slow = Measurement(SHIFT, "slow", (856.0,), True)
    (section,) = tables.sections(run(*measurements(roll=3.0), slow))
    assert [row[:3] for row in section.rows] == [(OURS, "2.00", "1.0"), ("roll", "3.00", "1.5"), ("slow", "856.00, once", "428.0")]


def test_ours_is_found_by_its_name_for_any_subject():
    case = replace(SHIFT, subject="spatial_shift, 5 unequal groups")
    (section,) = tables.sections(run(*measurements(case, roll=3.0)))
    assert section.marks == ["ours", ""] and [row[2] for row in section.rows] == ["1.0", "1.5"]


def test_headline_has_the_closest_case_of_each_dtype_and_direction():
    forward, half = replace(SHIFT, direction="forward"), replace(SHIFT, dtype="bfloat16")
    found = run(
        *measurements(roll=5.0, cat=4.0),
        *measurements(LARGE, roll=3.0, cat=6.0),
        *measurements(forward, cat=7.0),
        *measurements(half, ours=3.0, cat=2.0),
    )
    assert headline(found) == [
        "spatial_shift, float32, forward + backward: 1.50x faster than roll (64x56x56x384 channels-first)",
        "spatial_shift, float32, forward: 3.50x faster than cat (32x14x14x384 channels-last)",
        "spatial_shift, bfloat16, forward + backward: 1.50x slower than cat (32x14x14x384 channels-last)",
    ]
    assert shortfalls(found) == [f"Not the fastest: {half}: cat takes 0.67 of the time of {OURS}"]
    text = tables.document(found)
    assert "- spatial_shift, float32, forward: 3.50x faster than cat" in text and f"- {shortfalls(found)[0]}\n\n|" in text


def test_only_correct_implementations_of_the_whole_operator_count():
    wrong = Measurement(SHIFT, "in place", (1.0,) * 3, False)
    part = Measurement(SHIFT, GELU_ALONE, (1.0,) * 3)
    failed = Measurement(SHIFT, "compiled", (), failure="RuntimeError: no")
    found = run(*measurements(cat=4.0), wrong, part, failed)
    assert "2.00x faster than cat" in headline(found)[0] and shortfalls(found) == []
    found = run(*measurements(ours_right=False, cat=4.0))
    assert headline(found) == [] and shortfalls(found) == [f"Not right: {SHIFT}"]
    assert headline(run(*measurements(replace(SHIFT, level="scale"), cat=4.0))) == []
