"""Tests of the reference: against the formula, element by element, and against a published example."""

import numpy
import pytest
import torch

from s2mlp_cuda import offsets, reference, spatial_shift
from s2mlp_cuda.ops import PADDING_MODES

# The example of a write-up that lists four implementations of the shift: an 8-channel 5x5 map with row indices in even channels
# and column indices in odd channels, shifted by V1. This is its printed result, plane by plane.
ROWS = [[i] * 5 for i in range(5)]
COLUMNS = [list(range(5))] * 5
PRINTED = [
    ROWS,
    [[0, 0, 1, 2, 3]] * 5,
    ROWS,
    [[1, 2, 3, 4, 4]] * 5,
    [[i] * 5 for i in (0, 0, 1, 2, 3)],
    COLUMNS,
    [[i] * 5 for i in (1, 2, 3, 4, 4)],
    COLUMNS,
]
FIVE_WAYS = {"spatial_shift": spatial_shift, **reference.IMPLEMENTATIONS}


def skip_if_torchvision_is_missing(name):
    """torchvision is optional, and needed by only one of the four implementations."""
    if name == "deform_conv2d":
        pytest.importorskip("torchvision")


@pytest.mark.parametrize("name", FIVE_WAYS)
def test_printed_example(name, device):
    skip_if_torchvision_is_missing(name)
    plane = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    x = torch.stack(plane).unsqueeze(0).repeat(1, 4, 1, 1).float().to(device)
    out = FIVE_WAYS[name](x, data_format="channels_first")
    assert torch.equal(out, torch.tensor(PRINTED, dtype=torch.float32, device=device)[None])


#: The arguments of numpy.pad for each padding mode; the constant -1 marks positions that read a zero.
NUMPY_MODES = {
    "replicate": {"mode": "edge"},
    "zeros": {"mode": "constant", "constant_values": -1},
    "circular": {"mode": "wrap"},
    "reflect": {"mode": "reflect"},
}


def sources(size, offset, mode):
    """The source position of each position of an axis; -1 for zero padding."""
    padded = numpy.pad(numpy.arange(size), abs(offset), **NUMPY_MODES[mode])
    return padded[abs(offset) - offset :][:size].tolist()


def by_formula(x, table, sizes, mode):
    """The shift of a map (H, W, C) element by element, from its definition."""
    height, width, channels = x.shape
    borders = [g * channels // len(table) for g in range(len(table) + 1)]
    if sizes is not None:
        borders = [sum(sizes[:g]) for g in range(len(sizes) + 1)]
    out = torch.zeros_like(x)
    for c in range(channels):
        group = next(g for g in range(len(table)) if borders[g] <= c < borders[g + 1])
        for h, i in enumerate(sources(height, table[group][0], mode)):
            for w, j in enumerate(sources(width, table[group][1], mode)):
                if i >= 0 and j >= 0:
                    out[h, w, c] = x[i, j, c]
    return out


@pytest.mark.parametrize("name", reference.IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize(
    "table, sizes",
    [
        (offsets.V1, None),
        (offsets.EIGHT_WAY, None),
        (((2, -3), (0, 0), (-9, 1)), None),
        (((1, 1), (0, -2), (40, -40)), (5, 0, 4)),
    ],
)
@pytest.mark.parametrize("height, width", [(4, 5), (1, 3), (3, 1), (1, 1)])
def test_all_references_match_the_formula(table, sizes, mode, name, height, width):
    skip_if_torchvision_is_missing(name)
    implementation = reference.IMPLEMENTATIONS[name]
    x = torch.randn(height, width, 9)
    expected = by_formula(x, table, sizes, mode)
    assert torch.equal(implementation(x, table, group_sizes=sizes, padding_mode=mode), expected)
    first = implementation(x.permute(2, 0, 1), table, group_sizes=sizes, padding_mode=mode, data_format="channels_first")
    assert torch.equal(first.permute(1, 2, 0), expected)


@pytest.mark.parametrize("name", reference.IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(0, 4, 5, 8), (2, 0, 5, 8), (2, 4, 0, 8), (2, 4, 5, 0)])
def test_empty_maps(name, shape):
    skip_if_torchvision_is_missing(name)
    for mode in PADDING_MODES:
        assert reference.IMPLEMENTATIONS[name](torch.zeros(shape), padding_mode=mode).shape == shape


def test_reference_does_not_use_the_operator():
    import ast
    import inspect

    imports = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(inspect.getsource(reference)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imports == {
        "collections.abc", "torch", "torch.nn.functional", "torch.overrides", "s2mlp_cuda._arguments", "s2mlp_cuda.offsets",
        "torchvision.ops",
    }  # fmt: skip
