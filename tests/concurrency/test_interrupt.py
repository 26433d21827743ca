"""SIGINT while operators run: KeyboardInterrupt is raised, and the process can go on."""

from fresh import in_fresh_process
from interrupting import interrupt, interrupt_small_maps


def test_results_after_an_interrupt():
    assert in_fresh_process(interrupt, 10) == []


def test_autograd_records_after_an_interrupt():
    """Small maps spend most of the time outside of the kernel."""
    assert in_fresh_process(interrupt_small_maps, 300) == 300
