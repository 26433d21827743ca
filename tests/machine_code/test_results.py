"""The interpreted machine code of every CUDA kernel of the installed binary, compared with the slice reference.

cuda_on_cpu tests the sources, this tests the compiled code. It cannot detect races: warps run in lockstep here, so a missing
barrier changes nothing.
"""

import re
from collections import Counter

import pytest
import torch

from s2mlp_cuda.ops import PADDING_MODES

from cases import BranchCase, Case
from cubin import Kernel, kernels
from device import Device, Record, installed_program
from machine import MachineError, Program
from oracle import failure_of
from selection import selected_cases


@pytest.fixture(scope="module", autouse=True)
def machine_code(sm_90):
    pass


@pytest.fixture(scope="module")
def run(one_thread) -> tuple[dict[str, str], list[Record]]:
    """The failures, and the launches of all cases."""
    failures = {}
    with Device() as device:
        for case in selected_cases():
            try:
                failure = failure_of(case, device.ops)
            except MachineError as error:
                failure = str(error)
            if failure:
                failures[case.name] = failure
    return failures, device.records


def test_results(run):
    failures, _ = run
    assert failures == {}


def test_every_kernel_of_the_binary_ran(run):
    _, records = run
    assert sorted(set(kernels()) - {record.kernel.name for record in records}) == []


def test_selection():
    counts = Counter(case.mode for case in selected_cases())
    assert set(counts) == set(PADDING_MODES)
    tables = {case.table for case in selected_cases()}
    assert {"many groups", "a group for each channel", "eight-way", "far"} <= tables


def test_every_instruction_of_the_binary_is_known():
    """Including instructions that no case reaches."""
    texts = {text for kernel in kernels().values() for text in kernel.listing}
    program = Program(Kernel("all", sorted(texts)))
    for number in range(len(texts)):
        program.decode(number)


# ---- Deliberately changed machine code

SHIFT = Case("V1", "replicate", torch.float32, "channels_last", (2, 5, 7, 16))
POOL = BranchCase("paper", "replicate", torch.float32, (2, 5, 7, 16))


def outcome(case: Case | BranchCase, listing_of) -> str:
    """The finding after ``listing_of`` has changed a kernel's listing; empty if there is none."""

    def program(name: str) -> Program:
        kernel = installed_program(name).kernel
        return Program(Kernel(**{**vars(kernel), "listing": listing_of(kernel.listing)}))

    with Device(program=program) as device:
        try:
            return failure_of(case, device.ops)
        except MachineError as error:
            return str(error)


def replaced(pattern: str, new: str):
    """Replaces the pattern in the first instruction that contains it."""

    def change(listing: list[str]) -> list[str]:
        number = next(n for n, text in enumerate(listing) if re.search(pattern, text))
        return [*listing[:number], re.sub(pattern, new, listing[number]), *listing[number + 1 :]]

    return change


@pytest.mark.parametrize(
    "pattern, new, finding",
    [
        (r"(LDG.*\[R\d+\.64)(\+0x[0-9a-f]+)?\]", r"\1+0x10000000]", "LDG.*address 0x.* of 16 bytes is outside of every tensor"),
        (r"(STG.*\[R\d+\.64)(\+0x[0-9a-f]+)?\]", r"\1+-0x10000000]", "STG.*is outside of every tensor"),
        (r"(LDG.*\[R\d+\.64)(\+0x[0-9a-f]+)?\]", r"\1+0x4]", "LDG.*misaligned address 0x.* of 16 bytes"),
        (r"S2R (R\d+), SR_TID.X", r"FROB \1, SR_TID.X", "unknown opcode FROB"),
        (r"S2R (R\d+), SR_TID.X", r"S2R.FROB \1, SR_TID.X", r"unknown modifier \.FROB"),
        (r"S2R (R\d+), SR_TID.X", r"S2R \1, SR_FROB", "unknown special register SR_FROB"),
        (r"c\[0x0\]\[0x21.\]", "c[0x0][0x7f00]", "offset 0x7f00 is outside of constant bank 0"),
    ],
    ids=["load outside", "store outside", "misaligned", "opcode", "modifier", "special register", "constant"],
)
def test_faults_are_found(pattern, new, finding):
    found = outcome(SHIFT, replaced(pattern, new))
    assert re.search("token_kernel<.*" + finding, found), found


def test_a_store_outside_of_shared_memory_is_found():
    found = outcome(POOL, replaced(r"(STS.*\[R\d+)(\+0x[0-9a-f]+)?\]", r"\1+0x10000]"))
    assert re.search("pool_kernel<.*STS.*is outside of shared memory", found), found


def test_a_store_into_an_input_is_found():
    def swapped(listing: list[str]) -> list[str]:
        """Swaps the pointers to the input and to the output."""
        names = {"0x210": "0x218", "0x218": "0x210", "0x214": "0x21c", "0x21c": "0x214"}
        return [re.sub(r"(?<=c\[0x0\]\[)0x21[048c]", lambda match: names[match.group()], text) for text in listing]

    assert "belongs to a const parameter" in outcome(SHIFT, swapped)


def findings_of(pattern: str, new: str) -> Counter:
    """What is found if one executed instruction of the shift after the other is changed."""
    with Device() as device:
        assert failure_of(SHIFT, device.ops) == ""
    forward = device.records[0]
    listing = forward.kernel.listing
    findings: Counter = Counter()
    for number in [n for n, text in enumerate(listing) if re.search(pattern, text) and forward.statistics.issued[n]]:

        def changed(other: list[str], number=number) -> list[str]:
            return [re.sub(pattern, new, text) if other == listing and n == number else text for n, text in enumerate(other)]

        found = outcome(SHIFT, changed)
        findings["differs" if "differs" in found else "faults" if found else "unseen"] += 1
    return findings


def test_wrong_additions_are_found():
    """One more: addresses are in bytes, so accesses fault."""
    findings = findings_of(r"^(IADD3 .*, )RZ$", r"\g<1>0x1")
    assert findings["faults"] > 0 and findings["unseen"] == 0, findings


def test_wrong_comparisons_are_found():
    """Equal taken for less: results differ, or an access faults. Not seen are those with limits that this map does not reach."""
    findings = findings_of(r"^ISETP\.GE\.", "ISETP.GT.")
    assert findings["differs"] > 0 and findings["faults"] > 0, findings
