"""The tables, and every row of the module's table of other networks against that network's own shift."""

import doctest
import re

import pytest
import torch
from torchvision.ops import deform_conv2d

from s2mlp_cuda import offsets, spatial_shift


def test_v1_and_v2_tables_are_the_papers():
    assert offsets.V1 == ((0, 1), (0, -1), (1, 0), (-1, 0))
    assert offsets.SS1 == ((1, 0), (-1, 0), (0, 1), (0, -1))
    assert offsets.SS2 == ((0, 1), (0, -1), (1, 0), (-1, 0))


def test_printed_code_of_paper_1_on_channels_last_maps_is_ss1():
    """Public copies apply it to (B, H, W, C), where its first axis is the height. The paper's first axis is the width."""

    def printed(x):
        c, old = x.shape[-1], x.clone()
        x = x.clone()
        x[:, 1:, :, : c // 4] = old[:, :-1, :, : c // 4]
        x[:, :-1, :, c // 4 : c // 2] = old[:, 1:, :, c // 4 : c // 2]
        x[:, :, 1:, c // 2 : c * 3 // 4] = old[:, :, :-1, c // 2 : c * 3 // 4]
        x[:, :, :-1, 3 * c // 4 :] = old[:, :, 1:, 3 * c // 4 :]
        return x

    maps = torch.randn(2, 5, 7, 18)
    assert torch.equal(printed(maps), spatial_shift(maps, offsets.SS1))
    assert not torch.equal(printed(maps), spatial_shift(maps, offsets.V1))
    assert torch.equal(printed(maps.transpose(1, 2)).transpose(1, 2), spatial_shift(maps, offsets.V1))


def test_ablation_has_ten_settings_with_one_group_per_direction():
    directions = {"a": 4, "b": 8, "c": 2, "d": 2, "e": 2, "f": 2, "g": 1, "h": 1, "i": 1, "j": 1, "none": 1}
    assert {letter: len(table) for letter, table in offsets.ABLATION.items()} == directions
    assert all(len(set(table)) == len(table) for table in offsets.ABLATION.values())
    assert all(pair != (0, 0) for letter, table in offsets.ABLATION.items() if letter != "none" for pair in table)
    assert {pair[1] for pair in offsets.ABLATION["e"]} == {0} and {pair[0] for pair in offsets.ABLATION["f"]} == {0}


def test_names():
    assert offsets.name_of([[1, 0], [-1, 0], [0, 1], [0, -1]]) == "SS1"
    assert offsets.name_of(offsets.V1) == "V1/SS2"
    assert offsets.name_of([(3, 4)]) == "((3, 4),)"


@pytest.mark.parametrize("channels", [0, 5, 96, 97, 384])
def test_chunk_sizes_are_those_of_torch_chunk(channels):
    assert offsets.chunk_sizes(channels, 5) == tuple(len(part) for part in torch.empty(channels).chunk(5))


def test_partial_sizes():
    assert offsets.partial_sizes(96, 4, 96 // 12) == (8, 8, 8, 8, 64)
    assert offsets.partial_sizes(8, 0, 2) == (8,)


def test_interleaved():
    assert offsets.interleaved(((1, 0), (0, 2)), 5) == ((1, 0), (0, 2), (1, 0), (0, 2), (1, 0))
    assert offsets.interleaved(offsets.V1, 0) == ()


def test_examples_of_the_documentation():
    found = doctest.testmod(offsets)
    assert found.attempted > 20 and found.failed == 0


def rows():
    """The rows of the documentation's table: network to ([offsets of each branch], group_sizes, padding_mode), as text."""
    lines = offsets.__doc__.split("=\n")
    found = {}
    for name, tables, sizes, mode in (re.split("   +", line) for line in lines[2].splitlines()[:-1]):
        found[name.split(" (H")[0]] = (re.findall("``(.+?)``", tables), sizes.strip("`"), mode.strip('`"'))
    return found


def pixels(x, dh, dw):
    """out[h, w] = x[h - dh, w - dw], zero outside, with one slice."""
    height, width = x.shape[-2:]
    out = torch.zeros_like(x)
    target, source = (
        [slice(max(0, sign * d), size + min(0, sign * d)) for d, size in ((dh, height), (dw, width))] for sign in (1, -1)
    )
    out[..., target[0], target[1]] = x[..., source[0], source[1]]
    return out


def chunks_padded_and_rolled(x, dim):
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    rolled = [torch.roll(chunk, shift, dim) for chunk, shift in zip(padded.chunk(5, 1), range(-2, 3))]
    return torch.cat(rolled, 1)[:, :, 2:-2, 2:-2]


def chunks_rolled(x, dim):
    return torch.cat([torch.roll(chunk, shift, dim) for chunk, shift in zip(x.chunk(5, 1), range(-2, 3))], 1)


def partial_shift(x, fraction):
    """Left, right, up, down, 1 / fraction of the channels each."""
    g = x.shape[1] // fraction
    out = torch.zeros_like(x)
    out[:, :g, :, :-1] = x[:, :g, :, 1:]
    out[:, g : 2 * g, :, 1:] = x[:, g : 2 * g, :, :-1]
    out[:, 2 * g : 3 * g, :-1] = x[:, 2 * g : 3 * g, 1:]
    out[:, 3 * g : 4 * g, 1:] = x[:, 3 * g : 4 * g, :-1]
    out[:, 4 * g :] = x[:, 4 * g :]
    return out


def quad_shift(x):
    c = x.shape[1]
    one, two, three = c // 4, c // 2, 3 * c // 4
    out = torch.zeros_like(x)
    out[:, :one, :, 1:] = x[:, :one, :, :-1]
    out[:, one:two, :, :-1] = x[:, one:two, :, 1:]
    out[:, two:three, 1:] = x[:, two:three, :-1]
    out[:, three:, :-1] = x[:, three:, 1:]
    return out


def four_connected(x):
    c = x.shape[1]
    borders = [g * c // 5 for g in range(6)]
    right, left, down, up, same = (x[:, a:b] for a, b in zip(borders, borders[1:]))
    return torch.cat([pixels(right, 0, 1), pixels(left, 0, -1), pixels(down, 1, 0), pixels(up, -1, 0), same], 1)


def over_time(x):
    """TSM of a clip (N, T, C, pixels); x is (N, C, T, pixels)."""
    clip, fold = x.transpose(1, 2), x.shape[1] // 8
    out = torch.zeros_like(clip)
    out[:, :-1, :fold] = clip[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = clip[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = clip[:, :, 2 * fold :]
    return out.transpose(1, 2)


def modulo_shift(x):
    """Channel c reads at (h + c // 3 % 3 - 1, w + c % 3 - 1); channels beyond a multiple of nine do not move."""
    kept = x.shape[1] // 9 * 9
    moved = [pixels(x[:, c], -(c // 3 % 3 - 1), -(c % 3 - 1)) if c < kept else x[:, c] for c in range(x.shape[1])]
    return torch.stack(moved, 1)


def cycle(x, kernel):
    """CycleFC with an identity instead of its weight: a deformable convolution that samples at (i + 1) % 3 - 1."""
    batch, channels, height, width = x.shape
    samples = torch.zeros(channels, 2, dtype=x.dtype, device=x.device)
    samples[:, 0 if kernel == (3, 1) else 1] = (torch.arange(channels, device=x.device) + 1) % 3 - 1.0
    weight = torch.eye(channels, dtype=x.dtype, device=x.device)[:, :, None, None]
    return deform_conv2d(x, samples.reshape(1, -1, 1, 1).expand(batch, -1, height, width), weight)


#: The shift of every branch of a network, on (B, C, H, W), in the order of the documentation's table.
NETWORKS = {
    "AS-MLP": [lambda x: chunks_padded_and_rolled(x, 2), lambda x: chunks_padded_and_rolled(x, 3)],
    "UNeXt": [lambda x: chunks_padded_and_rolled(x, 2), lambda x: chunks_padded_and_rolled(x, 3)],
    "MS-MLP": [lambda x: chunks_rolled(x, 2), lambda x: chunks_rolled(x, 3)],
    "Hire-MLP": [lambda x: torch.roll(x, 2, 2), lambda x: torch.roll(x, 2, 3)],
    "Swin": [lambda x: torch.roll(x, (-2, -2), (2, 3))],
    "ShiftViT": [lambda x: partial_shift(x, 12)],
    "ELAN": [lambda x: partial_shift(x, 5)],
    "Vision-RWKV": [quad_shift],
    "4-connected shift": [four_connected],
    "TSM": [over_time],
    "Wu et al. 2017": [modulo_shift],
    "CycleFC, (1, 3)": [lambda x: cycle(x, (1, 3))],
    "CycleFC, (3, 1)": [lambda x: cycle(x, (3, 1))],
}


def test_all_networks_of_the_documentation_are_tested():
    assert rows().keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels", [25, 36])
def test_other_networks(name, channels, device):
    """Output and gradient of each branch, bit for bit."""
    tables, sizes, padding_mode = rows()[name]
    names = {**vars(offsets), "C": channels, "s": 2}
    assert len(tables) == len(NETWORKS[name])
    for text, theirs in zip(tables, NETWORKS[name]):
        table = eval(text, names)
        x = torch.randn(2, channels, 6, 7, device=device, dtype=torch.float64, requires_grad=True)
        ours = spatial_shift(x, table, group_sizes=eval(sizes, names), padding_mode=padding_mode, data_format="channels_first")
        expected = theirs(x)
        assert torch.equal(ours, expected) and not torch.equal(ours, x)
        grad = torch.randn_like(x)
        assert torch.equal(*(torch.autograd.grad(out, x, grad)[0] for out in (ours, expected)))
