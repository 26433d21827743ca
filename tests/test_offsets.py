import pytest
import torch

from s2mlp_cuda import offsets, spatial_shift


def test_v1_and_v2_tables_are_the_papers():
    assert offsets.V1 == ((0, 1), (0, -1), (1, 0), (-1, 0))
    assert offsets.SS1 == ((1, 0), (-1, 0), (0, 1), (0, -1))
    assert offsets.SS2 == ((0, 1), (0, -1), (1, 0), (-1, 0))


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


@pytest.mark.parametrize("channels", [5, 8, 96, 97, 384])
def test_chunk_sizes_are_those_of_torch_chunk(channels):
    if channels == 8:
        with pytest.raises(ValueError, match="8 channels cannot be split into 5 chunks of 2"):
            offsets.chunk_sizes(8, 5)
        return
    assert offsets.chunk_sizes(channels, 5) == tuple(len(part) for part in torch.empty(channels).chunk(5))


def test_partial_sizes():
    assert offsets.partial_sizes(96, 4, 96 // 12) == (8, 8, 8, 8, 64)
    with pytest.raises(ValueError, match="4 groups of 3 do not fit into 10 channels"):
        offsets.partial_sizes(10, 4, 3)


def test_as_mlp_and_unext(device):
    x = torch.randn(2, 10, 6, 7, device=device)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for dim, table in ((2, offsets.AXIAL_5_HEIGHT), (3, offsets.AXIAL_5_WIDTH)):
        rolled = torch.cat([torch.roll(c, s, dim) for c, s in zip(padded.chunk(5, 1), range(-2, 3))], 1)
        ours = spatial_shift(x, table, group_sizes=offsets.chunk_sizes(10, 5), padding_mode="zeros", data_format="channels_first")
        assert torch.equal(ours, rolled[:, :, 2:-2, 2:-2])


def test_shift_vit(device):
    x = torch.randn(2, 25, 6, 7, device=device)
    g = 25 // 12
    out = torch.zeros_like(x)
    out[:, :g, :, :-1] = x[:, :g, :, 1:]
    out[:, g : 2 * g, :, 1:] = x[:, g : 2 * g, :, :-1]
    out[:, 2 * g : 3 * g, :-1] = x[:, 2 * g : 3 * g, 1:]
    out[:, 3 * g : 4 * g, 1:] = x[:, 3 * g : 4 * g, :-1]
    out[:, 4 * g :] = x[:, 4 * g :]
    ours = spatial_shift(
        x,
        offsets.SHIFT_VIT,
        group_sizes=offsets.partial_sizes(25, 4, g),
        padding_mode="zeros",
        data_format="channels_first",
    )
    assert torch.equal(ours, out)


def test_tsm(device):
    clip = torch.randn(2, 4, 16, 3, 5, device=device)  # (N, T, C, H, W)
    fold = 16 // 8
    out = torch.zeros_like(clip)
    out[:, :-1, :fold] = clip[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = clip[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = clip[:, :, 2 * fold :]
    time_first = clip.flatten(3).transpose(1, 2)  # (N, C, T, H*W): time is the height of the map
    ours = spatial_shift(
        time_first,
        offsets.TSM,
        group_sizes=offsets.partial_sizes(16, 2, fold),
        padding_mode="zeros",
        data_format="channels_first",
    )
    assert torch.equal(ours.transpose(1, 2).reshape(clip.shape), out)


def test_swin_roll(device):
    x = torch.randn(2, 7, 7, 6, device=device)
    assert torch.equal(spatial_shift(x, [(-3, -3)], padding_mode="circular"), torch.roll(x, shifts=(-3, -3), dims=(1, 2)))
