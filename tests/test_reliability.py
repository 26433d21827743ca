"""docs/reliability.md is consistent with the tests that it names and with the result files."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "reliability.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"


def gelu_table() -> str:
    lines = [
        "| dtype | approximate | result | largest error: ours | largest error: F.gelu | mean error: ours | mean error: F.gelu "
        "| correctly rounded: ours | correctly rounded: F.gelu |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows = json.loads((RESULTS / "gelu-errors-torch2.11.0.json").read_text())["rows"]
    by_name = {(row["dtype"], row["approximate"], row["result"], row["implementation"]): row for row in rows}
    for dtype, approximate, result in dict.fromkeys(key[:3] for key in by_name):
        ours, theirs = (by_name[dtype, approximate, result, name] for name in ("gelu_spatial_shift", "F.gelu"))
        cells = [f"{row[name]:.2g}" for name in ("largest error", "mean error") for row in (ours, theirs)]
        cells += [f"{row['correctly rounded']:.2%}" for row in (ours, theirs)]
        lines.append(f"| {dtype} | {approximate} | {result} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def attack_table() -> str:
    found = json.loads((RESULTS / "attack.json").read_text())
    names = list(dict.fromkeys(name for cases in found["cases"].values() for name in cases))
    lines = [f"| random calls | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for target, cases in found["cases"].items():
        lines.append(f"| {target} | {' | '.join(f'{cases[name]:,}' if name in cases else '' for name in names)} |")
    return "\n".join(lines) + "\n"


def test_gelu_errors():
    assert gelu_table() in TEXT


def test_attack():
    found = json.loads((RESULTS / "attack.json").read_text())
    assert attack_table() in TEXT
    assert found["findings"] == {} and re.fullmatch("[0-9a-f]{40}", found["commit"])
    total = sum(sum(cases.values()) for cases in found["cases"].values())
    assert f"{total:,} calls in {found['minutes']:.0f} minutes on one {found['machine']}" in " ".join(TEXT.split())


def test_named_files_exist():
    paths = re.findall(r"`((?:tests|benchmarks)/[^`]+)`", TEXT) + [path[3:] for path in re.findall(r"\]\((\.\./[^)]+)\)", TEXT)]
    assert len(paths) > 15
    assert [path for path in paths if not list(ROOT.glob(path))] == []
