"""Counts how often the papers' in-place pseudo-code is wrong in PyTorch: writes results/inplace-trap-torch<version>.json.

python benchmarks/inplace_trap.py
"""

from s2mlp_cuda.demo.inplace_trap import count_outcomes, survey

from results import write_result

cases = list(survey())
write_result(
    "inplace-trap",
    {
        "what": "SS1 by overlapping in-place slices, compared with slices + cat",
        "combinations": len(cases),
        "outcomes": count_outcomes(cases),
        "by_data_format": {
            data_format: count_outcomes([case for case in cases if case.data_format == data_format])
            for data_format in ("channels_last", "channels_first")
        },
    },
)
