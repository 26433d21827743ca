"""How often the papers' pseudo-code, run in place by PyTorch, is wrong: writes results/inplace-trap-<torch>.json.

    python benchmarks/inplace_trap.py
"""

import json
import subprocess
from datetime import date
from pathlib import Path

import torch

from s2mlp_cuda.cli import cpu_name
from s2mlp_cuda.demo.inplace_trap import count_outcomes, survey

cases = list(survey())
result = {
    "what": "SS1 by overlapping in-place slices, against slices + cat",
    "machine": f"{cpu_name()}, {torch.get_num_threads()} threads",
    "torch": torch.__version__,
    "commit": subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, text=True).strip(),
    "date": date.today().isoformat(),
    "combinations": len(cases),
    "outcomes": count_outcomes(cases),
    "by_data_format": {
        data_format: count_outcomes([case for case in cases if case.data_format == data_format])
        for data_format in ("channels_last", "channels_first")
    },
}
path = Path(__file__).parent / "results" / f"inplace-trap-torch{torch.__version__.partition('+')[0]}.json"
path.write_text(json.dumps(result, indent=2) + "\n")
print(json.dumps(result, indent=2))
print(f"written to {path}")
