"""The figures of a benchmark run: which are drawn, and that they show the measurements."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from s2mlp_cuda.bench import pictures
from s2mlp_cuda.bench.measurement import COPY, Breakdown, Case, Measurement, Run
from s2mlp_cuda.bench.models import FUSED, SLICES
from s2mlp_cuda.bench.pictures import bars, model_times, overview, page

OURS = "s2mlp_cuda.spatial_shift"
SHIFT = Case("operator", "spatial_shift", "forward + backward", (32, 14, 14, 384), "channels_last", "float32", "cpu", 2)
SMALL = replace(SHIFT, shape=(1, 4, 4, 64))
MODEL = replace(SHIFT, level="model", subject="s2mlp_deep", direction="training step", shape=(8, 3, 224, 224))
FAILURE = "RuntimeError: not implemented for this map"


def measurements_of(case: Case) -> list[Measurement]:
    """In ms: a copy in 1, ours in 2 or 4, "slices + cat" in 6, a wrong one in 1, a slow one in 100, and one that did not run."""
    copy_bytes, least_bytes = 2000, 4000

    def measure(name: str, milliseconds: float, right: bool | None, floor_bytes: int = least_bytes) -> Measurement:
        times = tuple(1e-3 * milliseconds * (1 + 0.01 * i) for i in (-1, 0, 1))
        return Measurement(case, name, times, right, floor_bytes=floor_bytes)

    return [
        measure(COPY, 1, None, copy_bytes),
        measure("in place", 1, False),
        measure("slices + cat", 6, True),
        measure("deform_conv2d", 100, True),
        Measurement(case, "torch.compile(slices + cat)", (), failure=FAILURE),
        measure(OURS, 2 if case.shape == SHIFT.shape else 4, True),
    ]


def make_run(cases: list[Case], breakdowns: list[Breakdown] = ()) -> Run:
    measurements = [m for case in cases for m in measurements_of(case)]
    return Run(measurements, list(breakdowns), {"name": "a processor, 2 threads", "torch": "2.11.0"}, {}, "")


def model_measurements() -> list[Measurement]:
    return [Measurement(MODEL, SLICES, (2.0, 2.1, 2.2), True), Measurement(MODEL, FUSED, (1.0, 1.05, 1.1), True)]


def texts(path) -> list[str]:
    """All texts of an SVG. Matplotlib draws text as paths, with the text itself in a comment."""
    return re.findall("<!-- (.*?) -->", path.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict:
    """Paths by file name, for a run with data for all figures."""
    scale = [replace(case, level="scale", direction=d) for case in (SMALL, SHIFT) for d in ("forward", "forward + backward")]
    breakdown = Breakdown(MODEL, FUSED, {"spatial shift": 0.2, "matrix products": 0.8, "other": 0.0})
    run = make_run([SHIFT, SMALL, *scale], [breakdown])
    run.measurements += model_measurements()
    return {path.name: path for path in pictures.draw_all(run, tmp_path_factory.mktemp("pictures") / "new")}


def test_all_figures_are_drawn(drawn):
    names = [
        "bars-spatial_shift-channels_last-float32", "roofline-cpu", "scaling-spatial_shift-float32", "model-times",
        "step-breakdown",
    ]  # fmt: skip
    assert list(drawn) == [f"{name}.{kind}" for name in names for kind in ("svg", "png")]
    for name, path in drawn.items():
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
            assert "a processor, 2 threads, PyTorch 2.11.0" in texts(path), name
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_overview_shows_all_operators_over_all_sizes(tmp_path):
    gelu = replace(SHIFT, subject="gelu_spatial_shift")
    groups = replace(SHIFT, subject="spatial_shift, 5 unequal groups")
    run = make_run([SHIFT, SMALL, gelu, groups, replace(gelu, direction="forward"), replace(gelu, dtype="bfloat16")])
    slow = next(m for m in run.measurements if (m.case, m.name) == (SHIFT, "deform_conv2d"))
    run.measurements[run.measurements.index(slow)] = replace(slow, seconds=(0.5,))  # timed once
    paths = {path.name: path for path in pictures.draw_all(run, tmp_path)}
    assert [name for name in paths if name.startswith("overview")] == [
        "overview-channels_last-float32.svg", "overview-channels_last-float32.png",
    ]  # fmt: skip
    found = texts(paths["overview-channels_last-float32.svg"])
    assert {"spatial_shift", "gelu_spatial_shift"} <= set(found) and not any("groups" in text for text in found)
    # The median of ours is 3 copies over two sizes, and 2 for the other operator, which has one. Of the slow baseline, only the
    # size that was timed repeatedly counts: 100, which is also a tick of each axis.
    values = Counter(text for text in found if re.fullmatch(r"\d\.\d\d( wrong)?|\d{3}", text))
    assert values == {"3.00": 1, "2.00": 1, "6.00": 2, "1.00 wrong": 2, "100": 4}
    times = overview._times({case: measurements_of(case) for case in (SHIFT, SMALL)})
    assert list(times)[0] == OURS and [round(value) for value in times[OURS]] == [2, 4]
    assert not list(overview.figures(make_run([SHIFT, SMALL])))


def test_wrong_results_are_marked(drawn):
    found = texts(drawn["bars-spatial_shift-channels_last-float32.svg"])
    assert Counter(text for text in found if text.endswith(" wrong")) == {"1.00 wrong": 2}  # one of each panel
    assert "wrong result" in texts(drawn["scaling-spatial_shift-float32.svg"])


def test_the_legend_has_wrong_results_only_where_there_are_some(tmp_path):
    run = make_run([SHIFT, replace(SHIFT, level="scale")])
    run.measurements += model_measurements()
    run.measurements[-1] = replace(run.measurements[-1], right=False)

    def with_the_entry() -> list[str]:
        drawn = [path for path in pictures.draw_all(run, tmp_path) if path.suffix == ".svg"]
        return [path.stem.partition("-")[0] for path in drawn if "wrong result" in texts(path)]

    assert with_the_entry() == ["bars", "scaling", "model"]
    run.measurements = [replace(m, right=True) if m.right is False else m for m in run.measurements]
    assert with_the_entry() == []


@pytest.mark.parametrize(
    "count, text",
    [
        (1, "1 bytes"),
        (999, "999 bytes"),
        (1000, "1 KB"),
        (2**20, "1 MB"),
        (19267584, "19.3 MB"),
        (2**30, "1.1 GB"),
        (4 * 10**12, "4000 GB"),
    ],
)
def test_sizes_are_decimal(count, text):
    """As are the sizes in tables, and the rates in GB/s."""
    assert page.size_text(count) == text


@pytest.mark.parametrize(
    "sizes, labels", [((2**10, 2**30), ["1 KB", "10 KB"]), ((12845056, 77070336), ["10 MB", "20 MB", "50 MB"])]
)
def test_ticks_of_sizes(sizes, labels):
    axis = Figure().subplots()
    page.size_axis(axis, sizes)
    shown = [
        text.get_text() for text in axis.get_xticklabels() if axis.get_xlim()[0] <= text.get_position()[0] <= axis.get_xlim()[1]
    ]
    assert shown[: len(labels)] == labels
    for tick, text in zip(axis.get_xticks(), axis.get_xticklabels()):
        assert page.size_text(int(tick)) == text.get_text()


def test_a_figure_that_cannot_be_drawn_keeps_the_old_one(tmp_path, monkeypatch):
    run = make_run([])
    run.measurements = model_measurements()
    before = [path.read_bytes() for path in pictures.draw_all(run, tmp_path)]

    def fail(figure, file, **options):
        file.write(b"half")
        raise RuntimeError

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RuntimeError):
        pictures.draw_all(run, tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir(), reverse=True)] == before


def test_implementations_that_did_not_run_are_named(drawn):
    found = texts(drawn["bars-spatial_shift-channels_last-float32.svg"])
    assert found.count("did not run: RuntimeError: not implemented ...") == 2
    assert "torch.compile(slices + cat) (did not run)" in texts(drawn["scaling-spatial_shift-float32.svg"])


def test_titles_compare_with_the_best_correct_baseline(drawn):
    """The wrong one is faster than all others."""
    titles = " ".join(" ".join(texts(path)) for path in drawn.values() if path.suffix == ".svg").replace("\n", " ")
    assert "ours takes 2.0 to 4.0 copies of the map, the best correct baseline 6.0" in titles
    assert "ours reach 100% on maps of 1 MB and more" in titles
    assert "the best correct baseline takes 1.5 to 3.0 times as long as ours" in titles
    assert "with fused operators a training step takes 0.50 of its time with slices" in titles
    assert "shifts, copies and slices are 20% with s2mlp_cuda, fused" in titles


def test_title_of_models_ignores_wrong_results():
    slices, fused = model_measurements()
    assert model_times._models_title({MODEL: [slices, replace(fused, right=False)]}) == "Times of models, float32"


def test_bars_are_medians_in_copies():
    ((_, figure),) = bars.figures(make_run([SHIFT]))
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        OURS, "in place", "slices + cat", "deform_conv2d", "torch.compile(slices + cat)",
    ]  # fmt: skip
    shown = [(round(bar.get_y() + bar.get_height() / 2), bar.get_width(), bar.get_hatch()) for bar in axis.patches]
    truncated = pytest.approx(page.TRUNCATED_LENGTH * 6.06)  # relative to the upper quartile of the longest complete bar
    assert shown == [(0, 2, None), (1, 1, "///"), (2, pytest.approx(6), None), (3, truncated, None)]
    assert "100" in [text.get_text() for text in axis.texts]
    (floor,) = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]
    assert floor == 2  # a minimum of 4000 bytes, relative to the 2000 bytes of the copy


def test_whiskers_are_quartiles():
    ((_, figure),) = model_times.figures(Run([Measurement(MODEL, FUSED, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0))], [], {}, {}, ""))
    (whisker,) = figure.axes[0].lines
    assert list(whisker.get_xdata()) == [2000, 6000]


def test_a_single_sample_has_no_whisker(tmp_path):
    run = make_run([SHIFT])
    run.measurements[2] = Measurement(SHIFT, "slices + cat", (6e-3,), True)
    ((_, figure),) = bars.figures(run)
    rows = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert rows == [0, 1]  # of three complete bars
    assert len(pictures.draw_all(run, tmp_path)) == 4


def test_file_names_have_no_commas():
    case = replace(SHIFT, subject="spatial_shift, 5 unequal groups")
    assert [name for name, _ in bars.figures(make_run([case]))] == ["bars-spatial_shift-5unequalgroups-channels_last-float32"]


def test_different_settings_have_separate_figures():
    run = make_run([SHIFT, replace(SHIFT, threads=1), replace(SHIFT, dtype="bfloat16")])
    names = [name for name, _ in bars.figures(run)]
    assert names == [
        "bars-spatial_shift-channels_last-float32-2threads",
        "bars-spatial_shift-channels_last-float32-1thread",
        "bars-spatial_shift-channels_last-bfloat16-2threads",
    ]


def test_nothing_is_drawn_without_data(tmp_path):
    assert pictures.draw_all(make_run([]), tmp_path) == []
    failed = make_run([])
    failed.measurements = [Measurement(MODEL, SLICES, (), failure=FAILURE), Measurement(SHIFT, OURS, (), failure=FAILURE)]
    failed.measurements.append(Measurement(replace(SHIFT, level="scale"), OURS, (), failure=FAILURE))
    assert pictures.draw_all(failed, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_figures_are_reproducible(tmp_path):
    run = make_run([])
    run.measurements = model_measurements()
    first, second = (pictures.draw_all(run, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
