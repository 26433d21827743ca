"""Calls of the compiled kernels."""

import torch

from s2mlp_cuda._torch_private import skip_autograd

#: In the message of a kernel that could not allocate memory: see csrc/allocation.h.
_ALLOCATION_FAILED = "could not allocate memory"


def below_autograd(op: torch._ops.OpOverload, *args):
    """Calls a raw operator below its autograd kernel, which costs 5 microseconds. The caller handles autograd.

    Raises:
        torch.OutOfMemoryError: there is not enough memory on a GPU. On a CPU, the RuntimeError of PyTorch's allocator.
        RuntimeError: the arguments are invalid.
    """
    try:
        with skip_autograd():
            return op(*args)
    except RuntimeError as error:
        if _ALLOCATION_FAILED in str(error):
            _repeat_allocations(op, args)
        raise


def _repeat_allocations(op: torch._ops.OpOverload, args: tuple) -> None:
    """Repeats the allocations of a kernel, the result and copies of the arguments, to raise PyTorch's own exception.

    A kernel cannot raise it: PyTorch's stable interface reports that a call failed, not why. Raw operators come here through their
    autograd kernels. In inference mode the dispatcher skips these and calls the kernel itself, so that a raw operator raises a
    RuntimeError with the kernel's own text. A kernel in Python for each device could change that, but would cost some microseconds
    for every call, also of the public functions.
    """
    tensors = [argument for argument in args if isinstance(argument, torch.Tensor)]
    result = op(*(argument.to("meta") if isinstance(argument, torch.Tensor) else argument for argument in args))
    allocated = [torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=tensors[0].device)]
    for tensor in tensors:
        allocated.append(torch.empty_like(tensor, memory_format=torch.contiguous_format))
