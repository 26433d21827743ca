"""Models with compilers, exporters, functorch, mixed precision and other PyTorch features."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

import s2mlp_cuda
from s2mlp_cuda import create_model, layers

from test_models import NAMES, on_meta, small

KINDS = ["s2mlp_deep", "s2mlpv2_small_7"]  # one per architecture
#: Small models for compilers, which take seconds per block.
SHALLOW = {"s2mlp_deep": {"depth": 1}, "s2mlpv2_small_7": {"depths": (1, 1)}}


def loss(model, images):
    return model(images).square().mean()


def gradients(model, work):
    model.zero_grad()
    work().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("name", KINDS)
def test_compiled_training_step_equals_eager(name, device):
    """One graph for all batch sizes."""
    torch._dynamo.reset()
    model = small(name, **SHALLOW[name]).to(device)
    compiled = torch.compile(model, fullgraph=True)
    for batch in (2, 3, 5):
        images = torch.randn(batch, 3, 16, 24, device=device)
        torch._dynamo.mark_dynamic(images, 0)
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
        found, expected = (gradients(model, lambda: loss(m, images)) for m in (compiled, model))
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_compiled_for_any_image_size(name, device):
    """One graph for all sizes, including gradients. Inductor is covered by tests of the operators with dynamic shapes."""
    torch._dynamo.reset()
    model = small(name, **SHALLOW[name]).to(device)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, height, width in ((2, 16, 24), (3, 32, 16), (2, 24, 40)):
            images = torch.randn(batch, 3, height, width, device=device)
            found, expected = (gradients(model, lambda: loss(m, images)) for m in (compiled, model))
            for a, b in zip(found, expected):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_compile_of_vmap(device):
    torch._dynamo.reset()
    x = torch.randn(3, 2, 4, 5, 8, device=device)

    def each(x):
        return vmap(s2mlp_cuda.spatial_shift)(x.sin())

    torch.testing.assert_close(torch.compile(each, fullgraph=True)(x), each(x))


@pytest.mark.parametrize("name", KINDS)
def test_per_sample_gradients(name):
    model = small(name).double().eval()
    parameters = dict(model.named_parameters())
    images = torch.randn(3, 3, 16, 24, dtype=torch.float64)

    def one(parameters, image):
        return functional_call(model, parameters, (image[None],)).square().mean()

    found = vmap(grad(one), (None, 0))(parameters, images)
    for index, image in enumerate(images):
        expected = gradients(model, lambda: loss(model, image[None]))
        for key, b in zip(parameters, expected):
            torch.testing.assert_close(found[key][index], b)


@pytest.mark.parametrize("name", KINDS)
def test_export_round_trip(name, tmp_path):
    model = small(name).eval()
    images = torch.randn(2, 3, 16, 24)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images,), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for count in (2, 5):
        images = torch.randn(count, 3, 16, 24)
        torch.testing.assert_close(loaded(images), model(images))


def test_aot_inductor_package(tmp_path):
    model = small("s2mlpv2_small_7", **SHALLOW["s2mlpv2_small_7"]).eval()
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        program = torch.export.export(model, (images,))
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
        torch.testing.assert_close(torch._inductor.aoti_load_package(package)(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_torchscript_is_rejected():
    modules = [small(name) for name in NAMES]
    modules += [layers.SpatialShift(), layers.GELUSpatialShift(), layers.ShiftSplitAttention(8), layers.ShiftSum()]
    functions = [getattr(s2mlp_cuda, name) for name in s2mlp_cuda.__all__ if name.startswith(("spatial_", "gelu_", "shift_"))]
    assert len(functions) == 5
    for target in modules + functions:
        with pytest.raises(NotImplementedError, match="s2mlp_cuda does not support torch.jit.script.*torch.export"):
            torch.jit.script(target)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(name, dtype, device):
    model = small(name).to(device)
    images = torch.randn(2, 3, 16, 24, device=device)
    with torch.autocast(device.type, dtype):
        out = model(images)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), model(images), rtol=0.05, atol=0.05)
    out.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    torch._dynamo.reset()
    with torch.autocast(device.type, dtype):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(images)
    grads = torch.autograd.grad(compiled.float().square().mean(), [*model.parameters()])
    for parameter, ours in zip(model.parameters(), grads):
        torch.testing.assert_close(ours, parameter.grad, rtol=0.05, atol=0.05 * parameter.grad.abs().max().item())


@pytest.mark.parametrize("strict", [False, True])
def test_export_records_no_autocast_regions(strict):
    """Exporters do not know them."""
    program = torch.export.export(small("s2mlpv2_small_7").eval(), (torch.randn(2, 3, 16, 24),), strict=strict)
    assert not [node for node in program.graph.nodes if "autocast" in str(node.target)]


@pytest.mark.parametrize("name", KINDS)
def test_deterministic_algorithms(name, device):
    model = small(name).to(device)
    images = torch.randn(2, 3, 16, 24, device=device)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (gradients(model, lambda: loss(model, images)) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("name", KINDS)
def test_inference_mode(name, device):
    model = small(name).to(device).eval()
    images = torch.randn(2, 3, 16, 24, device=device)
    with torch.inference_mode():
        out = model(images)
    assert out.is_inference() and torch.equal(out, model(images))


@pytest.mark.parametrize("name", NAMES)
def test_meta_device_and_fake_tensors(name):
    assert on_meta(name)(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    with FakeTensorMode():
        model = create_model(name)
        out = model(torch.empty(2, 3, 224, 224))
        out.sum().backward()
    assert out.shape == (2, 1000) and all(p.grad.shape == p.shape for p in model.parameters())


def test_shift_of_a_parameter():
    parameter = torch.nn.Parameter(torch.randn(2, 3, 4, 8))
    out = s2mlp_cuda.spatial_shift(parameter)
    assert type(out) is torch.Tensor and out.requires_grad
    out.sum().backward()
    assert parameter.grad.sum() == parameter.numel()


def test_flop_counter_supports_the_operators():
    x = torch.randn(2, 3, 4, 24, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        s2mlp_cuda.spatial_shift(x).sum().backward()
        s2mlp_cuda.gelu_spatial_shift(x).sum().backward()
    assert counter.get_total_flops() == 0
    counts = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    assert counts["s2mlp_cuda.spatial_shift"] == counts["s2mlp_cuda.spatial_shift_backward"] == 0


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", KINDS)
def test_tracing_counters_see_the_operators(name):
    """For example those of fvcore."""
    model = small(name).eval()
    with torch.no_grad():
        graph, _ = torch.jit._get_trace_graph(model, (torch.randn(1, 3, 16, 16),))
    kinds = {node.kind() for node in graph.nodes()}
    ours = ["gelu_spatial_shift"] if name == "s2mlp_deep" else ["shift_branch_pool", "shift_branch_combine"]
    assert {f"s2mlp_cuda::{op}" for op in ours} <= kinds


def test_profiler_shows_the_operators():
    x = torch.randn(2, 3, 4, 24, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        s2mlp_cuda.spatial_shift(x).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"s2mlp_cuda::spatial_shift", "s2mlp_cuda::spatial_shift_backward"} <= names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", KINDS)
def test_cuda_graphs_by_reduce_overhead(name):
    torch._dynamo.reset()
    model = small(name).cuda()
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    for _ in range(4):
        images = torch.randn(2, 3, 16, 24, device="cuda")
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)
        gradients(model, lambda: loss(compiled, images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_side_stream():
    x = torch.randn(8, 64, 64, 256, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        out = s2mlp_cuda.spatial_shift(x * 2)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(out, s2mlp_cuda.spatial_shift(x) * 2)
