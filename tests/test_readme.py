"""The README's Python runs as printed."""

import csv
import json
import re
import statistics
from pathlib import Path

import torch

import s2mlp_cuda
from s2mlp_cuda.bench import tables
from s2mlp_cuda.bench.headline import shortfalls
from s2mlp_cuda.bench.measurement import COPY, copies, is_ours, load
from s2mlp_cuda.training import ablation
from s2mlp_cuda.training.config import parse, plain
from s2mlp_cuda.training.weights import load as load_weights

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(blocks) == 8
    names = {"torch": torch, "s2mlp_cuda": s2mlp_cuda, "c": 384}
    for block in blocks:
        if block.startswith("x[:, 1:"):  # the papers' line, on a map that does not need a gradient
            names["x"] = names["x"].detach()
        exec(block, names)
    maps = torch.randn(2, 6, 7, 16)
    assert torch.equal(names["spatial_shift1"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS1))
    assert names["fine"].shape == (1, 192, 74, 55) and names["coarse"].shape == (1, 384, 37, 28)
    assert torch.equal(names["spatial_shift2"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS2))


def test_links_lead_somewhere():
    headings = {"#" + line.lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert target in headings or (ROOT / target).exists(), target


def test_training_commands_are_understood():
    lines = re.findall(r"^(?:s2mlp|torchrun .* -m s2mlp_cuda) (.+?)(?: +#.*)?$", README, re.MULTILINE)
    trainings = [line.split()[1:] for line in lines if line.startswith("train ")]
    assert len(trainings) == 4, trainings
    for words in trainings:
        parse(words)
    assert {line.split()[0] for line in lines} == {"train", "eval", "predict", "explain", "export", "ablate"}


def test_cifar10_numbers_are_those_of_the_result_files():
    folder = ROOT / "benchmarks" / "results" / "cifar10-cpu"
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    environment = json.loads((folder / "environment.json").read_text())
    accuracy, minutes = float(rows[-1]["val_top1"]), sum(float(row["seconds"]) for row in rows) / 60
    assert f"**{accuracy:.1f}% test accuracy after {minutes:.0f} minutes**" in README
    assert accuracy >= 75 and minutes <= 40
    assert environment["machine"] in README and re.fullmatch("[0-9a-f]{40}", environment["commit"])
    saved, recipe = (
        vars(parse(["--recipe", name, "--data", "cifar10", "--output", "out/cifar10_cpu"]))
        for name in (str(folder / "config.yaml"), "cifar10_cpu")
    )
    assert plain(saved) == plain(recipe)
    model, description = load_weights(folder / "last.safetensors")
    assert description.class_names[0] == "airplane" and sum(p.numel() for p in model.parameters()) < 1_000_000


def test_training_forms_are_those_of_the_result_file():
    result = json.loads((ROOT / "benchmarks" / "results" / "training-forms-torch2.11.0.json").read_text())
    for name, form in result["forms"].items():
        epochs = form["all_images_per_second"]
        speeds = f"{form['images_per_second']:.0f} | {min(epochs):.0f} to {max(epochs):.0f}"
        assert f"| {name} | {speeds} | {form['peak_memory_mb']:.0f} MB |" in README


def test_ablations_are_those_of_the_result_file():
    folder = ROOT / "benchmarks" / "results" / "cifar10-ablation-cpu"
    found = json.loads((folder / "ablation.json").read_text())
    results = [ablation.Result(**{**entry, "row": ablation.Row(**entry["row"])}) for entry in found["results"]]
    expected = [(row.group, row.name) for row in ablation.rows(ablation.SCALES["cpu"])]
    assert [(result.row.group, result.row.name) for result in results] == expected
    assert (folder / "ablation.md").read_text() == ablation.document(results, found["test_images"])
    assert ablation.findings_text(results, found["test_images"]) in README
    minutes = sum({result.row.key: sum(result.seconds) for result in results}.values()) / 60
    assert f"after another in **{minutes:.0f} minutes**" in README and minutes < 60
    verdicts = [verdict for *_, verdict in ablation.verdicts(results, found["test_images"])]
    words = {"holds": "hold", "undecided": "undecided", "does not hold": "does not hold"}
    counts = ", ".join(f"{verdicts.count(verdict)} {said}" for verdict, said in words.items())
    assert f"{len(verdicts)} findings ({counts})" in " ".join(README.split())
    assert found["environment"]["machine"] in README and re.fullmatch("[0-9a-f]{40}", found["environment"]["commit"])


def test_tables_are_those_of_the_result_file():
    folder = ROOT / "benchmarks" / "results" / "cpu-xeon"
    run = load(folder / "bench.json")
    assert not run.commit["dirty"]
    assert (folder / "bench.md").read_text() == tables.document(run)
    assert run.machine["name"] in README and run.machine["torch"].partition("+")[0] in README
    shown = [s for s in tables.sections(run) if "forward + backward" in s.title or s.title == "model"]
    assert len(shown) == 5
    for section in shown:
        assert "\n".join(tables.markdown(section)) in README, section.title
        ours = [row for row, mark in zip(section.rows, section.marks) if "s2mlp_cuda" in "".join(row[:2])]
        assert ours and "**wrong**" not in str(ours)


def test_figures_of_both_instruction_sets_are_those_of_the_result_files():
    capabilities = {"avx512": "AVX512", "avx2": "AVX2"}
    columns = []
    for name, capability in capabilities.items():
        folder = ROOT / "benchmarks" / "results" / f"cpu-epyc-{name}"
        run = load(folder / "bench.json")
        assert not run.commit["dirty"] and run.machine["cpu_capability"] == capability
        assert (folder / "bench.md").read_text() == tables.document(run)
        columns += [
            {
                case.subject: {way.name: (copies(way, ways), way.right) for way in ways}
                for case, ways in run.cases("operator").items()
                if (case.data_format, case.direction, case.dtype) == ("channels_last", "forward + backward", dtype)
            }
            for dtype in ("float32", "bfloat16")
        ]
    rows = {
        "spatial_shift": [column["spatial_shift"]["s2mlp_cuda.spatial_shift"][0] for column in columns],
        "gelu_spatial_shift": [column["gelu_spatial_shift"]["s2mlp_cuda.gelu_spatial_shift"][0] for column in columns],
        "`F.gelu` alone": [column["gelu_spatial_shift"]["F.gelu alone"][0] for column in columns],
        "shift_split_attention": [column["shift_split_attention"]["s2mlp_cuda.shift_split_attention"][0] for column in columns],
        "its best baseline": [
            min(time for name, (time, right) in column["shift_split_attention"].items() if right and not is_ours(name))
            for column in columns
        ],
    }
    for name, values in rows.items():
        assert f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |" in README
    assert "With both, ours is the fastest right implementation in every cell." in README
    runs = [load(ROOT / "benchmarks" / "results" / f"cpu-epyc-{name}" / "bench.json") for name in capabilities]
    assert not any(shortfalls(run) for run in runs)
    small = [
        statistics.median(way.seconds)
        for run in runs
        for case, ways in run.cases("operator").items()
        for way in ways
        if case.dtype == "bfloat16" and way.name == COPY
    ]
    assert f"between {min(small) * 1e3:.2f} and {max(small) * 1e3:.2f} ms" in README
