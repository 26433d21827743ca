"""Split attention over shifted branches and its two parts, compared with slices, sums and softmax in float64."""

import itertools

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from s2mlp_cuda import (
    ShiftSplitAttention,
    layers,
    offsets,
    reference,
    shift_branch_combine,
    shift_branch_pool,
    shift_split_attention,
)
from s2mlp_cuda.ops import PADDING_MODES, ShiftBranchCombineFunction, ShiftBranchPoolFunction

from conftest import allocations, require_device

FLOATING = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
#: Tolerance of one rounding of the result, relative to its largest element. Sums are accumulated in float32.
ROUNDING = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
BRANCHES = {
    "the paper's": (offsets.SS1, offsets.SS2, None),
    "one": (offsets.V1,),
    "one unshifted": (None,),
    "far and unequal": (((2, -3), (-40, 0), (0, 1)), None),
    "five": (offsets.EIGHT_WAY, None, offsets.VERTICAL, offsets.HORIZONTAL, offsets.SS1),
}
#: (H, W, C): groups of whole vectors, of partial vectors, and a single token.
SIZES = [(5, 7, 8), (1, 9, 48), (9, 1, 13), (14, 14, 96), (1, 1, 24)]


def shifted(x, branches, mode="replicate"):
    parts = x.chunk(len(branches), -1)
    return [p if t is None else reference.spatial_shift(p, t, padding_mode=mode) for p, t in zip(parts, branches)]


def oracle_pool(x, branches, mode="replicate"):
    return sum(part.sum((-3, -2)) for part in shifted(x, branches, mode))


def oracle_combine(x, weights, branches, mode="replicate"):
    return sum(part * weights[..., k, None, None, :] for k, part in enumerate(shifted(x, branches, mode)))


def oracle(x, fc1_weight, fc2_weight, branches, mode="replicate"):
    tokens = x.shape[-3] * x.shape[-2]
    hidden = functional.gelu(functional.linear(oracle_pool(x, branches, mode) / max(1, tokens), fc1_weight))
    weights = functional.linear(hidden, fc2_weight).unflatten(-1, (len(branches), -1)).softmax(-2)
    return oracle_combine(x, weights, branches, mode)


def assert_close(ours, exact, dtype):
    """Compares relative to the largest element, because results are sums of many terms of either sign."""
    scale = exact.abs().max().item() if exact.numel() else 1
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=ROUNDING[dtype] * max(scale, 1e-30))


def make(size, count, dtype, device, hidden=3, batch=(2,)):
    """An expanded map and both weight matrices (in the accumulator dtype), requiring gradients. Hidden activations are about 1."""
    height, width, channels = size
    acc_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(*batch, height, width, count * channels, device=device).to(dtype)
    scale = (height * width / max(1, count * channels)) ** 0.5
    fc1_weight = scale * torch.randn(hidden, channels, device=device, dtype=acc_dtype)
    fc2_weight = torch.randn(count * channels, hidden, device=device, dtype=acc_dtype)
    return [tensor.requires_grad_() for tensor in (x, fc1_weight, fc2_weight)]


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_pool_and_combine(dtype, name, mode, device):
    branches = BRANCHES[name]
    for size in SIZES:
        x = make(size, len(branches), dtype, device)[0]
        weights_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        weights = torch.randn(2, len(branches), size[2], device=device, dtype=weights_dtype).requires_grad_()
        pooled = shift_branch_pool(x, branches, padding_mode=mode)
        out = shift_branch_combine(x, weights, branches, padding_mode=mode)
        assert pooled.dtype == weights_dtype and out.dtype == dtype and out.is_contiguous()
        exact_x, exact_weights = (t.detach().double().requires_grad_() for t in (x, weights))
        exact_pooled, exact_out = oracle_pool(exact_x, branches, mode), oracle_combine(exact_x, exact_weights, branches, mode)
        assert_close(pooled, exact_pooled, torch.float64 if dtype == torch.float64 else torch.float32)
        assert_close(out, exact_out, dtype)
        pooled_grad, grad = torch.randn_like(pooled), torch.randn_like(out)
        (ours,) = torch.autograd.grad(pooled, x, pooled_grad)
        assert_close(ours, torch.autograd.grad(exact_pooled, exact_x, pooled_grad.double())[0], dtype)
        ours = torch.autograd.grad(out, (x, weights), grad)
        exact = torch.autograd.grad(exact_out, (exact_x, exact_weights), grad.double())
        assert ours[0].dtype == dtype and ours[1].dtype == weights_dtype
        assert_close(ours[0], exact[0], dtype)
        assert_close(ours[1], exact[1], weights_dtype)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_split_attention(dtype, name, mode, device):
    """The error is at most a few roundings, or about that of PyTorch's own operators in the same dtype.

    Compares norms over many images, because one rounding of a pooled sum changes all weights of an image.
    """
    branches = BRANCHES[name]
    images = 16

    def run(function, inputs, grad):
        out = function(*inputs)
        return (out, *torch.autograd.grad(out, inputs, grad))

    for size in SIZES:
        inputs = make(size, len(branches), dtype, device, batch=(images,))
        grad = torch.randn(images, *size, device=device).to(dtype)
        ours = run(lambda *t: shift_split_attention(*t, branches, padding_mode=mode), inputs, grad)
        assert [t.dtype for t in ours] == [dtype, *(t.dtype for t in inputs)]
        exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
        exact = run(lambda *t: oracle(*t, branches, mode), exact_inputs, grad.double())
        same_dtype = [t.detach().to(dtype).requires_grad_() for t in inputs]
        composed = run(lambda *t: oracle(*t, branches, mode), same_dtype, grad)
        for our, other, reference_result in zip(ours, composed, exact):
            error, composed_error = ((t.double() - reference_result).norm().item() for t in (our, other))
            assert error <= max(1.5 * composed_error, ROUNDING[dtype] * reference_result.norm().item())


def test_bfloat16_is_more_accurate_than_the_composed_implementation(device):
    branches = BRANCHES["the paper's"]
    inputs = make((32, 32, 64), 3, torch.bfloat16, device, hidden=16)
    halves = [t.detach().bfloat16() for t in inputs]
    exact = oracle(*(t.double() for t in halves), branches)
    ours = (shift_split_attention(*halves, branches).double() - exact).norm()
    assert ours < (oracle(*halves, branches).double() - exact).norm()


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_sum_and_mean(dtype, mean, device):
    branches = BRANCHES["the paper's"]
    x = make((5, 7, 16), 3, dtype, device)[0]
    fused, composed, by_slices = (layers.ShiftSum(branches, mean, implementation=i) for i in layers.IMPLEMENTATIONS)
    exact_x = x.detach().double().requires_grad_()
    exact = composed(exact_x)
    torch.testing.assert_close(exact, sum(shifted(exact_x, branches)) / (3 if mean else 1))
    out = fused(x)
    assert_close(out, exact, dtype)
    torch.testing.assert_close(by_slices(exact_x), exact)
    grad = torch.randn_like(out)
    (ours,) = torch.autograd.grad(out, x, grad)
    assert_close(ours, torch.autograd.grad(exact, exact_x, grad.double())[0], dtype)


def test_any_strides(device):
    branches = BRANCHES["the paper's"]
    larger = torch.randn(3, 7, 9, 80, device=device)
    maps = {
        "a corner of a larger map": larger[1:, 2:6, 1:8, 5:41],
        "every second channel": larger[..., :72:2],
        "NCHW memory": torch.randn(2, 36, 5, 7, device=device).permute(0, 2, 3, 1),
        "rows and columns swapped": larger[..., :36].transpose(1, 2),
        "expanded": larger[:1, :4, :5, :36].expand(4, -1, -1, -1),
        "leading dimensions that do not merge": torch.randn(4, 3, 2, 5, 4, 36, device=device)[::2].transpose(0, 1),
    }
    for name, x in maps.items():
        _, fc1_weight, fc2_weight = make((1, 1, 12), 3, torch.float32, device)
        leaf = x.detach().requires_grad_()
        before = x.clone()
        out = shift_split_attention(leaf, fc1_weight, fc2_weight, branches)
        expected = oracle(leaf, fc1_weight, fc2_weight, branches)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")
        for grad in (torch.randn(out.shape, device=device), torch.randn((), device=device).expand(out.shape)):
            ours = torch.autograd.grad(out, leaf, grad, retain_graph=True)
            theirs = torch.autograd.grad(expected, leaf, grad, retain_graph=True)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=lambda text: f"{name}: {text}")
        assert torch.equal(x, before)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 3)])
def test_any_number_of_leading_dimensions(batch, device):
    branches = BRANCHES["the paper's"]
    inputs = make((4, 5, 8), 3, torch.float64, device, batch=batch)
    out, expected = shift_split_attention(*inputs, branches), oracle(*inputs, branches)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad))


@pytest.mark.parametrize("hidden", [3, 0])
@pytest.mark.parametrize("shape", [(0, 4, 5, 24), (2, 0, 5, 24), (2, 4, 0, 24), (2, 4, 5, 0), (4, 5, 0)])
def test_empty(shape, hidden, device):
    x = torch.randn(shape, device=device, requires_grad=True)
    _, fc1_weight, fc2_weight = make((1, 1, shape[-1] // 3), 3, torch.float32, device, hidden)
    shift_split_attention(x, fc1_weight, fc2_weight, BRANCHES["the paper's"]).sum().backward()
    assert x.grad.shape == x.shape and fc1_weight.grad.eq(0).all() and fc2_weight.grad.eq(0).all()
    assert shift_branch_pool(x, BRANCHES["the paper's"]).eq(0).all()
    weights = torch.ones(*shape[:-3], 3, shape[-1] // 3, device=device, requires_grad=True)
    shift_branch_combine(x, weights, BRANCHES["the paper's"]).sum().backward()
    assert weights.grad.eq(0).all()


def test_hidden_layer_of_size_zero(device):
    """All logits are zero, so the branches have equal weights."""
    branches = BRANCHES["the paper's"]
    x, fc1_weight, fc2_weight = make((5, 7, 8), 3, torch.float64, device, hidden=0)
    out = shift_split_attention(x, fc1_weight, fc2_weight, branches)
    expected = shift_branch_combine(x, 1 / 3, branches)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    gradients = torch.autograd.grad(out, (x, fc1_weight, fc2_weight), grad)
    torch.testing.assert_close(gradients[0], torch.autograd.grad(expected, x, grad)[0])
    assert [tuple(g.shape) for g in gradients[1:]] == [(0, 8), (24, 0)]


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_bitwise_identical_for_any_number_of_threads(dtype):
    branches = BRANCHES["the paper's"]
    x = torch.randn(3, 32, 32, 3 * 40).to(dtype)  # several chunks of rows per image, and partial vectors
    weights_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    weights = torch.randn(3, 3, 40, dtype=weights_dtype)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaves = [t.clone().requires_grad_() for t in (x, weights)]
        pooled, out = shift_branch_pool(leaves[0], branches), shift_branch_combine(*leaves, branches)
        results.append((pooled, out, *torch.autograd.grad((out.float().sum(), pooled.sin().sum()), leaves)))
    torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0]))


def test_bitwise_reproducible(device):
    branches = BRANCHES["the paper's"]
    inputs = make((16, 16, 96), 3, torch.float32, device, batch=(4,))
    first = None
    for _ in range(5):
        out = shift_split_attention(*inputs, branches)
        result = (out, *torch.autograd.grad(out, inputs, out.detach()))
        first = first or result
        assert all(torch.equal(a, b) for a, b in zip(result, first))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_shifted_map_no_stack_and_no_expanded_weights_are_allocated(dtype):
    """In forward and backward, only the result and the gradient of x are allocations of the size of a map."""
    branches = BRANCHES["the paper's"]
    inputs = make((32, 32, 64), 3, dtype, "cpu", hidden=16)
    out = None

    def forward():
        nonlocal out
        out = shift_split_attention(*inputs, branches)

    def backward():
        torch.autograd.grad(out, inputs, grad)

    weight_bytes = 2 * 3 * 64 * 4  # images x branches x channels x float32
    sizes = allocations(forward)
    grad = torch.randn_like(out)
    assert [size for size in sizes if size > 2 * weight_bytes] == [out.nbytes]
    # The gradients of the two matrices are 16 x 64 and 192 x 16, larger than the weights of two images.
    weight_grads = {16 * 64 * 4, 192 * 16 * 4}
    assert [s for s in allocations(backward) if s > 2 * weight_bytes and s not in weight_grads] == [inputs[0].nbytes]


def test_memory_on_a_gpu():
    device = require_device("cuda")
    inputs = make((32, 32, 64), 3, torch.bfloat16, device, hidden=16, batch=(16,))
    branches = BRANCHES["the paper's"]
    grad = torch.randn_like(shift_split_attention(*inputs, branches))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(shift_split_attention(*inputs, branches), inputs, grad)
    assert torch.cuda.max_memory_allocated() - before < 1.1 * (grad.nbytes + inputs[0].nbytes)


def test_weights_are_not_copied_when_they_are_expanded():
    x = torch.randn(64, 4, 4, 3 * 32)
    weights = torch.randn(3, 32).expand(64, 3, 32)
    sizes = allocations(lambda: shift_branch_combine(x, weights, BRANCHES["the paper's"]))
    assert sizes == [64 * 4 * 4 * 32 * 4]


def test_unwanted_gradients_are_not_computed(device):
    branches = BRANCHES["the paper's"]
    inputs = make((4, 5, 8), 3, torch.float32, device)
    for wanted in itertools.product([False, True], repeat=3):
        if not any(wanted):
            continue
        leaves = [t.detach().requires_grad_(w) for t, w in zip(inputs, wanted)]
        shift_split_attention(*leaves, branches).square().sum().backward()
        expected = [t.detach().requires_grad_(w) for t, w in zip(inputs, wanted)]
        oracle(*expected, branches).square().sum().backward()
        for leaf, right in zip(leaves, expected):
            assert (leaf.grad is None) == (right.grad is None)
            if leaf.grad is not None:
                torch.testing.assert_close(leaf.grad, right.grad, rtol=1e-4, atol=1e-4)
    x = inputs[0].detach().requires_grad_()
    out = layers.ShiftSum(branches)(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        out.sum().backward()
    names = {event.name for event in profile.events()}
    assert "s2mlp_cuda::shift_branch_combine_backward" in names
    assert "s2mlp_cuda::shift_branch_combine_backward_weights" not in names


CASES = list(itertools.product(["the paper's", "far and unequal", "one"], PADDING_MODES))


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def case(request):
    return BRANCHES[request.param[0]], request.param[1]


@pytest.fixture
def inputs(case, device):
    return make((2, 3, 4), len(case[0]), torch.float64, device, hidden=2, batch=(1,))


@pytest.fixture
def functions(case):
    """Ours and the oracle, as functions of (x, fc1_weight, fc2_weight)."""
    branches, mode = case
    return (
        lambda *inputs: shift_split_attention(*inputs, branches, padding_mode=mode),
        lambda *inputs: oracle(*inputs, branches, mode),
    )


def test_gradcheck_reverse_and_forward_mode(inputs, functions):
    assert torch.autograd.gradcheck(
        functions[0], inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )


def test_gradgradcheck(inputs, functions):
    assert torch.autograd.gradgradcheck(functions[0], inputs, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_parts_gradcheck_and_gradgradcheck(mode, device):
    branches = BRANCHES["far and unequal"]
    x = make((2, 3, 3), 2, torch.float64, device, batch=(1,))[0]
    weights = torch.randn(1, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    for function, arguments in (
        (lambda x: shift_branch_pool(x**2, branches, padding_mode=mode), (x,)),
        (lambda x, w: shift_branch_combine(x, w, branches, padding_mode=mode), (x, weights)),
    ):
        assert torch.autograd.gradcheck(function, arguments, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(function, arguments, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_third_derivative(inputs, functions):
    def third(f):
        first = torch.autograd.grad(f(*inputs).square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in second), inputs)

    torch.testing.assert_close(third(functions[0]), third(functions[1]))


def test_func_transforms(inputs, functions):
    x, *weights = (t.detach() for t in inputs)
    v = torch.randn_like(x)

    def loss(f):
        return lambda *inputs: f(*inputs).square().sum()

    for transform in (
        lambda f: torch.func.grad(loss(f), argnums=(0, 1, 2))(x, *weights),
        lambda f: torch.func.jvp(lambda x: f(x, *weights), (x,), (v,)),
        lambda f: torch.func.vmap(f, in_dims=(1, None, None))(torch.stack([x, v], 1), *weights),
        lambda f: torch.func.vmap(f, in_dims=(None, 0, None))(x, torch.stack([weights[0], -weights[0]]), weights[1]),
        lambda f: torch.func.vmap(torch.func.grad(loss(f)), in_dims=(0, None, None))(torch.stack([x, v]), *weights),
        lambda f: torch.func.jvp(torch.func.grad(lambda x: loss(f)(x, *weights)), (x,), (v,)),
        lambda f: torch.func.jacrev(lambda x: f(x, *weights))(x),
    ):
        torch.testing.assert_close(transform(functions[0]), transform(functions[1]))


def test_forward_mode(inputs, functions):
    tangents = [torch.randn_like(t) for t in inputs]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t.detach(), tangent) for t, tangent in zip(inputs, tangents)]
        ours, theirs = (forward_ad.unpack_dual(f(*duals)).tangent for f in functions)
    torch.testing.assert_close(ours, theirs)


def test_compile_fullgraph(inputs, functions):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, *weights: functions[0](x.sin(), *weights).cos(), fullgraph=True)
    out, expected = compiled(*inputs), functions[1](inputs[0].sin(), *inputs[1:]).cos()
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad))


def test_compile_with_dynamic_shapes(device):
    torch._dynamo.reset()
    branches = BRANCHES["the paper's"]
    _, *weights = make((8, 8, 16), 3, torch.float32, device)
    compiled = torch.compile(lambda x, *weights: shift_split_attention(x + 1, *weights, branches), fullgraph=True, dynamic=True)
    for shape in [(2, 5, 7, 48), (3, 6, 4, 48), (1, 8, 8, 48)]:
        x = torch.randn(shape, device=device, requires_grad=True)
        exact_x = x.detach().double().requires_grad_()
        out, exact = compiled(x, *weights), oracle(exact_x + 1, *(w.double() for w in weights), branches)
        assert_close(out, exact, torch.float32)
        grad = torch.randn_like(out)
        assert_close(torch.autograd.grad(out, x, grad)[0], torch.autograd.grad(exact, exact_x, grad.double())[0], torch.float32)


def test_compile_of_the_parts(device):
    torch._dynamo.reset()
    branches = BRANCHES["far and unequal"]

    def parts(x, weights):
        return shift_branch_combine(x * 2, weights, branches) * shift_branch_pool(x, branches)[:, None, None]

    x = make((3, 4, 5), 2, torch.float64, device)[0]
    weights = torch.randn(2, 2, 5, dtype=torch.float64, device=device, requires_grad=True)
    ours, expected = torch.compile(parts, fullgraph=True)(x, weights), parts(x, weights)
    torch.testing.assert_close(ours, expected)
    grad = torch.randn_like(ours)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, weights), grad), torch.autograd.grad(expected, (x, weights), grad))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype, device):
    ops = torch.ops.s2mlp_cuda
    table = ([1, 0, -1, 0, 0, 0], [2, 3, 5])

    def leaf(*shape, dtype=torch.float32):
        return torch.randn(*shape, device=device).to(dtype).requires_grad_()

    x, grad, weights, pool_grad = leaf(2, 3, 4, 10, dtype=dtype), leaf(2, 3, 4, 5, dtype=dtype), leaf(2, 2, 5), leaf(2, 5)
    strided = torch.randn(2, 10, 3, 4, device=device).to(dtype).permute(0, 2, 3, 1).requires_grad_()
    for expanded in (x, strided):
        torch.library.opcheck(ops.shift_branch_pool.default, (expanded, 2, *table))
        torch.library.opcheck(ops.shift_branch_combine.default, (expanded, weights, *table, "zeros"))
        torch.library.opcheck(ops.shift_branch_combine_backward_weights.default, (grad, expanded, *table))
    torch.library.opcheck(ops.shift_branch_pool_backward.default, (pool_grad, 3, 4, dtype, 2, *table))
    torch.library.opcheck(ops.shift_branch_combine_backward.default, (grad, weights, pool_grad, *table))
    torch.library.opcheck(ops.shift_branch_combine_backward.default, (grad, weights, None, *table, "circular"))


def test_raw_operators_are_differentiable_on_their_own(device):
    ops = torch.ops.s2mlp_cuda
    table = ([1, 0, -1, 0, 0, 0], [2, 3, 5])
    x = torch.randn(2, 3, 4, 10, device=device, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 2, 5, device=device, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: ops.shift_branch_pool(x**2, 2, *table), x)
    assert torch.autograd.gradgradcheck(lambda x, w: ops.shift_branch_combine(x, w, *table), (x, weights))


def test_function_classes(device):
    table = ([1, 0, -1, 0, 0, 0], [2, 3, 5], "replicate")
    branches = (((1, 0), (-1, 0)), None)
    x = torch.randn(2, 3, 4, 10, device=device)
    weights = torch.randn(2, 2, 5, device=device)
    assert torch.equal(ShiftBranchPoolFunction.apply(x, 2, *table), shift_branch_pool(x, branches))
    assert torch.equal(ShiftBranchCombineFunction.apply(x, weights, *table), shift_branch_combine(x, weights, branches))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype, device):
    """Maps keep their dtype, and everything else is computed in float32, so autocast has no effect."""
    branches = BRANCHES["the paper's"]
    x, *weights = make((6, 7, 16), 3, torch.float32, device, hidden=8)
    half = x.to(dtype)
    outside = shift_split_attention(half, *weights, branches)
    with torch.autocast(device.type, dtype):
        assert shift_split_attention(x, *weights, branches).dtype == torch.float32
        out = shift_split_attention(half, *weights, branches)
        compiled = torch.compile(lambda *inputs: shift_split_attention(*inputs, branches), fullgraph=True)
        torch.testing.assert_close(compiled(half, *weights), out)
        layer = ShiftSplitAttention(16, branches).to(device)
        assert layer(torch.nn.Linear(16, 48).to(device)(x[..., :16])).dtype == dtype
    assert out.dtype == dtype and torch.equal(out, outside)
    out.float().square().sum().backward()
    assert all(t.grad.dtype == torch.float32 and t.grad.abs().sum() > 0 for t in (x, *weights))


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
def test_compiled_backward_under_autocast(device, inside):
    torch._dynamo.reset()
    x, *weights = make((6, 7, 16), 3, torch.float32, device, hidden=8)
    linear = torch.nn.Linear(48, 48).to(device)

    def function(x, *weights):
        return shift_split_attention(linear(x), *weights, BRANCHES["the paper's"])

    gradients = []
    for call in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        with torch.autocast(device.type, torch.bfloat16):
            out = call(x, *weights)
            assert out.dtype == torch.bfloat16
        with torch.autocast(device.type, torch.bfloat16, enabled=inside):
            gradients.append(torch.autograd.grad(out.float().square().sum(), (x, *weights)))
    for ours, expected in zip(*gradients):
        torch.testing.assert_close(ours, expected, rtol=2e-2, atol=2e-2 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_half_types(dtype, device):
    """They are converted to float32, and their gradients have their own dtype."""
    branches = BRANCHES["the paper's"]
    inputs = [t.detach().to(dtype).requires_grad_() for t in make((6, 7, 16), 3, torch.float32, device, hidden=8)]
    out = shift_split_attention(*inputs, branches)
    upcast = [inputs[0], *(t.detach().float().requires_grad_() for t in inputs[1:])]
    expected = shift_split_attention(*upcast, branches)
    assert torch.equal(out, expected)
    grad = torch.randn_like(out)
    ours, theirs = torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, upcast, grad)
    assert all(torch.equal(a, b.to(dtype)) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("name", BRANCHES)
def test_layer_implementations_agree(name, padding_mode, device):
    fused, *others = (
        ShiftSplitAttention(16, BRANCHES[name], 5, padding_mode=padding_mode, implementation=i).to(device).double()
        for i in layers.IMPLEMENTATIONS
    )
    x = torch.randn(2, 5, 6, len(BRANCHES[name]) * 16, device=device, dtype=torch.float64, requires_grad=True)

    def value_and_grads(layer):
        out = layer(x)
        return out, *torch.autograd.grad(out.square().sum(), (x, *layer.parameters()))

    for other in others:
        other.load_state_dict(fused.state_dict())
        torch.testing.assert_close(value_and_grads(fused), value_and_grads(other))
        torch.testing.assert_close(other(x), oracle(x, fused.fc1.weight, fused.fc2.weight, BRANCHES[name], padding_mode))


def test_layer_prints_readably():
    assert "branches=(SS1, V1/SS2, None), padding_mode='replicate', implementation='fused'" in repr(ShiftSplitAttention(8))


def small_inputs():
    return [tensor.detach().requires_grad_() for tensor in make((3, 2, 4), 2, torch.float64, "cpu")]


TABLES = (offsets.SS1, None)


def test_double_backward_under_checkpoint():
    """It unpacks the tensors that were saved for backward once only."""
    inputs = small_inputs()
    results = []
    for call in (shift_split_attention, lambda *args: checkpoint(shift_split_attention, *args, use_reentrant=False)):
        first = torch.autograd.grad(call(*inputs, TABLES).square().sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum(grad.square().sum() for grad in first), inputs))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("create_graph", [False, True])
def test_backward_under_autocast_is_in_the_accumulator_dtype(dtype, create_graph):
    inputs = make((3, 2, 4), 2, dtype, "cpu")
    grad = torch.randn(2, 3, 2, 4).to(dtype)
    outside = torch.autograd.grad(shift_split_attention(*inputs, TABLES), inputs, grad, create_graph=create_graph)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(shift_split_attention(*inputs, TABLES), inputs, grad, create_graph=create_graph)
    assert all(torch.equal(*pair) for pair in zip(inside, outside))


@pytest.mark.parametrize("order", ["forward over forward", "forward over reverse"])
def test_second_derivatives_in_forward_mode(order):
    """With every function of the branches: PyTorch disables forward mode in the jvp of a custom Function."""
    tensors = [tensor.detach() for tensor in make((3, 2, 4), 2, torch.float64, "cpu")]
    tangents = tuple(torch.randn_like(tensor) for tensor in tensors)

    def second(function):
        def jvp(*tensors):
            return torch.func.jvp(function, tensors, tangents)[1]

        def gradients(*tensors):
            return torch.func.grad(lambda *tensors: function(*tensors).sin().sum(), (0, 1, 2))(*tensors)

        return torch.func.jvp(jvp if order == "forward over forward" else gradients, tuple(tensors), tangents)[1]

    def weighted(pool, combine):
        return lambda x, fc1, fc2: combine(x, (pool(x, TABLES)[..., None, :] * fc1[0]).expand(2, 2, 4), TABLES)

    for ours, expected in (
        (lambda *tensors: shift_split_attention(*tensors, TABLES), lambda *tensors: oracle(*tensors, TABLES)),
        (weighted(shift_branch_pool, shift_branch_combine), weighted(oracle_pool, oracle_combine)),
    ):
        torch.testing.assert_close(second(ours), second(expected))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode):
    inputs = [tensor.detach() for tensor in make((3, 2, 4), 2, torch.float64, "cpu")]
    pooled = make_fx(lambda x: shift_branch_pool(x, TABLES), tracing_mode=mode)
    assert torch.equal(pooled(inputs[0])(inputs[0]), shift_branch_pool(inputs[0], TABLES))
    graph = make_fx(lambda *tensors: shift_split_attention(*tensors, TABLES), tracing_mode=mode)(*inputs)
    torch.testing.assert_close(graph(*inputs), shift_split_attention(*inputs, TABLES))
    if mode == "symbolic":
        larger = torch.randn(3, 5, 4, 8, dtype=torch.float64)
        torch.testing.assert_close(graph(larger, *inputs[1:]), shift_split_attention(larger, *inputs[1:], TABLES))
