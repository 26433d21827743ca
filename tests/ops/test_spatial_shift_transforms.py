"""Derivatives of all orders and modes, functorch transforms, the compiler, and PyTorch's operator checks."""

import pytest
import torch
from torch.autograd import forward_ad

from s2mlp_cuda import SpatialShift, SpatialShiftFunction, offsets, reference, spatial_shift

CASES = {
    "V1": {},
    "eight-way channels-first": {"offsets": offsets.EIGHT_WAY, "data_format": "channels_first"},
    "zeros": {"offsets": ((2, -1), (-3, 0)), "padding_mode": "zeros"},
    "circular": {"offsets": ((2, -1), (-3, 0), (0, 7)), "padding_mode": "circular", "data_format": "channels_first"},
    "reflect": {"offsets": ((2, -1), (-3, 0), (0, 7)), "padding_mode": "reflect"},
    "larger than the map": {"offsets": ((9, -9), (-9, 0))},
    "group sizes": {"offsets": offsets.SHIFT_VIT, "group_sizes": (2, 1, 0, 1, 4)},
}
FLAT = [d for pair in offsets.V1 for d in pair]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def x(case, device):
    shape = (2, 8, 3, 4) if case.get("data_format") == "channels_first" else (2, 3, 4, 8)
    return torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)


def test_gradcheck_reverse_and_forward_mode(x, case):
    assert torch.autograd.gradcheck(
        lambda x: spatial_shift(x, **case),
        x,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_gradgradcheck(x, case):
    def cubed(x):
        return spatial_shift(x**3, **case)

    assert torch.autograd.gradgradcheck(cubed, x, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_function_class_and_raw_operator_agree(device):
    x = torch.randn(2, 3, 4, 8, device=device, dtype=torch.float64, requires_grad=True)
    assert torch.equal(SpatialShiftFunction.apply(x, FLAT, None, "replicate", "channels_last"), spatial_shift(x))
    assert torch.equal(torch.ops.s2mlp_cuda.spatial_shift(x, FLAT), spatial_shift(x))
    torch._dynamo.reset()

    def cubed(x):
        return SpatialShiftFunction.apply(x**3, FLAT, None, "replicate", "channels_last")

    compiled = torch.compile(cubed, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x).sum(), x), torch.autograd.grad(spatial_shift(x**3).sum(), x))


def test_forward_mode(x, case):
    tangent = torch.randn_like(x)
    with forward_ad.dual_level():
        dual = spatial_shift(forward_ad.make_dual(x.detach(), tangent), **case)
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, reference.spatial_shift(tangent, **case))


def test_func_transforms(x, case):
    x = x.detach()
    v = torch.randn_like(x)

    def ours(x):
        return spatial_shift(x.square(), **case)

    def oracle(x):
        return reference.spatial_shift(x.square(), **case)

    def loss(f):
        return lambda x: (f(x) * v).sum()

    torch.testing.assert_close(torch.func.grad(loss(ours))(x), torch.func.grad(loss(oracle))(x))
    torch.testing.assert_close(torch.func.jvp(ours, (x,), (v,)), torch.func.jvp(oracle, (x,), (v,)))
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(loss(ours)))(torch.stack([x, v, x])),
        torch.func.vmap(torch.func.grad(loss(oracle)))(torch.stack([x, v, x])),
    )

    def hessian_vector_product(f):
        return torch.func.jvp(torch.func.grad(loss(lambda x: f(x) ** 2)), (x,), (v,))[1]

    torch.testing.assert_close(hessian_vector_product(ours), hessian_vector_product(oracle))


@pytest.mark.parametrize("in_dim", [0, 2, -1])
def test_vmap(x, case, in_dim):
    batch = torch.stack([x.detach(), x.detach() + 1, x.detach() * 2], in_dim)
    ours = torch.func.vmap(lambda x: spatial_shift(x, **case), in_dims=in_dim)(batch)
    expected = torch.stack([reference.spatial_shift(part, **case) for part in batch.unbind(in_dim)])
    assert torch.equal(ours, expected)
    flat = [d for pair in case.get("offsets", offsets.V1) for d in pair]
    raw = torch.func.vmap(
        lambda x: torch.ops.s2mlp_cuda.spatial_shift(
            x,
            flat,
            case.get("group_sizes"),
            case.get("padding_mode", "replicate"),
            case.get("data_format", "channels_last"),
        ),
        in_dims=in_dim,
    )(batch)
    assert torch.equal(raw, expected)


@pytest.mark.parametrize("op", ["spatial_shift", "spatial_shift_backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(op, dtype, device):
    operator = getattr(torch.ops.s2mlp_cuda, op).default
    inputs = [
        torch.randn(2, 3, 4, 8, device=device).to(dtype).requires_grad_(),
        torch.randn(2, 8, 3, 4, device=device).to(dtype).permute(0, 2, 3, 1).requires_grad_(),
        torch.randn(3, 4, 8, device=device).to(dtype),
        torch.randn(2, 4, 6, 20, device=device).to(dtype)[:, 1:, ::2, 3:11].requires_grad_(),
        torch.randn(0, 3, 4, 8, device=device).to(dtype),
    ]
    for x in inputs:
        torch.library.opcheck(operator, (x, FLAT))
        torch.library.opcheck(operator, (x, FLAT, [1, 2, 3, 2], "zeros", "channels_last"))
    first = torch.randn(2, 8, 3, 4, device=device).to(dtype).requires_grad_()
    torch.library.opcheck(operator, (first, FLAT, None, "circular", "channels_first"))


def test_compile_fullgraph_equals_eager(x, case):
    torch._dynamo.reset()

    def step(x):
        return (spatial_shift(x.sin(), **case) * x).cos()

    def oracle(x):
        return (reference.spatial_shift(x.sin(), **case) * x).cos()

    compiled = torch.compile(step, fullgraph=True)
    grad = torch.randn_like(x)
    torch.testing.assert_close(compiled(x), step(x))
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x, grad), torch.autograd.grad(step(x), x, grad))
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x, grad), torch.autograd.grad(oracle(x), x, grad))


def test_compile_with_dynamic_shapes(device):
    torch._dynamo.reset()
    layer = SpatialShift()
    compiled = torch.compile(lambda x: layer(x + 1), fullgraph=True, dynamic=True)
    for shape in [(2, 5, 7, 16), (3, 6, 4, 16), (1, 8, 8, 24)]:
        x = torch.randn(shape, device=device, requires_grad=True)
        assert torch.equal(compiled(x), reference.spatial_shift(x + 1))
        grad = torch.randn(shape, device=device)
        torch.testing.assert_close(
            torch.autograd.grad(compiled(x), x, grad),
            torch.autograd.grad(reference.spatial_shift(x + 1), x, grad),
        )
