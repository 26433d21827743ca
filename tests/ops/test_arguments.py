"""Tables of offsets are taken by value: nothing that changes after a call, or that only equals an integer, is reused."""

import numpy
import pytest
import torch

from s2mlp_cuda import ShiftSplitAttention, SpatialShift, gelu_spatial_shift, reference, shift_branch_pool, spatial_shift
from s2mlp_cuda._arguments import branch_groups, flat_offsets

X = torch.arange(2 * 4 * 5 * 8.0).reshape(2, 4, 5, 8)


@pytest.mark.parametrize("one", [lambda: torch.tensor(1), lambda: numpy.array(1)], ids=["torch", "numpy"])
@pytest.mark.parametrize("function", [spatial_shift, gelu_spatial_shift])
def test_an_offset_that_is_changed_in_place(function, one):
    """Inside a tuple, which is cached if it is immutable."""
    offset = one()
    table = ((offset, 0), (0, 1))
    before, same = function(X, table), function(X, ((1, 0), (0, 1)))
    assert torch.equal(before, same)
    offset -= 3
    assert torch.equal(function(X, table), function(X, ((-2, 0), (0, 1))))


def test_an_offset_of_a_branch_that_is_changed_in_place():
    offset = torch.tensor(1)
    branches = (((offset, 0),), None)
    assert torch.equal(shift_branch_pool(X, branches), shift_branch_pool(X, (((1, 0),), None)))
    offset.fill_(-2)
    assert torch.equal(shift_branch_pool(X, branches), shift_branch_pool(X, (((-2, 0),), None)))


def test_lists_that_are_changed_in_place():
    table = [[1, 0], [0, 1]]
    spatial_shift(X, table)
    table[0][0] = -2
    assert torch.equal(spatial_shift(X, table), reference.spatial_shift(X, ((-2, 0), (0, 1))))


def test_layers_copy_their_tables():
    offset, size = torch.tensor(1), torch.tensor(3)
    shift = SpatialShift([(offset, 0), (0, 1)], group_sizes=[size, 5])
    attention = ShiftSplitAttention(4, (((offset, 0),), None))
    offset.fill_(-2)
    size.fill_(7)
    assert (shift.offsets, shift.group_sizes, attention.branches) == (((1, 0), (0, 1)), (3, 5), (((1, 0),), None))
    assert {type(number) for number in (*shift.offsets[0], *shift.group_sizes, *attention.branches[0][0])} == {int}


def test_values_that_only_equal_cached_integers():
    """(1.0, 0) and (True, 0) equal (1, 0), whose result is cached."""
    spatial_shift(X, ((1, 0), (0, 1)))
    shift_branch_pool(X, (((1, 0),), None))
    for one in (1.0, True):
        with pytest.raises(TypeError, match="pairs of integers"):
            spatial_shift(X, ((one, 0), (0, 1)))
        with pytest.raises(TypeError, match="pairs of integers"):
            shift_branch_pool(X, (((one, 0),), None))


def test_numpy_integers_and_arrays():
    table = numpy.array([[1, 0], [0, -1]])
    expected = reference.spatial_shift(X, ((1, 0), (0, -1)))
    assert torch.equal(spatial_shift(X, table), expected)
    assert torch.equal(spatial_shift(X, tuple(map(tuple, table)), group_sizes=numpy.array([4, 4])), expected)


def test_immutable_tables_are_cached():
    table = ((1, 0), (0, 1))
    assert flat_offsets(table) is flat_offsets(table)
    branches = (table, None)
    assert branch_groups(branches, 4) is branch_groups(branches, 4) is not branch_groups(branches, 8)
