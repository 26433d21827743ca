import json

import pytest
import torch

from s2mlp_cuda import cli
from s2mlp_cuda.training.ablation import rows as groups
from s2mlp_cuda.training.ablation.findings import CHOICES, FINDINGS, Finding, verdicts
from s2mlp_cuda.training.ablation.report import choices_text, findings_text, table_text
from s2mlp_cuda.training.ablation.results import Result, load
from s2mlp_cuda.training.ablation.rows import SCALES, Row, all_rows
from s2mlp_cuda.training.config import parse
from s2mlp_cuda.training.description import build
from s2mlp_cuda.training.digits import write_digits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_all_ablations_of_the_papers_have_rows(scale):
    found = all_rows(scale)
    counts = {group: sum(row.group == group for row in found) for group in dict.fromkeys(row.group for row in found)}
    assert counts == {
        groups.VERSIONS: 5, groups.FUSION: 4, groups.SHIFTS: 11, groups.BLOCKS: 4, groups.PATCHES: 2, groups.PADDING: 4,
        groups.INIT: 4, groups.BRANCHES: 3, groups.PYRAMID: 2, groups.PEERS: 7,
    }  # fmt: skip
    names = {(row.group, row.name) for row in found}
    findings = [each for each in FINDINGS if {(each.group, each.better), (each.group, each.worse)} <= names]
    assert len(findings) == 22
    assert all({(each.group, each.better), (each.group, each.worse)} <= names for each in CHOICES)
    assert {finding.group for finding in (*findings, *CHOICES)} == counts.keys()
    assert len({row.slug for row in found}) == len(found)
    papers = {row.name: row.paper for row in found if row.group == groups.FUSION}
    by_mean, by_sum = "attention, pools by mean", "attention, pools by sum"
    assert papers == {by_mean: 82.0, by_sum: 82.0, "mean": 79.8, "sum": None}  # the paper's sum-pooling divides by 3


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_models_that_are_compared_have_equal_numbers_of_parameters(scale):
    with torch.device("meta"):
        sizes = {
            f"{row.group}: {row.name}": sum(
                parameter.numel() for parameter in build(row.model, 10, **row.model_kwargs).parameters()
            )
            for row in all_rows(scale)
            if row.group in (groups.VERSIONS, groups.PEERS, groups.PYRAMID)
        }
    expected = sizes[f"{groups.PEERS}: S2-MLPv2"]
    assert {name: size for name, size in sizes.items() if abs(size / expected - 1) > 0.1} == {}


def test_versions_and_fusions_are_trained_for_twice_as_long():
    recipe = parse(["--recipe", "ablation_cpu", "--data", "folder"])
    epochs = {row.group: recipe.epochs * row.epochs_factor for row in all_rows(SCALES["cpu"])}
    assert epochs == {group: 6 if group in (groups.VERSIONS, groups.FUSION) else 3 for group in epochs}
    long = [row for row in all_rows(SCALES["cpu"]) if row.group == groups.VERSIONS]
    short = [row for row in all_rows(SCALES["cpu"]) if row.group == groups.PEERS]
    assert (long[0].model, long[0].model_kwargs) == (short[1].model, short[1].model_kwargs) and long[0].key != short[1].key


def result(name, *accuracies, group=groups.SHIFTS, paper=None):
    return Result(Row(group, name, "model", {}, paper), 1_000_000, 2_000_000, 3, dict(enumerate(accuracies)))


FOUR = Finding("four beat none", groups.SHIFTS, "four", "none")
ALIKE = Finding("four are no worse than eight", groups.SHIFTS, "four", "eight", alike=True)


@pytest.mark.parametrize(
    "four, none, difference, error, verdict",
    [
        # The models differ by 1 with every seed, the seeds by 10: the pairs decide.
        ((50.0, 60.0, 70.0), (49.0, 59.0, 69.1), 0.967, 0.067, "holds"),
        ((50.0, 60.0, 70.0), (51.0, 61.0, 70.9), -0.967, 0.067, "does not hold"),
        ((50.0, 51.0, 52.0), (51.0, 50.0, 52.0), 0.0, 1.155, "undecided"),
        ((50.0, 50.0, 50.0), (49.0, 50.0, 50.0), 0.333, 0.667, "undecided"),
        ((50.0, 50.0), (50.0, 50.0), 0.0, 0.0, "undecided"),
        ((90.0,), (50.0,), 40.0, None, "undecided"),
    ],
)
def test_verdicts_are_paired_by_seed(four, none, difference, error, verdict):
    (found,) = verdicts([result("four", *four, paper=87.1), result("none", *none, paper=56.7)], (FOUR,))
    assert found.text == verdict and found.paper == pytest.approx(30.4)
    assert found.difference == pytest.approx(difference, abs=1e-3)
    assert found.error == (None if error is None else pytest.approx(error, abs=1e-3))


def test_only_seeds_of_both_rows_count():
    four, none = result("four", 50.0, 60.0, 90.0), result("none", 49.0, 58.0)
    (found,) = verdicts([four, none], (FOUR,))
    assert found.difference == pytest.approx(1.5) and found.paper is None
    none.accuracies = {7: 50.0}
    assert verdicts([four, none], (FOUR,)) == []
    assert verdicts([four], (FOUR,)) == []


@pytest.mark.parametrize(
    "eight, verdict",
    [
        ((49.9, 50.2), "holds"),
        ((40.0, 41.0), "holds"),
        ((50.0, 50.6), "undecided"),
        ((50.2, 50.3), "does not hold"),
        ((49.0, 60.0), "undecided"),
    ],
)
def test_alike_holds_if_the_other_row_is_not_better_by_half_a_point(eight, verdict):
    (found,) = verdicts([result("four", 50.0, 50.0), result("eight", *eight)], (ALIKE,))
    assert found.text == verdict


def test_tables():
    text = table_text([result("one", 50.0, 52.0, paper=80.0), result("two", 40.0)])
    assert "| **Shift (S2-MLP), 3 epochs** | | | | |" in text
    assert "| one | 1.00M | 2.0M | 51.0 ± 1.4 | 80.0 |" in text
    assert "| two | 1.00M | 2.0M | 40.0 |  |" in text
    results = [
        result("(a) four directions", 50.0, 50.0, paper=87.1), result("no shift", 49.0, 48.0, paper=56.7),
        result("replicate", 1.0, 1.0, group=groups.PADDING), result("zeros", 1.5, 2.5, group=groups.PADDING),
    ]  # fmt: skip
    assert "| The shift matters: four directions beat none | +30.4 | +1.50 ± 1.00 | holds |" in findings_text(results)
    assert "| Replicate padding beats zeros | -1.00 ± 1.00 | undecided |" in choices_text(results)
    assert "zeros" not in findings_text(results) and "shift" not in choices_text(results)


BUDGET = "img_size: 8\nscale: [0.9, 1.0]\nworkers: 0\nepochs: 1\nbatch_size: 256\nkeep: 1\ntensorboard: false\n"


@pytest.fixture
def argv(tmp_path):
    data = write_digits(tmp_path / "digits")
    recipe = tmp_path / "budget.yaml"
    recipe.write_text(BUDGET)
    argv = ["ablate", "--data", str(data), "--out", str(tmp_path / "out"), "--recipe", str(recipe), "--device", "cpu"]
    return [*argv, "--only", "four directions", "no shift", "4x4"]


def trained(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/checkpoints/*")}


def test_command_trains_each_model_once_and_goes_on_from_its_results(argv, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main([*argv, "--seeds", "1"]) == 0
    assert "rows: 3, models: 2, seeds: 1, trainings to do: 2" in capsys.readouterr().out
    first = load(out / "ablation.json")
    names = [result.row.name for result in first.results()]
    assert {"(a) four directions", "no shift", "4x4", "5 blocks", "replicate"} <= set(names)  # all rows of these two models
    assert len(first.trainings) == 2 and first.test_images == 360
    assert first.trainings[0].environment["torch"] == torch.__version__ and first.trainings[0].seconds > 0
    assert first.trainings[0].multiply_adds == 832128 and first.trainings[0].parameters == 212234
    assert "The shift matters" in (out / "ablation.md").read_text()
    assert (out / "ablation.png").read_bytes().startswith(b"\x89PNG")

    before = trained(out)
    assert cli.main([*argv, "--seeds", "1"]) == 0
    assert "trainings to do: 0" in capsys.readouterr().out
    assert trained(out) == before and load(out / "ablation.json") == first

    # The results alone are enough: runs may be deleted, and results moved to another machine.
    for path in before:
        path.unlink()
    assert cli.main([*argv, "--seeds", "2"]) == 0
    second = load(out / "ablation.json")
    assert second.trainings[:2] == first.trainings
    assert [training.seed for training in second.trainings] == [0, 0, 1, 1]


def test_several_trainings_at_once_have_the_results_of_one_after_another(argv, tmp_path, capsys):
    assert cli.main([*argv, "--seeds", "1"]) == 0
    one = load(tmp_path / "out" / "ablation.json")
    capsys.readouterr()
    argv[argv.index("--out") + 1] = str(tmp_path / "jobs")
    assert cli.main([*argv, "--seeds", "1", "--jobs", "2"]) == 0
    assert "2 of 2: " in capsys.readouterr().out
    two = load(tmp_path / "jobs" / "ablation.json")

    def accuracies(ablation):
        return {(training.key, training.seed): training.accuracy for training in ablation.trainings}

    assert accuracies(two) == accuracies(one)
    logs = [path.read_text() for path in (tmp_path / "jobs").glob("runs/*/log.txt")]
    assert len(logs) == 2 and all("epoch 1 of 1" in log for log in logs)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_training_that_fails_ends_the_command(argv, tmp_path, capsys, jobs):
    (tmp_path / "budget.yaml").write_text(BUDGET + "lr: 1.0e+30\n")
    assert cli.main([*argv, "--seeds", "1", "--jobs", jobs]) == 1
    error = capsys.readouterr().err
    assert error.startswith("s2mlp: ") and "loss" in error and error.count("\n") == 1


def test_results_of_another_budget_are_refused(argv, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "ablation.json").write_text(json.dumps({"scale": "cpu", "recipe": "other", "test_images": 1, "trainings": []}))
    assert cli.main(argv) == 1
    assert "has results of recipe other for cpu, not of" in capsys.readouterr().err
    for content in ("{}", "[]", "{", '{"results": []}'):
        (out / "ablation.json").write_text(content)
        assert cli.main(argv) == 1
        assert "was not written by this version of s2mlp ablate" in capsys.readouterr().err


def test_no_row_matches(tmp_path, capsys):
    assert cli.main(["ablate", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--only", "xyz"]) == 1
    assert "no row matches --only xyz" in capsys.readouterr().err
