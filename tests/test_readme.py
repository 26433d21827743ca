"""The README is consistent with code and result files: its Python runs, and its numbers and tables are those of the results."""

import csv
import json
import re
from pathlib import Path

import torch

import s2mlp_cuda
from s2mlp_cuda.bench import tables
from s2mlp_cuda.bench.headline import shortfalls
from s2mlp_cuda.bench.measurement import fastest, load
from s2mlp_cuda.training import ablation
from s2mlp_cuda.training.config import parse, tuples_to_lists
from s2mlp_cuda.training.weights import load as load_weights

from result_tables import instruction_sets, targets

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(blocks) == 8
    names = {"torch": torch, "s2mlp_cuda": s2mlp_cuda, "c": 384}
    for block in blocks:
        if block.startswith("x[:, 1:"):  # the papers' line, which needs a map that does not require a gradient
            names["x"] = names["x"].detach()
        exec(block, names)
    maps = torch.randn(2, 6, 7, 16)
    assert torch.equal(names["spatial_shift1"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS1))
    assert names["fine"].shape == (1, 192, 74, 55) and names["coarse"].shape == (1, 384, 37, 28)
    assert torch.equal(names["spatial_shift2"](maps), s2mlp_cuda.reference.spatial_shift(maps, s2mlp_cuda.offsets.SS2))


def test_links_are_valid():
    headings = {"#" + line.lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert target in headings or (ROOT / target).exists(), target


def test_training_commands_parse():
    lines = re.findall(r"^(?:s2mlp|torchrun .* -m s2mlp_cuda) (.+?)(?: +#.*)?$", README, re.MULTILINE)
    trainings = [line.split()[1:] for line in lines if line.startswith("train ")]
    assert len(trainings) == 4, trainings
    for argv in trainings:
        parse(argv)
    assert {line.split()[0] for line in lines} == {"train", "eval", "predict", "explain", "export", "ablate"}


def test_cifar10_results_match_the_result_files():
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
    assert tuples_to_lists(saved) == tuples_to_lists(recipe)
    model, description = load_weights(folder / "last.safetensors")
    assert description.class_names[0] == "airplane" and sum(p.numel() for p in model.parameters()) < 1_000_000


def test_training_variants_match_the_result_file():
    result = json.loads((ROOT / "benchmarks" / "results" / "training-forms-torch2.11.0.json").read_text())
    for name, variant in result["forms"].items():
        epochs = variant["all_images_per_second"]
        speeds = f"{variant['images_per_second']:.0f} | {min(epochs):.0f} to {max(epochs):.0f}"
        assert f"| {name} | {speeds} | {variant['peak_memory_mb']:.0f} MB |" in README


def test_ablations_match_the_result_file():
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
    texts = {"holds": "hold", "undecided": "undecided", "does not hold": "does not hold"}
    counts = ", ".join(f"{verdicts.count(verdict)} {text}" for verdict, text in texts.items())
    assert f"{len(verdicts)} findings ({counts})" in " ".join(README.split())
    assert found["environment"]["machine"] in README and re.fullmatch("[0-9a-f]{40}", found["environment"]["commit"])


EPYC = {name: ROOT / "benchmarks" / "results" / f"cpu-epyc-{name}" for name in ("avx512", "avx2")}


def test_tables_match_the_result_files():
    runs = [load(folder / "bench.json") for folder in EPYC.values()]
    for run, folder, capability in zip(runs, EPYC.values(), ("AVX512", "AVX2")):
        assert not run.commit["dirty"] and run.machine["cpu_capability"] == capability
        assert (folder / "bench.md").read_text() == tables.document(run)
        assert run.machine["name"].partition(",")[0] in README and run.machine["torch"].partition("+")[0] in README
    shown = [
        section
        for section in tables.sections(runs[0])
        if section.title == "model" or ("forward + backward" in section.title and "groups" not in section.title)
    ]
    assert len(shown) == 5
    for section in shown:
        assert "\n".join(tables.markdown(section)) in README, section.title
        ours = [row for row, mark in zip(section.rows, section.marks) if "s2mlp_cuda" in "".join(row[:2])]
        assert ours and "**wrong**" not in str(ours)
    for line in (*instruction_sets(runs), *targets(runs)):
        assert line in README, line


def test_gpu_cells_in_which_a_baseline_is_faster_are_named():
    """The README names these kinds of cells, and there are no others."""
    runs = [load(ROOT / "benchmarks" / "results" / name / "bench.json") for name in ("nvidia-h200", "nvidia-h200-quick")]
    assert not any(run.commit["dirty"] for run in runs) and all("H200" in run.machine["name"] for run in runs)
    found = set()
    for run in runs:
        for case, measurements in run.cases("operator").items():
            ours, other = fastest(measurements, ours=True), fastest(measurements, ours=False)
            if other and other.median < ours.median:
                shape = "x".join(map(str, case.shape))
                found.add((case.subject, shape, case.data_format, case.dtype))
    assert {kind for kind in found if "single-channel groups" not in kind[0]} == {
        ("spatial_shift", "128x14x14x1536", "channels_first", "bfloat16"),
        ("spatial_shift", "128x14x14x384", "channels_last", "float32"),
    }


def test_ours_is_the_fastest_on_both_instruction_sets():
    assert "With both, ours is the fastest right implementation in every cell" in " ".join(README.split())
    one_thread = load(ROOT / "benchmarks" / "results" / "cpu-epyc-avx512-1-thread" / "bench.json")
    assert one_thread.machine["name"].endswith("AVX512, 1 thread") and not one_thread.commit["dirty"]
    assert not any(shortfalls(run) for run in (one_thread, *(load(folder / "bench.json") for folder in EPYC.values())))
