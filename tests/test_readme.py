"""The README is consistent with code and result files: its Python runs, and its numbers and tables are those of the results."""

import csv
import json
import re
from pathlib import Path

import torch
import yaml

import s2mlp_cuda
from s2mlp_cuda import cli
from s2mlp_cuda.bench import tables
from s2mlp_cuda.bench.headline import shortfalls
from s2mlp_cuda.bench.measurement import load
from s2mlp_cuda.training.ablation import report as ablation_report
from s2mlp_cuda.training.ablation import results as ablation_results
from s2mlp_cuda.training.config import parse, tuples_to_lists
from s2mlp_cuda.training.weights import load as load_weights

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(block, names)
    x = names["x"].detach()
    assert torch.equal(names["y"], s2mlp_cuda.reference.spatial_shift(x, s2mlp_cuda.offsets.V1)) and names["z"].shape == x.shape
    for number in (1, 2):  # the functions of public copies
        assert f"`spatial_shift{number}(x)` by" in README and f"`spatial_shift(x, offsets.SS{number})`" in README


def test_the_model_table_matches_the_result_file():
    sizes = json.loads((ROOT / "benchmarks" / "results" / "model-sizes-torch2.11.0.json").read_text())["models"]
    for name, counts in sizes.items():
        row = f"| `{name}` | {counts['parameters'] / 1e6:.2f}M | {counts['multiply_adds'] / 1e9:.2f}G |"
        assert row in README, row


def test_it_has_two_screens():
    assert len(README.splitlines()) <= 146


def test_links_are_valid():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        path, _, heading = target.partition("#")
        assert (ROOT / path).exists(), target
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in {line.lower().replace(" ", "-") for line in headings}, target


def test_every_command_is_named():
    names = set(re.findall(r"^    ([a-z]+)  +\S", cli.parser().format_help(), re.MULTILINE))
    assert {"demo", "train", "info"} <= names
    box = README.partition("## Contents")[2].partition("\n## ")[0]
    assert {name for name in names if f"`{name}`" not in box and f"`s2mlp {name}`" not in box} == set()


def test_citations_are_those_of_the_citation_file():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    bibtex = README.partition("```bibtex")[2].partition("```")[0]
    assert f"version = {{{citation['version']}}}" in bibtex and citation["title"] in bibtex.replace("\\_", "_")
    for reference in citation["references"]:
        authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in reference["authors"])
        title = reference["title"].replace("²", "$^2$")
        assert title in bibtex and bibtex.count(authors) == 2 and reference["url"].rpartition("/")[2] in bibtex


def test_cifar10_results_match_the_result_files():
    folder = ROOT / "benchmarks" / "results" / "cifar10-cpu"
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    environment = json.loads((folder / "environment.json").read_text())
    accuracy, minutes = float(rows[-1]["val_top1"]), sum(float(row["seconds"]) for row in rows) / 60
    model, description = load_weights(folder / "last.safetensors")
    parameters = sum(p.numel() for p in model.parameters())
    assert description.class_names[0] == "airplane"
    claim = f"a model of {parameters / 1e6:.2f}M parameters reaches [{accuracy:.1f}% on a CPU]"
    assert claim in README and f"in {minutes:.0f} minutes" in README
    assert minutes <= 40
    assert environment["machine"] and re.fullmatch("[0-9a-f]{40}", environment["commit"])
    saved, recipe = (
        vars(parse(["--recipe", name, "--data", "cifar10", "--output", "out/cifar10_cpu"]))
        for name in (str(folder / "config.yaml"), "cifar10_cpu")
    )
    assert tuples_to_lists(saved) == tuples_to_lists(recipe)


def test_ablations_match_the_result_file():
    folder = ROOT / "benchmarks" / "results" / "cifar10-ablation-cpu"
    found = ablation_results.load(folder / "ablation.json")
    assert (folder / "ablation.md").read_text() == ablation_report.document(found)
    commits = {training.environment["commit"] for training in found.trainings}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits)


def test_claims_on_the_in_place_slices_match_the_result_file():
    outcomes = json.loads((ROOT / "benchmarks" / "results" / "inplace-trap-torch2.11.0.json").read_text())
    wrong, error, right = (outcomes["outcomes"][name] for name in ("wrong", "raised", "right"))
    text = " ".join(README.split())
    assert f"Of {outcomes['combinations']} combinations" in text and wrong + error == outcomes["combinations"] and not right
    assert f"silently wrong in {wrong}, raise an error in {error}, and are never right" in text


EPYC = {name: ROOT / "benchmarks" / "results" / f"cpu-epyc-{name}" for name in ("avx512", "avx2")}


def test_tables_match_the_result_files():
    runs = [load(folder / "bench.json") for folder in EPYC.values()]
    for run, folder, capability in zip(runs, EPYC.values(), ("AVX512", "AVX2")):
        assert not run.commit["dirty"] and run.machine["cpu_capability"] == capability
        assert (folder / "bench.md").read_text() == tables.document(run)
    for run in runs:
        for section in tables.sections(run):
            ours = [row for row, mark in zip(section.rows, section.marks) if "s2mlp_cuda" in "".join(row[:2])]
            assert ours and "**wrong**" not in str(ours)


def test_ours_is_the_fastest_on_both_instruction_sets():
    assert "the operators are faster than every other correct implementation in every case" in " ".join(README.split())
    one_thread = load(ROOT / "benchmarks" / "results" / "cpu-epyc-avx512-1-thread" / "bench.json")
    assert one_thread.machine["name"].endswith("AVX512, 1 thread") and not one_thread.commit["dirty"]
    assert not any(shortfalls(run) for run in (one_thread, *(load(folder / "bench.json") for folder in EPYC.values())))
