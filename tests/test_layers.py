import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from s2mlp_cuda import SpatialShift, layers, offsets, reference


def test_shift_layer_is_the_function_and_prints_readably(device):
    layer = SpatialShift(offsets.SS1, padding_mode="zeros")
    x = torch.randn(2, 5, 6, 8, device=device)
    assert torch.equal(layer(x), reference.spatial_shift(x, offsets.SS1, padding_mode="zeros"))
    assert repr(layer) == "SpatialShift(offsets=SS1, padding_mode='zeros', data_format='channels_last', implementation='fused')"
    sized = SpatialShift([(1, 0), (0, 3)], group_sizes=[3, 5], data_format="channels_first")
    assert repr(sized) == (
        "SpatialShift(offsets=((1, 0), (0, 3)), group_sizes=(3, 5), padding_mode='replicate', "
        "data_format='channels_first', implementation='fused')"
    )
    assert not list(layer.parameters()) and not layer.state_dict()


def test_shift_layer_copies_and_pickles():
    layer = SpatialShift([[1, 0], [0, 3]], group_sizes=[3, 5])
    x = torch.randn(4, 4, 8)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(clone(x), layer(x))


def test_affine():
    affine = layers.Affine(3)
    affine.alpha.data = torch.tensor([1.0, 2.0, 3.0])
    affine.beta.data = torch.tensor([0.5, 0.0, -1.0])
    assert torch.equal(affine(torch.full((2, 1, 1, 3), 2.0)), torch.tensor([2.5, 4.0, 5.0]).expand(2, 1, 1, 3))


def test_drop_path_is_off_in_eval_and_keeps_the_mean_in_training():
    drop = layers.DropPath(0.25)
    x = torch.ones(20000, 1, 1, 2)
    assert drop.eval()(x) is x
    out = drop.train()(x)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out[..., 0], out[..., 1]), "samples must be dropped as a whole"
    assert out.mean().item() == pytest.approx(1, abs=0.02)


IMPLEMENTATIONS = pytest.mark.parametrize("implementation", layers.IMPLEMENTATIONS)


@IMPLEMENTATIONS
def test_split_attention_matches_the_formula(implementation):
    attention = layers.ShiftSplitAttention(8, hidden_channels=5, implementation=implementation).double()
    x = torch.randn(2, 3, 4, 24, dtype=torch.float64)
    maps = list(x.split(8, -1))
    maps[0] = reference.spatial_shift(maps[0], offsets.SS1)
    maps[1] = reference.spatial_shift(maps[1], offsets.SS2)
    out = attention(x)
    for b in range(2):
        pooled = sum(part[b].reshape(12, 8).mean(0) for part in maps)
        hidden = nn.functional.gelu(attention.fc1.weight @ pooled)
        logits = (attention.fc2.weight @ hidden).reshape(3, 8)
        weights = logits.softmax(0)
        expected = sum(weights[k] * maps[k][b] for k in range(3))
        torch.testing.assert_close(out[b], expected)


def test_split_attention_hidden_channels_default_to_a_quarter():
    attention = layers.ShiftSplitAttention(64)
    assert attention.fc1.weight.shape == (16, 64) and attention.fc2.weight.shape == (192, 16)
    assert attention.fc1.bias is None and attention.fc2.bias is None


def test_split_attention_with_layers_of_different_dtypes():
    """As linear layers, called because of a hook, and traced with fake tensors in the place of parameters."""
    attention = layers.ShiftSplitAttention(8)
    attention.fc1.double()
    x = torch.randn(2, 3, 4, 24)
    expected = attention(x)
    parameters = dict(attention.named_parameters())
    graph = make_fx(lambda x, parameters: functional_call(attention, parameters, (x,)), tracing_mode="fake")(x, parameters)
    torch.testing.assert_close(graph(x, parameters), expected)
    attention.fc1.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("channels, ratio", [(7, 2.5), (10, 3.99), (100, 0.29)])
def test_hidden_channels_of_the_mlp_are_those_of_timm(channels, ratio):
    """2.5 * 7 rounded down; 0.29 * 100 is less than 29 in floating point."""
    block = pytest.importorskip("timm.models.vision_transformer").Block(channels, num_heads=1, mlp_ratio=ratio)
    assert layers.Mlp(channels, ratio).fc1.out_features == block.mlp.fc1.out_features


@IMPLEMENTATIONS
def test_v1_block_matches_the_paper(implementation):
    block = layers.S2MLPBlock(8, mlp_ratio=2, implementation=implementation).double()
    nn.init.normal_(block.norm1.weight)
    nn.init.normal_(block.norm2.bias)
    x = torch.randn(2, 4, 5, 8, dtype=torch.float64)
    gelu = nn.functional.gelu
    y = x + block.norm1(block.fc2(reference.spatial_shift(gelu(block.fc1(x)), offsets.V1)))
    z = y + block.norm2(block.mlp.fc2(gelu(block.mlp.fc1(y))))
    torch.testing.assert_close(block(x), z)


@IMPLEMENTATIONS
@pytest.mark.parametrize("fusion", layers.FUSIONS)
def test_v2_block_matches_the_paper(fusion, implementation):
    block = layers.S2MLPv2Block(8, fusion=fusion, implementation=implementation).double()
    x = torch.randn(2, 4, 5, 8, dtype=torch.float64)
    parts = list(block.s2.expand(block.norm1(x)).split(8, -1))
    parts[0] = reference.spatial_shift(parts[0], offsets.SS1)
    parts[1] = reference.spatial_shift(parts[1], offsets.SS2)

    def split_attention():
        attention = block.s2.attention
        hidden = nn.functional.gelu(attention.fc1(sum(part.mean((1, 2)) for part in parts)))
        weights = attention.fc2(hidden).reshape(2, 3, 8).softmax(1)
        return sum(weights[:, k, None, None] * parts[k] for k in range(3))

    fused = {
        "split_attention": split_attention,
        "sum": lambda: parts[0] + parts[1] + parts[2],
        "mean": lambda: (parts[0] + parts[1] + parts[2]) / 3,
    }[fusion]()
    y = x + block.s2.project(fused)
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)))


@pytest.mark.parametrize("architecture", [layers.S2MLPBlock, layers.S2MLPv2Block])
def test_norm_placement(architecture):
    x = torch.randn(2, 4, 5, 8, dtype=torch.float64)
    for pre_norm in (True, False):
        block = architecture(8, pre_norm=pre_norm).double()
        nn.init.normal_(block.norm1.weight)
        nn.init.normal_(block.norm2.bias)
        mix = block.mix if architecture is layers.S2MLPBlock else block.s2
        y = x + (mix(block.norm1(x)) if pre_norm else block.norm1(mix(x)))
        torch.testing.assert_close(block(x), y + (block.mlp(block.norm2(y)) if pre_norm else block.norm2(block.mlp(y))))


def test_text_of_a_mixer_with_another_fusion_does_not_name_the_first():
    mixer = layers.S2(8)
    assert repr(mixer).startswith("S2(\n  fusion='split_attention', data_format=")
    mixer.attention = torch.nn.Identity()
    assert repr(mixer).startswith("S2(\n  data_format=")
