"""Outputs and gradients of spatial_shift, compared with the reference."""

import itertools

import pytest
import torch

from s2mlp_cuda import offsets, reference, spatial_shift
from s2mlp_cuda.ops import PADDING_MODES

from conftest import allocations, require_device

FLOATING = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGRAL = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
FORMATS = ["channels_last", "channels_first"]
TABLES = {
    "V1": offsets.V1,
    "SS1": offsets.SS1,
    "eight-way": offsets.EIGHT_WAY,
    "identity": offsets.IDENTITY,
    "one": ((-1, 0),),
    "mixed": ((2, -3), (0, 0), (-1, 4)),
    "larger than the map": ((100, -100), (-(2**62), 2**62), (0, 13)),
}
# (H, W, C): odd sizes, sides of one, channels that are and are not a multiple of 16-byte vectors, one long row, 129 channels.
SIZES = [(5, 7, 12), (1, 1, 8), (1, 9, 16), (9, 1, 64), (2, 3, 129), (14, 14, 32), (3, 151, 8), (33, 2, 24)]


def random_map(shape, dtype, device):
    if dtype.is_floating_point:
        return torch.randn(shape, device=device).to(dtype)
    return torch.randint(-100, 100, shape, device=device).to(dtype)


def in_format(size, data_format, batch=(2,)):
    height, width, channels = size
    return (*batch, height, width, channels) if data_format == "channels_last" else (*batch, channels, height, width)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", FLOATING + INTEGRAL, ids=str)
def test_forward_equals_reference(dtype, data_format, mode, device):
    for size, table in itertools.product(SIZES, TABLES.values()):
        x = random_map(in_format(size, data_format), dtype, device)
        before = x.clone()
        out = spatial_shift(x, table, padding_mode=mode, data_format=data_format)
        assert out.dtype == dtype and out.stride() == x.stride()
        assert torch.equal(out, reference.spatial_shift(x, table, padding_mode=mode, data_format=data_format))
        assert torch.equal(x, before), "the input was modified"


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_gradient_equals_reference(dtype, data_format, mode, device):
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    for size, table in itertools.product(SIZES, TABLES.values()):
        x = random_map(in_format(size, data_format), dtype, device).requires_grad_()
        grad = random_map(x.shape, dtype, device)
        out = spatial_shift(x, table, padding_mode=mode, data_format=data_format)
        (ours,) = torch.autograd.grad(out, x, grad)
        # The oracle accumulates in float64, so the difference is only the rounding of our result.
        exact = x.detach().double().requires_grad_()
        exact_out = reference.spatial_shift(exact, table, padding_mode=mode, data_format=data_format)
        (expected,) = torch.autograd.grad(exact_out, exact, grad.double())
        torch.testing.assert_close(ours.double(), expected, rtol=tolerance, atol=tolerance)


def strided_inputs(device):
    """(name, tensor, data format): strides that occur in practice."""
    return [
        ("slice of a larger buffer", torch.randn(4, 9, 11, 40, device=device)[1:3, 2:7, 1:8, 3:27], "channels_last"),
        ("odd offset into a buffer", torch.randn(2 * 5 * 7 * 16 + 1, device=device)[1:].view(2, 5, 7, 16), "channels_last"),
        ("every second channel", torch.randn(2, 5, 7, 32, device=device)[..., ::2], "channels_last"),
        ("every second row and column", torch.randn(2, 10, 14, 16, device=device)[:, ::2, ::2], "channels_last"),
        ("NCHW memory seen as NHWC", torch.randn(2, 16, 5, 7, device=device).permute(0, 2, 3, 1), "channels_last"),
        ("NHWC memory seen as NCHW", torch.randn(2, 5, 7, 16, device=device).permute(0, 3, 1, 2), "channels_first"),
        ("torch.channels_last", torch.randn(2, 16, 5, 7, device=device).to(memory_format=torch.channels_last), "channels_first"),
        ("rows and columns swapped", torch.randn(2, 7, 5, 16, device=device).transpose(1, 2), "channels_last"),
        ("height innermost", torch.randn(2, 7, 16, 5, device=device).permute(0, 3, 1, 2), "channels_last"),
        ("batch innermost", torch.randn(5, 7, 16, 6, device=device).permute(3, 0, 1, 2), "channels_last"),
        ("expanded batch", torch.randn(1, 5, 7, 16, device=device).expand(3, -1, -1, -1), "channels_last"),
        ("expanded channels", torch.randn(2, 5, 7, 1, device=device).expand(-1, -1, -1, 12), "channels_last"),
        ("expanded everywhere", torch.randn((), device=device).expand(2, 5, 7, 12), "channels_last"),
        ("a chunk of a wider map", torch.randn(2, 5, 7, 48, device=device).chunk(3, -1)[1], "channels_last"),
        ("planes cut out of planes", torch.randn(2, 20, 9, 9, device=device)[:, 2:18, 1:6, 2:9], "channels_first"),
        ("flattened tokens", torch.randn(2, 35, 16, device=device).unflatten(1, (5, 7)), "channels_last"),
        ("dimensions that do not merge", torch.randn(4, 3, 2, 5, 7, 16, device=device)[::2].transpose(0, 1), "channels_last"),
    ]


STRIDED = [name for name, _, _ in strided_inputs("meta")]


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("name", STRIDED)
def test_any_strides(name, mode, device):
    x, data_format = next((x, fmt) for n, x, fmt in strided_inputs(device) if n == name)
    before = x.clone()
    x = x.detach().requires_grad_()
    out = spatial_shift(x, offsets.EIGHT_WAY, padding_mode=mode, data_format=data_format)
    assert torch.equal(out, reference.spatial_shift(x, offsets.EIGHT_WAY, padding_mode=mode, data_format=data_format))
    assert out.stride() == torch.empty_like(x).stride(), "the memory format changed"
    grad = torch.randn_like(out)
    (ours,) = torch.autograd.grad(out, x, grad)
    (expected,) = torch.autograd.grad(
        reference.spatial_shift(x, offsets.EIGHT_WAY, padding_mode=mode, data_format=data_format), x, grad
    )
    torch.testing.assert_close(ours, expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", STRIDED)
def test_meta_tensors_get_the_strides_of_the_real_result(name):
    real, data_format = next((x, fmt) for n, x, fmt in strided_inputs("cpu") if n == name)
    meta = next(x for n, x, _ in strided_inputs("meta") if n == name)
    out = spatial_shift(real, data_format=data_format)
    fake = spatial_shift(meta, data_format=data_format)
    assert fake.device.type == "meta" and fake.dtype == out.dtype
    assert (fake.shape, fake.stride()) == (out.shape, out.stride())


@pytest.mark.parametrize("name", STRIDED)
def test_gradients_of_any_strides(name, device):
    grad, data_format = next((x, fmt) for n, x, fmt in strided_inputs(device) if n == name)
    x = torch.randn(grad.shape, device=device, requires_grad=True)
    ours = torch.autograd.grad(spatial_shift(x, offsets.EIGHT_WAY, data_format=data_format), x, grad)
    expected = torch.autograd.grad(reference.spatial_shift(x, offsets.EIGHT_WAY, data_format=data_format), x, grad.contiguous())
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("data_format", FORMATS)
def test_gradient_of_sum_and_of_cat(data_format, device):
    shape = in_format((5, 7, 12), data_format)
    x = torch.randn(shape, device=device, dtype=torch.float64, requires_grad=True)
    y = torch.randn(shape, device=device, dtype=torch.float64, requires_grad=True)
    strides = []

    def loss(shift, remember=False):
        shifted = shift(x, data_format=data_format)
        if remember:
            shifted.register_hook(lambda grad: strides.append(grad.stride()))
        summed = shift(y, data_format=data_format)
        if remember:
            summed.register_hook(lambda grad: strides.append(grad.stride()))
        return torch.cat([y, shifted, y], -1).square().sum() + summed.sum()

    ours = torch.autograd.grad(loss(spatial_shift, remember=True), (x, y))
    expected = torch.autograd.grad(loss(reference.spatial_shift), (x, y))
    torch.testing.assert_close(ours, expected)
    assert (0, 0, 0, 0) in strides, "this test needs the strides of the gradient of sum()"
    assert any(stride not in ((0, 0, 0, 0), x.stride()) for stride in strides), (
        "this test needs the strides of the gradient of cat()"
    )


def test_adjoint_accumulates_at_the_border(device):
    x = torch.zeros(1, 5, 1, device=device, requires_grad=True)
    spatial_shift(x, [(0, 1)]).sum().backward()
    assert x.grad.flatten().tolist() == [2, 1, 1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_accumulate_in_float32(dtype, device):
    """A sum of 4096 ones is 4096; accumulated in the dtype itself, it would stop at 2048 (float16) or 256 (bfloat16)."""
    x = torch.zeros(1, 4096, 8, dtype=dtype, device=device, requires_grad=True)
    spatial_shift(x, [(0, 4096)]).sum().backward()
    assert x.grad[0, 0].tolist() == [4096] * 8 and x.grad[0, 1:].eq(0).all()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 3, 2)])
def test_any_number_of_leading_dimensions(batch, data_format, device):
    x = torch.randn(in_format((4, 5, 8), data_format, batch), device=device)
    assert torch.equal(spatial_shift(x, data_format=data_format), reference.spatial_shift(x, data_format=data_format))


@pytest.mark.parametrize("shape", [(0, 4, 5, 8), (2, 0, 5, 8), (2, 4, 0, 8), (2, 4, 5, 0), (0, 0, 0)])
def test_empty(shape, device):
    x = torch.randn(shape, device=device, requires_grad=True)
    out = spatial_shift(x)
    out.sum().backward()
    assert out.shape == x.shape and x.grad.shape == x.shape


def test_group_sizes(device):
    x = torch.randn(2, 5, 7, 10, device=device, dtype=torch.float64, requires_grad=True)
    for sizes in [(1, 2, 3, 4), (0, 0, 10, 0), (10, 0, 0, 0), (0, 5, 5, 0)]:
        out = spatial_shift(x, offsets.V1, group_sizes=sizes)
        expected = reference.spatial_shift(x, offsets.V1, group_sizes=sizes)
        assert torch.equal(out, expected)
        grad = torch.randn_like(x)
        torch.testing.assert_close(torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad))


def test_more_groups_than_one_launch_holds(device):
    """200 groups with different offsets: more than the table of one CUDA launch, so several launches are needed."""
    table = [(i % 5 - 2, i % 7 - 3) for i in range(200)]
    x = torch.randn(2, 6, 6, 200, device=device, dtype=torch.float64, requires_grad=True)
    for data_format in FORMATS:
        y = x if data_format == "channels_last" else x.permute(0, 3, 1, 2)
        out = spatial_shift(y, table, data_format=data_format)
        expected = reference.spatial_shift(y, table, data_format=data_format)
        assert torch.equal(out, expected)
        grad = torch.randn_like(out)
        torch.testing.assert_close(torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad))


def test_nan_and_infinity_stay_where_they_are(device):
    x = torch.randn(1, 5, 5, 8, device=device)
    x[0, 2, 2] = float("nan")
    x[0, 1, 1] = float("inf")
    out = spatial_shift(x)
    assert torch.equal(out.isnan(), reference.spatial_shift(x.isnan()))
    assert torch.equal(out.isinf(), reference.spatial_shift(x.isinf()))


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("data_format", FORMATS)
def test_bitwise_identical_for_any_number_of_threads(dtype, data_format):
    x = random_map(in_format((32, 32, 96), data_format), dtype, "cpu")
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaf = x.detach().requires_grad_()
        out = spatial_shift(leaf, offsets.EIGHT_WAY, data_format=data_format)
        out.backward(x)
        results.append((out.detach(), leaf.grad))
    torch.set_num_threads(threads)
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(grad, results[0][1])


def test_bitwise_reproducible(device):
    x = torch.randn(4, 16, 16, 96, device=device, requires_grad=True)
    grads = []
    for _ in range(5):
        grads += torch.autograd.grad(spatial_shift(x, offsets.EIGHT_WAY), x, x.detach())
    assert all(torch.equal(grad, grads[0]) for grad in grads)


@pytest.mark.parametrize("name", STRIDED)
def test_only_the_output_is_allocated(name):
    """For any strides and any number of groups, the input is not copied."""
    x, data_format = next((x, fmt) for n, x, fmt in strided_inputs("cpu") if n == name)
    ops = torch.ops.s2mlp_cuda
    for op in (ops.spatial_shift, ops.spatial_shift_backward):
        assert allocations(lambda: op(x, [1, 0] * 3, data_format=data_format)) == [x.numel() * x.element_size()]


def test_only_the_output_is_allocated_on_a_gpu():
    x = torch.randn(8, 14, 14, 96, device=require_device("cuda"))
    spatial_shift(x)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = spatial_shift(x)
    assert torch.cuda.max_memory_allocated() - before == out.numel() * out.element_size()


def test_second_gpu():
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two GPUs")
    x = torch.randn(2, 14, 14, 96, device="cuda:1", requires_grad=True)
    out = spatial_shift(x)
    assert out.device == x.device
    assert torch.equal(out, reference.spatial_shift(x))
    out.sum().backward()
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("data_format", FORMATS)
def test_map_beyond_2_to_the_31_elements(data_format):
    """Compared with the reference image by image. The last of the 2.2 billion elements is beyond the range of 32-bit indices."""
    device = require_device("cuda")
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("less than 24 GiB of free GPU memory")
    x = torch.empty(in_format((512, 256, 416), data_format, (40,)), dtype=torch.bfloat16, device=device).normal_()
    assert x.numel() > 2**31
    out = spatial_shift(x, data_format=data_format)
    grad = torch.ops.s2mlp_cuda.spatial_shift_backward(x, [0, 1, 0, -1, 1, 0, -1, 0], data_format=data_format)
    for image in (0, 19, 38, 39):
        leaf = x[image].clone().requires_grad_()
        expected = reference.spatial_shift(leaf, data_format=data_format)
        assert torch.equal(out[image], expected)
        (expected_grad,) = torch.autograd.grad(expected, leaf, x[image])
        torch.testing.assert_close(grad[image], expected_grad, rtol=1.6e-2, atol=1.6e-2)


def test_cuda_stream_and_graph():
    device = require_device("cuda")
    x = torch.randn(8, 14, 14, 96, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = x * 2
        out = spatial_shift(y)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(out, reference.spatial_shift(x * 2))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = spatial_shift(x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    assert torch.equal(captured, reference.spatial_shift(x))
