import json

import pytest
import torch

from s2mlp_cuda import cli
from s2mlp_cuda.training import ablation
from s2mlp_cuda.training.ablation import FINDINGS, SCALES, Result, Row, rows, table_text, verdicts
from s2mlp_cuda.training.description import build
from s2mlp_cuda.training.digits import write_digits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_all_ablations_of_the_papers_have_rows(scale):
    found = rows(scale)
    counts = {group: sum(row.group == group for row in found) for group in dict.fromkeys(row.group for row in found)}
    assert counts == {
        ablation.SHIFTS: 11, ablation.BLOCKS: 4, ablation.PATCHES: 2, ablation.FUSION: 3, ablation.BRANCHES: 3,
        ablation.PYRAMID: 2, ablation.PEERS: 7,
    }  # fmt: skip
    names = {(row.group, row.name) for row in found}
    findings = [each for each in FINDINGS if {(each.group, each.better), (each.group, each.worse)} <= names]
    assert len(findings) == 18
    assert {finding.group for finding in findings} == counts.keys()
    assert len({row.slug for row in found}) == len(found)
    papers = {row.name: row.paper for row in found if row.group == ablation.FUSION}
    assert papers == {"split attention": 82.0, "mean": 79.8, "sum": None}  # the paper's sum-pooling divides by 3
    (compared,) = (finding for finding in FINDINGS if finding.group == ablation.FUSION)
    assert (compared.better, compared.worse) == ("split attention", "mean")


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_peer_models_have_equal_numbers_of_parameters(scale):
    with torch.device("meta"):
        sizes = {
            row.name: sum(parameter.numel() for parameter in build(row.model, 10, **row.model_kwargs).parameters())
            for row in rows(scale)
            if row.group in (ablation.PEERS, ablation.PYRAMID)
        }
    expected = sizes["S2-MLPv2"]
    assert {name: size for name, size in sizes.items() if abs(size / expected - 1) > 0.1} == {}


def result(name, *accuracies, group=ablation.SHIFTS, paper=None):
    return Result(Row(group, name, "model", {}, paper), 1_000_000, list(accuracies), [100.0], 3)


def test_verdicts_with_one_seed_depend_on_the_number_of_test_images():
    four, none = "(a) four directions", "no shift"
    cases = ((40.0, 10000, "holds"), (60.0, 10000, "does not hold"), (49.5, 10000, "undecided"), (49.5, 10**6, "holds"))
    for other, images, expected in cases:
        (line,) = verdicts([result(four, 50.0, paper=87.1), result(none, other, paper=56.7)], images)
        assert line[3] == expected
        assert line[1] == pytest.approx(30.4)
        assert line[2] == pytest.approx(50 - other)


def test_verdicts_with_several_seeds_depend_on_their_standard_deviation():
    four, none = "(a) four directions", "no shift"
    (line,) = verdicts([result(four, 50.0, 60.0, 55.0), result(none, 50.0, 51.0, 49.0)], 10000)
    assert line[3] == "undecided"
    (line,) = verdicts([result(four, 55.0, 55.1, 54.9), result(none, 50.0, 51.0, 49.0)], 10000)
    assert line[3] == "holds"


def test_alike_holds_unless_the_other_row_is_better():
    four, eight = "(a) four directions", "(b) eight directions"
    for other, expected in ((49.9, "holds"), (40.0, "holds"), (55.0, "does not hold")):
        (line,) = verdicts([result(four, 50.0), result(eight, other)], 10000)
        assert line[3] == expected


def test_table_has_means_and_standard_deviations():
    text = table_text([result("one", 50.0, 52.0, paper=80.0), result("two", 40.0)])
    assert "| **Shift (S2-MLP)** | | | |" in text
    assert "| one | 1.00M | 51.0 ± 1.4 | 80.0 |" in text
    assert "| two | 1.00M | 40.0 |  |" in text


def test_command_trains_each_model_once_and_resumes(tmp_path, monkeypatch, capsys):
    data = write_digits(tmp_path / "digits")
    recipe = tmp_path / "budget.yaml"
    recipe.write_text("img_size: 8\nscale: [0.9, 1.0]\nworkers: 0\nepochs: 1\nbatch_size: 256\nkeep: 1\ntensorboard: false\n")
    argv = ["ablate", "--data", str(data), "--out", str(tmp_path / "out"), "--recipe", str(recipe), "--device", "cpu"]
    argv += ["--only", "four directions", "no shift", "4x4"]
    assert cli.main(argv) == 0
    assert "3 rows, 2 models, 1 seed each" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [entry["row"]["name"] for entry in found["results"]] == ["(a) four directions", "no shift", "4x4"]
    assert found["environment"]["torch"] == torch.__version__
    assert found["results"][0]["accuracies"] == found["results"][2]["accuracies"]
    assert "The shift matters" in (tmp_path / "out" / "ablation.md").read_text()
    assert (tmp_path / "out" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2
    assert all(seconds > 0 for result in found["results"] for seconds in result["seconds"])

    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/checkpoints/*")}
    assert cli.main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/checkpoints/*")} == trained
    assert json.loads((tmp_path / "out" / "ablation.json").read_text())["results"] == found["results"]


def test_no_row_matches(tmp_path, capsys):
    assert cli.main(["ablate", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--only", "fir"]) == 1
    assert "no row matches --only fir" in capsys.readouterr().err
