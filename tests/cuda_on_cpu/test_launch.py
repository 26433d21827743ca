"""The GPU code of launch.h: device, stream, limits, errors. launch_check.cpp stands in for the CUDA runtime and PyTorch."""

import subprocess

import pytest
import torch

from emulated import build_launch_check, build_without_kernels

INVALID_VALUE, INSUFFICIENT_DRIVER, INVALID_DEVICE_FUNCTION, NO_KERNEL_IMAGE = 1, 35, 98, 209
UNSUPPORTED_PTX, DRIVER_MISMATCH = 222, 803
AS_BEFORE = "afterwards: device 0, error 0"


def run(program, *arguments) -> list[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build_launch_check(tmp_path_factory.mktemp("launch"))


def launches(program) -> bool:
    """On both devices: the launch uses the device, its current stream, a grid for its limits, and the kernel's arguments."""
    return [run(program, device) for device in "01"] == [
        ["launch on device 0, stream 100: 101024 x 256 threads, 0 bytes shared", "kernel((nil), 3)", AS_BEFORE],
        ["launch on device 1, stream 101: 202048 x 256 threads, 0 bytes shared", "kernel((nil), 3)", AS_BEFORE],
    ]


def reports_errors(program) -> bool:
    """After errors of the launch or before it, the previous device is current again, and CUDA has no pending error."""
    return [run(program, "1", f"{call}={INVALID_VALUE}")[-2:] for call in ("launch", "attribute")] == [
        ["error: cudaLaunchKernel: CUDA's words", AS_BEFORE],
        ["error: cudaDeviceGetAttribute: CUDA's words", AS_BEFORE],
    ]


def test_launches(program):
    assert launches(program)


def test_reports_errors(program):
    assert reports_errors(program)


@pytest.mark.parametrize(
    "error, options, message",
    [
        (
            INSUFFICIENT_DRIVER,
            ["driver=12040"],
            "s2mlp_cuda was built with CUDA 13.0, but the GPU driver supports only CUDA 12.4: update the driver, or rebuild "
            "s2mlp_cuda with a toolkit of CUDA 12.4 or older",
        ),
        (
            INSUFFICIENT_DRIVER,
            ["driver=0"],
            "s2mlp_cuda was built with CUDA 13.0, but no GPU driver was found: install one that supports CUDA 13.0 or newer",
        ),
        (
            UNSUPPORTED_PTX,
            ["driver=12080", "capability=121"],
            "s2mlp_cuda was built with CUDA 13.0 and has only PTX for this GPU of compute capability 12.1, which the GPU driver "
            "(CUDA 12.8) is too old to compile: update the driver, or rebuild s2mlp_cuda with TORCH_CUDA_ARCH_LIST=12.1",
        ),
        (
            DRIVER_MISMATCH,
            ["driver=12080"],
            "s2mlp_cuda was built with CUDA 13.0, but the CUDA driver library (CUDA 12.8) does not match the kernel driver: "
            "restart the machine, or reinstall the GPU driver",
        ),
        *(
            (
                error,
                ["capability=70"],
                "s2mlp_cuda was built for GPUs of compute capability 7.5, 8.0, 9.0, but this GPU has 7.0: rebuild s2mlp_cuda with "
                "TORCH_CUDA_ARCH_LIST=7.0, or with this GPU visible to the build",
            )
            for error in (NO_KERNEL_IMAGE, INVALID_DEVICE_FUNCTION)
        ),
        # The binary has code for these GPUs: the cause is something else.
        (INVALID_DEVICE_FUNCTION, ["capability=75"], "{call}: CUDA's words"),
        (INVALID_DEVICE_FUNCTION, ["capability=89"], "{call}: CUDA's words"),
    ],
)
@pytest.mark.parametrize("call", ["launch", "attribute"])
def test_errors_say_what_to_do(program, call, error, options, message):
    """For every call that may return the error."""
    name = {"launch": "cudaLaunchKernel", "attribute": "cudaDeviceGetAttribute"}[call]
    assert run(program, "1", f"{call}={error}", *options)[-2:] == ["error: " + message.format(call=name), AS_BEFORE]


def test_pytorch_without_cuda(tmp_path):
    assert run(build_launch_check(tmp_path, "-DTORCH_WITHOUT_CUDA"), "1") == [
        "error: this tensor is on a GPU, but this build of PyTorch has no CUDA: install a build of PyTorch with CUDA to use "
        "s2mlp_cuda on it",
        AS_BEFORE,
    ]


@pytest.mark.parametrize(
    "old, new",
    [
        (": guard_(device_of(tensor))", ": guard_(0 * device_of(tensor))"),
        ("current_cuda_stream(device, &stream)", "current_cuda_stream(0, &stream)"),
        ("attribute(cudaDevAttrMultiProcessorCount, device)", "attribute(cudaDevAttrMultiProcessorCount, 0)"),
        ("attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device)", "attribute(cudaDevAttrMaxThreadsPerMultiProcessor, 0)"),
        ("{&arguments...}", "{&stream, &arguments...}"),
    ],
    ids=["device", "stream", "multiprocessors", "threads per multiprocessor", "arguments"],
)
def test_a_wrong_launch_is_seen(tmp_path, old, new):
    assert not launches(build_launch_check(tmp_path, edits=[("csrc/cuda/launch.h", old, new)]))


GUARD = "torch::stable::accelerator::DeviceGuard"


@pytest.mark.parametrize(
    "edits",
    [
        [("csrc/cuda/launch.h", 'check_cuda(error, "cudaLaunchKernel");', "static_cast<void>(error);")],
        [("csrc/cuda/errors.h", "    cudaGetLastError();", "    ")],
        [
            ("csrc/cuda/launch.h", f"{GUARD} guard_;", f"{GUARD}& guard_;"),
            ("csrc/cuda/launch.h", "guard_(device_of(tensor))", f"guard_(*new {GUARD}(device_of(tensor)))"),
        ],
    ],
    ids=["launch errors ignored", "the error left to the next call", "the device left as it is"],
)
def test_a_wrong_error_is_seen(tmp_path, edits):
    assert not reports_errors(build_launch_check(tmp_path, edits=edits))


def test_build_without_kernels(tmp_path):
    """Every operator raises an error. CPU tensors are dispatched to the CUDA implementations."""
    torch.ops.load_library(build_without_kernels(tmp_path))
    x, branches, weights, sums = (torch.zeros(shape) for shape in ((1, 2, 2, 4), (1, 2, 2, 8), (1, 2, 4), (1, 4)))
    offsets, table = [0, 1], ([0, 1, 1, 0], [4, 4])
    arguments = {
        "spatial_shift": (x, offsets),
        "spatial_shift_backward": (x, offsets),
        "gelu_spatial_shift": (x, offsets),
        "gelu_spatial_shift_backward": (x, x, offsets),
        "shift_branch_pool": (branches, 2, *table),
        "shift_branch_pool_backward": (sums, 2, 2, torch.float32, 2, *table),
        "shift_branch_combine": (branches, weights, *table),
        "shift_branch_combine_backward": (x, weights, None, *table),
        "shift_branch_combine_backward_weights": (x, branches, *table),
    }
    names = {name.partition("::") for name in torch._C._dispatch_get_all_op_names()}
    assert {name for library, _, name in names if library == "s2mlp_cuda_without_kernels"} == set(arguments)
    for name, values in arguments.items():
        operator = getattr(torch.ops.s2mlp_cuda_without_kernels, name).default
        with pytest.raises(RuntimeError) as failure:
            operator.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *values)
        assert str(failure.value) == (
            "s2mlp_cuda was built without CUDA kernels, but this tensor is on a GPU: rebuild s2mlp_cuda with nvcc on PATH or "
            "CUDA_HOME set, and without S2MLP_CUDA=0"
        )
