"""Layers and models work with tools for any nn.Module: hooks, pruning, adapters, quantization, symbolic tracing."""

import copy
import io
import pickle

import pytest
import torch
from timm.models import FeatureGraphNet
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.models.feature_extraction import create_feature_extractor

import s2mlp_cuda
from s2mlp_cuda import _torch_private, create_model, layers

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {
    "s2mlp_deep": {"patch_size": 8, "embed_dim": 16, "depth": 2},
    "s2mlpv2_small_7": {"patch_sizes": (4, 2), "embed_dims": (16, 32), "depths": (1, 1)},
}
MODELS = pytest.mark.parametrize("name", SMALL)
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", layers.IMPLEMENTATIONS)


def small(name: str, **options) -> nn.Module:
    return create_model(name, num_classes=5, **{**SMALL[name], **options})


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 24)


# ---- The linear layers of split attention


class Adapter(nn.Module):
    """A low-rank adapter around a frozen linear layer, whose weight it still shows."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    @property
    def weight(self) -> torch.Tensor:
        return self.layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.up(self.down(x))


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Tripled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 3 * weight


def with_bias(layer: nn.Linear) -> nn.Linear:
    return nn.Linear(layer.in_features, layer.out_features)


def with_forward_of_its_own(layer: nn.Linear) -> nn.Linear:
    layer.forward = lambda x: 0.5 * nn.functional.linear(x, layer.weight)
    return layer


def with_weight_of_another_type(layer: nn.Linear) -> nn.Linear:
    class Negative(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            out = super().__torch_function__(function, types, args, kwargs or {})
            return -out.as_subclass(torch.Tensor) if function is nn.functional.linear else out

    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Negative))
    return layer


def pruned(layer: nn.Linear) -> nn.Linear:
    return prune.random_unstructured(layer, "weight", 0.5)


def scaled_by_a_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_hook(lambda module, inputs, out: 2 * out)
    return layer


def with_scaled_input(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    return layer


def with_scaled_gradient(layer: nn.Linear) -> nn.Linear:
    layer.register_full_backward_hook(lambda module, grad_in, grad_out: (2 * grad_in[0],))
    return layer


def with_scaled_output_gradient(layer: nn.Linear) -> nn.Linear:
    layer.register_full_backward_pre_hook(lambda module, grad_out: (2 * grad_out[0],))
    return layer


def parametrized(layer: nn.Linear) -> nn.Linear:
    nn.utils.parametrize.register_parametrization(layer, "weight", Tripled())
    return layer


def doubled(layer: nn.Linear) -> nn.Linear:
    return Doubled(layer.in_features, layer.out_features, bias=False)


CHANGES = [
    Adapter, doubled, with_bias, with_forward_of_its_own, with_weight_of_another_type, pruned, scaled_by_a_hook, with_scaled_input,
    with_scaled_gradient, with_scaled_output_gradient, parametrized, parametrizations.spectral_norm, parametrizations.weight_norm,
]  # fmt: skip


def gradients(attention: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    parameters = [p for p in attention.parameters() if p.requires_grad]
    out = attention(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *parameters])]


@pytest.mark.parametrize("layer", ["fc1", "fc2"])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_layers_of_split_attention_act_as_in_the_composed_form(change, layer):
    """Outputs, and the gradients of the input and of all parameters, also in a second step."""
    x = torch.randn(2, 3, 4, 24, dtype=torch.float64, requires_grad=True)
    attention = layers.ShiftSplitAttention(8).double().eval()  # in training, spectral_norm changes with every call
    unchanged = gradients(attention, x)
    setattr(attention, layer, change(getattr(attention, layer)).double())
    for _ in range(2):
        attention.implementation = "composed"
        expected = gradients(attention, x)
        attention.implementation = "fused"
        actual = gradients(attention, x)
        for pair in zip(actual, expected, strict=True):
            torch.testing.assert_close(*pair)
    same = len(unchanged) == len(actual) and all(map(torch.allclose, unchanged[:2], actual[:2]))
    assert not same, "the change has no effect"


def test_unchanged_layers_use_the_fused_operator():
    attention = layers.ShiftSplitAttention(8)
    x = torch.randn(2, 3, 4, 24, requires_grad=True)
    assert "SplitAttention" in type(attention(x).grad_fn).__name__
    handle = attention.fc1.register_forward_hook(lambda *_: None)
    assert "SplitAttention" not in type(attention(x).grad_fn).__name__
    handle.remove()
    assert "SplitAttention" in type(attention(x).grad_fn).__name__


REGISTER = [
    nn.modules.module.register_module_forward_pre_hook,
    nn.modules.module.register_module_forward_hook,
    nn.modules.module.register_module_full_backward_pre_hook,
    nn.modules.module.register_module_full_backward_hook,
]


@pytest.mark.parametrize("register", REGISTER)
def test_hooks_of_all_modules_see_every_layer(register):
    model = small("s2mlpv2_small_7")
    seen = []
    handle = register(lambda module, *_: seen.append(module))
    try:
        model(images().requires_grad_()).sum().backward()
    finally:
        handle.remove()
    linear = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert any(name.endswith("attention.fc1") for name in linear.values())
    assert [name for module, name in linear.items() if module not in seen] == []


@pytest.mark.parametrize("where", [nn.Module, nn.modules.module], ids=["own", "of all modules"])
def test_layers_are_called_if_hooks_cannot_be_seen(where, monkeypatch):
    """As in a future PyTorch that keeps them elsewhere."""
    attention = layers.ShiftSplitAttention(8)
    x = torch.randn(2, 3, 4, 24, requires_grad=True)
    expected = gradients(attention, x)
    monkeypatch.setattr(_torch_private, "_HOOKS", ("_elsewhere",))
    monkeypatch.setattr(where, "_global_elsewhere" if where is nn.modules.module else "_elsewhere", {}, raising=False)
    assert "SplitAttention" not in type(attention(x).grad_fn).__name__
    for ours, theirs in zip(gradients(attention, x), expected):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_called_layers_are_not_under_autocast(dtype):
    """As in the fused operator, what lies between pooling and weighting is computed in float32."""
    attention = layers.ShiftSplitAttention(8)
    x = torch.full((2, 40, 40, 24), 30.0, dtype=dtype)  # whose sum is beyond float16
    with torch.autocast("cpu", dtype):
        expected = attention(x)
        attention.fc2.register_forward_hook(lambda module, inputs, out: None)
        actual = attention(x)
    assert actual.dtype == dtype and actual.isfinite().all()
    torch.testing.assert_close(actual, expected)


def test_called_layers_in_bfloat16():
    attention = layers.ShiftSplitAttention(8).bfloat16()
    x = torch.randn(2, 3, 4, 24, dtype=torch.bfloat16)
    expected = attention(x)
    attention.fc1.register_forward_hook(lambda module, inputs, out: None)
    assert attention(x).dtype == torch.bfloat16
    torch.testing.assert_close(attention(x), expected, rtol=0.016, atol=0.016)  # two units in the last place


@MODELS
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
def test_dynamic_quantization(name):
    model, x = small(name).eval(), images()
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert sum(isinstance(m, torch.ao.nn.quantized.dynamic.Linear) for m in quantized.modules()) == sum(
        isinstance(m, nn.Linear) for m in model.modules()
    )
    with torch.no_grad():
        torch.testing.assert_close(quantized(x), model(x), rtol=0, atol=0.05)


# ---- Initialization


@MODELS
@pytest.mark.parametrize("norm", ["layer_norm", "affine", nn.GroupNorm])
def test_init_weights_initializes_every_parameter(name, norm):
    def group_norm(channels: int) -> nn.Module:
        return nn.GroupNorm(2, channels)

    norm = group_norm if norm is nn.GroupNorm else norm
    with torch.device("meta"):
        model = small(name, norm_layer=norm)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.constant_(parameter, float("nan"))
    torch.manual_seed(1)
    model.init_weights()
    torch.manual_seed(1)
    usual = small(name, norm_layer=norm)
    torch.manual_seed(1)
    usual.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), usual.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# ---- torch.fx


def layers_to_trace(implementation: str) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    options = {"implementation": implementation}
    return {
        "shift": (layers.SpatialShift(**options), (2, 5, 6, 8)),
        "shift of (B, C, H, W)": (layers.SpatialShift(data_format="channels_first", **options), (2, 8, 5, 6)),
        "GELU and shift": (layers.GELUSpatialShift(approximate="tanh", **options), (2, 5, 6, 8)),
        "split attention": (layers.ShiftSplitAttention(8, **options), (2, 5, 6, 24)),
        "sum": (layers.ShiftSum(**options), (2, 5, 6, 24)),
        "mean": (layers.ShiftSum(mean=True, **options), (2, 5, 6, 24)),
        "S2 of (B, C, H, W)": (layers.S2(8, data_format="channels_first", **options), (2, 8, 5, 6)),
        "block 1": (layers.S2MLPBlock(8, **options), (2, 5, 6, 8)),
        "block 2": (layers.S2MLPv2Block(8, drop_path=0.5, **options), (2, 5, 6, 8)),
        "drop path": (layers.DropPath(0.5), (2, 5, 6, 8)),
        "patches": (layers.PatchEmbedding(3, 8, 4, pad=True), (2, 3, 9, 10)),
    }


@IMPLEMENTATIONS
@pytest.mark.parametrize("layer", layers_to_trace("fused"))
def test_symbolic_trace_of_layers(layer, implementation):
    module, shape = layers_to_trace(implementation)[layer]
    traced = torch.fx.symbolic_trace(module)
    for size in (shape, (3, *shape[1:])):
        x = torch.randn(size)
        torch.manual_seed(0)
        expected = module(x)
        torch.manual_seed(0)
        assert torch.equal(traced(x), expected)


@MODELS
@pytest.mark.parametrize("padding", [False, True], ids=["exact", "dynamic_img_pad"])
def test_symbolic_trace_of_models(name, padding):
    model = small(name, dynamic_img_pad=padding).eval()
    traced = torch.fx.symbolic_trace(model)
    for x in (images(), torch.randn(1, 3, 48, 16)):
        for copied in (traced, copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
            assert torch.equal(copied(x), model(x))
    odd = torch.randn(1, 3, 33, 32)
    if padding:
        assert torch.equal(traced(odd), model(odd))
    else:
        with pytest.raises(ValueError, match="the input is 33x32, but height and width must be multiples of 8"):
            traced(odd)


@pytest.mark.parametrize("function", ["spatial_shift", "gelu_spatial_shift", "shift_branch_pool", "shift_branch_combine"])
def test_functions_can_be_overridden(function):
    """By tensor-like objects, with PyTorch's protocol, which symbolic tracing uses, too."""

    class TensorLike:
        @classmethod
        def __torch_function__(cls, called, types, args=(), kwargs=None):
            return called, args, kwargs

    call = getattr(s2mlp_cuda, function)
    x = TensorLike()
    arguments = {"shift_branch_pool": ([None],), "shift_branch_combine": (1.0, [None])}.get(function, (s2mlp_cuda.offsets.SS1,))
    called, args, kwargs = call(x, *arguments, padding_mode="zeros")
    assert called is call and args == (x, *arguments) and kwargs["padding_mode"] == "zeros"


@MODELS
def test_feature_extraction_by_tracing(name):
    model, x = small(name).eval(), images()
    expected = model.forward_intermediates(x, intermediates_only=True, output_fmt="NHWC")
    nodes = {info["module"]: info["module"] for info in model.feature_info}
    by_torchvision = create_feature_extractor(model, nodes)(x)
    by_timm = FeatureGraphNet(model, (0, 1), output_fmt="NHWC")(x)
    for ours, theirs, others in zip(expected, by_torchvision.values(), by_timm, strict=True):
        assert torch.equal(ours, theirs) and torch.equal(ours, others)


# ---- torch.jit.trace


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@MODELS
@pytest.mark.parametrize("grad", [True, False])
def test_jit_trace_can_be_saved(name, grad):
    model, x = small(name).eval(), images()
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(model, x)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    torch.testing.assert_close(loaded(x), model(x))
    ours, theirs = (torch.autograd.grad(m(x).square().sum(), list(m.parameters())) for m in (model, loaded))
    for pair in zip(ours, theirs, strict=True):
        torch.testing.assert_close(*pair)
