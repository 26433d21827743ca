"""Calls the operators with random arguments for some time, and compares every result with an oracle.

    python tests/attack/attack.py --minutes 30                  different arguments in every run
    python tests/attack/attack.py --minutes 30 --seed 7         the same arguments again
    python tests/attack/attack.py --minutes 30 --save FOLDER    attack.json as well

A sixth of the time each: the installed binary, also through the public functions and layers under random transforms; its CPU
kernels, built with AddressSanitizer and UBSan, with every instruction set that the processor supports; the CUDA kernels, emulated
on the CPU under the same sanitizers; the CPU kernels with eight threads, under ThreadSanitizer.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cuda_on_cpu"), str(HERE.parent.parent)]

import torch  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

from s2mlp_cuda._system import commit_name, cpu_name  # noqa: E402

from checks import check_branches, check_gelu, check_shift  # noqa: E402
from emulated import build_kernels, sanitized_environment, sanitized_python  # noqa: E402
from strategies import DTYPES, FLOATING, branch_cases, shift_cases  # noqa: E402
from transform_checks import check_transforms, check_values  # noqa: E402
from transform_strategies import linear_cases, transform_cases  # noqa: E402

CHECKS = {
    "spatial_shift": (check_shift, shift_cases(DTYPES)),
    "gelu_spatial_shift": (check_gelu, shift_cases(FLOATING)),
    "branch operators": (check_branches, branch_cases()),
}
#: Public functions and layers, which call the installed binary only.
FUNCTION_CHECKS = {
    "values and gradients of linear functions": (lambda _, case: check_values(case), linear_cases()),
    "functions and layers under transforms": (lambda _, case: check_transforms(case), transform_cases()),
}
#: Library of kernels, and what ATEN_CPU_CAPABILITY says.
TARGETS = {
    "installed binary": ("", ""),
    **{f"CPU kernels under sanitizers, {name}": ("cpu", name) for name in ("avx512", "avx2", "default")},
    "emulated CUDA kernels under sanitizers": ("cuda", ""),
    "CPU kernels under ThreadSanitizer": ("threads", ""),
}
ROUND = settings(
    max_examples=200, deadline=None, database=None, phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck)
)


def worker(library: str, seconds: float, first_seed: int) -> None:
    """Prints the number of cases per check, as JSON. Raises at the first wrong result, which Hypothesis shrinks and shows."""
    if library:
        torch.ops.load_library(library)
    ops = torch.ops.s2mlp_cuda_on_cpu if library else torch.ops.s2mlp_cuda
    checks = CHECKS if library else CHECKS | FUNCTION_CHECKS
    counts: Counter = Counter()

    def run(name: str, number: int) -> None:
        check, cases = checks[name]

        @seed(number)
        @ROUND
        @given(cases)
        def examples(case) -> None:
            counts[name] += 1
            print(f"{name}: {case}", file=sys.stderr)  # the last line names the case that a sanitizer ended
            check(ops, case)

        examples()

    number, end = first_seed, time.monotonic() + seconds
    while time.monotonic() < end:
        for name in checks:
            run(name, number)
        number += 1
    print(json.dumps(counts))


def attack(target: str, seconds: float, first_seed: int) -> tuple[dict[str, int], str]:
    """The number of cases per check, and what was found."""
    kind, capability = TARGETS[target]
    library = str(build_kernels(kind)) if kind else ""
    python, environment = (sanitized_python(kind), sanitized_environment(kind)) if kind else ([sys.executable], os.environ)
    result = subprocess.run(
        [*python, __file__, "--worker", library, "--seconds", str(seconds), "--seed", str(first_seed)],
        env={**environment, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
    )
    if result.returncode == 0:
        return json.loads(result.stdout.splitlines()[-1]), ""
    return {}, f"status {result.returncode}\n{result.stderr[-6000:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    parser.add_argument("--worker", metavar="LIBRARY", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        worker(arguments.worker, arguments.seconds, arguments.seed)
        return 0
    print(f"seed {arguments.seed}", flush=True)
    cases, findings = {}, {}
    for target in TARGETS:
        counts, finding = attack(target, 60 * arguments.minutes / len(TARGETS), arguments.seed)
        cases[target] = counts
        findings |= {target: finding} if finding else {}
        print(f"{target}: {finding or f'{sum(counts.values())} cases, all right'}", flush=True)
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)
        facts = {"date": str(date.today()), "machine": cpu_name(), "torch": torch.__version__, "commit": commit_name()}
        report = {**facts, "minutes": arguments.minutes, "seed": arguments.seed, "cases": cases, "findings": findings}
        (arguments.save / "attack.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
