"""Attention layers inside somebody's network: replaced in a copy of a module, returned by path for a state dict."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from s2mlp_cuda.convert import convert
from s2mlp_cuda.layers import S2

from public_copies import Blocks, Detector, S2Attention, SplitAttention, StagedParts, Wrapper, randomized, v2_mixer, v2_parts

pytestmark = pytest.mark.usefixtures("one_thread")

PATHS = {
    "model.2.att": "channels_first",
    "model.3": "channels_first",
    "model.4.model.0.0.fn": "channels_last",
    "model.4.model.1.0.fn": "channels_last",
    "model.5": "channels_first",
}


def outputs(net, x):
    x = x.clone().requires_grad_()
    y = net(x)
    return y, *torch.autograd.grad(y.square().sum(), x)


def assert_same(ours, public, shape=(2, 3, 16, 24)):
    x = torch.randn(shape, dtype=torch.float64)
    for actual, expected in zip(outputs(ours, x), outputs(public, x)):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_module():
    public = randomized(Detector())
    before = copy.deepcopy(public.state_dict())
    ours, report = convert(public)
    assert not any(module.training for module in ours.modules())
    assert type(ours) is Detector and report.layout == "S2Att, S2Attention, S2_MLPv2"
    assert report.layers == PATHS and not report.missing and not report.unexpected
    assert [path for path, module in ours.named_modules() if isinstance(module, S2)] == list(PATHS)
    assert_same(ours, public)
    # The original is as before, and has no memory in common with the copy.
    assert not any(isinstance(module, S2) for module in public.modules())
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.fill_(7)
    assert all(torch.equal(value, before[key]) for key, value in public.state_dict().items())


def test_state_dict():
    public = randomized(Detector())
    layers, report = convert({"model": public.state_dict(), "epoch": 3})
    assert {path: layer.data_format for path, layer in layers.items()} == report.layers == PATHS
    assert report.source == "model" and report.renamed["model.3.fc_1.bias"] == "model.3.expand.bias"
    left = [key for key in public.state_dict() if not key.startswith(tuple(f"{path}." for path in PATHS))]
    assert report.untouched == left and report.siblings == ["epoch"] and report.dtype == torch.float64
    lines = str(report).splitlines()
    assert lines[1] == "  model weights, float64, from model" and lines[-1] == "  beside it in the checkpoint: epoch"
    assert "  layer: model.3, channels_first" in lines and f"  untouched: {left[0]}" in lines
    for path, layer in layers.items():
        x = torch.randn((2, 8, 6, 5) if layer.data_format == "channels_first" else (2, 6, 5, 8), dtype=torch.float64)
        torch.testing.assert_close(layer(x), public.get_submodule(path)(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel])
def test_layers_of_a_state_dict_in_a_network_of_the_same_paths(wrap):
    """The second example of ``convert``."""
    public = randomized(Detector())
    old = copy.deepcopy(wrap(public).state_dict())
    consume_prefix_in_state_dict_if_present(old, "module.")
    layers, report = convert(old)
    network = copy.deepcopy(public)
    for weight in network.parameters():
        nn.init.zeros_(weight)
    for path, layer in layers.items():
        network.set_submodule(path, layer)
    network.load_state_dict({report.renamed.get(name, name): weight for name, weight in old.items()})
    assert_same(network, public)


def test_attributes_of_the_network():
    """As in YOLO, whose forward reads ``f`` and ``i`` of every layer; names that the new layer has are its own."""
    public = randomized(Detector())
    for i, layer in enumerate(public.model):
        layer.i, layer.f, layer.type = i, -1, type(layer).__name__
    public.model[5].data_format = "NCHW"
    ours, _ = convert(public)
    expected = [(i, -1, type(layer).__name__) for i, layer in enumerate(public.model)]
    assert [(layer.i, layer.f, layer.type) for layer in ours.model] == expected
    assert ours.model[5].data_format == "channels_first" and isinstance(ours.model[5].attention, nn.Module)


def test_frozen_weights_stay_frozen():
    public = Detector()
    public.model[3].requires_grad_(False)
    public.model[5].mlp2.bias.requires_grad_(False)
    ours, report = convert(public)
    frozen = {report.renamed.get(name, name) for name, weight in public.named_parameters() if not weight.requires_grad}
    assert {name for name, weight in ours.named_parameters() if not weight.requires_grad} == frozen and len(frozen) == 7


def test_a_layer_without_its_split_attention():
    """It is an error if another layer tells that it is one; other modules of these names are left alone."""
    state = Detector().state_dict()
    state = {name: weight for name, weight in state.items() if not name.startswith("model.2.att.split_attention")}
    message = "cannot convert the .* weights at model.2.att: the weights lack .*mlp1.weight, whose shape"
    with pytest.raises(ValueError, match=message):
        convert(state)
    other = {"other.mlp1.weight": torch.ones(16, 8), "other.mlp2.weight": torch.ones(8, 16), "next.mlp1.weight": torch.ones(24, 8)}
    layers, report = convert(Detector().state_dict() | other)
    assert list(layers) == list(PATHS) and set(other) <= set(report.untouched)


@pytest.mark.parametrize("kind", ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks"])
def test_hooks_are_not_lost(kind):
    public = Detector()
    getattr(public.model[3].fc_1, kind)[0] = print
    with pytest.raises(ValueError, match=r"^only modules without hooks, which would be lost, .*, got model.3.fc_1, Linear"):
        convert(public)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda layer: layer.split_att.mlp.insert(1, nn.Dropout(0.1)), "only Dropout with p=0 .*, got model.3.split_att.mlp.1, "),
        (lambda layer: setattr(layer, "act", nn.SiLU()), "only GELU, softmax and averages, .* got model.3.act, SiLU"),
        (lambda layer: setattr(layer, "forward", torch.sin), "only modules with the forward of their class .* got model.3, S2Att"),
    ],
)
def test_another_function_is_refused(change, message):
    public = Detector()
    change(public.model[3])
    with pytest.raises(ValueError, match=message):
        convert(public)


def test_state_dict_with_one_layer():
    """The norm before it stays with the network."""
    layers, report = convert(Blocks(8, 1, v2_mixer).state_dict())
    assert layers.keys() == report.layers.keys() and layers["model.0.0.fn"].data_format == "channels_last"
    assert report.layers == {"model.0.0.fn": "channels_last"}
    assert report.untouched == ["model.0.0.norm.weight", "model.0.0.norm.bias"] and report.source == ""


def test_the_name_of_a_layer_does_not_make_it_an_average():
    state = {f"ema.{key}": value for key, value in S2Attention(8).state_dict().items()}
    _, report = convert(state | {"head.weight": torch.ones(1)})
    assert report.weights == "model" and list(report.layers) == ["ema"]


@pytest.mark.parametrize("build", [lambda: Blocks(8, 2, v2_mixer), lambda: nn.Sequential(S2Attention(8))])
def test_one_kind_alone(build):
    public = randomized(build())
    ours, _ = convert(public)
    assert type(ours) is type(public)
    assert_same(ours, public, (2, 8, 6, 5))


def test_several_stages_of_parts():
    """Not a model of this package; its layers are converted."""
    public = randomized(StagedParts(v2_parts))
    ours, report = convert(public)
    assert report.layers == {"stage0.0.model_p1.1": "channels_last", "stage1.0.model_p1.1": "channels_last"}
    assert_same(ours, public, (2, 3, 32, 32))


def test_a_layer_that_is_used_twice_stays_one():
    layer = S2Attention(8)
    ours, report = convert(randomized(nn.Sequential(layer, nn.GELU(), layer)))
    assert list(report.layers) == ["0", "2"] and ours[0] is ours[2]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda net: nn.DataParallel(torch.compile(net))])
def test_wrapped_networks(wrap):
    """The copy is not compiled and not parallel."""
    ours, report = convert(wrap(Detector()))
    assert type(ours) is Detector and report.layers == PATHS


def test_compiled_layers():
    public = randomized(Wrapper(S2Attention(8)))
    compiled = Wrapper(torch.compile(copy.deepcopy(public.att), backend="eager"))
    ours, _ = convert(compiled)
    assert isinstance(ours.att, S2)
    assert_same(ours, public, (2, 8, 6, 5))


def test_data_format():
    public = randomized(S2Attention(8, channels_first=False))
    ours, _ = convert(nn.Sequential(public), data_format="channels_last")
    assert_same(ours, public, (2, 6, 5, 8))


def test_errors_name_the_layer():
    net = Detector()
    net.model[2].att.split_attention = SplitAttention(3)
    with pytest.raises(
        ValueError, match=r"cannot convert the S2Attention weights at model.2.att: the split attention has 3 channels"
    ):
        convert(net)
    state = Detector().state_dict()
    del state["model.3.fc_2.bias"]
    with pytest.raises(ValueError, match="missing weights: model.3.fc_2.bias; allow_missing=True lets them be random$"):
        convert(state)
    net = Detector()
    net.model[3].gamma = nn.Parameter(torch.ones(8))
    with pytest.raises(ValueError, match="unexpected weights: model.3.gamma;"):
        convert(net)
