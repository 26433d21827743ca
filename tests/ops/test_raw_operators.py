"""The raw operators in ``torch.ops``, which compilers and ``torch.func`` see, support all transforms."""

import pytest
import torch

from s2mlp_cuda import gelu_spatial_shift, shift_split_attention, spatial_shift
from s2mlp_cuda._arguments import branch_groups
from s2mlp_cuda.offsets import SS1

OPS = torch.ops.s2mlp_cuda
FLAT = [1, 0, -1, 0, 0, 1, 0, -1]
BRANCHES = (SS1, None)
TABLE = branch_groups(BRANCHES, 4)
MAP, EXPANDED, WEIGHTS, POOLED = (2, 3, 2, 4), (2, 3, 2, 8), (2, 2, 4), (2, 4)
#: Functions by name, with the shapes of their tensor arguments.
CASES = {
    "spatial_shift": (lambda x: OPS.spatial_shift(x, FLAT), MAP),
    "spatial_shift_backward": (lambda x: OPS.spatial_shift_backward(x, FLAT), MAP),
    "gelu_spatial_shift": (lambda x: OPS.gelu_spatial_shift(x, FLAT), MAP),
    "gelu_spatial_shift_backward": (lambda g, x: OPS.gelu_spatial_shift_backward(g, x, FLAT), MAP, MAP),
    "pool": (lambda x: OPS.shift_branch_pool(x, 2, *TABLE), EXPANDED),
    "pool_backward": (lambda g: OPS.shift_branch_pool_backward(g, 3, 2, torch.float64, 2, *TABLE), POOLED),
    "combine": (lambda x, w: OPS.shift_branch_combine(x, w, *TABLE), EXPANDED, WEIGHTS),
    "combine_backward": (lambda g, w, p: OPS.shift_branch_combine_backward(g, w, p, *TABLE), MAP, WEIGHTS, POOLED),
    "combine_backward, no pool": (lambda g, w: OPS.shift_branch_combine_backward(g, w, None, *TABLE), MAP, WEIGHTS),
    "combine_backward_weights": (lambda g, x: OPS.shift_branch_combine_backward_weights(g, x, *TABLE), MAP, EXPANDED),
}
FUNCTIONS = {
    "spatial_shift": (spatial_shift, MAP),
    "gelu_spatial_shift": (gelu_spatial_shift, MAP),
    "shift_split_attention": (lambda x, fc1, fc2: shift_split_attention(x, fc1, fc2, BRANCHES), EXPANDED, (3, 4), (8, 3)),
}


def tensors(shapes, device, **kwargs):
    return tuple(torch.randn(shape, dtype=torch.float64, device=device, **kwargs) for shape in shapes)


def loss_of(function):
    return lambda *inputs: function(*(x.sin() for x in inputs)).square().sum()


def all_arguments(inputs):
    return tuple(range(len(inputs)))


@pytest.fixture(params=CASES)
def case(request):
    function, *shapes = CASES[request.param]
    return function, shapes


def test_gradcheck(case, device):
    function, shapes = case
    inputs = tensors(shapes, device, requires_grad=True)
    assert torch.autograd.gradcheck(
        function, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(
        lambda *inputs: function(*(x**3 for x in inputs)), inputs, check_fwd_over_rev=True, check_rev_over_rev=True
    )


def test_func(case, device):
    function, shapes = case
    inputs, directions = tensors(shapes, device), tensors(shapes, device)
    loss, every = loss_of(function), all_arguments(inputs)
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    torch.testing.assert_close(torch.func.grad(loss, every)(*inputs), expected)

    slopes = sum((g * v).sum() for g, v in zip(expected, directions))
    torch.testing.assert_close(torch.func.jvp(loss, inputs, directions)[1], slopes)
    products = torch.autograd.grad(slopes, leaves)
    gradient = torch.func.grad(loss, every)
    torch.testing.assert_close(torch.func.jvp(gradient, inputs, directions)[1], products)
    torch.testing.assert_close(torch.func.vjp(gradient, *inputs)[1](directions), products)

    jacobian = torch.autograd.functional.jacobian(function, inputs)
    torch.testing.assert_close(torch.func.jacrev(function, every)(*inputs), jacobian)
    torch.testing.assert_close(torch.func.jacfwd(function, every)(*inputs), jacobian)
    batches = [torch.stack(pair) for pair in zip(inputs, directions)]
    each = torch.func.vmap(gradient)(*batches)
    for index, one in enumerate((inputs, directions)):
        torch.testing.assert_close(tuple(x[index] for x in each), gradient(*one))


def test_gradients_at_two_levels(device):
    """The inner gradient does not differentiate through the variable of the outer one."""
    x, y = tensors((MAP, MAP), device)

    def inner(x, y):
        return torch.func.grad(lambda y: (OPS.spatial_shift(x * y, FLAT) ** 3).sum())(y)

    outer = torch.func.grad(lambda x: inner(x, y).square().sum())(x)
    leaf, other = x.clone().requires_grad_(), y.clone().requires_grad_()
    (slope,) = torch.autograd.grad((OPS.spatial_shift(leaf * other, FLAT) ** 3).sum(), other, create_graph=True)
    torch.testing.assert_close(outer, torch.autograd.grad(slope.square().sum(), leaf)[0])


@pytest.mark.parametrize("function, shapes", [(function, shapes) for function, *shapes in (*CASES.values(), *FUNCTIONS.values())])
def test_autograd_through_a_function_that_vjp_returned(function, shapes, device):
    """It runs after the transform has ended, with saved tensors that the transform wrapped, and autograd records it: with respect
    to all inputs, though the transform differentiated only the first."""
    leaves = tensors(shapes, device, requires_grad=True)
    first, *others = leaves
    out, pull = torch.func.vjp(lambda first: function(first, *others), first)
    direction = torch.randn_like(out)
    (ours,) = pull(direction)
    (expected,) = torch.autograd.grad(function(*leaves), first, direction, create_graph=True)
    torch.testing.assert_close(ours, expected)
    if not expected.requires_grad:  # linear in a single input
        return
    options = {"allow_unused": True, "materialize_grads": True}
    second = [torch.autograd.grad(gradient.square().sum(), leaves, **options) for gradient in (ours, expected)]
    torch.testing.assert_close(*second)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_transforms(name, device):
    """Compiled as one graph; gradients with the default backend."""
    function, *shapes = FUNCTIONS[name]
    inputs, directions = tensors(shapes, device), tensors(shapes, device)
    loss, every = loss_of(function), all_arguments(inputs)
    gradient = torch.func.grad(loss, every)
    transforms = {
        "grad": (gradient, inputs),
        "vjp": (lambda *x: torch.func.vjp(loss, *x)[1](torch.ones((), dtype=torch.float64, device=device)), inputs),
        "vmap of grad": (torch.func.vmap(gradient), [torch.stack(pair) for pair in zip(inputs, directions)]),
        "grad of grad": (torch.func.grad(lambda *x: sum(g.square().sum() for g in gradient(*x)), every), inputs),
    }
    for title, (transform, arguments) in transforms.items():
        torch._dynamo.reset()
        compiled = torch.compile(transform, fullgraph=True, backend="aot_eager" if title != "grad" else "inductor")
        torch.testing.assert_close(compiled(*arguments), transform(*arguments), msg=lambda text: f"{title}: {text}")
