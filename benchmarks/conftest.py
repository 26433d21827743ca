"""``python -m pytest benchmarks [--full]``: all cases and implementations of the suite as pytest-benchmark tests."""

import torch

from s2mlp_cuda._system import keep_freed_memory
from s2mlp_cuda.bench import suite
from s2mlp_cuda.bench.models import BreakdownJob
from s2mlp_cuda.bench.settings import limit_libraries, set_up_compiler


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="all shapes, layouts, dtypes and models of `s2mlp bench --full`")


def pytest_generate_tests(metafunc):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    jobs = [job for job in suite.jobs(metafunc.config.getoption("--full"), device) if not isinstance(job, BreakdownJob)]
    parameters = [(job, direction, name) for job in jobs for direction, name in job.results()]
    metafunc.parametrize("job, direction, name", parameters, ids=[f"{j}, {d}, {n}" for j, d, n in parameters])


def pytest_sessionstart():
    keep_freed_memory()
    limit_libraries()
    set_up_compiler()
