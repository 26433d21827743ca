"""Outputs and gradients of gelu_spatial_shift, compared with PyTorch's GELU and the slice reference in float64."""

import itertools

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional

from s2mlp_cuda import GELUSpatialShift, gelu_spatial_shift, offsets, reference
from s2mlp_cuda.layers import IMPLEMENTATIONS
from s2mlp_cuda.ops import PADDING_MODES, GELUSpatialShiftFunction

from conftest import allocations, require_device
from gelu_accuracy import every_value, exact_gelu, inaccuracy, value_and_slope

FLOATING = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
#: Relative tolerance: half a unit in the last place, plus rounding errors of intermediate float32 results.
ROUNDING = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 5.5e-4, torch.bfloat16: 4.3e-3}
FORMATS = ["channels_last", "channels_first"]
APPROXIMATIONS = ["none", "tanh"]
TABLES = [offsets.V1, offsets.EIGHT_WAY, ((2, -3), (0, 0), (-1, 4)), ((100, -100), (0, 13))]
#: (H, W, C): odd sizes, a side of one, groups of whole and of partial vectors.
SIZES = [(5, 7, 12), (1, 9, 16), (9, 1, 64), (2, 3, 129), (14, 14, 96), (3, 17, 24)]
FLAT = [d for pair in offsets.V1 for d in pair]


def shape_of(size, data_format):
    height, width, channels = size
    return (2, height, width, channels) if data_format == "channels_last" else (2, channels, height, width)


def oracle(x, table=offsets.V1, *, approximate="none", **keywords):
    return reference.spatial_shift(functional.gelu(x, approximate=approximate), table, **keywords)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("approximate", APPROXIMATIONS)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_values_and_gradients(dtype, approximate, data_format, mode, device):
    tolerance = ROUNDING[dtype]
    keywords = {"approximate": approximate, "padding_mode": mode, "data_format": data_format}
    for size, table in itertools.product(SIZES, TABLES):
        x = (2 * torch.randn(shape_of(size, data_format), device=device)).to(dtype).requires_grad_()
        grad = torch.randn_like(x)
        before = x.detach().clone()
        out = gelu_spatial_shift(x, table, **keywords)
        (ours,) = torch.autograd.grad(out, x, grad)
        exact = x.detach().double().requires_grad_()
        exact_out = oracle(exact, table, **keywords)
        (expected,) = torch.autograd.grad(exact_out, exact, grad.double())
        assert out.dtype == ours.dtype == dtype and out.stride() == ours.stride() == x.stride()
        torch.testing.assert_close(out.double(), exact_out, rtol=tolerance, atol=tolerance)
        # The gradient of a border token is a sum, which is rounded before the multiplication by GELU'.
        torch.testing.assert_close(ours.double(), expected, rtol=2 * tolerance, atol=4 * tolerance)
        assert torch.equal(x, before)


@pytest.mark.parametrize("approximate", APPROXIMATIONS)
def test_accuracy_is_no_worse_than_that_of_pytorch(approximate, device):
    """Absolute and relative errors of GELU and its derivative in float32 over [-10, 10], relative to float64."""
    x = torch.linspace(-10, 10, 400_001, device=device).unique().reshape(1, 1, -1)
    ours = value_and_slope(lambda x: gelu_spatial_shift(x, offsets.IDENTITY, approximate=approximate), x)
    theirs = value_and_slope(lambda x: functional.gelu(x, approximate=approximate), x)
    exact = value_and_slope(lambda x: exact_gelu(x, approximate), x.double())
    for name, our, their, right in zip(("value", "slope"), ours, theirs, exact):
        assert (our - right).abs().max() <= (their - right).abs().max(), name
        near = right.abs() > 1e-30
        relative = [((result - right).abs() / right.abs())[near].max() for result in (our, their)]
        assert relative[0] <= relative[1], name


@pytest.mark.parametrize("approximate", APPROXIMATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_value_of_16_bits(dtype, approximate, device):
    """At least 99.9% of the results are correctly rounded, and no error reaches one unit in the last place."""
    x = every_value(dtype, device).reshape(1, 8, -1)
    ours = value_and_slope(lambda x: gelu_spatial_shift(x, offsets.IDENTITY, approximate=approximate), x)
    assert inaccuracy(x, *ours, approximate) == ""


def test_negative_tail_is_accurate(device):
    """x * (1 + erf(...)) / 2 in float32 has lost all accuracy here."""
    x = torch.linspace(-8, -3, 1001, device=device).reshape(1, 1, -1)
    out = gelu_spatial_shift(x, offsets.IDENTITY).double()
    torch.testing.assert_close(out, exact_gelu(x.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("approximate", APPROXIMATIONS)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_infinity_and_nan(dtype, approximate, device):
    values = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0, 60.0, -60.0], dtype=dtype, device=device)
    x = values.repeat_interleave(32).reshape(1, 6, 32).requires_grad_()  # whole vectors of each
    out = gelu_spatial_shift(x, offsets.IDENTITY, approximate=approximate)
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(x))
    expected = torch.tensor([float("inf"), 0, float("nan"), 0, 60, 0], dtype=dtype, device=device)
    torch.testing.assert_close(out[0, :, 5], expected, equal_nan=True, rtol=0, atol=1e-35)
    slope = torch.tensor([1, 0, float("nan"), 0.5, 1, 0], dtype=dtype, device=device)
    torch.testing.assert_close(grad[0, :, 5], slope, equal_nan=True, rtol=1e-6, atol=1e-35)


@pytest.mark.parametrize("approximate", APPROXIMATIONS)
def test_any_strides(approximate, device):
    larger = torch.randn(3, 6, 7, 40, device=device)
    maps = [
        (larger[:, 1:5, 2:6, 3:19], "channels_last"),
        (larger[..., ::2], "channels_last"),
        (larger.permute(0, 3, 1, 2), "channels_first"),
        (torch.randn(2, 12, 5, 6, device=device).permute(0, 2, 3, 1), "channels_last"),
        (larger[:1].expand(2, -1, -1, -1), "channels_last"),
        (torch.randn(2, 8, 9, 11, device=device)[:, :, 1:7, 2:9], "channels_first"),
    ]
    for x, data_format in maps:
        for grad in (torch.randn(x.shape, device=device), torch.randn((), device=device).expand(x.shape)):
            leaf = x.detach().requires_grad_()
            out = gelu_spatial_shift(leaf, approximate=approximate, data_format=data_format)
            expected = oracle(leaf, approximate=approximate, data_format=data_format)
            torch.testing.assert_close(out, expected, rtol=2e-6, atol=2e-6)
            ours, theirs = (torch.autograd.grad(y, leaf, grad) for y in (out, expected))
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4, 5, 8), (2, 0, 5, 8), (2, 4, 5, 0)])
def test_empty(shape, device):
    x = torch.randn(shape, device=device, requires_grad=True)
    gelu_spatial_shift(x).sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_bitwise_identical_for_any_number_of_threads(dtype, data_format):
    x = torch.randn(shape_of((32, 32, 96), data_format)).to(dtype)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaf = x.clone().requires_grad_()
        out = gelu_spatial_shift(leaf, offsets.EIGHT_WAY, data_format=data_format)
        out.backward(x)
        results.append((out.detach(), leaf.grad))
    torch.set_num_threads(threads)
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(grad, results[0][1])


def test_only_output_and_gradient_are_allocated():
    x = torch.randn(2, 14, 14, 96, requires_grad=True)
    grad = torch.randn_like(x)
    held = []
    assert allocations(lambda: held.append(gelu_spatial_shift(x))) == [x.nbytes]
    assert allocations(lambda: held.append(torch.autograd.grad(held[0], x, grad))) == [x.nbytes]


def test_only_the_output_is_allocated_on_a_gpu():
    x = torch.randn(8, 14, 14, 96, device=require_device("cuda"))
    gelu_spatial_shift(x)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gelu_spatial_shift(x)
    assert torch.cuda.max_memory_allocated() - before == x.nbytes


CASES = {
    "V1": {},
    "tanh": {"approximate": "tanh"},
    "eight-way channels-first": {"offsets": offsets.EIGHT_WAY, "data_format": "channels_first"},
    "zeros, tanh": {"offsets": ((2, -1), (-3, 0)), "padding_mode": "zeros", "approximate": "tanh"},
    "circular": {"offsets": ((2, -1), (-3, 0), (0, 7)), "padding_mode": "circular"},
    "reflect": {"offsets": ((2, -1), (-3, 0), (0, 7)), "padding_mode": "reflect"},
    "group sizes": {"offsets": offsets.SHIFT_VIT, "group_sizes": (2, 1, 0, 1, 4)},
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def x(case, device):
    shape = (1, 8, 2, 3) if case.get("data_format") == "channels_first" else (1, 2, 3, 8)
    return torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)


def oracle_case(x, case):
    keywords = dict(case)
    return oracle(x, keywords.pop("offsets", offsets.V1), **keywords)


def test_gradcheck_reverse_and_forward_mode(x, case):
    assert torch.autograd.gradcheck(
        lambda x: gelu_spatial_shift(x, **case),
        x,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_gradgradcheck(x, case):
    assert torch.autograd.gradgradcheck(
        lambda x: gelu_spatial_shift(x, **case), x, check_fwd_over_rev=True, check_rev_over_rev=True
    )


def test_third_derivative(x, case):
    def third(f):
        (first,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        return torch.autograd.grad(second.square().sum(), x)[0]

    torch.testing.assert_close(third(lambda x: gelu_spatial_shift(x, **case)), third(lambda x: oracle_case(x, case)))


def test_func_transforms(x, case):
    x = x.detach()
    v = torch.randn_like(x)

    def loss(f):
        return lambda x: (f(x) * v).square().sum()

    ours, theirs = (lambda x: gelu_spatial_shift(x, **case)), (lambda x: oracle_case(x, case))
    for transform in (
        lambda f: torch.func.grad(loss(f))(x),
        lambda f: torch.func.jvp(f, (x,), (v,)),
        lambda f: torch.func.vmap(f, in_dims=2)(torch.stack([x, v], 2)),
        lambda f: torch.func.vmap(torch.func.grad(loss(f)))(torch.stack([x, v])),
        lambda f: torch.func.jvp(torch.func.grad(loss(f)), (x,), (v,)),
        lambda f: torch.func.jacrev(f)(x),
    ):
        torch.testing.assert_close(transform(ours), transform(theirs))


def test_forward_mode(x, case):
    tangent = torch.randn_like(x)
    with forward_ad.dual_level():
        dual = gelu_spatial_shift(forward_ad.make_dual(x.detach(), tangent), **case)
        expected = oracle_case(forward_ad.make_dual(x.detach(), tangent), case)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, forward_ad.unpack_dual(expected).tangent)


def test_compile_fullgraph(x, case):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: gelu_spatial_shift(x.sin(), **case).cos(), fullgraph=True)
    grad = torch.randn_like(x)
    out, expected = compiled(x), oracle_case(x.sin(), case).cos()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad))


def test_compile_with_dynamic_shapes(device):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: GELUSpatialShift()(x + 1), fullgraph=True, dynamic=True)
    for shape in [(2, 5, 7, 16), (3, 6, 4, 16), (1, 8, 8, 24)]:
        x = torch.randn(shape, device=device, requires_grad=True)
        torch.testing.assert_close(compiled(x), oracle(x + 1), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype, device):
    ops = torch.ops.s2mlp_cuda
    for x in (
        torch.randn(2, 3, 4, 8, device=device).to(dtype).requires_grad_(),
        torch.randn(2, 8, 3, 4, device=device).to(dtype).permute(0, 2, 3, 1).requires_grad_(),
        torch.randn(2, 4, 6, 20, device=device).to(dtype)[:, 1:, ::2, 3:11].requires_grad_(),
        torch.randn(0, 3, 4, 8, device=device).to(dtype),
    ):
        torch.library.opcheck(ops.gelu_spatial_shift.default, (x, FLAT))
        torch.library.opcheck(ops.gelu_spatial_shift.default, (x, FLAT, [1, 2, 3, 2], "tanh", "zeros"))
        grad = torch.randn(x.shape, device=device).to(dtype).requires_grad_()
        torch.library.opcheck(ops.gelu_spatial_shift_backward.default, (grad, x, FLAT))


def test_function_class_and_raw_operator_agree(device):
    x = torch.randn(2, 3, 4, 8, device=device, dtype=torch.float64, requires_grad=True)
    out = gelu_spatial_shift(x)
    assert torch.equal(GELUSpatialShiftFunction.apply(x, FLAT, None, "none", "replicate", "channels_last"), out)
    assert torch.equal(torch.ops.s2mlp_cuda.gelu_spatial_shift(x, FLAT), out)
    assert torch.autograd.gradgradcheck(lambda x: torch.ops.s2mlp_cuda.gelu_spatial_shift(x, FLAT), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_keeps_the_dtype(dtype, device):
    x = torch.randn(2, 3, 4, 8, device=device, requires_grad=True)
    with torch.autocast(device.type, dtype):
        assert gelu_spatial_shift(x).dtype == functional.gelu(x).dtype == torch.float32
        hidden = torch.nn.Linear(8, 8).to(device)(x)
        out = gelu_spatial_shift(hidden)
        assert out.dtype == dtype
        expected = oracle(hidden)
    torch.testing.assert_close(out, expected, rtol=2 * ROUNDING[dtype], atol=2 * ROUNDING[dtype])
    out.float().sum().backward()
    assert x.grad.dtype == torch.float32 and x.grad.abs().sum() > 0


@pytest.mark.parametrize("approximate", APPROXIMATIONS)
def test_layer_implementations_agree(approximate, device):
    fused, *others = [
        GELUSpatialShift(offsets.SS1, approximate=approximate, padding_mode="zeros", implementation=implementation)
        for implementation in IMPLEMENTATIONS
    ]
    x = torch.randn(2, 5, 6, 8, device=device, dtype=torch.float64)
    for other in others:
        torch.testing.assert_close(fused(x), other(x))
        assert torch.equal(other(x), oracle(x, offsets.SS1, approximate=approximate, padding_mode="zeros"))
    assert repr(fused) == (
        "GELUSpatialShift(offsets=SS1, padding_mode='zeros', data_format='channels_last', implementation='fused', "
        f"approximate='{approximate}')"
    )


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_forward_over_forward_mode(approximate):
    """PyTorch disables forward mode in the jvp of a custom Function."""
    x, v = torch.randn(2, 2, 3, 4, 8, dtype=torch.float64)

    def second(function):
        return torch.func.jvp(lambda x: torch.func.jvp(function, (x,), (v,))[1], (x,), (v,))[1]

    def expected(x):
        return reference.spatial_shift(functional.gelu(x, approximate=approximate))

    torch.testing.assert_close(second(lambda x: gelu_spatial_shift(x, approximate=approximate)), second(expected))
