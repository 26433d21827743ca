"""Random calls of every raw operator, public function and layer, these under random transforms, compared with an oracle.
``make attack`` runs more, also under sanitizers."""

import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402

import s2mlp_cuda  # noqa: F401, registers the operators

from checks import check_branches, check_gelu, check_shift
from strategies import DTYPES, FLOATING, branch_cases, shift_cases
from transform_checks import check_transforms, check_values
from transform_strategies import linear_cases, transform_cases

OPS = torch.ops.s2mlp_cuda
#: The same examples in every run.
FEW = settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@FEW
@given(shift_cases(DTYPES))
def test_spatial_shift(case):
    check_shift(OPS, case)


@FEW
@given(shift_cases(FLOATING))
def test_gelu_spatial_shift(case):
    check_gelu(OPS, case)


@FEW
@given(branch_cases())
def test_branch_operators(case):
    check_branches(OPS, case)


@FEW
@given(linear_cases())
def test_values_and_gradients_of_linear_functions(case):
    check_values(case)


@settings(FEW, max_examples=100)
@given(transform_cases())
def test_functions_and_layers_under_transforms(case):
    check_transforms(case)
