"""The judge is judged: against the formula, element by element, and against the printed result of the seed example."""

import pytest
import torch

from s2mlp_cuda import offsets, reference, spatial_shift

# The example of the write-up that lists four ways to shift: an 8-channel 5x5 map that holds row indices in even and
# column indices in odd channels, shifted by V1. Its printed result, plane by plane.
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
    """torchvision is optional, and one of the four needs it."""
    if name == "deform_conv2d":
        pytest.importorskip("torchvision")


@pytest.mark.parametrize("name", FIVE_WAYS)
def test_printed_example(name, device):
    skip_if_torchvision_is_missing(name)
    plane = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    x = torch.stack(plane).unsqueeze(0).repeat(1, 4, 1, 1).float().to(device)
    out = FIVE_WAYS[name](x, data_format="channels_first")
    assert torch.equal(out, torch.tensor(PRINTED, dtype=torch.float32, device=device)[None])


def by_formula(x, table, sizes, mode):
    """(H, W, C) element by element, straight from the definition."""
    height, width, channels = x.shape
    borders = [g * channels // len(table) for g in range(len(table) + 1)]
    if sizes is not None:
        borders = [sum(sizes[:g]) for g in range(len(sizes) + 1)]
    out = torch.zeros_like(x)
    for c in range(channels):
        group = next(g for g in range(len(table)) if borders[g] <= c < borders[g + 1])
        for h in range(height):
            for w in range(width):
                i, j = h - table[group][0], w - table[group][1]
                if mode == "replicate":
                    i, j = min(max(i, 0), height - 1), min(max(j, 0), width - 1)
                elif mode == "circular":
                    i, j = i % height, j % width
                if 0 <= i < height and 0 <= j < width:
                    out[h, w, c] = x[i, j, c]
    return out


@pytest.mark.parametrize("name", reference.IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", ["replicate", "zeros", "circular"])
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
def test_every_reference_is_the_formula(table, sizes, mode, name, height, width):
    skip_if_torchvision_is_missing(name)
    implementation = reference.IMPLEMENTATIONS[name]
    x = torch.randn(height, width, 9)
    expected = by_formula(x, table, sizes, mode)
    assert torch.equal(implementation(x, table, group_sizes=sizes, padding_mode=mode), expected)
    first = implementation(
        x.permute(2, 0, 1), table, group_sizes=sizes, padding_mode=mode, data_format="channels_first"
    )
    assert torch.equal(first.permute(1, 2, 0), expected)


def test_reference_does_not_use_the_operator():
    import ast
    import inspect

    imports = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(inspect.getsource(reference)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imports == {"collections.abc", "torch", "torch.nn.functional", "s2mlp_cuda.offsets", "torchvision.ops"}
